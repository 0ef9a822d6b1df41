"""Searches for a survivor find what was stored of the records merged into it, inside one owner, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from hub.access import UNRESTRICTED, Scope
from hub.clock import utc_now
from hub.errors import HubError
from hub.ports import Grant, NewVersion
from hub.search import parse
from storage.sql import merges, search_plan
from storage.sql.database import SqlDatabase
from tests.support.plans import full_scans, plan

KN, YL = Scope(institution="KN"), Scope(institution="YL")
LOINC = "http://loinc.org"


def patient(id: str, *links: tuple[str, str], **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "resourceType": "Patient",
        "id": id,
        "identifier": [{"system": "urn:mrn", "value": f"n-{id}"}],
        **more,
    }
    if links:
        made["link"] = [{"other": {"reference": f"Patient/{other}"}, "type": kind} for kind, other in links]
    return made


def observation(id: str, about: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "2823-3"}]},
        "subject": {"reference": f"Patient/{about}"},
        **more,
    }


def put(database: SqlDatabase, *resources: dict[str, Any], owner: str = "KN") -> None:
    versions = [NewVersion(resource=one, owner=owner) for one in resources]
    database.write(lambda tx: tx.records.put_many(versions))


def found(database: SqlDatabase, text: str, scope: Scope = KN) -> list[str]:
    """Return the ids of the matches of ``Type?name=value&...``, in order of arrival."""
    kind, _, rest = text.partition("?")
    pairs = [(name, value) for name, _, value in (part.partition("=") for part in rest.split("&") if part)]
    page = database.read(lambda tx: tx.records.search(parse(kind, pairs, now=utc_now()), scope))
    return [one.id for one in (*page.matches, *page.included)][::-1]


def compartment(database: SqlDatabase, id: str, scope: Scope = KN, *, count: int = 50) -> list[list[str]]:
    """Return the ids of the compartment, page by page."""
    pages: list[list[str]] = []
    after = None
    while True:
        page = database.read(
            lambda tx, after=after: tx.records.compartment(id, scope, types=None, count=count, after=after)
        )
        pages.append([one.id for one in page.matches])
        after = page.next_cursor
        if after is None:
            return pages


def lend(database: SqlDatabase, target_type: str, target_id: str) -> None:
    grant = Grant(grantee="YL", target_type=target_type, target_id=target_id, task_id="t")
    database.write(lambda tx: tx.grants.open(grant, now=utc_now()))


@pytest.fixture
def merged(database: SqlDatabase) -> SqlDatabase:
    """The record a was merged into b, and b into c; z stands alone."""
    put(
        database,
        patient("c", ("replaces", "b"), gender="female"),
        patient("b", ("replaces", "a"), ("replaced-by", "c"), active=False, gender="male"),
        patient("a", ("replaced-by", "b"), active=False),
        patient("z", ("seealso", "c")),
        *(observation(f"o-{id_}", id_) for id_ in "abcz"),
    )
    return database


@pytest.mark.parametrize(
    "query",
    [
        "Observation?patient={}",
        "Observation?patient=Patient/{}",
        "Observation?subject={}",
        "Observation?subject=Patient/{}",
        "Observation?subject:Patient={}",
        "Observation?subject=Patient/{}&code=2823-3",
        "Observation?subject=Patient/{}&_sort=_id&_total=accurate",
        "Observation?subject:Patient.identifier=urn:mrn|n-{}",
        "Observation?patient.identifier=n-{}",
    ],
)
def test_a_search_for_a_patient_finds_what_the_merged_records_have_and_not_the_other_way(
    merged: SqlDatabase, query: str
) -> None:
    def asked(id: str) -> list[str]:
        return sorted(found(merged, query.format(id)))

    assert asked("c") == ["o-a", "o-b", "o-c"]
    assert asked("b") == ["o-a", "o-b"]
    assert asked("a") == ["o-a"]
    assert asked("z") == ["o-z"]


def test_a_survivor_without_data_of_its_own_finds_what_the_merged_record_has(database: SqlDatabase) -> None:
    put(database, patient("s"), patient("d", ("replaced-by", "s")), observation("o", "d"))
    assert found(database, "Observation?patient=s") == ["o"]
    assert found(database, "Observation?patient=s&code=2823-3") == ["o"]
    assert found(database, "Observation?patient=s&code=718-7") == []


def test_counts_pages_and_conditions_follow_too(merged: SqlDatabase) -> None:
    query = parse("Observation", [("patient", "c"), ("_summary", "count")])
    assert merged.read(lambda tx: tx.records.search(query, KN)).total == 3
    ids = parse("Observation", [("patient", "c")])
    assert merged.read(lambda tx: tx.records.find_ids(ids, KN, limit=9)) == ["o-a", "o-b", "o-c"]
    seen: list[str] = []
    cursor: str | None = None
    while cursor is not None or not seen:
        pairs = [("patient", "c"), ("_count", "1"), *([("_cursor", cursor)] if cursor else [])]
        page = merged.read(lambda tx, pairs=pairs: tx.records.search(parse("Observation", pairs), KN))
        seen += [one.id for one in page.matches]
        cursor = page.next_cursor
    assert seen == ["o-c", "o-b", "o-a"]


def test_the_compartment_holds_the_merged_records_and_what_they_have(merged: SqlDatabase) -> None:
    assert compartment(merged, "c") == [["c", "b", "a", "o-a", "o-b", "o-c"]]
    assert compartment(merged, "c", count=4) == [["c", "b", "a", "o-a"], ["o-b", "o-c"]]
    assert compartment(merged, "a") == [["a", "o-a"]]
    assert compartment(merged, "z") == [["z", "o-z"]]


@pytest.mark.parametrize("listed", [True, False])
def test_chains_follow_whether_the_patients_are_listed_or_checked_one_by_one(
    merged: SqlDatabase, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    if not listed:
        monkeypatch.setattr(search_plan, "_few", lambda *_: None)
    # What a survivor fulfils holds for the record merged into it; what the dead record says of itself still counts.
    assert sorted(found(merged, "Observation?subject:Patient.gender=female")) == ["o-a", "o-b", "o-c"]
    assert sorted(found(merged, "Observation?subject:Patient.gender=male")) == ["o-a", "o-b"]
    assert sorted(found(merged, "Observation?patient.identifier=n-c")) == ["o-a", "o-b", "o-c"]


@pytest.mark.parametrize("listed", [True, False])
def test_a_patient_is_found_by_what_refers_to_a_record_merged_into_it(
    merged: SqlDatabase, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    if not listed:
        monkeypatch.setattr(search_plan, "_few", lambda *_: None)
    put(merged, observation("only", "a", code={"coding": [{"system": LOINC, "code": "718-7"}]}))
    assert sorted(found(merged, "Patient?_has:Observation:patient:code=718-7")) == ["a", "b", "c"]
    assert sorted(found(merged, "Patient?_id=c&_has:Observation:patient:code=718-7")) == ["c"]


def test_what_refers_to_a_merged_record_is_included_with_the_survivor(merged: SqlDatabase) -> None:
    assert sorted(found(merged, "Patient?_id=c&_revinclude=Observation:patient")) == ["c", "o-a", "o-b", "o-c"]
    assert sorted(found(merged, "Patient?_id=a&_revinclude=Observation:patient")) == ["a", "o-a"]


def test_a_link_itself_is_searched_as_it_stands(merged: SqlDatabase) -> None:
    assert found(merged, "Patient?link=Patient/c") == ["b", "z"]


def test_a_link_to_a_record_of_another_owner_is_not_followed(database: SqlDatabase) -> None:
    put(database, patient("kn", gender="female"), observation("o-kn", "kn"))
    put(database, patient("yl", ("replaced-by", "kn")), observation("o-yl", "yl"), owner="YL")
    put(database, observation("lent", "yl"), owner="KN")
    for scope in (KN, YL, UNRESTRICTED):
        assert "lent" not in found(database, "Observation?patient=kn", scope)
        assert "o-yl" not in found(database, "Observation?patient=kn", scope)
        assert "o-yl" not in found(database, "Observation?patient:Patient.gender=female", scope)
        assert compartment(database, "kn", UNRESTRICTED) == [["kn", "o-kn"]]


def test_a_chain_of_links_through_another_owner_ends_there(database: SqlDatabase) -> None:
    put(database, patient("s"), patient("far", ("replaced-by", "between")), observation("o", "far"))
    put(database, patient("between", ("replaced-by", "s")), owner="YL")
    assert found(database, "Observation?patient=s", UNRESTRICTED) == []


@pytest.mark.parametrize("of", ["a", "b", "c"])
def test_a_grant_for_a_record_opens_all_that_merges_join_to_one_person(merged: SqlDatabase, of: str) -> None:
    put(merged, observation("o-other", "someone"), patient("someone"))
    lend(merged, "patient-record", of)
    assert sorted(found(merged, "Observation?", YL)) == ["o-a", "o-b", "o-c"]
    assert sorted(found(merged, "Observation?patient=c", YL)) == ["o-a", "o-b", "o-c"]
    assert compartment(merged, "c", YL) == [["c", "b", "a", "o-a", "o-b", "o-c"]]
    assert found(merged, "Observation?", Scope(institution="YJ")) == []


def test_a_merge_while_a_grant_is_open_opens_what_is_one_persons_from_then_on(database: SqlDatabase) -> None:
    put(
        database, *(patient(one) for one in ("p1", "p2", "p3")), *(observation(f"o-{one}", one) for one in ("p1", "p2"))
    )
    lend(database, "patient-record", "p1")
    assert found(database, "Observation?", YL) == ["o-p1"]

    put(database, patient("p1", ("replaced-by", "p2"), active=False))
    put(database, observation("o-new", "p2"), observation("o-p3", "p3"))
    assert sorted(found(database, "Observation?", YL)) == ["o-new", "o-p1", "o-p2"]
    put(database, patient("p2", ("replaced-by", "p3"), active=False))
    assert sorted(found(database, "Observation?", YL)) == ["o-new", "o-p1", "o-p2", "o-p3"]


def test_a_merge_that_is_taken_back_closes_what_it_had_opened(merged: SqlDatabase) -> None:
    lend(merged, "patient-record", "a")
    # Said again with other demographics, the merge is the same.
    put(merged, patient("a", ("replaced-by", "b"), active=False, gender="female"))
    assert sorted(found(merged, "Observation?", YL)) == ["o-a", "o-b", "o-c"]
    put(merged, patient("a", active=True))
    assert found(merged, "Observation?", YL) == ["o-a"]
    assert merged.read(lambda tx: tx.records.get("Patient", "c", YL)) is None
    put(merged, patient("a", ("replaced-by", "z")))
    assert sorted(found(merged, "Observation?", YL)) == ["o-a", "o-z"]
    merged.write(lambda tx: tx.records.delete("Patient", "a", owner="KN"))
    assert found(merged, "Observation?", YL) == ["o-a"]
    put(merged, patient("a", ("replaced-by", "z")))
    assert sorted(found(merged, "Observation?", YL)) == ["o-a", "o-z"]


def test_what_a_merge_opened_ends_with_the_task_and_comes_back_with_it(merged: SqlDatabase) -> None:
    lend(merged, "patient-record", "a")
    before = merged.read(lambda tx: tx.grants.of_task("t"))
    merged.write(lambda tx: tx.grants.close("t", grantee="YL", until=utc_now(), patient_record=True))
    assert found(merged, "Observation?", YL) == []
    # A merge after the end opens nothing.
    put(merged, patient("z", ("replaced-by", "c")))
    assert found(merged, "Observation?", YL) == []
    lend(merged, "patient-record", "a")
    assert sorted(found(merged, "Observation?", YL)) == ["o-a", "o-b", "o-c", "o-z"]
    # The Task itself asked for one record; what follows from merges is not of its making.
    assert [one.target_id for one in before] == ["a"]


def test_a_merge_among_records_of_another_owner_opens_nothing(merged: SqlDatabase) -> None:
    lend(merged, "patient-record", "c")
    put(merged, patient("qh", ("replaced-by", "c")), observation("o-qh", "qh"), owner="QH")
    assert sorted(found(merged, "Observation?", YL)) == ["o-a", "o-b", "o-c"]


def test_grants_of_single_resources_reach_no_further_for_a_merge(merged: SqlDatabase) -> None:
    lend(merged, "Patient", "a")
    lend(merged, "Observation", "o-a")
    assert found(merged, "Observation?", YL) == ["o-a"]
    assert found(merged, "Patient?", YL) == ["a"]


def test_a_link_that_the_asker_may_not_read_tells_it_nothing(merged: SqlDatabase) -> None:
    lend(merged, "Observation", "o-a")
    assert found(merged, "Observation?patient=c", YL) == []
    assert found(merged, "Observation?patient=a", YL) == ["o-a"]


def test_a_patient_reaches_what_was_stored_of_the_records_merged_into_the_own_one(merged: SqlDatabase) -> None:
    own = Scope(institution="KN", patient="c")
    assert sorted(found(merged, "Observation?", own)) == ["o-a", "o-b", "o-c"]
    assert sorted(found(merged, "Observation?patient=c", own)) == ["o-a", "o-b", "o-c"]
    assert compartment(merged, "c", own) == [["c", "b", "a", "o-a", "o-b", "o-c"]]
    assert found(merged, "Observation?", Scope(institution="YL", patient="c")) == []
    assert found(merged, "Observation?", Scope(institution="KN", patient="a")) == ["o-a"]


def test_a_patient_reaches_own_data_that_came_before_the_patient_did(database: SqlDatabase) -> None:
    put(database, observation("o", "early"), observation("other", "else"))
    assert found(database, "Observation?", Scope(institution="KN", patient="early")) == ["o"]


def test_a_merge_taken_back_leaves_each_with_its_own(merged: SqlDatabase) -> None:
    put(merged, patient("a", active=True), patient("b", ("replaced-by", "c"), active=False))
    assert sorted(found(merged, "Observation?patient=c")) == ["o-b", "o-c"]
    assert found(merged, "Observation?patient=a") == ["o-a"]


def test_links_in_a_circle_end(database: SqlDatabase) -> None:
    put(database, patient("x", ("replaced-by", "y"), gender="male"), patient("y", ("replaced-by", "x")))
    put(database, observation("o-x", "x"), observation("o-y", "y"))
    assert sorted(found(database, "Observation?patient=x")) == ["o-x", "o-y"]
    assert sorted(found(database, "Observation?patient:Patient.gender=male")) == ["o-x", "o-y"]


def test_a_patient_of_many_merged_records_is_still_searched(database: SqlDatabase) -> None:
    dead = [f"d{number}" for number in range(merges.MAX_FOLLOWED - 1)]
    put(database, patient("s"), *(patient(one, ("replaced-by", "s")) for one in dead), observation("o", dead[-1]))
    assert found(database, "Observation?patient=s") == ["o"]
    put(database, patient("one-more", ("replaced-by", "s")))
    with pytest.raises(HubError) as caught:
        found(database, "Observation?patient=s")
    assert caught.value.issue_code == "too-costly"


def test_following_links_never_walks_them_all(sqlite_database: SqlDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    put(sqlite_database, patient("c"), patient("b", ("replaced-by", "c")), observation("o-b", "b"))

    def asked(kind: str, name: str, value: str, scope: Scope = KN) -> list[str]:
        return plan(sqlite_database, lambda tx: tx.records.search(parse(kind, [(name, value)]), scope))

    steps = asked("Observation", "patient", "c")
    steps += asked("Observation", "patient", "nobody")
    steps += asked("Observation", "subject:Patient.identifier", "n-c")
    own = Scope(institution="KN", patient="c")
    steps += asked("Observation", "patient", "c", own)
    steps += plan(sqlite_database, lambda tx: tx.records.search(parse("Observation", []), own))
    assert not any("ix_record_owner" in one for one in steps)
    # With no filter that few fulfil, each record in reach is checked.
    monkeypatch.setattr(search_plan, "_few", lambda *_: None)
    steps += asked("Observation", "subject:Patient.gender", "unknown")
    steps += asked("Patient", "_has:Observation:subject:code", "718-7")

    assert any("RECURSIVE STEP" in one for one in steps)
    assert [one for one in steps if one.startswith("SEARCH idx_reference") and one.endswith("(param=?)")] == []
    assert full_scans(steps, "record", "idx_reference") == []
