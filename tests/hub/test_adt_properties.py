"""Whatever order the messages of an episode come in, they end in the same state: properties over a real database.

HL7 v2 chapter 2.10 and 3.6. Each example plays its messages into empty SQLite databases.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.databases import opened
from tests.support.v2 import V2Hub, a40, adt, meta_of, msh, oru, pid

Json = dict[str, Any]
Fresh = Callable[[], Any]

# The same examples each time: what fails here must fail for whoever looks into it.
few = settings(max_examples=8, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def fresh(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """Return what opens an empty hub; its database is a copy, because making one takes longer than a whole example."""
    folder = tmp_path_factory.mktemp("properties")
    count = iter(range(1_000_000))

    @contextmanager
    def hub() -> Iterator[V2Hub]:
        path = folder / f"{next(count)}.db"
        shutil.copy(sqlite_template, path)
        with opened(f"sqlite:///{path}") as database:
            yield V2Hub(database)
        path.unlink()

    return hub


def at(hour: int, minute: int = 0) -> str:
    return f"20250611{hour:02d}{minute:02d}00"


def visit(trigger: str, hour: int, *, place: str = "", origin: str = "", kind: str = "I", phone: str = "1200") -> str:
    cells = [""] * 20
    for number, value in {1: "1", 2: kind, 3: place, 6: origin, 19: "V1"}.items():
        cells[number] = value
    lines = [msh(f"ADT^{trigger}", f"{trigger}-{hour}", sent=at(hour)), f"EVN|{trigger}|{at(hour)}||||{at(hour)}"]
    return "\r".join([*lines, pid(phone=phone), "PV1|" + "|".join(cells[1:]), ""])


#: The events of one stay as its hospital tells them, in the order in which they happened.
EPISODE = (
    visit("A05", 6, kind="P"),
    visit("A04", 7, kind="E", place="ER^1^1"),
    visit("A06", 8, kind="I", place="A^1^1"),
    visit("A02", 9, place="B^2^1", origin="A^1^1"),
    visit("A08", 10, place="B^2^1", phone="1210"),
    visit("A02", 11, place="C^3^1", origin="B^2^1"),
    visit("A12", 12, place="B^2^1", origin="C^3^1"),
    visit("A31", 13, phone="1213"),
    visit("A03", 14),
    visit("A13", 15),
    visit("A08", 16, place="B^2^1", phone="1216"),
)
#: What the end of a stay may be beside the one above.
ENDS = (visit("A03", 18), visit("A11", 18))

#: A transfer and its cancellation: the messages behind them only agree with both, or with neither.
TAKEN_BACK = EPISODE[5:7]

part_of_an_episode = st.lists(st.sampled_from(EPISODE), min_size=2, max_size=6, unique=True).filter(
    lambda many: (TAKEN_BACK[0] in many) == (TAKEN_BACK[1] in many)
)


def told(text: str) -> str:
    """Return *text* under another control id: the same said again, and not the same message."""
    return text.replace("|P|2.4", "-again|P|2.4", 1)


def summary(hub: V2Hub) -> Json:
    """What readers go by: whom and where, how it stands, and every place and class in order."""
    made: Json = {}
    for one in hub.all("Encounter"):
        places = [(p["location"]["display"], p["status"], p.get("period")) for p in one.get("location", ())]
        classes = [(c["class"]["code"], c["period"]) for c in one.get("classHistory", ()) if "start" in c["period"]]
        made["visit"] = (one["status"], one["class"]["code"], one["subject"], one.get("period"), places, classes)
    for one in hub.all("Patient"):
        made[one["id"]] = (one["active"], one.get("telecom"), one.get("link"), one["identifier"])
    return made


@few
@given(messages=part_of_an_episode, end=st.sampled_from((None, *ENDS)), data=st.data())
def test_an_episode_ends_the_same_in_any_order(
    fresh: Fresh, messages: list[str], end: str | None, data: st.DataObject
) -> None:
    texts = sorted(messages, key=lambda text: text.split("EVN|", 1)[1][4:])
    if end is not None:
        texts.append(end)
    shuffled = data.draw(st.permutations(texts))
    with fresh() as one, fresh() as other:
        for text in texts:
            assert one.code(text) == "AA"
        for text in shuffled:
            assert other.code(text) == "AA"
        assert summary(other) == summary(one)


@few
@given(messages=part_of_an_episode, data=st.data())
def test_messages_that_are_told_again_make_no_new_version(
    fresh: Fresh, messages: list[str], data: st.DataObject
) -> None:
    again = data.draw(st.permutations(messages))
    with fresh() as hub:
        for text in messages:
            hub.code(text)
        kinds = ("Patient", "Encounter", "Location", "Practitioner", "Provenance")
        before = {kind: sorted((one["id"], meta_of(one)) for one in hub.all(kind)) for kind in kinds}
        for text in again:
            assert hub.code(told(text)) == "AA"
        assert {kind: sorted((one["id"], meta_of(one)) for one in hub.all(kind)) for kind in kinds} == before


MERGES = (("B", "A", 9), ("C", "B", 10), ("D", "C", 11))


def numbered(hub: V2Hub, number: str, institution: str = "KN") -> Json:
    return hub.one(
        "Patient",
        lambda one: (
            one["identifier"][0]["value"] == number
            and one["managingOrganization"]["identifier"]["value"] == institution
        ),
    )


def survivor(hub: V2Hub, number: str) -> str:
    one = numbered(hub, number)
    while True:
        links = [link["other"]["reference"] for link in one.get("link", ()) if link["type"] == "replaced-by"]
        if not links:
            return str(one["identifier"][0]["value"])
        (one,) = (other for other in hub.all("Patient") if f"Patient/{other['id']}" == links[0])


@few
@given(order=st.lists(st.sampled_from(MERGES), min_size=3, max_size=6).filter(lambda many: set(many) == set(MERGES)))
def test_a_chain_of_merges_leads_to_its_end_however_often_and_in_whatever_order_it_is_told(
    fresh: Fresh, order: list[tuple[str, str, int]]
) -> None:
    with fresh() as hub:
        hub.code(adt("A01", "q", number="A", facility="QHYY", at=at(7)))
        theirs = numbered(hub, "A", "QH")
        for count, (stays, dead, hour) in enumerate(order):
            assert hub.code(a40(str(count), stays, dead, at=at(hour))) == "AA"
        assert {number: survivor(hub, number) for number in "ABCD"} == dict.fromkeys("ABCD", "D")
        late = oru("late", "F", "4.1", at=at(12)).replace("10086", "A")
        assert hub.code(late) == "AA"
        assert hub.one("Observation")["subject"]["reference"] == f"Patient/{numbered(hub, 'D')['id']}"
        assert [one["active"] for one in (numbered(hub, number) for number in "ABCD")] == [False, False, False, True]
        # The number means somebody else at the other hospital.
        assert numbered(hub, "A", "QH") == theirs


SEGMENTS = {
    "AllergyIntolerance": ("AL1|1|DA|{0}^{0}", lambda one: one["clinicalStatus"]["coding"][0]["code"] == "active"),
    "Condition": ("DG1|1||{0}^{0}", lambda one: "clinicalStatus" in one),
    "RelatedPerson": ("NK1|1|{0}|SPO", lambda one: one["active"]),
    "Coverage": ("IN1|1|{0}|INS|保险", lambda one: one["status"] == "active"),
}
some = st.sets(st.sampled_from("PQR"), min_size=1)


@few
@given(kind=st.sampled_from(sorted(SEGMENTS)), lists=st.lists(some, min_size=2, max_size=4), data=st.data())
def test_of_the_lists_of_one_sender_the_newest_stands_and_another_sender_s_is_not_touched(
    fresh: Fresh, kind: str, lists: list[set[str]], data: st.DataObject
) -> None:
    segment, is_active = SEGMENTS[kind]
    texts = [
        adt("A08", str(hour), *(segment.format(name) for name in sorted(names)), at=at(hour))
        for hour, names in enumerate(lists, 8)
    ]
    with fresh() as hub:
        hub.code(adt("A08", "q", *(segment.format(name) for name in "PQR"), facility="QHYY", at=at(7)))
        theirs = {one["id"]: one for one in hub.all(kind)}
        assert len(theirs) == 3
        for text in data.draw(st.permutations(texts)):
            assert hub.code(text) == "AA"
        found = {one["id"]: one for one in hub.all(kind)}
        assert {id_: found.pop(id_) for id_ in theirs} == theirs
        assert sum(is_active(one) for one in found.values()) == len(lists[-1])


@few
@given(said=st.lists(st.sampled_from(["", '""', "1201", "1202"]), min_size=1, max_size=6))
def test_what_is_absent_leaves_and_a_null_clears(fresh: Fresh, said: list[str]) -> None:
    stands = ""
    with fresh() as hub:
        for hour, phone in enumerate(said, 7):
            assert hub.code(adt("A08", str(hour), phone=phone, at=at(hour))) == "AA"
            stands = stands if phone == "" else phone.strip('"')
            telecom = hub.one("Patient").get("telecom", [])
            assert [one["value"] for one in telecom] == ([stands] if stands else [])


@few
@given(
    moves=st.lists(st.sampled_from("XYZ"), min_size=1, max_size=4),
    data=st.data(),
)
def test_a_visit_is_the_patient_s_to_whom_it_was_moved_last_in_any_order(
    fresh: Fresh, moves: list[str], data: st.DataObject
) -> None:
    holders = ["W", *moves]
    texts = [visit("A01", 7, place="A^1^1").replace("10086", "W")]
    for hour, (source, target) in enumerate(zip(holders, moves, strict=False), 8):
        head = [msh("ADT^A45", f"m{hour}", sent=at(hour)), f"EVN|A45|{at(hour)}||||{at(hour)}", pid(target)]
        texts.append("\r".join([*head, f"MRG|{source}^^^^IDCard||||V1", "PV1|1|I|||||||||||||||||V1", ""]))
    with fresh() as hub:
        for text in data.draw(st.permutations(texts)):
            assert hub.code(text) == "AA"
        one = hub.one("Encounter")
        assert one["subject"]["reference"] == f"Patient/{numbered(hub, holders[-1])['id']}"
        assert one["status"] == "in-progress"
