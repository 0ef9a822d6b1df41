"""The v2 intake: who may send, what is answered, what a repeat does, and feeds that are answered first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.text import decode
from hub.acknowledge import UNANSWERED
from hub.actor import HUB, Actor
from hub.errors import Category, HubError
from hub.ports import Database, Tx
from storage.objects.memory import MemoryStore
from tests.support.v2 import V2Hub, adt, msh, oru, pid

T = TypeVar("T")


@pytest.fixture
def hub(sqlite_database: Database) -> V2Hub:
    return V2Hub(sqlite_database)


def deliveries(hub: V2Hub) -> list[Any]:
    return list(hub.database.read(lambda tx: tx.outbox.deliveries({}, limit=100)))


def audits(hub: V2Hub, **criteria: str) -> list[Any]:
    return list(hub.database.read(lambda tx: tx.audit.search(criteria, institution=None, limit=100, before=None)))


# --- answers -----------------------------------------------------------------------------------------------------


def test_an_acceptance_swaps_the_parties_and_names_the_message(hub: V2Hub) -> None:
    answer = hub.send(adt("A01", "K1"))
    assert answer is not None
    assert [answer.get(f"MSH-{n}") for n in (3, 4, 5, 6)] == ["YIXIE", "HUB", "HIS", "KNYY"]
    assert (answer.get("MSA-1"), answer.get("MSA-2")) == ("AA", "K1")
    assert answer.get("MSH-10") not in {"", "K1"}


def test_the_answer_is_in_the_senders_character_set(hub: V2Hub) -> None:
    text = adt("A01", "1").replace("|HIS|", "|HIS^康宁|")
    raw = hub.raw(text.encode("gb18030"))
    assert raw is not None
    assert "康宁".encode("gb18030") in raw
    raw = hub.raw(text.replace("|1|P", "|2|P").encode())
    assert raw is not None
    assert "康宁".encode() in raw


def test_a_name_whose_bytes_hold_a_delimiter_is_read_whole(hub: V2Hub) -> None:
    assert hub.code(adt("A01", "1", name="陳東")) == "AA"
    assert b"|" in "東".encode("gb18030")
    assert hub.one("Patient")["name"][0]["text"] == "陳東"


@pytest.mark.parametrize(
    ("text", "code", "error"),
    [
        (adt("A99", "1"), "AR", "201"),
        (msh("XYZ^Q01", "1") + "\r", "AR", "200"),
        (adt("A01", "1").replace("|P|2.4", "|P|9.9"), "AR", "203"),
        ("\r".join([msh("ADT^A01", "1"), "EVN|A01|20250611"]) + "\r", "AE", "100"),
        ("\r".join([msh("ADT^A01", "1"), "EVN|A01|20250611", "PID|1|||", "PV1|1|I"]) + "\r", "AE", "101"),
        (adt("A01", ""), "AE", "101"),
        (adt("A01", "1") + "no segment\r", "AE", "100"),
        # Two messages in one frame, and two people in a message about one.
        (adt("A01", "1") + adt("A01", "2", number="20001", name="李秀英"), "AE", "100"),
        (adt("A01", "1", pid("20001", name="李秀英")), "AE", "100"),
        (
            "\r".join(
                [
                    msh("ORM^O01", "1"),
                    pid(),
                    "ORC|NW|P1",
                    "OBR|1|P1||CT^胸部CT^L",
                    pid("20001"),
                    "ORC|NW|P2",
                    "OBR|1|P2||CT^胸部CT^L",
                    "",
                ]
            ),
            "AE",
            "100",
        ),
        (
            "\r".join([msh("MDM^T02", "1"), pid(), pid("20001"), "TXA|1|DS|TX||||||||D1|||||||AU", "OBX|1|TX|||x", ""]),
            "AE",
            "100",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_code_and_kept(hub: V2Hub, text: str, code: str, error: str) -> None:
    answer = hub.send(text)
    assert answer is not None
    assert answer.get("MSA-1") == code
    assert error in answer.raw.split("ERR|")[1]
    assert hub.all("Patient") == []
    entry = hub.journal()[0]
    assert (entry.state, entry.institution, entry.body) == ("refused", "KN", text.encode("gb18030"))
    assert entry.ack is not None
    assert "郑伟" not in entry.outcome


@pytest.mark.parametrize("raw", [b"", b"hello", b"MSH", b"MSH|||||", b"\xff\xfe\x00", b"PID|1\r", b"\x00" * 1000])
def test_bytes_without_a_readable_header_get_a_made_up_refusal(hub: V2Hub, raw: bytes) -> None:
    answer = hub.raw(raw)
    assert answer is not None
    assert parse(answer.decode()).get("MSA-1") == "AR"
    assert hub.journal()[0].state == "refused"


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        (adt("A01", "1", facility="NOBODY"), "127.0.0.1:1"),
        (adt("A01", "1"), "192.0.2.7:1"),
        (adt("A01", "1").replace("|HIS|", "|LIS|"), "127.0.0.1:1"),
    ],
)
def test_a_stranger_and_a_member_from_a_strange_address_are_refused_and_noted(hub: V2Hub, text: str, peer: str) -> None:
    assert hub.code(text, peer=peer) == "AR"
    assert hub.all("Patient") == []
    entry = hub.journal()[0]
    assert (entry.institution, entry.state, entry.peer) == (HUB.institution, "refused", peer)
    assert audits(hub)[0]["outcome"] != "0"


def test_a_door_that_proved_another_member_makes_the_message_a_strangers(hub: V2Hub) -> None:
    raw = adt("A01", "1").encode("gb18030")
    answer = hub.messages.receive(raw, "127.0.0.1:1", door="hl7-http", institution_hint="QH")
    assert answer is not None
    assert b"MSA|AR" in answer
    answer = hub.messages.receive(raw, "127.0.0.1:1", door="hl7-http", institution_hint="KN")
    assert answer is not None
    assert b"MSA|AA" in answer


def test_an_acknowledgement_is_kept_and_never_answered(hub: V2Hub) -> None:
    assert hub.send(msh("ACK^A01", "77") + "\rMSA|AA|1\r") is None
    assert hub.journal()[0].outcome == "acknowledgement"


def test_a_message_that_did_not_arrive_whole_is_refused_by_its_header(hub: V2Hub) -> None:
    answer = hub.messages.refuse(adt("A01", "5").encode("gb18030")[:80], "127.0.0.1:1", "frame larger than the cap")
    assert answer is not None
    assert (parse(answer.decode()).get("MSA-1"), parse(answer.decode()).get("MSA-2")) == ("AR", "5")
    assert hub.messages.refuse(b"hello", "127.0.0.1:1", "second start") is None


def test_a_taken_message_leaves_an_audit_line_with_its_patient(hub: V2Hub) -> None:
    hub.code(adt("A01", "1"))
    patient = hub.one("Patient")["id"]
    assert len(audits(hub, patient=patient)) == 1


def test_a_large_message_is_kept_as_an_object(hub: V2Hub) -> None:
    text = adt("A01", "1", "NTE|1||" + "说明" * 30_000)
    assert hub.code(text) == "AA"
    entry = hub.journal()[0]
    assert entry.body is None
    assert hub.objects.read(entry.digest) == text.encode("gb18030")


def test_times_are_in_the_zone_agreed_with_the_sender_and_keep_their_precision(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, **{"time-zone": "America/Sao_Paulo"})
    # Told apart by OBX-4, so that each is a result of its own.
    moments = {
        "2025": "2025",
        "202506": "2025-06",
        "20250611": "2025-06-11",
        "2025061107": "2025-06-11T07:00:00-03:00",
        "20250611071530.25": "2025-06-11T07:15:30.25-03:00",
        "20250611071530+0800": "2025-06-11T07:15:30+08:00",
    }
    results = [f"OBX|{n}|NM|K^钾|{n}|4.1|mmol/L|||||F|||{written}" for n, written in enumerate(moments, 1)]
    answer = hub.send(oru("1", "F", "", at="20250611090000", obx="\r".join(results)))
    assert answer is not None
    # The answer's own time is the sender's too: the hub's clock stands at midnight UTC.
    assert answer.get("MSH-7").startswith("2025061021")
    assert {one["effectiveDateTime"] for one in hub.all("Observation")} == set(moments.values())


@pytest.mark.parametrize(
    ("settings", "read"),
    # Where OBX-14 cannot be read, the result has the time of its OBR.
    [({"dates": "separated"}, "2025-06-10T08:30:00+08:00"), ({}, "2025-06-11T07:00:00+08:00")],
    ids=["agreed", "not agreed"],
)
def test_times_with_dashes_are_read_where_it_is_agreed_with_the_sender(
    sqlite_database: Database, settings: dict[str, str], read: str
) -> None:
    hub = V2Hub(sqlite_database, **settings)
    result = "OBX|1|NM|K^钾||4.1|mmol/L|||||F|||2025-06-10 08:30:00"
    assert hub.code(oru("1", "F", "", at="20250611090000", obx=result)) == "AA"
    assert hub.one("Observation")["effectiveDateTime"] == read
    # Whoever is not read hears of the place and of what to do.
    assert ("dates=separated" in hub.journal()[0].outcome) == (not settings)


def test_the_character_set_agreed_with_the_sender_wins(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, **{"charset-in": "BIG5"})
    text = adt("A01", "1", name="陳東")
    # By the evidence of its bytes this is GB18030.
    assert decode(text.encode("big5")).codec == "gb18030"
    assert hub.code(text, charset="big5") == "AA"
    assert hub.one("Patient")["name"][0]["text"] == "陳東"


# --- repeats -----------------------------------------------------------------------------------------------------


def test_a_repeat_gets_the_stored_answer_byte_for_byte_and_changes_nothing(hub: V2Hub) -> None:
    raw = adt("A01", "1").encode("gb18030")
    first = hub.raw(raw)
    assert hub.raw(raw) == first
    assert len(hub.journal()) == 1
    assert hub.one("Patient")["meta"]["versionId"] == "1"


def test_a_repeated_refusal_is_the_stored_one_too(hub: V2Hub) -> None:
    raw = adt("A99", "1").encode("gb18030")
    assert hub.raw(raw) == hub.raw(raw)
    assert len(hub.journal()) == 1


def test_other_bytes_under_a_known_control_id_are_a_new_message_and_flagged(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", phone="12000000001"))
    assert hub.code(adt("A08", "1", at="20250611090000", phone="12000000002")) == "AA"
    assert [entry.flags for entry in hub.journal()] == ["", "control-id-reuse"]
    assert hub.one("Patient")["telecom"][0]["value"] == "12000000002"


def test_two_senders_may_use_the_same_control_id(hub: V2Hub) -> None:
    hub.code(adt("A01", "1"))
    hub.code(adt("A01", "1", facility="QHYY"))
    assert [entry.flags for entry in hub.journal()] == ["", ""]
    assert len(hub.all("Patient")) == 2


def test_one_message_sent_by_many_at_once_is_taken_once(hub: V2Hub) -> None:
    raw = adt("A01", "1").encode("gb18030")
    answers: list[bytes | None] = []
    threads = [threading.Thread(target=lambda: answers.append(hub.raw(raw))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1
    assert len(hub.journal()) == 1


# --- enhanced mode -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "application", "immediate"),
    [("AL", "NE", "CA"), ("SU", "NE", "CA"), ("ER", "NE", ""), ("NE", "NE", ""), ("NE", "AL", "AA"), ("", "AL", "AA")],
)
def test_enhanced_mode_answers_as_it_is_asked(hub: V2Hub, accept: str, application: str, immediate: str) -> None:
    assert hub.code(adt("A01", "1", f15=accept, f16=application)) == immediate
    assert hub.journal()[0].state == "done"
    assert deliveries(hub) == []


def test_enhanced_mode_refuses_an_unsupported_event_with_cr(hub: V2Hub) -> None:
    assert hub.code(adt("A99", "1", f15="AL", f16="AL")) == "CR"


@pytest.mark.parametrize(
    ("accept", "application", "told"),
    [("NE", "AL", "AR"), ("", "ER", "AR"), ("SU", "AL", "AR"), ("NE", "NE", ""), ("NE", "SU", "")],
)
def test_a_sender_without_an_accept_acknowledgement_still_learns_of_the_refusal_it_asked_for(
    sqlite_database: Database, accept: str, application: str, told: str
) -> None:
    hub = V2Hub(sqlite_database, address="192.0.2.9:2575")
    assert hub.code(adt("A99", "1", f15=accept, f16=application)) == told
    assert hub.journal()[0].state == "refused"
    assert deliveries(hub) == []


def test_the_application_acknowledgement_follows_as_a_delivery_and_again_on_a_repeat(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, address="192.0.2.9:2575")
    raw = adt("A01", "1", f15="AL", f16="AL").encode("gb18030")
    first = hub.raw(raw)
    assert first is not None
    assert b"MSA|CA|1" in first
    (sent,) = deliveries(hub)
    assert (sent.destination, sent.kind, UNANSWERED in sent.headers) == ("KN/mllp", "mllp", True)
    assert b"MSA|AA|1" in sent.payload
    assert hub.raw(raw) == first
    assert [one.payload for one in deliveries(hub)] == [sent.payload] * 2


def test_what_was_accepted_but_is_wrong_is_told_by_the_application_acknowledgement(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, address="192.0.2.9:2575")
    text = "\r".join([msh("ADT^A01", "1", f15="AL", f16="AL"), "EVN|A01|20250611", ""])
    assert hub.code(text) == "CA"
    assert b"MSA|AE|1" in deliveries(hub)[0].payload


# --- trouble -------------------------------------------------------------------------------------------------------


class Broken:
    """A database whose writes fail."""

    def __init__(self, inner: Database, error: Exception) -> None:
        self._inner = inner
        self._error = error

    def write(self, work: Callable[[Tx], T]) -> T:
        raise self._error

    def read(self, work: Callable[[Tx], T]) -> T:
        return self._inner.read(work)

    def healthy(self) -> None: ...
    def close(self) -> None: ...


def test_a_database_that_does_not_answer_means_no_acknowledgement(hub: V2Hub) -> None:
    error = HubError(Category.UNAVAILABLE, "The database does not answer.")
    hub.services.__dict__["database"] = Broken(hub.database, error)
    for text in (adt("A01", "1"), adt("A99", "2"), "no header"):
        with pytest.raises(HubError) as caught:
            hub.send(text)
        assert caught.value.transient


def test_an_object_store_that_is_down_means_no_acknowledgement_of_a_large_message(sqlite_database: Database) -> None:
    class Down(MemoryStore):
        def put_bytes(self, data: bytes) -> Any:
            raise HubError(Category.UNAVAILABLE, "The object store does not answer.")

    hub = V2Hub(sqlite_database, objects=Down())
    with pytest.raises(HubError):
        hub.send(adt("A01", "1", "NTE|1||" + "x" * 70_000))
    assert hub.journal() == []
    assert hub.code(adt("A01", "2")) == "AA"


def test_a_fault_of_the_hub_answers_ae_207_keeps_nothing_half_and_is_tried_again(hub: V2Hub) -> None:
    hub.tasks.trouble = KeyError("secret name")
    text = oru("1", "F", "6.90", at="20250611090000")
    answer = hub.send(text)
    assert answer is not None
    assert answer.get("MSA-1") == "AE"
    assert "207" in answer.raw
    assert "secret" not in answer.raw
    assert hub.all("Observation") == []
    assert hub.journal()[0].state == "failed"
    hub.tasks.trouble = None
    assert hub.code(text) == "AA"
    assert len(hub.all("Observation")) == 1


def test_a_workflow_that_refuses_the_step_refuses_the_message(hub: V2Hub) -> None:
    hub.tasks.trouble = HubError(Category.CONFLICT, "The Task is closed.", where="Task")
    answer = hub.send(oru("1", "F", "6.90", at="20250611090000"))
    assert answer is not None
    assert answer.get("MSA-1") == "AE"
    assert hub.all("Observation") == []


def test_a_result_raises_its_workflow_event(hub: V2Hub) -> None:
    hub.code(oru("1", "F", "6.90", at="20250611090000"))
    assert ("KN", "report.final") in hub.tasks.seen


# --- processing id (chapter 2.9.2.2, table 0103) --------------------------------------------------------------------


@pytest.mark.parametrize("ack", ["processed", "stored"])
@pytest.mark.parametrize(
    ("allowed", "given", "taken"),
    [
        ({}, "P", True),
        ({}, "p", True),
        ({}, "P^T", True),
        ({}, "", True),
        ({}, "T", False),
        ({}, "D", False),
        ({}, "X", False),
        ({"processing-ids": ""}, "T", False),
        ({"processing-ids": "P T"}, "T", True),
        ({"processing-ids": "P T"}, "", True),
        ({"processing-ids": "P T"}, "D", False),
        ({"processing-ids": "T"}, "P", False),
        ({"processing-ids": "T"}, "", False),
    ],
)
def test_a_message_for_training_or_debugging_reaches_no_record_of_a_feed_that_does_not_allow_it(
    sqlite_database: Database, ack: str, allowed: dict[str, str], given: str, taken: bool
) -> None:
    hub = V2Hub(sqlite_database, ack=ack, **allowed)
    answer = hub.send(adt("A01", "1", f11=given))
    hub.messages.process_pending(10)

    assert answer is not None
    assert answer.get("MSA-1") == ("AA" if taken else "AR")
    assert ("202&Unsupported processing id" in answer.raw) == (not taken)
    assert hub.journal()[0].state == ("done" if taken else "refused")
    assert len(hub.all("Patient")) == taken


def test_a_refused_training_message_is_not_taken_by_a_replay_until_its_feed_allows_it(hub: V2Hub) -> None:
    hub.code(adt("A01", "1", f11="T"))
    with pytest.raises(HubError) as caught:
        hub.messages.replay(1, HUB)
    assert caught.value.code == 202
    assert hub.all("Patient") == []
    hub.configure(**{"processing-ids": "P T"})
    hub.messages.replay(1, HUB)
    assert len(hub.all("Patient")) == 1


def test_a_sender_in_enhanced_mode_is_told_cr_of_a_training_message(early: V2Hub) -> None:
    assert early.code(adt("A01", "1", f11="T", f15="AL", f16="AL")) == "CR"


# --- feeds that are answered first -----------------------------------------------------------------------------------


@pytest.fixture
def early(sqlite_database: Database) -> V2Hub:
    return V2Hub(sqlite_database, ack="stored")


def test_a_stored_feed_is_answered_before_anything_is_translated(early: V2Hub) -> None:
    assert early.code(adt("A01", "1")) == "AA"
    assert early.all("Patient") == []
    assert early.journal()[0].state == "received"
    assert early.messages.process_pending(10) == 1
    assert early.one("Patient")["name"][0]["text"] == "郑伟"
    assert early.journal()[0].state == "done"
    assert early.messages.process_pending(10) == 0


def test_a_stored_feed_still_refuses_what_the_hub_does_not_do(early: V2Hub) -> None:
    assert early.code(adt("A99", "1")) == "AR"
    assert early.journal()[0].state == "refused"


def test_a_repeat_to_a_stored_feed_gets_the_stored_answer(early: V2Hub) -> None:
    raw = adt("A01", "1").encode("gb18030")
    assert early.raw(raw) == early.raw(raw)
    assert len(early.journal()) == 1


def test_messages_of_one_patient_are_processed_in_the_order_they_came(early: V2Hub) -> None:
    for number in range(1, 6):
        # One and the same moment: only the order of arrival tells which is the last.
        early.code(adt("A08", str(number), phone=f"1200000000{number}"))
    assert early.messages.process_pending(10) == 5
    assert early.one("Patient")["telecom"][0]["value"] == "12000000005"


def test_a_wrong_message_in_a_stored_feed_is_refused_and_the_next_one_taken(early: V2Hub) -> None:
    text = "\r".join([msh("ADT^A01", "1"), "EVN|A01|20250611", pid(), ""])
    assert early.code(text) == "AA"
    early.code(adt("A08", "2"))
    assert early.messages.process_pending(10) == 2
    assert [entry.state for entry in early.journal()] == ["refused", "done"]


def test_the_application_acknowledgement_of_a_stored_feed_follows_the_processing(sqlite_database: Database) -> None:
    early = V2Hub(sqlite_database, ack="stored", address="192.0.2.9:2575")
    assert early.code(adt("A01", "1", f15="AL", f16="AL")) == "CA"
    assert deliveries(early) == []
    early.messages.process_pending(10)
    assert [b"MSA|AA|1" in one.payload for one in deliveries(early)] == [True]


def result(accept: str, application: str, control_id: str = "1") -> str:
    """Return a result whose sender asks for these acknowledgements."""
    segments = oru(control_id, "F", "6.90", at="20250611090000").split("\r")[1:]
    return "\r".join([msh("ORU^R01", control_id, f15=accept, f16=application), *segments])


def wrong(accept: str, application: str, control_id: str = "1") -> str:
    """Return an admission without PV1."""
    return "\r".join(
        [msh("ADT^A01", control_id, f15=accept, f16=application), "EVN|A01|20250611", pid(), ""],
    )


def diet(accept: str, application: str) -> str:
    """Return an order of a kind that has no mapping, which only its segments tell."""
    return "\r".join(
        [msh("ORM^O01", "1", f15=accept, f16=application), pid(), "ORC|NW|PL9", "ODS|D||^流食", ""],
    )


CLOSED = HubError(Category.CONFLICT, "The Task is closed.", where="Task")
#: A message, what the workflow says of it, and MSA-1 of its application acknowledgement.
_FATES: dict[str, tuple[Callable[[str, str], str], HubError | None, str]] = {
    "taken": (result, None, "AA"),
    "wrong in a segment": (wrong, None, "AE"),
    "refused by the workflow": (result, CLOSED, "AE"),
    "of a kind without mapping": (diet, None, "AR"),
}


@pytest.mark.parametrize("ack", ["stored", "processed"])
@pytest.mark.parametrize("accept", ["AL", "SU", "ER", "NE"])
@pytest.mark.parametrize("application", ["AL", "SU", "ER", "NE"])
@pytest.mark.parametrize("fate", _FATES)
def test_a_sender_learns_what_it_asked_for_once_whichever_way_its_feed_is_answered(
    sqlite_database: Database, ack: str, accept: str, application: str, fate: str
) -> None:
    hub = V2Hub(sqlite_database, ack=ack, address="192.0.2.9:2575")
    message, hub.tasks.trouble, code = _FATES[fate]
    at_once = hub.code(message(accept, application))
    hub.messages.process_pending(10)

    told = [
        one for one in [at_once, *[parse(decode(sent.payload).text).get("MSA-1") for sent in deliveries(hub)]] if one
    ]
    assert hub.journal()[0].state == ("done" if code == "AA" else "refused")
    success = code == "AA"
    wanted = {"AL": True, "SU": success, "ER": not success, "NE": False}
    # A stored feed is accepted before anybody knows what becomes of the message; the other one says CR to a kind that
    # the hub does not do, after which nothing is left to say.
    accepted = "CR" if ack == "processed" and code == "AR" else "CA"
    expected = [accepted] if {"AL": True, "SU": accepted == "CA", "ER": accepted == "CR", "NE": False}[accept] else []
    if wanted[application] and "CR" not in expected:
        expected.append(code)
    assert told == expected


def test_a_refusal_is_told_once_however_often_the_message_is_replayed(sqlite_database: Database) -> None:
    operator = Actor(institution="YY", roles=frozenset({"operator"}))
    for ack in ("stored", "processed"):
        hub = V2Hub(sqlite_database, ack=ack, address="192.0.2.9:2575")
        hub.code(wrong("AL", "AL", ack))
        hub.messages.process_pending(10)
        before = deliveries(hub)
        with pytest.raises(HubError):
            hub.messages.replay(hub.journal()[-1].seq, operator)
        assert len(deliveries(hub)) == len(before)


def test_a_parked_message_that_is_replayed_gets_the_acknowledgement_it_still_waits_for(
    sqlite_database: Database,
) -> None:
    operator = Actor(institution="YY", roles=frozenset({"operator"}))
    hub = V2Hub(sqlite_database, ack="stored", address="192.0.2.9:2575")
    hub.code(result("AL", "AL"))
    hub.tasks.trouble = KeyError("x")
    hub.messages.process_pending(10)
    assert (hub.journal()[0].state, deliveries(hub)) == ("failed", [])
    hub.tasks.trouble = None
    for _ in range(2):
        hub.messages.replay(1, operator)
    assert [b"MSA|AA|1" in one.payload for one in deliveries(hub)] == [True]


def test_what_a_replayed_message_is_refused_for_is_told_if_nothing_was_told_yet(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, ack="stored", address="192.0.2.9:2575")
    hub.code(result("AL", "ER"))
    hub.tasks.trouble = KeyError("x")
    hub.messages.process_pending(10)
    hub.tasks.trouble = CLOSED
    for _ in range(2):
        with pytest.raises(HubError):
            hub.messages.replay(1, HUB)
    assert [b"MSA|AE|1" in one.payload for one in deliveries(hub)] == [True]


def test_a_refusal_without_an_address_to_tell_it_to_is_queued_for_a_person_and_stops_nothing(early: V2Hub) -> None:
    assert early.code(wrong("AL", "AL")) == "CA"
    assert early.code(adt("A01", "2", f15="AL", f16="AL")) == "CA"
    assert early.messages.process_pending(10) == 2
    assert [entry.state for entry in early.journal()] == ["refused", "done"]
    # That the other was taken is what its sender believes anyway.
    (lost,) = deliveries(early)
    assert b"MSA|AE|1" in lost.payload
    assert (lost.destination, lost.lane) == ("KN/mllp", "KN/mllp|acknowledgements")


def test_a_message_the_hub_fails_at_parks_its_own_patient_until_it_is_replayed(early: V2Hub) -> None:
    operator = Actor(institution="YY", roles=frozenset({"operator"}))
    early.code(oru("1", "F", "6.90", at="20250611090000"))
    early.code(adt("A08", "2", phone="12000000002"))
    early.code(adt("A01", "3", number="20001", name="李秀英", visit="V2"))
    early.tasks.trouble = KeyError("x")
    early.messages.process_pending(10)
    assert [entry.state for entry in early.journal()] == ["failed", "failed", "done"]
    early.code(adt("A08", "4", phone="12000000004", at="20250611100000"))
    early.messages.process_pending(10)
    assert early.journal()[3].state == "failed"
    with pytest.raises(HubError):
        early.messages.replay(1, operator)
    early.tasks.trouble = None
    early.messages.replay(1, operator)
    assert [entry.state for entry in early.journal()] == ["done", "received", "done", "received"]
    assert early.messages.process_pending(10) == 2
    assert [entry.state for entry in early.journal()] == ["done"] * 4
    assert len(early.all("Observation")) == 1


def test_a_database_that_is_down_leaves_stored_messages_waiting(early: V2Hub) -> None:
    early.code(adt("A01", "1"))
    healthy = early.database
    error = HubError(Category.UNAVAILABLE, "The database does not answer.")
    early.services.__dict__["database"] = Broken(healthy, error)
    assert early.messages.process_pending(10) == 0
    early.services.__dict__["database"] = healthy
    assert early.journal()[0].state == "received"
    assert early.messages.process_pending(10) == 1


def test_a_replay_of_a_message_that_stands_changes_nothing(hub: V2Hub) -> None:
    hub.code(adt("A01", "1"))
    hub.messages.replay(1, Actor(institution="YY", roles=frozenset({"operator"})))
    assert hub.one("Patient")["meta"]["versionId"] == "1"
    assert hub.journal()[0].state == "done"
    with pytest.raises(HubError) as caught:
        hub.messages.replay(99, HUB)
    assert caught.value.category is Category.NOT_FOUND
