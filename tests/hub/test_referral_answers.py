"""RRI^I13, I14 and I15, and REF^I15: each answer means what its event asked, and a question is answered to the parties alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.hl7v2.tokenizer import Message, parse
from hub.boot import Services
from tests.flows.test_referral_and_lab import REFERRAL
from tests.hub.test_tasks import YL, at_work, deliveries, move, receive, referral, request_status, search
from tests.support.services import running

NUMBER = "KNREF20250612001"
PEER = "127.0.0.1:5000"


@pytest.fixture
def hub(tmp_path: Path, database_url: str) -> Iterator[Services]:
    with running(tmp_path, url=database_url) as services:
        yield services


def answer(control_id: str, event: str, code: str, *, reason: str = "", facility: str = "YLYY") -> bytes:
    """Return what YL's hospital system says in original mode to the message *event* about KN's referral."""
    application = "LIS" if facility == "QMJY" else "HIS"
    return "\r".join(
        [
            f"MSH|^~\\&|{application}|{facility}|YXT|HUB|20250612120000||RRI^{event}^RRI_I12|{control_id}|P|2.5.1|||||CHN|UNICODE UTF-8",
            "MSA|AA|X1",
            f"RF1|{code}|||||{NUMBER}^KN||||^{reason}|YLREF0031^YL",
            "PRD|RP|刘敏|||||0231^KN",
            "PID|1||600555^^^YLYY^MR||周建国||19591001|M",
            "",
        ]
    ).encode()


def told(hub: Services, message: bytes) -> str:
    """Send *message* and return the MSA-1 that its sender is told."""
    answered = hub.messages.receive(message, PEER)
    assert answered is not None
    return parse(answered.decode()).get("MSA-1")


def task_of(hub: Services) -> dict[str, Any]:
    [task] = search(hub, "Task", code="referral")
    return task


def outcome(hub: Services, event: str) -> str:
    [entry] = hub.database.read(lambda tx: tx.journal.search({"message_type": f"RRI^{event}"}, limit=2))
    assert entry.state == "done"
    return entry.outcome


# --- RRI^I13: the change -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "words"), [("A", "已接受修改"), ("R", "未接受修改")])
def test_the_answer_to_a_change_is_noted_and_moves_nothing(hub: Services, code: str, words: str) -> None:
    receive(hub, REFERRAL, referral("KNR2", "I13"))
    before = task_of(hub)

    assert told(hub, answer("YLR1", "I13", code, reason="床位已定")) == "AA"

    assert at_work(hub, "referral") == "submitted"
    [note] = task_of(hub)["note"]
    assert words in note["text"]
    assert "床位已定" in note["text"]
    assert task_of(hub)["statusReason"] == before["statusReason"]


def test_a_change_that_is_pending_leaves_the_task_alone(hub: Services) -> None:
    receive(hub, REFERRAL, referral("KNR2", "I13"))
    before = task_of(hub)

    assert told(hub, answer("YLR1", "I13", "P")) == "AA"

    assert task_of(hub) == before
    assert "referral.change-received" in outcome(hub, "I13")


def test_the_answer_to_a_change_that_comes_after_the_end_is_kept_and_changes_nothing(hub: Services) -> None:
    receive(hub, REFERRAL, referral("KNR2", "I13"), referral("KNR3", "I14", at="20250612111500"))
    before = task_of(hub)

    assert told(hub, answer("YLR1", "I13", "A")) == "AA"

    assert task_of(hub) == before
    assert "Noted" in outcome(hub, "I13")


# --- RRI^I14: the cancellation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["A", "R", "P", "E"])
def test_every_answer_to_a_cancellation_that_stands_is_taken(hub: Services, code: str) -> None:
    receive(hub, REFERRAL, referral("KNR2", "I14"))
    before = task_of(hub)

    assert told(hub, answer("YLR1", "I14", code)) == "AA"

    assert at_work(hub, "referral") == "cancelled"
    assert task_of(hub) == before


@pytest.mark.parametrize(
    ("code", "state", "status"), [("A", "cancelled", "revoked"), ("R", "arrived", "active"), ("P", "arrived", "active")]
)
def test_a_cancellation_that_was_asked_for_after_arrival_is_agreed_to_or_declined_by_its_answer(
    hub: Services, code: str, state: str, status: str
) -> None:
    receive(hub, REFERRAL)
    move(hub, "referral", YL, "review", "accept", "arrive")
    receive(hub, referral("KNR2", "I14"))

    assert told(hub, answer("YLR1", "I14", code, reason="已住院")) == "AA"

    assert (at_work(hub, "referral"), request_status(hub)) == (state, status)
    [abort] = search(hub, "Task", code="abort")
    assert abort["status"] == {"A": "completed", "R": "rejected", "P": "requested"}[code]


def test_nobody_cancels_a_referral_by_agreeing_to_what_was_not_asked(hub: Services) -> None:
    receive(hub, REFERRAL)
    move(hub, "referral", YL, "review", "accept", "arrive")

    assert told(hub, answer("YLR1", "I14", "A")) == "AA"

    assert at_work(hub, "referral") == "arrived"
    assert "Noted" in outcome(hub, "I14")


# --- RRI^I15: where it stands --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "state"), [("A", "accepted"), ("R", "rejected"), ("P", "reviewing"), ("E", "submitted")]
)
def test_a_status_moves_a_referral_that_waits_for_its_answer(hub: Services, code: str, state: str) -> None:
    receive(hub, REFERRAL)

    assert told(hub, answer("YLR1", "I15", code)) == "AA"

    assert at_work(hub, "referral") == state


@pytest.mark.parametrize("code", ["A", "P", "R", "E"])
def test_a_status_never_takes_a_referral_back(hub: Services, code: str) -> None:
    receive(hub, REFERRAL)
    move(hub, "referral", YL, "review", "accept", "arrive")
    before = task_of(hub)

    assert told(hub, answer("YLR1", "I15", code)) == "AA"

    assert task_of(hub) == before
    assert "Noted" in outcome(hub, "I15")


@pytest.mark.parametrize("event", ["I13", "I14", "I15"])
def test_an_answer_of_who_takes_no_part_moves_nothing(hub: Services, event: str) -> None:
    receive(hub, REFERRAL)
    before = task_of(hub)

    assert told(hub, answer("QM1", event, "A", facility="QMJY")) == "AA"

    assert task_of(hub) == before


# --- REF^I15: the question -----------------------------------------------------------------------------------------


def question(
    hub: Services, *, facility: str = "KNYY", number: str = NUMBER, filler: str = "", patient: str = "ZY20250612007"
) -> Message:
    """Return the answer to the question of *facility* where KN's referral stands."""
    application = "LIS" if facility == "QMJY" else "HIS"
    charset = "gb18030" if facility == "KNYY" else "utf-8"
    lines = [
        f"MSH|^~\\&|{application}|{facility}|YIXIE|HUB|20250612130000||REF^I15^REF_I12|ASK1|P|2.5.1|||||CHN|"
        + ("GB 18030-2000" if facility == "KNYY" else "UNICODE UTF-8"),
        f"RF1|P|||||{number}|||||{filler}",
        "PRD|RP|刘敏|||||0231^KN",
        f"PID|1||{patient}^^^^PatientNO||周建国||19591001|M",
        "",
    ]
    answered = hub.messages.receive("\r".join(lines).encode(charset), PEER)
    assert answered is not None
    return parse(answered.decode(charset))


def refused(message: Message) -> tuple[str, str, str]:
    """Return MSA-1, ERR-3 and MSH-9.1 of a refusal, which holds nothing of the referral."""
    assert [message.first(name) for name in ("RF1", "PRD", "PID")] == [None, None, None]
    return message.get("MSA-1"), message.get("ERR-3.1"), message.get("MSH-9.1")


@pytest.mark.parametrize(
    ("events", "code", "step"),
    [
        ((), "P", "submitted"),
        (("review", "accept"), "A", "accepted"),
        (("review", "accept", "arrive"), "A", "arrived"),
        (("reject",), "R", "rejected"),
    ],
)
def test_who_referred_hears_where_the_referral_stands(
    hub: Services, events: tuple[str, ...], code: str, step: str
) -> None:
    receive(hub, REFERRAL)
    if events:
        for event in events:
            [task] = search(hub, "Task", code="referral")
            reason = {"coding": [{"code": "no-bed"}], "text": "无床"} if event == "reject" else None
            hub.database.write(
                lambda tx, event=event, task=task, reason=reason: hub.tasks.transition(
                    tx, task["id"], event, YL, reason=reason
                )
            )

    message = question(hub)

    assert f"{message.get('MSH-9.1')}^{message.get('MSH-9.2')}^{message.get('MSH-9.3')}" == "RRI^I15^RRI_I12"
    assert (message.get("MSA-1"), message.get("MSA-2")) == ("AA", "ASK1")
    assert (message.get("RF1-1"), message.get("RF1-6")) == (code, NUMBER)
    assert step in message.get("NTE-3")
    assert (message.get("PID-3"), message.get("PID-5")) == ("ZY20250612007", "周建国")
    assert [one.get(1) for one in message.all("PRD")] == ["RP", "RT"]
    assert task_of(hub)["meta"]["versionId"] == str(1 + len(events))


def test_a_referral_that_was_taken_back_is_no_longer_in_force(hub: Services) -> None:
    receive(hub, REFERRAL, referral("KNR2", "I14"))

    message = question(hub)

    assert message.get("RF1-1") == "E"
    assert "cancelled" in message.get("NTE-3")


def test_who_received_the_referral_may_ask_under_its_own_number_of_the_patient(hub: Services) -> None:
    receive(hub, REFERRAL)

    message = question(hub, facility="YLYY", patient="600555")

    assert (message.get("MSA-1"), message.get("RF1-1")) == ("AA", "P")


def test_for_everybody_else_there_is_no_such_referral(hub: Services) -> None:
    receive(hub, REFERRAL)

    foreign = question(hub, facility="QMJY")
    absent = question(hub, facility="QMJY", number="NONE")

    assert refused(foreign) == refused(absent) == ("AE", "204", "ACK")
    assert foreign.get("ERR-8") == absent.get("ERR-8")


def test_who_names_another_patient_is_told_nothing(hub: Services) -> None:
    receive(hub, REFERRAL)

    assert refused(question(hub, patient="0000020002")) == ("AE", "204", "ACK")


@pytest.mark.parametrize(("number", "patient"), [("", "ZY20250612007"), (NUMBER, "")])
def test_a_question_without_a_number_or_a_patient_is_told_what_it_lacks(
    hub: Services, number: str, patient: str
) -> None:
    receive(hub, REFERRAL)

    assert refused(question(hub, number=number, patient=patient)) == ("AE", "101", "ACK")


def test_each_answer_is_audited_with_whose_data_went_out_and_is_not_kept(hub: Services) -> None:
    receive(hub, REFERRAL)
    question(hub)

    [patient] = search(hub, "Patient")
    [entry] = hub.database.read(lambda tx: tx.journal.search({"message_type": "REF^I15"}, limit=5))
    assert (entry.state, entry.ack) == ("done", None)
    events = hub.database.read(lambda tx: tx.audit.search({}, institution=None, limit=50, before=None))
    [line] = [one for one in events if any(code["code"] == "REF^I15" for code in one.get("subtype", ()))]
    assert f"Patient/{patient['id']}" in str(line["entity"])


def test_a_question_makes_no_delivery(hub: Services) -> None:
    receive(hub, REFERRAL)
    before = len(deliveries(hub))
    question(hub)
    assert len(deliveries(hub)) == before
