"""Tasks moved by messages, people and timers, on a real database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.json import loads
from hub.access import UNRESTRICTED, Scope
from hub.actor import Actor
from hub.boot import Services
from hub.errors import Category, HubError
from hub.ports import NewVersion
from hub.search import parse
from hub.workflows.task import advice
from tests.flows.test_referral_and_lab import LAB_ORDER, REFERRAL, result
from tests.support.services import consortium, running

KN, YL, QM = (
    Actor(institution="KN"),
    Actor(institution="YL", practitioner="C101", roles=frozenset({"doctor", "physician", "desk"})),
    Actor(institution="QM"),
)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as services:
        yield services


def receive(hub: Services, *messages: bytes) -> list[bytes]:
    answers = [hub.messages.receive(one, "127.0.0.1:5000") for one in messages]
    assert all(one is not None and (b"MSA|AA" in one or b"MSA|CA" in one) for one in answers), answers
    return [one for one in answers if one is not None]


def search(hub: Services, kind: str, institution: str | None = None, **pairs: str) -> list[dict[str, Any]]:
    query = parse(kind, [(name.replace("_", "-"), value) for name, value in pairs.items()])
    scope = UNRESTRICTED if institution is None else Scope(institution=institution)
    return [loads(one.body) for one in hub.database.read(lambda tx: tx.records.search(query, scope)).matches]


def deliveries(hub: Services) -> list[list[str]]:
    found = hub.database.read(lambda tx: tx.outbox.deliveries({}, limit=50))
    return [one.payload.decode("gb18030").split("\r") for one in reversed(found)]


def test_a_referral_message_starts_a_task_that_the_receiver_sees(hub: Services) -> None:
    receive(hub, REFERRAL)

    [task] = search(hub, "Task", "YL", code="referral")

    assert task["status"] == "requested"
    assert task["owner"]["reference"] == "PractitionerRole/yl-fengguoqiang"
    assert search(hub, "ServiceRequest", "YL") != []
    assert search(hub, "Patient", "YL") != []
    assert search(hub, "Task", "QH") == []


def test_the_same_referral_again_starts_no_second_task(hub: Services) -> None:
    receive(hub, REFERRAL, REFERRAL.replace(b"KN20250612REF01", b"KN20250612REF02"))

    assert len(search(hub, "Task", code="referral")) == 1


def test_acceptance_sends_the_answer_that_the_referrer_asked_for(hub: Services) -> None:
    receive(hub, REFERRAL)
    [task] = search(hub, "Task", "YL", code="referral")

    def accept(tx: Any) -> None:
        hub.tasks.transition(tx, task["id"], "review", YL)
        hub.tasks.transition(tx, task["id"], "accept", YL)

    hub.database.write(accept)

    [answer] = [one for one in deliveries(hub) if "RRI^I12" in one[0]]
    assert answer[0].split("|")[8].startswith("RRI^I12")
    assert "KN20250612REF01" in answer[1]


def test_a_stranger_cannot_move_or_even_see_the_task(hub: Services) -> None:
    receive(hub, REFERRAL)
    [task] = search(hub, "Task", "YL", code="referral")

    with pytest.raises(HubError) as caught:
        hub.database.write(lambda tx: hub.tasks.transition(tx, task["id"], "accept", Actor(institution="QH")))

    assert caught.value.category is Category.NOT_FOUND


def test_arrival_opens_the_record_and_feedback_ends_it(hub: Services) -> None:
    receive(hub, REFERRAL)
    [task] = search(hub, "Task", "YL", code="referral")
    note = {
        "resourceType": "Observation",
        "id": "trop",
        "status": "final",
        "code": {"text": "肌钙蛋白I"},
        "subject": task["for"],
    }
    letter = {
        "resourceType": "DocumentReference",
        "id": "letter",
        "status": "current",
        "subject": task["for"],
        "content": [{"attachment": {"title": "出院小结"}}],
    }
    hub.database.write(
        lambda tx: tx.records.put_many([NewVersion(resource=note, owner="KN"), NewVersion(resource=letter, owner="YL")])
    )

    def seen() -> bool:
        return hub.database.read(lambda tx: tx.records.get("Observation", "trop", Scope(institution="YL"))) is not None

    def move(*events: str, **more: Any) -> None:
        def work(tx: Any) -> None:
            for event in events:
                hub.tasks.transition(tx, task["id"], event, YL, **more)

        hub.database.write(work)

    before = seen()
    move("review", "accept")
    accepted = seen()
    move("arrive")
    arrived = seen()
    move(
        "feedback",
        outputs=[{"type": {"text": "出院小结"}, "valueReference": {"reference": "DocumentReference/letter"}}],
    )

    assert (before, accepted, arrived, seen()) == (False, False, True, False)
    assert (
        hub.database.read(lambda tx: tx.records.get("DocumentReference", "letter", Scope(institution="KN"))) is not None
    )


def test_a_laboratory_result_is_tied_to_the_asker_s_order_and_patient(hub: Services) -> None:
    receive(hub, LAB_ORDER, result("QM20250611000777", "F", "6.90", at="20250611142000"))

    [request] = search(hub, "ServiceRequest", "KN", identifier="KN20250611031")
    [report] = search(hub, "DiagnosticReport", "KN", based_on=f"ServiceRequest/{request['id']}")
    assert report["subject"] == request["subject"]
    assert report["status"] == "final"
    assert len(search(hub, "Task", "KN", code="critical-value")) == 1
    [sent] = [one for one in deliveries(hub) if "ORU^R01" in one[0]]
    assert any(line.startswith("OBX|1|NM|2823-3") and "6.90" in line for line in sent)
    assert search(hub, "DiagnosticReport", "QH") == []


@pytest.mark.parametrize("order", [("F", "C", "P"), ("F", "P", "C"), ("P", "F", "C")])
def test_results_end_in_the_same_state_whatever_order_they_come_in(hub: Services, order: tuple[str, ...]) -> None:
    values = {"P": ("6.10", "20250611130000"), "F": ("6.90", "20250611142000"), "C": ("6.70", "20250611152000")}
    receive(hub, LAB_ORDER)
    for number, status in enumerate(order):
        value, at = values[status]
        receive(hub, result(f"QM{number}", status, value, at=at))

    [report] = search(hub, "DiagnosticReport", "KN")
    [potassium] = search(hub, "Observation", "KN", code="2823-3")
    assert report["status"] == "corrected"
    assert str(potassium["valueQuantity"]["value"]) == "6.70"


def test_an_open_timer_fires_the_table_s_event_once(hub: Services) -> None:
    receive(hub, REFERRAL)
    [timer, *_] = hub.database.read(lambda tx: tx.timers.due(hub.clock().replace(year=hub.clock().year + 1), limit=10))

    def fire(tx: Any) -> bool:
        taken = tx.timers.take(timer)
        if taken:
            hub.tasks.on_timer(tx, timer)
        return bool(taken)

    first, second = hub.database.write(fire), hub.database.write(fire)

    assert (timer.kind, first, second) == ("workflow", True, False)


# --- what is checked before a request is sent ----------------------------------------------------------------------


def directory(hub: Services, id: str, **change: Any) -> None:
    """Import the sample consortium's resource *id* again, changed."""
    [one] = [one for one in consortium() if one["id"] == id]
    hub.directory.load([{**one, **change}])


def refused(hub: Services, message: bytes) -> bytes:
    answer = hub.messages.receive(message, "127.0.0.1:5000")
    assert answer is not None
    [delivery] = hub.database.read(lambda tx: tx.outbox.deliveries({}, limit=50))
    return delivery.payload


@pytest.mark.parametrize(
    ("id", "change", "says"),
    [
        ("agreement-yl-kn", {"active": False}, "协作协议"),
        ("agreement-yl-kn", {"period": {"end": "2025-05-31"}}, "协作协议"),
        ("yl-cardiology-referral", {"active": False}, "未开通此项服务（referral）"),
    ],
)
def test_a_message_that_may_not_be_sent_is_kept_and_goes_when_the_directory_is_mended(
    hub: Services, id: str, change: dict[str, Any], says: str
) -> None:
    directory(hub, id, **change)

    answer = refused(hub, REFERRAL).decode("gb18030")

    assert "MSA|AE|KN20250612REF01" in answer
    assert says in answer
    assert search(hub, "Task") == []
    [entry] = hub.database.read(lambda tx: tx.journal.search({"state": "refused"}, limit=5))
    directory(hub, id)
    hub.messages.replay(entry.seq, Actor(institution="YY", roles=frozenset({"operator"})))
    assert [one["status"] for one in search(hub, "Task", "YL", code="referral")] == ["requested"]


def test_an_agreement_that_the_operator_did_not_enter_counts_for_nothing(hub: Services) -> None:
    directory(hub, "agreement-yl-kn", active=False)
    [own] = [{**one, "id": "own"} for one in consortium() if one["id"] == "agreement-yl-kn"]
    hub.database.write(lambda tx: tx.records.put_many([NewVersion(resource=own, owner="KN", visibility="consortium")]))

    assert b"MSA|AE" in refused(hub, REFERRAL)


def test_a_message_about_a_patient_of_whom_little_is_known_is_kept_and_says_so(hub: Services) -> None:
    receive(hub, REFERRAL.replace(b"||19591001|M", b"|||"))

    [task] = search(hub, "Task", "YL", code="referral")

    assert task["status"] == "requested"
    assert {"patient_is_identified", "consent_given"} <= {code for code, _ in advice(task)}


def drafted(hub: Services, **change: Any) -> str:
    """Store a draft referral of KN's to YL for the patient of REFERRAL and return its id."""
    [task] = search(hub, "Task", "YL", code="referral")
    [stored] = search(hub, "ServiceRequest", "KN")
    request = {**stored, "id": "again", "identifier": [], **change}
    kept = ("resourceType", "intent", "code", "for", "requester", "owner", "priority")
    draft = {
        **{name: task[name] for name in kept},
        "id": "draft",
        "status": "draft",
        "focus": {"reference": "ServiceRequest/again"},
    }

    def work(tx: Any) -> None:
        tx.records.put_many([NewVersion(resource=request, owner="KN")])
        hub.tasks.create(tx, draft, KN, correlation_id="c")

    hub.database.write(work)
    return "draft"


def stored_task(hub: Services, task_id: str) -> dict[str, Any]:
    stored = hub.database.read(lambda tx: tx.records.get("Task", task_id, UNRESTRICTED))
    assert stored is not None
    return loads(stored.body)


def submit(hub: Services, task_id: str) -> dict[str, Any]:
    return loads(hub.database.write(lambda tx: hub.tasks.transition(tx, task_id, "submit", KN)).body)


def test_the_second_request_for_the_same_is_sent_and_told(hub: Services) -> None:
    receive(hub, REFERRAL)
    [first] = search(hub, "Task", "YL", code="referral")

    second = submit(hub, drafted(hub))

    assert "is_not_repeated" not in dict(advice(first))
    assert f"Task/{first['id']}" in dict(advice(second))["is_not_repeated"]


def test_a_request_for_something_else_is_no_repetition(hub: Services) -> None:
    receive(hub, REFERRAL)
    [first] = search(hub, "ServiceRequest", "KN")
    other = {"coding": [{"system": "urn:x", "code": "other"}]}
    hub.database.write(
        lambda tx: tx.records.put_many(
            [NewVersion(resource={**first, "code": {"coding": [{"system": "urn:x", "code": "one"}]}}, owner="KN")]
        )
    )

    assert "is_not_repeated" not in dict(advice(submit(hub, drafted(hub, code=other))))


def test_a_draft_is_not_sent_to_a_partner_whose_agreement_has_ended(hub: Services) -> None:
    receive(hub, REFERRAL)
    task_id = drafted(hub)
    directory(hub, "agreement-yl-kn", period={"end": "2025-05-31"})

    with pytest.raises(HubError) as caught:
        submit(hub, task_id)

    assert (caught.value.status, caught.value.remedy) == (422, "Allowed events: ask-consent, submit, cancel.")
    assert stored_task(hub, task_id)["status"] == "draft"


def test_a_consent_in_the_supporting_information_of_the_request_counts(hub: Services) -> None:
    receive(hub, REFERRAL)
    [task] = search(hub, "Task", "YL", code="referral")
    consent = {"resourceType": "Consent", "id": "signed", "status": "active", "patient": task["for"]}
    hub.database.write(lambda tx: tx.records.put_many([NewVersion(resource=consent, owner="KN")]))

    moved = submit(hub, drafted(hub, supportingInfo=[{"reference": "Consent/signed"}]))

    assert "consent_given" not in dict(advice(moved))


def test_an_update_that_sends_a_draft_elsewhere_is_judged_by_the_agreement_there(hub: Services) -> None:
    receive(hub, REFERRAL)
    task_id = drafted(hub)
    read = stored_task(hub, task_id)
    sent = {**read, "status": "requested", "owner": {"reference": "Organization/qm"}}
    sent["businessStatus"] = {"coding": [{**read["businessStatus"]["coding"][0], "code": "submitted"}]}

    def work(tx: Any) -> None:
        old = tx.records.get("Task", task_id, UNRESTRICTED)
        hub.tasks.update(tx, old, sent, KN, expected_version=None, correlation_id="c")

    with pytest.raises(HubError, match="of category referral") as caught:
        hub.database.write(work)

    assert "OrganizationAffiliation" not in caught.value.message


def propose_down(hub: Services) -> None:
    """Let YL take the patient of REFERRAL in and propose to send them back to KN."""
    [task] = search(hub, "Task", "YL", code="referral")
    patient = {
        "resourceType": "Patient",
        "id": "yl-patient",
        "identifier": [{"system": "urn:oid:2.16.156.10011.1.3", "value": "990001195910015710"}],
        "gender": "male",
        "birthDate": "1959-10-01",
    }
    down = {
        "resourceType": "ServiceRequest",
        "id": "down",
        "status": "active",
        "intent": "order",
        "subject": {"reference": "Patient/yl-patient"},
        "basedOn": [task["focus"]],
        "reasonCode": [{"text": "康复治疗"}],
    }
    output = {"type": {"text": "下转申请"}, "valueReference": {"reference": "ServiceRequest/down"}}

    def work(tx: Any) -> None:
        tx.records.put_many([NewVersion(resource=patient, owner="YL"), NewVersion(resource=down, owner="YL")])
        for event in ("review", "accept", "arrive", "admit"):
            hub.tasks.transition(tx, task["id"], event, YL)
        hub.tasks.transition(tx, task["id"], "propose-down", YL, outputs=[output])

    hub.database.write(work)


def test_a_down_referral_goes_back_to_the_hospital_that_takes_them(hub: Services) -> None:
    receive(hub, REFERRAL)

    propose_down(hub)

    [back] = search(hub, "Task", "KN", code="referral", owner="Organization/kn")
    assert (back["status"], back["focus"]["reference"]) == ("requested", "ServiceRequest/down")


def test_a_down_referral_is_not_proposed_to_a_hospital_whose_service_is_off(hub: Services) -> None:
    receive(hub, REFERRAL)
    directory(hub, "kn-rehabilitation-referral", active=False)

    with pytest.raises(HubError, match="of category referral"):
        propose_down(hub)

    assert search(hub, "Task", owner="Organization/kn") == []
