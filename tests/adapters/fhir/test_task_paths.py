"""One table judges a Task on whatever way the move comes: each refusal is 409 or 422 and names the events that are open."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.http.app import build
from fhir_mappings.hl7v2.charset import decode_message
from hub.actor import Actor
from hub.boot import Services
from tests.flows.test_referral_and_lab import REFERRAL
from tests.support.http import Client, client_of
from tests.support.services import consortium, running

PATCH = {"Content-Type": "application/json-patch+json"}
SAMPLES = Path(__file__).parents[3] / "sample_data" / "hl7"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as one:
        yield one


@pytest.fixture
def yl(services: Services) -> Client:
    roles = frozenset({"doctor", "physician", "desk"})
    return client_of(build(services), services, Actor(institution="YL", practitioner="C101", roles=roles))


@pytest.fixture
def kn(services: Services) -> Client:
    return client_of(build(services), services, Actor(institution="KN", practitioner="0231"))


@pytest.fixture
def referral(services: Services, yl: Client) -> dict[str, Any]:
    """A referral that came by message and waits at YL."""
    answer = services.messages.receive(REFERRAL, "127.0.0.1:5000")
    assert answer is not None
    assert b"MSA|CA" in answer
    [task] = yl.search("/fhir/Task?code=referral")
    return task


def parameters(event: str) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": [{"name": "event", "valueCode": event}]}


def bundle(kind: str, url: str, method: str, resource: dict[str, Any]) -> dict[str, Any]:
    entry = {"resource": resource, "request": {"method": method, "url": url}}
    return {"resourceType": "Bundle", "type": kind, "entry": [entry]}


def patch_of(operations: list[dict[str, Any]]) -> dict[str, Any]:
    data = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": data}


JUMP = [{"op": "replace", "path": "/status", "value": "completed"}]

#: Ways to say "this is finished" of work that nobody has looked at yet.
WAYS: dict[str, Callable[[Client, dict[str, Any]], httpx.Response]] = {
    "put": lambda yl, task: yl.put(f"/fhir/Task/{task['id']}", json={**task, "status": "completed"}),
    "conditional put": lambda yl, task: yl.put(f"/fhir/Task?_id={task['id']}", json={**task, "status": "completed"}),
    "patch": lambda yl, task: yl.patch(f"/fhir/Task/{task['id']}", json=JUMP, headers=PATCH),
    "transaction put": lambda yl, task: yl.post(
        "/fhir", json=bundle("transaction", f"Task/{task['id']}", "PUT", {**task, "status": "completed"})
    ),
    "transaction patch": lambda yl, task: yl.post(
        "/fhir", json=bundle("transaction", f"Task/{task['id']}", "PATCH", patch_of(JUMP))
    ),
    "$transition": lambda yl, task: yl.post(f"/fhir/Task/{task['id']}/$transition", json=parameters("feedback")),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_jump_is_refused_with_what_is_open_instead(yl: Client, referral: dict[str, Any], way: str) -> None:
    answer = WAYS[way](yl, referral)

    outcome = answer.json()
    assert answer.status_code in {409, 422}, answer.text
    assert outcome["resourceType"] == "OperationOutcome"
    assert {one["code"] for one in outcome["issue"]} >= {"business-rule"}
    [told] = [one["diagnostics"] for one in outcome["issue"] if "Allowed events: " in one["diagnostics"]][-1:]
    allowed = told.split("Allowed events: ")[1].rstrip(".").split(", ")
    # What it says is open is open, to this very sender.
    assert "review" in allowed
    assert yl.get(f"/fhir/Task/{referral['id']}").json()["meta"]["versionId"] == referral["meta"]["versionId"]
    assert yl.post(f"/fhir/Task/{referral['id']}/$transition", json=parameters("review")).status_code == 200


def test_an_entry_of_a_batch_is_judged_like_a_request_of_its_own(yl: Client, referral: dict[str, Any]) -> None:
    body = bundle("batch", f"Task/{referral['id']}", "PUT", {**referral, "status": "completed"})

    [entry] = yl.post("/fhir", json=body).json()["entry"]

    assert entry["response"]["status"][:3] in {"409", "422"}
    assert "Allowed events: " in str(entry["response"]["outcome"])
    assert yl.get(f"/fhir/Task/{referral['id']}").json()["status"] == "requested"


def test_a_condition_leads_past_no_table(kn: Client, referral: dict[str, Any]) -> None:
    answer = kn.patch(f"/fhir/Task?_id={referral['id']}", json=JUMP, headers=PATCH)

    assert answer.status_code in {409, 422}
    assert "cancel" in answer.text.split("Allowed events: ")[1]
    assert kn.get(f"/fhir/Task/{referral['id']}").json()["status"] == "requested"


def test_an_unknown_event_is_422_and_one_that_is_not_open_409(yl: Client, referral: dict[str, Any]) -> None:
    url = f"/fhir/Task/{referral['id']}/$transition"

    statuses = [yl.post(url, json=parameters(event)).status_code for event in ("whim", "feedback")]

    assert statuses == [422, 409]


def test_a_refused_entry_undoes_the_whole_transaction(yl: Client, referral: dict[str, Any]) -> None:
    body = bundle("transaction", f"Task/{referral['id']}", "PUT", {**referral, "status": "completed"})
    body["entry"].insert(0, {"resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient"}})
    before = len(yl.search("/fhir/Patient"))

    assert yl.post("/fhir", json=body).status_code in {409, 422}
    assert len(yl.search("/fhir/Patient")) == before


def test_a_message_that_comes_too_late_is_kept_and_moves_nothing(
    services: Services, kn: Client, yl: Client, referral: dict[str, Any]
) -> None:
    for event in ("review", "accept", "arrive"):
        assert yl.post(f"/fhir/Task/{referral['id']}/$transition", json=parameters(event)).status_code == 200
    before = kn.get(f"/fhir/Task/{referral['id']}").json()
    # The centre's HIS says, after the patient has come, that it will not take the patient.
    late = (SAMPLES / "RRI_I12" / "yl_accepted.hl7").read_bytes().replace(b"RF1|A|", b"RF1|R|")

    assert services.messages.receive(late, "127.0.0.1:5000") is not None

    after = kn.get(f"/fhir/Task/{referral['id']}").json()
    assert [after[name] for name in ("status", "businessStatus")] == [
        before[name] for name in ("status", "businessStatus")
    ]
    [entry] = services.database.read(lambda tx: tx.journal.search({"control_id": "YLRRI1"}, limit=2))
    assert entry.body == late


def test_a_message_that_the_table_refuses_is_answered_ae_with_what_is_open(services: Services, yl: Client) -> None:
    [agreement] = [one for one in consortium() if one["id"] == "agreement-yl-kn"]
    services.directory.load([{**agreement, "active": False}])

    answer = services.messages.receive(REFERRAL.replace(b"|AL|AL|CHN", b"||AL|CHN"), "127.0.0.1:5000")

    assert answer is not None
    text = decode_message(answer).text
    assert "MSA|AE|KN20250612REF01" in text
    assert "Allowed events: " in text
    assert yl.search("/fhir/Task?code=referral") == []
