"""The way SQLite goes to find what a narrow search asks for, which must not grow with the number of resources."""

from __future__ import annotations

from typing import Any

import pytest

from hub.access import Scope
from hub.ports import NewVersion
from hub.search import parse
from storage.sql.database import SqlDatabase
from tests.support.plans import full_scans, plan

KN = Scope(institution="KN")


def observation(id: str, patient: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2823-3"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": "2025-06-11",
    }


@pytest.fixture
def filled(sqlite_database: SqlDatabase) -> SqlDatabase:
    patients = [{"resourceType": "Patient", "id": id_} for id_ in ("p1", "p2")]
    resources = [*patients, observation("o1", "p1"), observation("o2", "p2")]
    sqlite_database.write(lambda tx: tx.records.put_many([NewVersion(resource=one, owner="KN") for one in resources]))
    return sqlite_database


@pytest.mark.parametrize(
    "query",
    [
        "Patient?identifier=a|b",
        "Observation?subject=Patient/p1",
        "Observation?subject=p1",
        "Observation?subject=Patient/p1&code=2823-3",
        "Observation?subject=Patient/p1&date=ge2025",
        "Observation?subject=Patient/p1&_sort=-date&_total=accurate",
        "Observation?subject:Patient.identifier=a|b",
        "Observation?subject:Patient.gender=unknown",
        "Patient?_has:Observation:subject:code=718-7",
    ],
)
def test_a_narrow_search_never_walks_all_resources_of_a_type(filled: SqlDatabase, query: str) -> None:
    kind, _, rest = query.partition("?")
    pairs = [(name, value) for name, _, value in (part.partition("=") for part in rest.split("&"))]

    steps = plan(filled, lambda tx: tx.records.search(parse(kind, pairs), KN))

    assert [one for one in steps if one.endswith(("(type=?)", "(param=?)"))] == []
    assert full_scans(steps, "record", "idx_token", "idx_reference", "idx_date") == []


def test_two_searches_of_one_shape_keep_their_values_apart(filled: SqlDatabase) -> None:
    def found(patient: str) -> list[str]:
        query = parse("Observation", [("subject", f"Patient/{patient}"), ("code", "2823-3")])
        return [one.id for one in filled.read(lambda tx: tx.records.search(query, KN)).matches]

    assert [found(one) for one in ("p1", "p2", "p3")] == [["o1"], ["o2"], []]
