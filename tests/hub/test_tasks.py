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
QM_LAB = Actor(institution="QM", roles=frozenset({"lab"}))


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


# --- commands by message that the table does not take ------------------------------------------------------------


def order(control_id: str, control: str, *, at: str = "20250611110000") -> bytes:
    """Return KN's laboratory order again, with another ORC-1."""
    text = LAB_ORDER.decode("gb18030").replace("KN20250611LAB01", control_id).replace("ORC|NW|", f"ORC|{control}|")
    return text.replace("|QMJY|20250611100000|", f"|QMJY|{at}|").encode("gb18030")


def referral(control_id: str, trigger: str, *, at: str = "20250612101500") -> bytes:
    """Return KN's referral again, as another event."""
    text = REFERRAL.decode("gb18030").replace("KN20250612REF01", control_id).replace("I12^REF", f"{trigger}^REF")
    return text.replace("|HUB|20250612094500|", f"|HUB|{at}|").replace("RF1|P|", "RF1|R|").encode("gb18030")


def application(hub: Services, message: bytes) -> str:
    """Send *message* and return what its sender is told in the end."""
    before = len(deliveries(hub))
    assert hub.messages.receive(message, "127.0.0.1:5000") is not None
    return next(
        "\r".join(one)
        for one in deliveries(hub)[before:]
        if one[0].split("|")[8].startswith("ACK") and one[1].startswith("MSA")
    )


def at_work(hub: Services, code: str) -> str:
    [task] = search(hub, "Task", code=code)
    return str(task["businessStatus"]["coding"][0]["code"])


def move(hub: Services, code: str, actor: Actor, *events: str) -> None:
    [task] = search(hub, "Task", code=code)

    def work(tx: Any) -> None:
        for event in events:
            hub.tasks.transition(tx, task["id"], event, actor, reason={"text": "原因"})

    hub.database.write(work)


def request_status(hub: Services) -> str:
    [request] = search(hub, "ServiceRequest", "KN")
    return str(request["status"])


def test_a_command_that_the_table_refuses_is_answered_ae_and_nothing_of_it_is_kept(hub: Services) -> None:
    receive(hub, LAB_ORDER, result("QM1", "F", "6.90", at="20250611142000"))
    text = order("KN2", "CA", at="20250611150000").decode("gb18030")
    late = text.replace("电解质四项", "电解质六项").encode("gb18030")

    told = application(hub, late)

    assert "MSA|AE|KN2|" in told
    assert "order.cancel" in told
    assert "'final'" in told
    assert "Allowed events: " in told
    assert at_work(hub, "lab-outsourcing") == "final"
    [request] = search(hub, "ServiceRequest", "KN")
    assert (request["status"], request["code"]["coding"][0]["display"]) == ("completed", "电解质四项")
    [entry] = hub.database.read(lambda tx: tx.journal.search({"state": "refused"}, limit=5))
    assert "'final'" in entry.outcome
    assert "Allowed events: " in entry.outcome


def test_a_refused_command_is_taken_by_a_replay_once_the_table_is_open_to_it(hub: Services) -> None:
    receive(hub, LAB_ORDER)
    answer = hub.messages.receive(order("QM2", "UC").replace(b"|HIS|KNYY|", b"|LIS|QMJY|"), "127.0.0.1:5000")
    assert answer is not None
    [entry] = hub.database.read(lambda tx: tx.journal.search({"state": "refused"}, limit=5))
    assert "order.cancel-refused" in entry.outcome
    assert "'ordered'" in entry.outcome

    move(hub, "lab-outsourcing", QM_LAB, "receive", "start")
    receive(hub, order("KN3", "CA"))
    hub.messages.replay(entry.seq, Actor(institution="YY", roles=frozenset({"operator"})))

    [abort] = search(hub, "Task", code="abort")
    assert abort["status"] == "rejected"


def test_a_command_that_comes_again_when_it_is_fulfilled_is_accepted_and_changes_nothing(hub: Services) -> None:
    receive(hub, LAB_ORDER, order("KN2", "CA"))
    [before] = search(hub, "Task", code="lab-outsourcing")

    receive(hub, order("KN3", "CA", at="20250611120000"))

    [after] = search(hub, "Task", code="lab-outsourcing")
    assert at_work(hub, "lab-outsourcing") == "cancelled"
    assert after == before
    assert hub.database.read(lambda tx: tx.journal.search({"state": "refused"}, limit=5)) == []


def test_a_question_to_cancel_that_is_asked_again_is_asked_once(hub: Services) -> None:
    receive(hub, LAB_ORDER)
    move(hub, "lab-outsourcing", QM_LAB, "receive", "start")

    receive(hub, order("KN2", "CA"))
    assert "MSA|AA|KN3" in application(hub, order("KN3", "CA", at="20250611120000"))

    assert len(search(hub, "Task", code="abort")) == 1


def test_the_result_that_comes_home_names_who_ordered_it_by_the_number_at_home(hub: Services) -> None:
    receive(hub, LAB_ORDER)
    move(hub, "lab-outsourcing", QM_LAB, "receive", "start")

    receive(hub, result("QM1", "F", "4.10", at="20250611130000"))

    [sent] = [one for one in deliveries(hub) if "|ORU^R01" in one[0]]
    obr = next(one for one in sent if one.startswith("OBR")).split("|")
    assert obr[16] == "0231^刘敏"
    # Q003 answers for the result, Q011 did the work; nobody is said to have written it.
    assert obr[32:35] == ["Q003&蒋丽", "", "Q011&梁宇"]


@pytest.mark.parametrize("control", ["CA", "DC"])
def test_an_order_stays_until_the_laboratory_agrees_to_stop(hub: Services, control: str) -> None:
    receive(hub, LAB_ORDER)
    move(hub, "lab-outsourcing", QM_LAB, "receive", "start")

    receive(hub, order("KN2", control))

    assert (at_work(hub, "lab-outsourcing"), request_status(hub)) == ("testing", "active")
    move(hub, "lab-outsourcing", QM_LAB, "confirm-cancel")
    assert (at_work(hub, "lab-outsourcing"), request_status(hub)) == ("cancelled", "revoked")


def test_a_referral_withdrawn_after_arrival_stands_until_the_other_side_agrees(hub: Services) -> None:
    receive(hub, REFERRAL)
    move(hub, "referral", YL, "review", "accept", "arrive")

    receive(hub, referral("KNR2", "I14"))

    assert (at_work(hub, "referral"), request_status(hub)) == ("arrived", "active")
    assert len(search(hub, "Task", code="abort")) == 1


def test_an_order_sent_again_while_the_work_goes_on_is_accepted(hub: Services) -> None:
    receive(hub, LAB_ORDER)
    move(hub, "lab-outsourcing", QM_LAB, "receive", "start")

    assert "MSA|AA|KN2" in application(hub, order("KN2", "NW"))

    assert at_work(hub, "lab-outsourcing") == "testing"


def test_an_order_sent_again_after_its_end_is_refused(hub: Services) -> None:
    receive(hub, LAB_ORDER, order("KN2", "CA"))

    assert "MSA|AE|KN3" in application(hub, order("KN3", "NW", at="20250611120000"))

    assert request_status(hub) == "revoked"


def test_an_order_is_cancelled_though_the_laboratory_refused_it_before(hub: Services) -> None:
    receive(hub, LAB_ORDER)
    move(hub, "lab-outsourcing", QM_LAB, "reject-specimen")

    assert "MSA|AA|KN2" in application(hub, order("KN2", "DC"))

    assert (at_work(hub, "lab-outsourcing"), request_status(hub)) == ("specimen-rejected", "revoked")


def test_a_command_about_an_order_that_no_task_carries_is_none(hub: Services) -> None:
    receive(hub, *(order(id, control).replace(b"|QMJY|", b"|HUB|") for id, control in (("KN2", "NW"), ("KN3", "DC"))))

    assert search(hub, "Task") == []
    assert request_status(hub) == "revoked"


def test_an_order_on_hold_waits_without_a_step_of_the_workflow_and_goes_on_when_released(hub: Services) -> None:
    receive(hub, LAB_ORDER)

    receive(hub, order("KN2", "HD"))
    held = request_status(hub)
    receive(hub, order("KN3", "RL", at="20250611120000"))

    assert (held, request_status(hub), at_work(hub, "lab-outsourcing")) == ("on-hold", "active", "ordered")


def test_a_result_is_kept_whatever_has_become_of_its_order(hub: Services) -> None:
    receive(hub, LAB_ORDER, order("KN2", "CA"), result("QM1", "F", "6.90", at="20250611142000"))

    assert len(search(hub, "DiagnosticReport")) == 1
    assert at_work(hub, "lab-outsourcing") == "cancelled"


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


# --- bookings that fulfil a referral -----------------------------------------------------------------------------


def booking(control_id: str, trigger: str, *, order: str, at: str = "20250612150000") -> bytes:
    """Return YL's SIU about the appointment that it gives KN's referral *order* (SCH-26)."""
    sch = "SCH|YLAP9|YLAPF9||||^改期|CHK^复查|NORMAL^预约^HL70276|30|min^分钟|^^^20250620090000^20250620093000"
    return "\r".join(
        [
            f"MSH|^~\\&|HIS|YLYY|YXT|HUB|{at}||SIU^{trigger}^SIU_S12|{control_id}|P|2.5.1|||AL|NE|CHN|UNICODE UTF-8",
            f"{sch}|||||C101^冯国强||||C101^冯国强|||||Booked|{order}",
            "PID|1||600123^^^YLYY^MR||欧阳^明月||19900624|F",
            "RGS|1|A",
            "AIS|1|A|XN01^心内科门诊^L|20250620090000|||30|min",
            "",
        ]
    ).encode()


def test_a_booking_message_books_the_referral_that_it_names(hub: Services) -> None:
    receive(hub, REFERRAL)
    [request] = search(hub, "ServiceRequest", "KN")
    number = request["identifier"][0]["value"]
    move(hub, "referral", YL, "review", "accept")

    assert "MSA|AA|YLS1" in receive_one(hub, booking("YLS1", "S12", order=number))

    assert at_work(hub, "referral") == "booked"
    [task] = search(hub, "Task", code="referral")
    [appointment] = search(hub, "Appointment", "YL")
    assert appointment["basedOn"] == [{"reference": f"ServiceRequest/{request['id']}"}]
    assert {"reference": f"Appointment/{appointment['id']}"} in [
        one.get("valueReference") for one in task.get("output", ())
    ]
    # The referring hospital sees when its patient is awaited.
    assert search(hub, "Appointment", "KN") != []
    # It is moved: the same booking again.
    assert "MSA|AA|YLS2" in receive_one(hub, booking("YLS2", "S13", order=number, at="20250612160000"))
    assert at_work(hub, "referral") == "booked"


def receive_one(hub: Services, message: bytes) -> str:
    """Send *message* in original mode words and return the answer as text."""
    answer = hub.messages.receive(message.replace(b"|||AL|NE|", b"|||||"), "127.0.0.1:5000")
    assert answer is not None
    return answer.decode()
