"""A partner that speaks FHIR and no v2 gets what a workflow sends as a transaction over HTTP; its answer is stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.worker.delivery import DeliveryLoop
from fhir_mappings.json import loads
from hub.boot import Services
from hub.ports import Delivery
from tests.adapters.fhir.test_sender import Partner
from tests.flows.test_referral_and_lab import REFERRAL
from tests.support.hub import SetClock
from tests.support.services import consortium, running


@pytest.fixture
def partner() -> Iterator[Partner]:
    server = Partner()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def services(tmp_path: Path, partner: Partner, set_clock: SetClock) -> Iterator[Services]:
    """A hub whose centre hospital is reached by FHIR only."""
    [v2] = [one for one in consortium() if one["id"] == "yl-mllp"]
    by_fhir: dict[str, Any] = {
        **{name: value for name, value in v2.items() if name != "extension"},
        "id": "yl-fhir",
        "identifier": [{**v2["identifier"][0], "value": "YL/fhir"}],
        "connectionType": {**v2["connectionType"], "code": "hl7-fhir-rest"},
        "address": f"http://127.0.0.1:{partner.server_port}/fhir",
    }
    with running(tmp_path, clock=set_clock) as one:
        one.directory.load([*consortium(), by_fhir])
        yield one


def to_partner(services: Services) -> Delivery:
    [found] = services.database.read(lambda tx: tx.outbox.deliveries({"destination": "YL/fhir"}, limit=5))
    return found


def test_a_referral_reaches_it_and_its_answer_is_kept(services: Services, partner: Partner) -> None:
    partner.answer = b'{"resourceType":"Bundle","type":"transaction-response"}'
    assert services.messages.receive(REFERRAL, "127.0.0.1:5000") is not None

    DeliveryLoop(services).turn()

    [(method, path, headers, body)] = partner.seen
    sent = loads(body)
    delivery = to_partner(services)
    assert (method, path, sent["type"]) == ("POST", "/fhir", "transaction")
    assert {entry["resource"]["resourceType"] for entry in sent["entry"]} >= {"Task", "ServiceRequest"}
    assert all(entry["request"]["method"] == "PUT" for entry in sent["entry"])
    assert headers["X-Correlation-Id"] == delivery.correlation_id != ""
    assert (delivery.state, delivery.ack) == ("sent", partner.answer)


def test_while_it_is_in_trouble_the_same_bytes_are_sent_again(
    services: Services, partner: Partner, set_clock: SetClock
) -> None:
    partner.status = 503
    assert services.messages.receive(REFERRAL, "127.0.0.1:5000") is not None
    loop = DeliveryLoop(services, rng=lambda: 1.0)
    loop.turn()
    waiting = to_partner(services)
    partner.status = 200
    set_clock.forward(services.settings.retry_longest_s + 1)
    loop.turn()

    assert waiting.state == "pending"
    assert waiting.last_error
    assert to_partner(services).state == "sent"
    assert partner.seen[0][3] == partner.seen[1][3]


def test_what_it_refuses_is_a_dead_letter_with_its_answer(services: Services, partner: Partner) -> None:
    partner.status, partner.answer = 422, b'{"resourceType":"OperationOutcome"}'
    assert services.messages.receive(REFERRAL, "127.0.0.1:5000") is not None

    DeliveryLoop(services).turn()

    delivery = to_partner(services)
    assert (delivery.state, delivery.ack) == ("dead", partner.answer)
