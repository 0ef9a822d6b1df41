"""Questions about workitems: moments of any precision, bounded candidates, and an audit line for each answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub import workitem_search
from hub.actor import Actor
from hub.boot import Services
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.imaging_ids import number_record_id
from hub.ports import NewVersion
from hub.workitem import Workitems
from hub.workitem_search import Key, Span, WorkitemSearch, key, keys_of, selected
from tests.support import services as support
from tests.support.workitems import text, workitem

ZONE = "Asia/Shanghai"
KN = Actor(institution="KN", client="KN_PACS")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with support.running(tmp_path) as made:
        yield made


def search(services: Services, *keys: Key) -> WorkitemSearch:
    return WorkitemSearch(services, KN, keys, subtype="UPS C-FIND", correlation_id="c1")


def create(services: Services, count: int) -> None:
    envelope = Envelope(door="dimse", actor=KN, peer="127.0.0.1:104", kind="UPS N-CREATE")
    for number in range(1, count + 1):
        Workitems(services).create(envelope, f"1.2.9.{number}", workitem(x00741204=text("LO", f"第{number}项")))


def moment(value: str) -> Span:
    found = key(("00404005",), "DT", value, fuzzy=False, zone=ZONE)
    assert found is not None
    assert isinstance(found.match, Span)
    return found.match


@pytest.mark.parametrize(
    ("asked", "low", "high"),
    [
        ("20261123", "20261123000000", "20261123235959"),
        ("2026", "20260101000000", "20261231235959"),
        # No day of the calendar is behind it.
        ("202611", "20261101000000", "20261131235959"),
        ("20261123-20261124", "20261123000000", "20261124235959"),
        ("20261123-", "20261123000000", ""),
        ("-20261123", "", "20261123235959"),
        ("2025-2026", "20250101000000", "20261231235959"),
        ("202611230830.5", "20261123083000", "20261123083059"),
        ("202611230830+0000", "20261123163000", "20261123163059"),
        ("202611230830-0500", "20261123213000", "20261123213059"),
        ("202611230830+0800-202611230930+0800", "20261123083000", "20261123093059"),
    ],
)
def test_a_moment_is_the_span_of_its_precision_in_the_hubs_zone(asked: str, low: str, high: str) -> None:
    assert moment(asked) == Span(low=low, high=high)


@pytest.mark.parametrize("asked", ["x", "-", "20261123-x", "2026112", "20261123--", "202613990830+0000"])
def test_what_is_no_moment_is_refused(asked: str) -> None:
    with pytest.raises(HubError) as caught:
        moment(asked)
    assert caught.value.category is Category.INCORRECT


def test_universal_keys_ask_nothing() -> None:
    for value in ("", "*", "**"):
        assert key(("00404005",), "DT", value, fuzzy=False, zone=ZONE) is None
        assert key(("00741204",), "LO", value, fuzzy=False, zone=ZONE) is None
    assert (
        list(keys_of({"00741204": {"vr": "LO"}, "0040A370": text("SQ", {"00080050": {"vr": "SH"}})}, zone=ZONE)) == []
    )


def test_what_was_asked_for_comes_back_empty_where_there_is_none() -> None:
    wanted = {"00741204": {"vr": "LO"}, "00404011": {"vr": "DT"}, "0040A370": text("SQ", {"00080050": {"vr": "SH"}})}
    assert selected(workitem(), wanted) == {
        "00741204": text("LO", "胸部CT肺结节检测"),
        "00404011": {"vr": "DT"},
        "0040A370": text("SQ", {"00080050": text("SH", "A1")}),
    }
    assert selected(workitem(), {"0040A370": {"vr": "SQ"}})["0040A370"] == workitem()["0040A370"]


def test_pages_hold_every_item_once(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workitem_search, "PAGE_ITEMS", 2)
    create(services, 5)
    found = [one["00741204"]["Value"][0] for page in search(services).pages() for one in page]
    assert sorted(found) == [f"第{number}项" for number in range(1, 6)]
    seen: list[str] = []
    for offset in range(0, 5, 2):
        rows, more = search(services).page(limit=2, offset=offset)
        seen += [one["00741204"]["Value"][0] for one in rows]
        assert more == (offset < 4)
    assert sorted(seen) == sorted(found)


def test_a_question_that_leaves_too_much_is_told_to_name_more(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(services, 5)
    monkeypatch.setattr(workitem_search, "MAX_CANDIDATES", 4)
    monkeypatch.setattr(workitem_search, "PAGE_ITEMS", 2)
    label = key(("00741204",), "LO", "第9项", fuzzy=False, zone=ZONE)
    assert label is not None
    with pytest.raises(HubError) as caught:
        search(services, label).page(limit=1, offset=0)
    assert caught.value.category is Category.INCORRECT
    # A page that is full before that is answered.
    assert len(search(services).page(limit=2, offset=0)[0]) == 2
    uid = key(("00080018",), "UI", "1.2.9.3", fuzzy=False, zone=ZONE)
    assert uid is not None
    rows, more = search(services, uid).page(limit=2, offset=0)
    assert ([one["00741204"]["Value"][0] for one in rows], more) == (["第3项"], False)


def test_every_answer_is_audited_and_names_are_not_written_down(services: Services) -> None:
    create(services, 1)
    name = key(("00100010",), "PN", "郑*", fuzzy=False, zone=ZONE)
    assert name is not None
    assert len(search(services, name).page(limit=5, offset=0)[0]) == 1
    none = key(("00741000",), "CS", "DONE", fuzzy=False, zone=ZONE)
    assert none is not None
    assert list(search(services, none).pages()) == []
    lines = services.database.read(
        lambda tx: tx.audit.search({"subtype": "UPS C-FIND"}, institution=None, limit=9, before=None)
    )
    assert len(lines) == 2
    assert "郑" not in str(lines)


@pytest.mark.parametrize("known_as", ["10086", "0000010086"])
def test_a_patient_is_found_by_the_number_of_the_item_however_the_his_pads_it(
    services: Services, known_as: str
) -> None:
    patient: dict[str, Any] = {
        "resourceType": "Patient",
        "id": number_record_id("KN", known_as),
        "identifier": [{"system": "https://yixiehub.example/fhir/NamingSystem/KN/patient-id", "value": known_as}],
    }
    services.database.write(lambda tx: tx.records.put_many([NewVersion(resource=patient, owner="KN")]))
    create(services, 1)

    def found(value: str) -> int:
        asked = key(("00100020",), "LO", value, fuzzy=False, zone=ZONE)
        assert asked is not None
        rows, _ = search(services, asked).page(limit=10, offset=0)
        return len(rows)

    assert found("10086") == 1
    assert found("10086\\KN-7") == 1
    # More spellings than one search may name: the items are looked at one by one.
    assert found("10086\\10087") == 1
    assert found("10087") == 0
