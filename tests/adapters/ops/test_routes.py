"""Operation over HTTP: who sees and does what, and that acts take effect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from adapters.ops import application, routes
from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.boot import Services
from hub.errors import Category, HubError
from hub.export import Exports, Request
from hub.ports import Delivery, NewDelivery, NewVersion
from tests.flows.test_referral_and_lab import LAB_ORDER, result
from tests.support.images import STUDY, FakeClock, ct, receive, settle
from tests.support.services import running

ORDER = Path(__file__).parents[3] / "sample_data" / "hl7" / "ORM_O01" / "kn_ct_order.hl7"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hub(tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    with running(tmp_path, clock=clock) as services:
        yield services


class Asker:
    """Asks the application in somebody's name."""

    def __init__(self, hub: Services, institution: str, *roles: str) -> None:
        actor = Actor(institution=institution, roles=frozenset(roles))
        token = hub.directory.issue_token(actor, ttl_s=3600)
        self._client = TestClient(application(hub), headers={"Authorization": f"Bearer {token}"})

    def get(self, path: str, status: int = 200) -> Any:
        answer = self._client.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        answer = self._client.post(path, json=body) if body is not None else self._client.post(path)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture
def operator(hub: Services) -> Asker:
    return Asker(hub, "YY", "operator")


@pytest.fixture
def kn(hub: Services) -> Asker:
    return Asker(hub, "KN", "admin")


@pytest.fixture
def qh(hub: Services) -> Asker:
    return Asker(hub, "QH", "admin")


def enqueue(hub: Services, **values: Any) -> int:
    delivery = NewDelivery(
        **{
            "destination": "KN/mllp",
            "lane": "KN/mllp|p1",
            "kind": "mllp",
            "payload": b"MSH|secret",
            "owner": "KN",
            "control_id": "C1",
            "correlation_id": "way-1",
            **values,
        }
    )
    return hub.database.write(lambda tx: tx.outbox.enqueue(delivery))


def delivery(hub: Services, number: int) -> Delivery:
    found = hub.database.read(lambda tx: tx.outbox.get(number))
    assert found is not None
    return found


def let_die(hub: Services, number: int) -> None:
    def work(tx: Any) -> None:
        ((lane, epoch, head),) = tx.outbox.lease("w", now=hub.clock(), lease_s=60, limit=1)
        assert head.id == number
        tx.outbox.failed(lane, epoch, number, error="AR", next_at=None, now=hub.clock())

    hub.database.write(work)


def audited(hub: Services, subtype: str) -> int:
    return len(
        hub.database.read(lambda tx: tx.audit.search({"subtype": subtype}, institution=None, limit=10, before=None))
    )


# --- health


def test_health_answers_without_a_token(hub: Services) -> None:
    client = TestClient(Starlette(routes=routes(hub)))
    assert client.get("/healthz").json()["status"] == "alive"
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["database"], ready.json()["objects"]) == (200, "ok", "ok")
    enqueue(hub)
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'destination="KN/mllp"' in metrics.text


def test_a_store_that_cannot_take_data_makes_the_hub_unready_but_alive(
    hub: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise HubError(Category.UNAVAILABLE, "The disk at /secret/place is full.")

    monkeypatch.setattr(hub.objects, "healthy", full)
    client = TestClient(Starlette(routes=routes(hub)))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["objects"] == "unavailable"
    assert "secret" not in answer.text
    assert client.get("/healthz").status_code == 200


# --- who


@pytest.mark.parametrize("path", ["/ops/queue", "/ops/messages", "/ops/trace/x", "/ops/work-items"])
def test_operation_takes_a_token_with_its_role(hub: Services, path: str) -> None:
    stranger = TestClient(application(hub))
    assert stranger.get(path).status_code == 401
    outcome = Asker(hub, "KN", "doctor").get(path, status=403)
    assert outcome["resourceType"] == "OperationOutcome"
    # The role operator means something at the operating institution only.
    Asker(hub, "QH", "operator").get(path, status=403)


# --- queues


def test_an_administrator_sees_the_queues_of_its_own_institution_only(
    hub: Services, operator: Asker, kn: Asker, qh: Asker
) -> None:
    number = enqueue(hub)
    enqueue(hub, destination="QH/mllp", lane="QH/mllp|p2", owner="QH")
    assert {row["destination"] for row in operator.get("/ops/queue")["destinations"]} == {"KN/mllp", "QH/mllp"}
    (lane,) = kn.get("/ops/queue")["lanes"]
    assert (lane["destination"], lane["depth"], lane["head"], lane["oldest_s"]) == ("KN/mllp", 1, number, 0.0)
    assert {row["destination"] for row in qh.get("/ops/queue")["destinations"]} == {"QH/mllp"}
    (one,) = qh.get("/ops/queue/deliveries?limit=1")["deliveries"]
    assert one["destination"] == "QH/mllp"
    qh.post(f"/ops/queue/deliveries/{number}/skip", {"reason": "none of ours"}, status=404)
    qh.post("/ops/queue/KN/mllp/pause", status=404)
    assert delivery(hub, number).state == "pending"


def test_pause_holds_a_destination_until_it_is_resumed(hub: Services, kn: Asker) -> None:
    enqueue(hub)

    def due() -> int:
        def work(tx: Any) -> int:
            leased = tx.outbox.lease("w", now=hub.clock(), lease_s=60, limit=9)
            tx.outbox.give_back("w")
            return len(leased)

        return hub.database.write(work)

    kn.post("/ops/queue/KN/mllp/pause")
    assert due() == 0
    assert kn.get("/ops/queue")["destinations"][0]["paused"] is True
    kn.post("/ops/queue/KN/mllp/resume")
    assert due() == 1
    assert (audited(hub, "queue-pause"), audited(hub, "queue-resume")) == (1, 1)


def test_a_dead_letter_is_listed_replayed_and_skipped_with_an_audit_line(hub: Services, kn: Asker) -> None:
    number = enqueue(hub)
    let_die(hub, number)
    (dead,) = kn.get("/ops/queue/deliveries?state=dead")["deliveries"]
    assert (dead["id"], dead["last_error"]) == (number, "AR")
    kn.post(f"/ops/queue/deliveries/{number}/replay")
    assert delivery(hub, number).state == "pending"
    kn.post(f"/ops/queue/deliveries/{number}/replay", status=409)
    kn.post(f"/ops/queue/deliveries/{number}/skip", {"reason": " "}, status=400)
    kn.post(f"/ops/queue/deliveries/{number}/skip", {"reason": "already on paper"})
    assert delivery(hub, number).state == "skipped"
    assert (audited(hub, "queue-replay"), audited(hub, "queue-skip")) == (1, 1)


def test_wrong_questions_are_refused(hub: Services, kn: Asker) -> None:
    kn.get("/ops/queue/deliveries?payload=x", status=400)
    kn.get("/ops/queue/deliveries?limit=many", status=400)
    kn.get("/ops/messages?since=yesterday", status=400)
    kn.get("/ops/messages/99999999999999999999", status=404)
    kn.post("/ops/queue/deliveries/1/skip", [1], status=400)


# --- messages and traces


@pytest.fixture
def order(hub: Services) -> str:
    """An order of KN, received; gives its correlation id."""
    assert hub.messages.receive(ORDER.read_bytes(), "127.0.0.1:40000") is not None
    (entry,) = hub.database.read(lambda tx: tx.journal.search({"door": "mllp"}, limit=2))
    assert entry.state == "done", entry.outcome
    return entry.correlation_id


def test_the_content_of_a_message_is_its_institutions_alone(
    hub: Services, order: str, operator: Asker, kn: Asker, qh: Asker
) -> None:
    (row,) = kn.get("/ops/messages?door=mllp")["messages"]
    shown = kn.get(f"/ops/messages/{row['seq']}")
    assert shown["content"].startswith("MSH|")
    assert "�" not in shown["content"]
    assert "MSA|CA" in shown["acknowledgement"]
    assert audited(hub, "message-read") == 1
    assert "content" not in operator.get(f"/ops/messages/{row['seq']}")
    qh.get(f"/ops/messages/{row['seq']}", status=404)
    qh.post(f"/ops/messages/{row['seq']}/replay", status=404)
    assert qh.get("/ops/messages")["messages"] == []


def test_a_message_processed_again_changes_nothing_that_stands(hub: Services, order: str, kn: Asker) -> None:
    (row,) = kn.get("/ops/messages?door=mllp")["messages"]
    before = kn.get(f"/ops/trace/{order}")["records"]
    kn.post(f"/ops/messages/{row['seq']}/replay")
    assert kn.get(f"/ops/messages/{row['seq']}")["state"] == "done"
    for reference in before:
        kind, _, id_ = reference.partition("/")
        stored = hub.database.read(lambda tx, kind=kind, id_=id_: tx.records.get(kind, id_, UNRESTRICTED))
        assert stored is not None
        assert stored.version == 1


def test_a_trace_shows_the_whole_way(hub: Services, order: str, operator: Asker, kn: Asker, qh: Asker) -> None:
    task = {
        "resourceType": "Task",
        "id": "t1",
        "status": "requested",
        "intent": "order",
        "groupIdentifier": {"system": "https://yixiehub.example/fhir/NamingSystem/correlation", "value": order},
        "requester": {"reference": "Organization/kn"},
        "owner": {"reference": "Organization/yl"},
    }
    hub.database.write(lambda tx: tx.records.put_many([NewVersion(resource=task, owner="KN")]))
    number = enqueue(hub, correlation_id="another", task_id="t1")

    def acknowledge(tx: Any) -> None:
        leased = tx.outbox.lease("w", now=hub.clock(), lease_s=60, limit=9)
        ((lane, epoch),) = [(lane, epoch) for lane, epoch, head in leased if head.id == number]
        tx.outbox.succeeded(lane, epoch, number, ack=b"MSH|^~\\&|\rMSA|AA|C1\r", now=hub.clock())

    hub.database.write(acknowledge)
    for asker in (operator, kn):
        way = asker.get(f"/ops/trace/{order}")
        assert [one["type"] for one in way["arrivals"]] == ["ORM^O01"]
        assert [(one["task"], one["status"]) for one in way["tasks"] if one["task"] == "Task/t1"] == [
            ("Task/t1", "requested")
        ]
        assert any(one.startswith("ServiceRequest/") for one in way["records"])
        (sent,) = [one for one in way["deliveries"] if one["id"] == number]
        assert (sent["state"], sent["acknowledgement"].splitlines()[1]) == ("sent", "MSA|AA|C1")
    # The centre hospital takes part in the Task, so it sees that, and nothing of what KN sent.
    yl = Asker(hub, "YL", "admin").get(f"/ops/trace/{order}")
    assert [one["task"] for one in yl["tasks"]] == ["Task/t1"]
    assert yl["arrivals"] == yl["deliveries"] == []
    qh.get(f"/ops/trace/{order}", status=404)
    operator.get("/ops/trace/a,b|c", status=404)


def test_the_trace_of_a_result_leads_to_the_case_that_it_moved(hub: Services, operator: Asker, qh: Asker) -> None:
    for message in (LAB_ORDER, result("QM1", "F", "6.90", at="20250611142000")):
        assert hub.messages.receive(message, "127.0.0.1:40000") is not None
    (entry,) = hub.database.read(lambda tx: tx.journal.search({"control_id": "QM1"}, limit=2))
    path = f"/ops/trace/{entry.correlation_id}"

    way = operator.get(path)

    assert [one["type"] for one in way["arrivals"]] == ["ORU^R01"]
    assert "lab-outsourcing" in {one["code"] for one in way["tasks"]}
    assert "KN/mllp" in {one["destination"] for one in way["deliveries"] if one["task"]}
    # The laboratory sees its own part: the work, and not what the hub sends to the hospital.
    own = Asker(hub, "QM", "admin").get(path)
    assert [one["code"] for one in own["tasks"]] == ["lab-outsourcing"]
    assert own["deliveries"] == []
    qh.get(path, status=404)


# --- studies


def test_a_study_without_an_order_waits_until_somebody_settles_it(
    hub: Services, clock: FakeClock, operator: Asker, kn: Asker, qh: Asker
) -> None:
    receive(hub, ct())
    clock.forward(hub.settings.study_quiet_s + 1)
    (key,) = settle(hub)
    (item,) = operator.get("/ops/work-items")["work_items"]
    assert item["code"] == "unmatched-study"
    assert kn.get("/ops/work-items")["work_items"] == [item]
    assert qh.get("/ops/work-items")["work_items"] == []
    study = hub.database.read(lambda tx: tx.imaging.study(key))
    assert study is not None
    path = f"/ops/studies/{study['resource_id']}/settle"
    qh.post(path, {"service_request": None}, status=404)
    kn.post(path, {}, status=400)
    kn.post(path, {"service_request": "ServiceRequest/none"}, status=404)
    operator.post(path, {"service_request": None})
    assert operator.get("/ops/work-items")["work_items"] == []
    assert audited(hub, "settle-study") == 1


def test_images_of_another_patient_wait_until_somebody_says_whose_they_are(
    hub: Services, operator: Asker, kn: Asker, qh: Asker
) -> None:
    receive(hub, ct(1))
    assert receive(hub, ct(2, PatientID="20001", PatientName="LI^NA=李^娜")) == "held"
    (item,) = operator.get("/ops/work-items")["work_items"]
    assert (item["code"], item["institution"]) == ("patient-conflict", "YY")
    assert kn.get("/ops/work-items")["work_items"] == [item]
    assert qh.get("/ops/work-items")["work_items"] == []
    path = f"/ops/conflicts/{item['task'].removeprefix('Task/')}/settle"
    qh.post(path, {"decision": "accept"}, status=404)
    kn.post(path, {"decision": "maybe"}, status=400)
    kn.post(path, {"decision": "accept"})
    assert operator.get("/ops/work-items")["work_items"] == []
    operator.post(path, {"decision": "keep"}, status=409)
    assert audited(hub, "settle-patient-conflict") == 1


def test_only_the_operator_sees_and_settles_links_between_institutions_patients(
    hub: Services, operator: Asker, kn: Asker, qh: Asker
) -> None:
    card = {"system": "urn:oid:2.16.156.10011.1.19", "value": "H1"}
    for institution in ("KN", "QH"):
        patient = {"resourceType": "Patient", "id": f"patient-{institution}", "identifier": [card]}

        def work(tx: Any, patient: dict[str, Any] = patient, owner: str = institution) -> None:
            tx.records.put_many([NewVersion(resource=patient, owner=owner)])
            hub.identity.suggest(tx, [f"Patient/{patient['id']}"], owner=owner)

        hub.database.write(work)
    (item,) = operator.get("/ops/work-items")["work_items"]
    assert item["code"] == "patient-link"
    (pair,) = operator.get("/ops/patient-links")["patient_links"]
    assert (pair["task"], pair["state"], pair["evidence"]) == (item["task"], "open", ["health-card"])
    assert {side["patient"] for side in pair["patients"]} == {"Patient/patient-KN", "Patient/patient-QH"}
    path = f"/ops/patient-links/{item['task'].removeprefix('Task/')}/settle"
    for asker in (kn, qh):
        assert asker.get("/ops/work-items")["work_items"] == []
        asker.get("/ops/patient-links", status=403)
        asker.post(path, {"decision": "link"}, status=404)
    operator.post(path, {"decision": "maybe"}, status=400)
    operator.post("/ops/patient-links/none/settle", {"decision": "link"}, status=404)
    operator.post(path, {"decision": "unlink"}, status=409)
    operator.post(path, {"decision": "link"})
    assert operator.get("/ops/patient-links")["patient_links"][0]["state"] == "linked"
    operator.post(path, {"decision": "unlink"})
    assert operator.get("/ops/patient-links")["patient_links"][0]["state"] == "unlinked"
    assert audited(hub, "settle-patient-link") == 2


def test_what_the_hub_does_itself_is_nobodys_work_item(hub: Services, operator: Asker, kn: Asker) -> None:
    receive(hub, ct(1))
    Exports(hub).start(Actor(institution="KN", roles=frozenset({"admin"})), Request(project="p1", studies=(STUDY,)))
    assert operator.get("/ops/work-items")["work_items"] == kn.get("/ops/work-items")["work_items"] == []
