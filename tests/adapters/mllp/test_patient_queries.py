"""PDQ and PIX over a socket: GBK names and pinyin, own patients alone, one answer, nothing unheard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from adapters.mllp.frames import encode_frame
from fhir_mappings.hl7v2.tokenizer import Message, parse
from hub.actor import HUB
from hub.arrival import Arrival, read_arrival
from hub.config import Settings
from hub.errors import Category, HubError
from hub.patient_queries import MAX_PER_MINUTE, SETTING
from hub.ports import Database
from hub.ports.grants import Grant
from tests.adapters.mllp.test_door import served
from tests.support.mllp import PATIENCE_S, Peer
from tests.support.v2 import V2Hub, a40, msh

_NAMES = {"Q21": "Q21^Get Person Demographics^HL7nnnn", "Q22": "IHE PDQ Query", "Q23": "IHE PIX Query"}


@pytest.fixture
def hub(sqlite_database: Database) -> V2Hub:
    return V2Hub(sqlite_database, settings=Settings(frame_deadline_s=PATIENCE_S), **{SETTING: True})


@pytest.fixture
def kn(hub: V2Hub) -> Iterator[Peer]:
    with served(hub) as address, Peer(address) as peer:
        yield peer


def ask(peer: Peer, event: str, parameters: str, *, rest: str = "", more: str = "", **header: str) -> Message:
    """Send a query in GBK and return its only answer."""
    lines = [msh(f"QBP^{event}^QBP_Q21", "Q1", **header), f"QPD|{_NAMES[event]}|T1|{parameters}{rest}", "RCP|I|10^RD"]
    if more:
        lines[-1:] = more.split("\r")
    peer.send(encode_frame("\r".join([*lines, ""]).encode("gb18030")))
    answer = peer.answer()
    assert answer is not None
    return parse(answer.decode("gb18030"))


def status(answer: Message) -> tuple[str, str, str]:
    return answer.get("MSA-1"), answer.get("QAK-2"), answer.get("QAK-4")


def names(answer: Message) -> list[str]:
    return [segment.get(5) for segment in answer.all("PID")]


def numbers(answer: Message) -> set[tuple[str, str, str]]:
    """(number, domain, OID) of every CX in the answer."""
    return {
        (one.component(1), one.component(4), one.component(4, 2))
        for segment in answer.all("PID")
        for one in segment.field(3).repetitions
    }


def admit(
    hub: V2Hub, number: str, name: str, *, facility: str = "KNYY", born: str = "19760229", resident: str = ""
) -> None:
    cx = f"{number}^^^^{'IDCard' if facility == 'KNYY' else 'PI'}"
    cx += f"~{resident}^^^^{'IdentifyNO' if facility == 'KNYY' else 'NI'}" if resident else ""
    header = msh("ADT^A04", f"{facility}{number}", facility=facility)
    text = "\r".join([header, "EVN|A04|20250611080000", f"PID|1||{cx}||{name}||{born}|M|||||12000000001", ""])
    assert hub.code(text) == "AA"


@pytest.mark.parametrize(
    "demand",
    [
        "@PID.5.1^郑伟",
        "@PID.5.1^郑~@PID.5.2^伟",
        "@PID.5.1.1^郑*",
        "@PID.5.1^*伟",
        "@PID.5.1^zhengwei",
        "@PID.5.1^ZHENG~@PID.5.2^WEI",
        "@PID.5.1^zhe*ei",
        "@PID.3.1^10086",
        "@PID.3.1^0000010086",
        "@PID.3.1^10086~@PID.3.4.1^KN",
        "@PID.3.1^990001197602290170~@PID.3.4.2^2.16.156.10011.1.3~@PID.3.4.3^ISO",
        "@PID.7^19760229~@PID.8^M",
        "@PID.13^12000000001~@PID.5.1^郑*",
        "@PID.19^990001197602290170",
    ],
)
def test_a_patient_is_found_by_name_pinyin_number_and_birth_date(hub: V2Hub, kn: Peer, demand: str) -> None:
    admit(hub, "10086", "郑伟", resident="990001197602290170")
    admit(hub, "10087", "陳東", born="19850607")
    answer = ask(kn, "Q22", demand)
    assert (answer.get("MSH-9.1"), answer.get("MSH-9.2"), answer.get("MSH-9.3")) == ("RSP", "K22", "RSP_K21")
    assert status(answer) == ("AA", "OK", "1"), answer.raw
    assert names(answer) == ["郑伟"]
    assert numbers(answer) == {("10086", "KN", ""), ("990001197602290170", "", "2.16.156.10011.1.3")}
    assert (answer.get("MSA-2"), answer.get("QAK-1"), answer.get("QPD-2")) == ("Q1", "T1", "T1")
    assert answer.first("QPD").line == parse_question(demand)  # type: ignore[union-attr]


def parse_question(demand: str) -> str:
    return f"QPD|{_NAMES['Q22']}|T1|{demand}"


@pytest.mark.parametrize(
    "demand", ["@PID.5.1^郑", "@PID.5.1^郑伟伟", "@PID.5.1^zh", "@PID.3.1^10099", "@PID.5.1^郑伟~@PID.8^F"]
)
def test_without_a_wildcard_the_whole_name_counts_and_every_demand_does(hub: V2Hub, kn: Peer, demand: str) -> None:
    admit(hub, "10086", "郑伟")
    answer = ask(kn, "Q22", demand)
    assert status(answer) == ("AA", "NF", "0")
    assert names(answer) == []


def test_a_number_is_asked_by_alone_in_q21(hub: V2Hub, kn: Peer) -> None:
    admit(hub, "10086", "郑伟")
    answer = ask(kn, "Q21", "10086^^^KNYY")
    assert (answer.get("MSH-9.2"), *status(answer), names(answer)) == ("K21", "AA", "OK", "1", ["郑伟"])


def test_another_institutions_patient_of_that_name_and_number_is_not_there(hub: V2Hub, kn: Peer) -> None:
    admit(hub, "10086", "周建国", facility="YLYY", resident="990001195910015710")
    for demand in ("@PID.5.1^周建国", "@PID.3.1^10086", "@PID.3.1^10086~@PID.3.4.1^YL", "@PID.19^990001195910015710"):
        assert status(ask(kn, "Q22", demand)) == ("AA", "NF", "0"), demand
    # Whether the number exists elsewhere is not told: the answer is that of a number nobody has.
    there, nowhere = ask(kn, "Q23", "10086^^^YL"), ask(kn, "Q23", "99999^^^YL")
    for answer in (there, nowhere):
        assert (*status(answer), answer.get("ERR-1.4")) == ("AE", "AE", "", "204")
        assert answer.all("PID") == []


def test_many_come_in_parts_and_each_once(hub: V2Hub, kn: Peer) -> None:
    for number in range(7):
        admit(hub, f"2000{number}", f"王小东{'东' * number}")
    seen: list[str] = []
    pointer = ""
    for part, left in ((3, "4"), (3, "1"), (1, "0")):
        more = "RCP|I|3^RD" + (f"\rDSC|{pointer}|I" if pointer else "")
        answer = ask(kn, "Q22", "@PID.5.1^王小东*", more=more)
        assert (answer.get("QAK-4"), answer.get("QAK-5"), answer.get("QAK-6")) == ("7", str(part), left)
        seen += [segment.get(3) for segment in answer.all("PID")]
        pointer = answer.get("DSC-1")
        assert bool(pointer) == (left != "0")
    assert sorted(seen) == [f"2000{number}" for number in range(7)]
    kn.send(encode_frame((msh("QCN^J01", "C1") + "\rQID|T1|Q22\r").encode()))
    cancelled = kn.answer()
    assert cancelled is not None
    assert parse(cancelled.decode()).get("MSA-1") == "AA"


def test_a_number_that_was_merged_away_answers_by_its_survivor(hub: V2Hub, kn: Peer) -> None:
    admit(hub, "10086", "郑伟")
    admit(hub, "777", "郑伟")
    assert hub.code(a40("M1", "777", "10086")) == "AA"
    answer = ask(kn, "Q22", "@PID.3.1^10086")
    assert (status(answer), numbers(answer)) == (("AA", "OK", "1"), {("777", "KN", "")})
    assert numbers(ask(kn, "Q23", "10086^^^KN")) == {("777", "KN", "")}
    assert status(ask(kn, "Q22", "@PID.5.1^郑伟")) == ("AA", "OK", "1")


def test_pix_gives_the_other_numbers_without_a_name(hub: V2Hub, kn: Peer) -> None:
    admit(hub, "10086", "郑伟", resident="990001197602290170")
    answer = ask(kn, "Q23", "10086^^^KN")
    assert (answer.get("MSH-9.2"), answer.get("MSH-9.3"), *status(answer)) == ("K23", "RSP_K23", "AA", "OK", "1")
    assert numbers(answer) == {("990001197602290170", "", "2.16.156.10011.1.3")}
    assert answer.first("PID").field(5).raw == "~^^^^^^S"  # type: ignore[union-attr]
    assert "郑" not in answer.raw
    back = ask(kn, "Q23", "990001197602290170^^^&2.16.156.10011.1.3&ISO", rest="|^^^KN")
    assert numbers(back) == {("10086", "KN", "")}
    assert status(ask(kn, "Q23", "10086^^^KN", rest="|^^^YL")) == ("AA", "NF", "0")


def link(hub: V2Hub) -> None:
    """Link the two patients with the resident number, as the operator does."""
    (task,) = hub.all("Task")
    hub.services.identity.settle(HUB, task["id"], "link")


def grant(hub: V2Hub, patient: str) -> None:
    granted = Grant(task_id="t1", grantee="KN", target_type="patient-record", target_id=patient)
    hub.database.write(lambda tx: tx.grants.open(granted, now=hub.clock.now))


def test_a_link_alone_gives_out_no_number_and_with_a_grant_it_does(hub: V2Hub, kn: Peer) -> None:
    admit(hub, "10086", "郑伟", resident="990001197602290170")
    admit(hub, "555", "郑伟", facility="YLYY", resident="990001197602290170")
    other = hub.one("Patient", lambda one: one["managingOrganization"]["identifier"]["value"] == "YL")
    link(hub)
    assert status(ask(kn, "Q23", "10086^^^KN", rest="|^^^YL")) == ("AA", "NF", "0")
    grant(hub, other["id"])
    answer = ask(kn, "Q23", "10086^^^KN", rest="|^^^YL")
    assert (status(answer), numbers(answer)) == (("AA", "OK", "1"), {("555", "YL", "")})
    assert numbers(ask(kn, "Q23", "555^^^YL", rest="|^^^KN")) == {("10086", "KN", "")}


@pytest.mark.parametrize(
    ("event", "demand", "more", "told"),
    [
        ("Q22", "", "", ("AE", "101")),
        ("Q22", "@PID.8^M", "", ("AE", "101")),
        ("Q22", "@PID.5.1^*", "", ("AE", "102")),
        ("Q22", "@PID.5.1^z*", "", ("AE", "102")),
        ("Q22", "@PID.7^1976-02", "", ("AE", "102")),
        ("Q22", "@PID.8^X~@PID.5.1^郑伟", "", ("AE", "103")),
        ("Q22", "@PID.18.1^A1", "", ("AE", "103")),
        ("Q22", "@PID.3.1^1~@PID.3.4.1^NOBODY", "", ("AE", "204")),
        ("Q22", "@PID.5.1^郑伟", "RCP|D", ("AE", "103")),
        ("Q22", "@PID.5.1^郑伟", "RCP|I|x^RD", ("AE", "102")),
        ("Q22", "@PID.5.1^郑伟", "RCP|I\rDSC|elsewhere|I", ("AE", "102")),
        ("Q23", "^^^KN", "", ("AE", "101")),
        ("Q23", "1^^^KN", "", ("AE", "204")),
    ],
)
def test_a_wrong_question_gets_a_response_that_says_so(
    hub: V2Hub, kn: Peer, event: str, demand: str, more: str, told: tuple[str, str]
) -> None:
    answer = ask(kn, event, demand, more=more)
    assert (answer.get("MSA-1"), answer.get("QAK-2"), answer.get("ERR-1.4")) == (told[0], told[0], told[1]), answer.raw
    assert (answer.get("MSH-9.1"), answer.get("QAK-1")) == ("RSP", "T1")
    assert answer.get("MSA-3")
    (entry,) = hub.journal()
    assert entry.state == "refused"


def test_what_the_hub_does_not_answer_is_refused_with_ar(hub: V2Hub, kn: Peer) -> None:
    answer = ask(kn, "Q22", "@PID.5.1^郑伟", f12="9.9")
    assert (answer.get("MSA-1"), answer.get("QAK-2")) == ("AR", "AR")
    text = msh("QBP^Z99", "1") + "\rQPD|x|T1|y\r"
    kn.send(encode_frame(text.encode()))
    other = kn.answer()
    assert other is not None
    assert parse(other.decode()).get("MSA-1") == "AR"


def test_a_feed_that_may_not_ask_learns_nothing(hub: V2Hub, kn: Peer) -> None:
    admit(hub, "10086", "郑伟")
    hub.configure()
    answer = ask(kn, "Q22", "@PID.5.1^郑伟")
    assert (*status(answer), answer.get("ERR-1.4")) == ("AR", "AR", "", "200")
    assert answer.all("PID") == []


def test_a_feed_answered_when_stored_gets_its_answer_all_the_same(hub: V2Hub, kn: Peer) -> None:
    admit(hub, "10086", "郑伟")
    hub.configure(ack="stored", **{SETTING: True})
    assert names(ask(kn, "Q22", "@PID.5.1^郑伟")) == ["郑伟"]


def test_who_was_read_is_audited_and_the_answer_is_not_kept(hub: V2Hub, kn: Peer) -> None:
    admit(hub, "10086", "郑伟")
    ask(kn, "Q22", "@PID.5.1^郑伟")
    ask(kn, "Q22", "@PID.5.1^郑伟")
    (patient,) = hub.all("Patient")
    found: list[Any] = list(hub.database.read(lambda tx: tx.audit.search({}, institution=None, limit=10, before=None)))
    read = [one for one in found if one["subtype"][0]["code"] == "QBP^Q22"]
    assert [one["action"] for one in read] == ["E", "E"]
    assert all(f"Patient/{patient['id']}" in str(one["entity"]) for one in read)
    assert "郑伟" not in str(read)
    entries = hub.journal(message_type="QBP^Q22")
    # The same question again is answered anew: what is true now counts, not what was said before.
    assert [(entry.state, entry.ack) for entry in entries] == [("done", None)] * 2


def test_more_questions_than_a_minute_holds_are_put_off(hub: V2Hub, kn: Peer) -> None:
    frozen = hub.clock.now
    hub.services.__dict__["clock"] = lambda: frozen
    # Only the first step of each: 600 whole answers would prove no more.
    for _ in range(MAX_PER_MINUTE):
        hub.messages._queries._check(_arrival(hub))
    answer = ask(kn, "Q22", "@PID.5.1^郑伟")
    assert (*status(answer), answer.get("ERR-1.4")) == ("AE", "AE", "", "207")


def _arrival(hub: V2Hub) -> Arrival:
    raw = f"{msh('QBP^Q22', '1')}\r".encode()
    return read_arrival(raw, hub.services.directory, peer="127.0.0.1:1", door="mllp", received_at=hub.services.clock())


def test_the_asker_is_the_sender_and_no_stranger_is_answered(hub: V2Hub, kn: Peer) -> None:
    admit(hub, "10086", "郑伟")
    answer = ask(kn, "Q22", "@PID.5.1^郑伟", facility="NOBODY")
    assert answer.get("MSA-1") == "AR"
    assert answer.all("PID") == []


def test_a_question_is_not_processed_again_for_whoever_replays_it(hub: V2Hub, kn: Peer) -> None:
    ask(kn, "Q22", "@PID.5.1^郑伟")
    (entry,) = hub.journal(message_type="QBP^Q22")
    with pytest.raises(HubError) as caught:
        hub.messages.replay(entry.seq, HUB)
    assert caught.value.category is Category.INCORRECT
    assert [one.state for one in hub.journal(message_type="QBP^Q22")] == ["done"]
