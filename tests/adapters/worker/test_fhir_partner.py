"""A partner that speaks FHIR and no v2 gets what a workflow sends over HTTP, no more than it may see; its answer is stored."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle

from adapters.worker.delivery import DeliveryLoop
from fhir_mappings.json import dumps, loads
from hub.access import UNRESTRICTED, Scope
from hub.actor import Actor
from hub.boot import Services
from hub.dispatch import Dispatcher
from hub.ports import Delivery, NewVersion, Tx
from hub.references import literal
from hub.workflows import Send
from tests.adapters.fhir.test_sender import Partner
from tests.flows.test_referral_and_lab import LAB_ORDER, REFERRAL, result
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
    with running(tmp_path, clock=set_clock) as one:
        reach_by_fhir(one, "YL", partner)
        yield one


def reach_by_fhir(services: Services, member: str, partner: Partner, kind: str = "rest", **settings: str) -> None:
    """Let *member* be reached by FHIR only."""
    resources = consortium()
    [v2] = [one for one in resources if one["id"] == f"{member.lower()}-mllp"]
    v2["address"] = "urn:none"
    url = "https://yixiehub.example/fhir/StructureDefinition/endpoint-setting"
    by_fhir: dict[str, Any] = {
        **v2,
        "id": f"{member.lower()}-fhir",
        "identifier": [{**v2["identifier"][0], "value": f"{member}/fhir"}],
        "connectionType": {**v2["connectionType"], "code": f"hl7-fhir-{kind}"},
        "address": f"http://127.0.0.1:{partner.server_port}/fhir",
        "extension": [
            {"url": url, "extension": [{"url": "name", "valueString": name}, {"url": "value", "valueString": value}]}
            for name, value in settings.items()
        ],
    }
    if not by_fhir["extension"]:
        del by_fhir["extension"]
    services.directory.load([*resources, by_fhir])


def to_partner(services: Services, destination: str = "YL/fhir") -> Delivery:
    return services.database.read(lambda tx: tx.outbox.deliveries({"destination": destination}, limit=5))[0]


def whole(bundle: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the resources of a valid Bundle by ``Type/id``, when all that they refer to by address is beside them."""
    Bundle.model_validate_json(dumps(bundle))
    held = {f"{one['resourceType']}/{one['id']}": one for one in (entry["resource"] for entry in bundle["entry"])}
    for entry in bundle["entry"]:
        assert entry["fullUrl"].endswith(f"/{entry['resource']['resourceType']}/{entry['resource']['id']}")
        assert {found.text for found in literal(entry["resource"])} <= held.keys()
    return held


def visible(services: Services, institution: str, references: Iterable[str]) -> bool:
    pairs = [(kind, id_) for kind, _, id_ in (one.partition("/") for one in references)]
    found = services.database.read(lambda tx: tx.records.get_many(pairs, Scope(institution=institution)))
    return len(found) == len(pairs)


def acknowledged(code: str, identifier: str = "") -> Callable[[bytes], bytes]:
    """Return what makes the answer to a message."""

    def answer(body: bytes) -> bytes:
        asked = loads(body)["entry"][0]["resource"]["id"]
        header = {
            "resourceType": "MessageHeader",
            "id": "answer",
            "eventCoding": {"code": "I12"},
            "source": {"endpoint": "http://127.0.0.1"},
            "response": {"identifier": identifier or asked, "code": code},
        }
        return dumps({"resourceType": "Bundle", "type": "message", "entry": [{"resource": header}]})

    return answer


def test_a_referral_reaches_it_and_its_answer_is_kept(services: Services, partner: Partner) -> None:
    partner.answer = b'{"resourceType":"Bundle","type":"transaction-response"}'
    assert services.messages.receive(REFERRAL, "127.0.0.1:5000") is not None

    DeliveryLoop(services).turn()

    [(method, path, headers, body)] = partner.seen
    sent = loads(body)
    delivery = to_partner(services)
    assert (method, path, sent["type"]) == ("POST", "/fhir", "transaction")
    held = whole(sent)
    assert {one.partition("/")[0] for one in held} >= {"Task", "ServiceRequest", "Patient", "Condition"}
    assert visible(services, "YL", held)
    [task] = [one for one in held.values() if one["resourceType"] == "Task"]
    # Who asked is named by what the partner can know: the directory is the hub's own.
    assert task["requester"]["identifier"]["value"] == "KN"
    assert task["owner"]["identifier"]["value"] == "C101"
    assert held[task["for"]["reference"]]["name"]
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


def test_a_result_goes_home_with_all_that_it_stands_on_and_nothing_else(
    services: Services, partner: Partner, set_clock: SetClock
) -> None:
    reach_by_fhir(services, "KN", partner)
    for message in (LAB_ORDER, result("QMRES1", "F", "6.9", at="20250611141000")):
        assert services.messages.receive(message, "127.0.0.1:5000") is not None
    other = {"resourceType": "Observation", "id": "other", "status": "final", "code": {"text": "x"}}
    services.database.write(lambda tx: tx.records.put_many([NewVersion(resource=other, owner="QM")]))

    DeliveryLoop(services).turn()

    held = whole(loads(partner.seen[-1][3]))
    kinds = Counter(one.partition("/")[0] for one in held)
    assert kinds["Task"] == kinds["DiagnosticReport"] == kinds["Patient"] == 1
    [report] = [one for one in held.values() if one["resourceType"] == "DiagnosticReport"]
    assert {one["reference"] for one in report["result"]} <= held.keys()
    assert report["result"]
    assert "Observation/other" not in held
    assert visible(services, "KN", held)
    assert to_partner(services, "KN/fhir").state == "sent"


def test_a_documents_own_attachments_travel_inside_it_and_anothers_do_not(services: Services, partner: Partner) -> None:
    reach_by_fhir(services, "KN", partner)
    for message in (LAB_ORDER, result("QMRES1", "F", "6.9", at="20250611141000")):
        assert services.messages.receive(message, "127.0.0.1:5000") is not None
    held = whole(loads(to_partner(services, "KN/fhir").payload))
    [report] = [one for one in held.values() if one["resourceType"] == "DiagnosticReport"]
    [task] = [one for one in held.values() if one["resourceType"] == "Task"]
    forms = [
        {"contentType": "application/pdf", "title": "报告", "url": "Binary/own"},
        {"contentType": "application/pdf", "url": "Binary/theirs"},
    ]

    def work(tx: Tx) -> None:
        for id_, owner in (("own", "QM"), ("theirs", "QH")):
            binary = {"resourceType": "Binary", "id": id_, "contentType": "application/pdf", "data": "JVBERi0="}
            tx.records.put_many([NewVersion(resource=binary, owner=owner)])
        stored = tx.records.get("DiagnosticReport", report["id"], UNRESTRICTED)
        assert stored is not None
        tx.records.put_many([NewVersion(resource={**loads(stored.body), "presentedForm": forms}, owner=stored.owner)])
        current = tx.records.get("Task", task["id"], UNRESTRICTED)
        assert current is not None
        effect = Send(
            message="oru_r01",
            to_role="requester",
            institution="KN",
            reference=f"DiagnosticReport/{report['id']}",
        )
        dispatcher = Dispatcher(services.settings, services.directory, services.objects, services.clock)
        dispatcher.send(tx, effect, loads(current.body), correlation_id="c")

    services.database.write(work)

    sent = whole(loads(to_partner(services, "KN/fhir").payload))[f"DiagnosticReport/{report['id']}"]
    assert sent["presentedForm"] == [
        {"contentType": "application/pdf", "title": "报告", "data": "JVBERi0="},
        {"contentType": "application/pdf", "url": f"{services.settings.public()}/fhir/Binary/theirs"},
    ]


def test_what_the_receiver_may_not_see_is_named_by_type_alone(services: Services, partner: Partner) -> None:
    secret = {
        "resourceType": "Encounter",
        "id": "secret",
        "status": "finished",
        "class": {"code": "AMB"},
        "identifier": [{"system": "urn:x", "value": "BEHIND-THE-DOOR"}],
    }
    services.database.write(lambda tx: tx.records.put_many([NewVersion(resource=secret, owner="KN")]))
    assert services.messages.receive(REFERRAL, "127.0.0.1:5000") is not None
    DeliveryLoop(services).turn()
    actor = Actor(institution="KN")
    [task] = [one for one in whole(loads(partner.seen[0][3])).values() if one["resourceType"] == "Task"]

    def refer(tx: Tx) -> None:
        request = tx.records.get("ServiceRequest", task["focus"]["reference"].partition("/")[2], UNRESTRICTED)
        assert request is not None
        body = {**loads(request.body), "encounter": {"reference": "Encounter/secret"}}
        tx.records.put_many([NewVersion(resource=body, owner="KN")])
        services.tasks.transition(tx, task["id"], "cancel", actor, reason={"text": "患者放弃"}, by_message=True)

    services.database.write(refer)
    DeliveryLoop(services).turn()

    body = partner.seen[-1][3]
    held = whole(loads(body))
    [request] = [one for one in held.values() if one["resourceType"] == "ServiceRequest"]
    assert request["encounter"] == {"type": "Encounter", "display": "未共享 (not shared)"}
    assert b"BEHIND-THE-DOOR" not in body


@pytest.mark.parametrize(("kind", "settings"), [("rest", {"message": "true"}), ("msg", {})])
def test_a_partner_that_wants_messages_gets_one_and_its_header_is_the_acknowledgement(
    services: Services, partner: Partner, kind: str, settings: dict[str, str]
) -> None:
    reach_by_fhir(services, "YL", partner, kind, **settings)
    partner.reply = acknowledged("ok")
    assert services.messages.receive(REFERRAL, "127.0.0.1:5000") is not None

    DeliveryLoop(services).turn()

    [(method, path, _, body)] = partner.seen
    sent = loads(body)
    delivery = to_partner(services)
    assert (method, path, sent["type"]) == ("POST", "/fhir/$process-message", "message")
    held = whole(sent)
    header = sent["entry"][0]["resource"]
    assert (header["resourceType"], header["id"]) == ("MessageHeader", delivery.control_id)
    assert header["eventCoding"]["code"] == "I12"
    assert header["focus"][0]["reference"] in held
    assert header["sender"]["identifier"]["value"] == header["responsible"]["identifier"]["value"] == "KN"
    assert header["destination"][0]["receiver"]["identifier"]["value"] == "YL"
    assert header["destination"][0]["endpoint"] == f"http://127.0.0.1:{partner.server_port}/fhir"
    assert not any("request" in entry for entry in sent["entry"])
    assert delivery.state == "sent"
    assert delivery.ack == acknowledged("ok")(body)


@pytest.mark.parametrize(
    ("reply", "state"),
    [
        (acknowledged("fatal-error"), "dead"),
        (acknowledged("transient-error"), "pending"),
        (acknowledged("ok", "another"), "pending"),
    ],
)
def test_a_message_that_was_not_acknowledged_is_not_delivered(
    services: Services, partner: Partner, reply: Callable[[bytes], bytes], state: str
) -> None:
    reach_by_fhir(services, "YL", partner, message="true")
    partner.reply = reply
    assert services.messages.receive(REFERRAL, "127.0.0.1:5000") is not None

    DeliveryLoop(services).turn()

    delivery = to_partner(services)
    assert (delivery.state, delivery.ack) == (state, reply(delivery.payload))
