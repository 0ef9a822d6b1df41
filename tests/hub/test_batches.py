"""A batch of messages is each of them; a batch that is not whole is none."""

from __future__ import annotations

import pytest

from fhir_mappings.hl7v2.batch import split
from fhir_mappings.hl7v2.tokenizer import parse
from hub.actor import HUB
from hub.errors import Category, HubError
from hub.ports import Database
from tests.support.v2 import V2Hub, adt, msh, pid

BHS = "BHS|^~\\&|HIS|KNYY|YIXIE|HUB|20250611080000||||B1\r"
FHS = "FHS|^~\\&|HIS|KNYY|YIXIE|HUB|20250611080000||||F1\r"
TWO = adt("A01", "1") + adt("A01", "2", number="20001", name="李秀英", visit="V2")


@pytest.fixture
def hub(sqlite_database: Database) -> V2Hub:
    return V2Hub(sqlite_database)


def send(hub: V2Hub, *parts: str, peer: str = "127.0.0.1:40000") -> bytes:
    answer = hub.raw("".join(parts).encode("gb18030"), peer=peer)
    assert answer is not None
    return answer


def told(answer: bytes) -> list[list[str]]:
    """Return MSA-1 and MSA-2 of each message in each batch of *answer*."""
    return [
        [
            " ".join(parse(message.decode("gb18030")).get(path) for path in ("MSA-1", "MSA-2"))
            for message in part.messages
        ]
        for part in split(answer).batches
    ]


@pytest.mark.parametrize("ack", ["processed", "stored"])
def test_each_message_of_a_batch_is_one_entry_and_one_answer(sqlite_database: Database, ack: str) -> None:
    hub = V2Hub(sqlite_database, ack=ack)
    answer = send(hub, BHS, TWO, "BTS|2\r")
    hub.messages.process_pending(10)

    assert told(answer) == [["AA 1", "AA 2"]]
    assert [(entry.control_id, entry.state) for entry in hub.journal()] == [("1", "done"), ("2", "done")]
    assert {one["name"][0]["text"] for one in hub.all("Patient")} == {"郑伟", "李秀英"}
    first, second = hub.journal()
    assert (first.body or b"") + (second.body or b"") == TWO.encode("gb18030")


def test_the_answer_swaps_the_parties_names_the_batch_and_counts(hub: V2Hub) -> None:
    lines = send(hub, FHS, BHS, TWO, "BTS|2\r", "FTS|1\r").decode("gb18030").strip("\r").split("\r")
    headers = [line.split("|") for line in lines if line[:3] in {"FHS", "BHS"}]
    assert [(line[0], line[2:6], line[11]) for line in headers] == [
        ("FHS", ["YIXIE", "HUB", "HIS", "KNYY"], "F1"),
        ("BHS", ["YIXIE", "HUB", "HIS", "KNYY"], "B1"),
    ]
    assert lines[-2:] == ["BTS|2", "FTS|1"]
    assert len({line[10] for line in headers}) == 2


def test_a_file_of_several_batches_is_answered_batch_by_batch(hub: V2Hub) -> None:
    one, two = adt("A01", "1"), adt("A01", "2", number="20001", visit="V2")
    assert told(send(hub, FHS, BHS, one, "BTS|1\r", BHS, two, "BTS|1\r", "FTS|2\r")) == [["AA 1"], ["AA 2"]]
    assert told(send(hub, FHS, adt("A08", "3"), "FTS\r")) == [["AA 3"]]


def test_a_wrong_message_in_a_batch_is_refused_alone(hub: V2Hub) -> None:
    wrong = "\r".join([msh("ADT^A01", "9"), "EVN|A01|20250611", pid(), ""])
    assert told(send(hub, BHS, wrong, TWO, adt("A99", "3"), "BTS|4\r")) == [["AE 9", "AA 1", "AA 2", "AR 3"]]
    assert [entry.state for entry in hub.journal()] == ["refused", "done", "done", "refused"]


def test_a_batch_that_comes_again_gets_the_same_acknowledgements_and_changes_nothing(hub: V2Hub) -> None:
    first, again = (split(send(hub, BHS, TWO, "BTS|2\r")).batches[0].messages for _ in range(2))
    assert first == again
    assert len(hub.journal()) == 2


def test_trouble_in_the_middle_leaves_the_rest_for_the_next_attempt(hub: V2Hub) -> None:
    receive, calls = hub.services.database.write, []

    class Failing:
        def write(self, work: object) -> object:
            calls.append(work)
            if len(calls) == 2:
                raise HubError(Category.UNAVAILABLE, "The database does not answer.")
            return receive(work)  # type: ignore[arg-type]

        def read(self, work: object) -> object:
            return hub.database.read(work)  # type: ignore[arg-type]

    hub.services.__dict__["database"] = Failing()
    with pytest.raises(HubError):
        send(hub, BHS, TWO, "BTS|2\r")
    assert [entry.control_id for entry in hub.journal()] == ["1"]
    assert told(send(hub, BHS, TWO, "BTS|2\r")) == [["AA 1", "AA 2"]]
    assert [entry.control_id for entry in hub.journal()] == ["1", "2"]


@pytest.mark.parametrize(
    "parts",
    [
        (BHS, TWO, "BTS|3\r"),
        (BHS, TWO),
        (BHS, BHS, TWO, "BTS|2\r", "BTS|1\r"),
        (FHS, BHS, TWO, "BTS|2\r", "FTS|9\r"),
    ],
)
def test_a_batch_that_is_not_whole_is_kept_and_refused_as_one(hub: V2Hub, parts: tuple[str, ...]) -> None:
    answer = parse(send(hub, *parts).decode("gb18030"))
    assert (answer.get("MSA-1"), answer.get("MSA-2")) == ("AE", parts[0].strip().rpartition("|")[2])
    [entry] = hub.journal()
    assert (entry.state, entry.message_type, entry.institution) == ("refused", parts[0][:3], "KN")
    assert entry.body == "".join(parts).encode("gb18030")
    assert hub.all("Patient") == []
    with pytest.raises(HubError, match="sender"):
        hub.messages.replay(entry.seq, HUB)
    assert (hub.all("Patient"), hub.journal()[0].state) == ([], "refused")


def test_a_batch_of_a_hundred_thousand_messages_is_refused_with_one_entry(hub: V2Hub) -> None:
    answer = send(hub, BHS, adt("A08", "1") * 100_000, "BTS|100000\r")
    assert parse(answer.decode("gb18030")).get("MSA-1") == "AE"
    assert len(hub.journal()) == 1


def test_the_batch_of_a_stranger_is_refused_with_one_entry(hub: V2Hub) -> None:
    strange = [part.replace("KNYY", "XXYY") for part in (BHS, TWO)]
    assert parse(send(hub, *strange, "BTS|2\r").decode("gb18030")).get("MSA-1") == "AR"
    assert parse(send(hub, BHS, TWO, "BTS|2\r", peer="192.0.2.1:1").decode("gb18030")).get("MSA-1") == "AR"
    assert parse(send(hub, "BHS").decode("gb18030")).get("MSA-1") == "AR"
    assert [entry.state for entry in hub.journal()] == ["refused"] * 3
    assert hub.all("Patient") == []


def test_a_stranger_s_message_in_a_member_s_batch_is_refused_alone(hub: V2Hub) -> None:
    strange = adt("A01", "1", facility="XXYY")
    assert told(send(hub, BHS, adt("A01", "2"), strange, "BTS|2\r")) == [["AA 2", "AR 1"]]


def test_a_sender_that_names_itself_in_its_messages_only_is_known_by_them(hub: V2Hub) -> None:
    assert told(send(hub, "BHS|^~\\&\r", TWO, "BTS|2\r")) == [["AA 1", "AA 2"]]


def test_an_empty_batch_is_answered_by_one(hub: V2Hub) -> None:
    assert told(send(hub, BHS, "BTS|0\r")) == [[]]
    assert hub.journal() == []


def test_messages_that_want_no_answer_get_none(hub: V2Hub) -> None:
    quiet = adt("A01", "1", f15="NE", f16="NE")
    assert hub.raw((BHS + quiet + "BTS|1\r").encode("gb18030")) is None
    assert told(send(hub, BHS, quiet, adt("A08", "2"), "BTS|2\r")) == [["AA 2"]]
    assert [entry.control_id for entry in hub.journal()] == ["1", "2"]


def test_a_batch_with_its_own_delimiters_and_a_rare_name_is_understood(hub: V2Hub) -> None:
    header = "BHS#*~\\&#HIS#KNYY#YIXIE#HUB#2025##珅億##B1\r"
    answer = send(hub, header, TWO, "BTS#2\r")
    assert told(answer) == [["AA 1", "AA 2"]]
    assert answer.split(b"\r")[0].split(b"|")[-1] == b"B1"


@pytest.mark.parametrize("charset", ["utf-8", "gb18030"])
def test_the_answer_is_in_one_character_set(hub: V2Hub, charset: str) -> None:
    """The header is ASCII and says 陳 in an escape; only the messages show in which set it can go back."""
    raw = hub.raw((BHS.replace("YIXIE", "\\XE999B3\\") + TWO + "BTS|2\r").encode(charset))
    assert raw is not None
    assert raw.decode(charset).startswith("BHS|^~\\&|陳|HUB|HIS|KNYY|")
