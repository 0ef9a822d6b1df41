"""Searches on both databases: each filter, order, pages, includes and the reach of the asker."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_mappings.definitions.extract import extract
from fhir_mappings.definitions.search_parameters import search_parameters
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED, Scope
from hub.clock import utc_now
from hub.errors import HubError
from hub.ports import Grant, NewVersion, Page
from hub.search import ast, parse
from storage.sql.access import visible, ways
from storage.sql.database import SqlDatabase
from storage.sql.schema import record
from tests.support.databases import opened

KN, YL, QH = Scope(institution="KN"), Scope(institution="YL"), Scope(institution="QH")
LOINC = "http://loinc.org"


def patient(id: str, text: str = "郑伟", **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id, "name": [{"text": text}], **more}


def observation(id: str, about: str = "p1", **more: Any) -> dict[str, Any]:
    base = {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "2823-3", "display": "钾 Potassium"}]},
        "subject": {"reference": f"Patient/{about}"},
    }
    return {**base, **more}


def put(database: SqlDatabase, *resources: dict[str, Any], owner: str = "KN", **more: Any) -> None:
    versions = [NewVersion(resource=one, owner=owner, **more) for one in resources]
    database.write(lambda tx: tx.records.put_many(versions))


def lend(database: SqlDatabase, target_type: str, target_id: str, grantee: str = "YL") -> None:
    grant = Grant(grantee=grantee, target_type=target_type, target_id=target_id, task_id="t")
    database.write(lambda tx: tx.grants.open(grant, now=utc_now()))


def ask(resource_type: str, text: str) -> ast.Query:
    pairs = [(name, value) for name, _, value in (part.partition("=") for part in text.split("&") if part)]
    return parse(resource_type, pairs, now=utc_now())


def run(database: SqlDatabase, resource_type: str, text: str = "", scope: Scope = KN) -> Page:
    return database.read(lambda tx: tx.records.search(ask(resource_type, text), scope))


def found(database: SqlDatabase, resource_type: str, text: str = "", scope: Scope = KN) -> list[str]:
    """Return the ids of the matches, sorted."""
    return sorted(one.id for one in run(database, resource_type, text, scope).matches)


def in_order(database: SqlDatabase, resource_type: str, text: str) -> list[str]:
    return [one.id for one in run(database, resource_type, text).matches]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def ward(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlDatabase]:
    """A small ward that the tests of this module only read."""
    if request.param == "sqlite":
        from tests.support.databases import _copied

        url = _copied(request.getfixturevalue("sqlite_template"), tmp_path_factory.mktemp("ward"))
    else:
        url = request.getfixturevalue("postgres").migrated_database()
    with opened(url) as database:
        put(
            database,
            patient(
                "p1",
                "郑伟",
                identifier=[
                    {
                        "system": "urn:mrn",
                        "value": "10086",
                        "type": {
                            "coding": [{"system": "urn:types", "code": "MR"}],
                        },
                    },
                    {"value": "bare"},
                ],
                gender="male",
                birthDate="1967-03-02",
                telecom=[{"system": "phone", "value": "120 0000 0001"}],
                address=[{"text": "云岭省开宁县城关镇人民路1号"}],
            ),
            patient(
                "p2",
                "欧阳明月",
                gender="female",
                birthDate="1980",
                identifier=[{"system": "urn:mrn", "value": "10087"}],
            ),
            patient("p3", "Smith, John", gender="male", birthDate="1980-05"),
            patient("p4", "曾小贤", identifier=[{"system": "urn:" + "x" * 300, "value": "9" * 300 + "a"}]),
            patient("p5", "%_ odd", deceasedBoolean=True),
        )
        put(
            database,
            observation(
                "o1",
                "p1",
                effectiveDateTime="2024-05-04",
                valueQuantity={
                    "value": loads("6.90"),
                    "unit": "mmol/L",
                    "system": "http://unitsofmeasure.org",
                    "code": "mmol/L",
                },
            ),
            observation(
                "o2",
                "p1",
                effectiveDateTime="2024-05-04T10:30:00Z",
                status="preliminary",
                valueQuantity={"value": loads("4.1"), "unit": "mmol/L"},
            ),
            observation(
                "o3", "p2", effectivePeriod={"start": "2024-01-01", "end": "2024-12-31"}, code={"text": "血钾"}
            ),
            observation("o4", "p2", valueQuantity={"value": loads("5"), "comparator": "<", "unit": "mmol/L"}),
            observation(
                "o5",
                "p9",
                subject={"identifier": {"system": "urn:mrn", "value": "777"}, "type": "Patient"},
                effectivePeriod={"start": "2023-06-01"},
            ),
        )
        put(
            database,
            {"resourceType": "ValueSet", "id": "v1", "status": "active", "url": "http://a.example/vs/one"},
            {"resourceType": "ValueSet", "id": "v2", "status": "active", "url": "http://a.example/vs/one/two"},
            {
                "resourceType": "DiagnosticReport",
                "id": "d1",
                "status": "final",
                "code": {"text": "x"},
                "subject": {"reference": "Patient/p1"},
                "result": [{"reference": "Observation/o1"}, {"reference": "Observation/o2"}],
            },
        )
        yield database


@pytest.mark.parametrize(
    ("resource_type", "query", "ids"),
    [
        ("Patient", "", "p1 p2 p3 p4 p5"),
        ("Patient", "_id=p1,p3,none", "p1 p3"),
        ("Patient", "identifier=10086", "p1"),
        ("Patient", "identifier=urn:mrn|10086", "p1"),
        ("Patient", "identifier=urn:mrn|", "p1 p2"),
        ("Patient", "identifier=|bare", "p1"),
        ("Patient", "identifier=|10086", ""),
        ("Patient", "identifier=urn:other|10086", ""),
        ("Patient", "identifier=10086,10087", "p1 p2"),
        ("Patient", "identifier=" + "9" * 300 + "a", "p4"),
        ("Patient", "identifier=" + "9" * 300 + "b", ""),
        ("Patient", "identifier=urn:" + "x" * 300 + "|", "p4"),
        ("Patient", "identifier=urn:" + "x" * 299 + "|", ""),
        ("Patient", "identifier:of-type=urn:types|MR|10086", "p1"),
        ("Patient", "identifier:of-type=urn:types|MR|10087", ""),
        ("Patient", "gender=male", "p1 p3"),
        ("Patient", "gender:not=male", "p2 p4 p5"),
        ("Patient", "gender:missing=true", "p4 p5"),
        ("Patient", "gender:missing=false", "p1 p2 p3"),
        ("Patient", "gender=male&birthdate=1967-03-02", "p1"),
        ("Patient", "phone=12000000001", "p1"),
        ("Patient", "deceased=true", "p5"),
        ("Patient", "name=郑", "p1"),
        ("Patient", "name=明月", ""),
        ("Patient", "name:contains=明月", "p2"),
        ("Patient", "name:contains=欧阳", "p2"),
        ("Patient", "name=zhengwei", "p1"),
        ("Patient", "name=zw", "p1"),
        ("Patient", "name=ouyang", "p2"),
        ("Patient", "name=zeng", "p4"),
        ("Patient", "name=SMITH", "p3"),
        ("Patient", "name:contains=ohn", "p3"),
        ("Patient", "name:exact=郑伟", "p1"),
        ("Patient", "name:exact=郑", ""),
        ("Patient", "name:exact=smith, john", ""),
        ("Patient", "name:contains=%25", ""),
        ("Patient", "address:contains=城关镇", "p1"),
        ("Patient", "address=云岭省", "p1"),
        ("Patient", "birthdate=1980", "p2 p3"),
        ("Patient", "birthdate=1980-05", "p3"),
        ("Patient", "birthdate=ne1980", "p1"),
        ("Patient", "birthdate=lt1980", "p1"),
        ("Patient", "birthdate=gt1967", "p2 p3"),
        ("Patient", "_has:Observation:patient:code=2823-3", "p1 p2"),
        ("Patient", "_has:Observation:patient:status=preliminary", "p1"),
        ("Observation", "code=2823-3", "o1 o2 o4 o5"),
        ("Observation", "code=http://loinc.org|2823-3", "o1 o2 o4 o5"),
        ("Observation", "code:text=血钾", "o3"),
        ("Observation", "status:not=final", "o2"),
        ("Observation", "patient=p1", "o1 o2"),
        ("Observation", "subject=Patient/p2", "o3 o4"),
        ("Observation", "subject:Patient=p2", "o3 o4"),
        ("Observation", "subject=Patient/p1,Patient/p2", "o1 o2 o3 o4"),
        ("Observation", "subject:identifier=urn:mrn|777", "o5"),
        ("Observation", "subject:identifier=777", "o5"),
        ("Observation", "patient=p1&status=final", "o1"),
        ("Observation", "patient:Patient.name=zheng", "o1 o2"),
        ("Observation", "patient.identifier=urn:mrn|10087", "o3 o4"),
        ("Observation", "subject:Patient.gender=male&status=final", "o1"),
        ("Observation", "date=2024-05-04", "o1 o2"),
        ("Observation", "date=eq2024-05-04T10:30:00Z", "o2"),
        ("Observation", "date=2024", "o1 o2 o3"),
        ("Observation", "date=ne2024-05-04", "o3 o5"),
        ("Observation", "date=gt2024-05-04", "o3 o5"),
        ("Observation", "date=lt2024-05-04", "o3 o5"),
        ("Observation", "date=ge2024-05-04", "o1 o2 o3 o5"),
        ("Observation", "date=le2024-05-04", "o1 o2 o3 o5"),
        ("Observation", "date=sa2023-12-31", "o1 o2 o3"),
        ("Observation", "date=eb2024-05-05", "o1 o2"),
        ("Observation", "date:missing=true", "o4"),
        ("Observation", "value-quantity=6.9", "o1"),
        ("Observation", "value-quantity=6.90", "o1"),
        ("Observation", "value-quantity=7", "o1"),
        ("Observation", "value-quantity=6.91", ""),
        ("Observation", "value-quantity=gt5|http://unitsofmeasure.org|mmol/L", "o1"),
        ("Observation", "value-quantity=gt4||mmol/L", "o1 o2 o4"),
        ("Observation", "value-quantity=lt4||mmol/L", "o4"),
        ("Observation", "value-quantity=ge6.90", "o1"),
        ("Observation", "value-quantity=le4.1", "o2 o4"),
        ("Observation", "value-quantity=ne6.9", "o2 o4"),
        ("Observation", "value-quantity=sa4", "o1 o2"),
        ("Observation", "value-quantity=eb5", "o2"),
        ("Observation", "value-quantity=ap4.2", "o2 o4"),
        ("Observation", "_lastUpdated=gt2020-01-01", "o1 o2 o3 o4 o5"),
        ("Observation", "_lastUpdated=lt2020-01-01", ""),
        ("ValueSet", "url=http://a.example/vs/one", "v1"),
        ("ValueSet", "url:below=http://a.example/vs/one", "v1 v2"),
        ("ValueSet", "url:above=http://a.example/vs/one/two/three", "v1 v2"),
        ("DiagnosticReport", "result.status=preliminary", "d1"),
        ("Device", "", ""),
    ],
)  # fmt: skip
def test_a_search_finds(ward: SqlDatabase, resource_type: str, query: str, ids: str) -> None:
    expected = ids.split()

    assert found(ward, resource_type, query) == expected
    assert run(ward, resource_type, f"{query}&_total=accurate").total == len(expected)
    assert run(ward, resource_type, f"{query}&_summary=count").total == len(expected)
    asked = ask(resource_type, query)
    assert sorted(ward.read(lambda tx: tx.records.find_ids(asked, KN, limit=99))) == expected
    assert found(ward, resource_type, query, UNRESTRICTED) == expected
    assert found(ward, resource_type, query, QH) == []


@pytest.mark.parametrize(
    ("resource_type", "query", "ids"),
    [
        ("Patient", "", "p5 p4 p3 p2 p1"),
        ("Patient", "_sort=_id", "p1 p2 p3 p4 p5"),
        ("Patient", "_sort=-_id", "p5 p4 p3 p2 p1"),
        # By pinyin; a surname with two readings (曾: ceng, zeng) counts by the first in the direction of the sort.
        ("Patient", "_sort=name", "p5 p4 p2 p3 p1"),
        ("Patient", "_sort=-name", "p1 p4 p3 p2 p5"),
        ("Patient", "_sort=birthdate,_id", "p1 p2 p3 p4 p5"),
        ("Patient", "_sort=-birthdate,_id", "p3 p2 p1 p4 p5"),
        ("Patient", "_sort=gender,-_id", "p2 p3 p1 p5 p4"),
        ("Observation", "_sort=value-quantity,_id", "o4 o2 o1 o3 o5"),
        ("Observation", "_sort=-value-quantity,_id", "o1 o4 o2 o3 o5"),
        ("Observation", "_sort=-date,_id", "o2 o1 o3 o5 o4"),
        ("Observation", "_sort=_lastUpdated,_id", "o1 o2 o3 o4 o5"),
        ("Observation", "_sort=patient,_id", "o1 o2 o3 o4 o5"),
    ],
)
def test_matches_come_in_order_with_missing_values_last(
    ward: SqlDatabase, resource_type: str, query: str, ids: str
) -> None:
    assert in_order(ward, resource_type, query) == ids.split()
    paged: list[str] = []
    cursor = ""
    while True:
        page = run(ward, resource_type, f"{query}&_count=2{cursor}")
        paged += [one.id for one in page.matches]
        if page.next_cursor is None:
            break
        cursor = f"&_cursor={page.next_cursor}"
    assert paged == ids.split()
    assert in_order(ward, resource_type, f"{query}&_count=2&_offset=1") == ids.split()[1:3]


@pytest.mark.parametrize(
    "cursor", ["x", "W10", "WyJhIl0", "bnVsbA", "WzEsMl0", "eyJhIjoxfQ", "Wzk5OTk5OTk5OTk5OTk5OTk5OTk5OTld"]
)
def test_a_foreign_cursor_is_refused(ward: SqlDatabase, cursor: str) -> None:
    with pytest.raises(HubError) as caught:
        run(ward, "Patient", f"_cursor={cursor}")

    assert "page link" in caught.value.message


@pytest.mark.parametrize(
    ("resource_type", "query", "included"),
    [
        ("Observation", "_id=o1&_include=Observation:patient", "Patient/p1"),
        ("Observation", "_id=o1,o2,o3&_include=Observation:subject", "Patient/p1 Patient/p2"),
        ("Observation", "_id=o1&_include=Observation:subject:Group", ""),
        ("Observation", "_id=o5&_include=Observation:subject", ""),
        ("DiagnosticReport", "_include=DiagnosticReport:*", "Observation/o1 Observation/o2 Patient/p1"),
        ("Patient", "_id=p2&_revinclude=Observation:patient", "Observation/o3 Observation/o4"),
        ("Patient", "_id=p1&_revinclude=Observation:*", "Observation/o1 Observation/o2"),
        (
            "Observation",
            "_id=o1&_include=Observation:patient&_revinclude=DiagnosticReport:result",
            "DiagnosticReport/d1 Patient/p1",
        ),
    ],
)
def test_what_is_asked_for_comes_along(ward: SqlDatabase, resource_type: str, query: str, included: str) -> None:
    page = run(ward, resource_type, query)

    assert sorted(f"{one.type}/{one.id}" for one in page.included) == included.split()
    assert run(ward, resource_type, query, QH).included == ()


def test_pages_stay_put_while_rows_arrive(database: SqlDatabase) -> None:
    put(database, *(patient(f"a{number}") for number in range(6)))
    first = run(database, "Patient", "_count=3")
    put(database, *(patient(f"b{number}") for number in range(3)))
    put(database, patient("a1", "更名"))
    second = run(database, "Patient", f"_count=3&_cursor={first.next_cursor}")

    assert [one.id for one in (*first.matches, *second.matches)] == ["a5", "a4", "a3", "a2", "a1", "a0"]
    assert second.next_cursor is None


def test_an_update_replaces_what_a_resource_is_found_by(database: SqlDatabase) -> None:
    put(database, patient("p1", "郑伟", gender="male"))
    put(database, patient("p1", "欧阳明月"))

    assert [found(database, "Patient", query) for query in ("name=郑", "gender=male", "name=ouyang")] == [
        [],
        [],
        ["p1"],
    ]


def test_too_many_included_resources_are_refused(sqlite_database: SqlDatabase) -> None:
    put(sqlite_database, patient("p1"), *(observation(f"o{number}") for number in range(1001)))

    with pytest.raises(HubError) as caught:
        run(sqlite_database, "Patient", "_revinclude=Observation:patient")

    assert caught.value.issue_code == "too-costly"


def test_a_change_of_visibility_alone_takes_effect(database: SqlDatabase) -> None:
    organization = {"resourceType": "Organization", "id": "o", "name": "x"}
    put(database, organization, visibility="consortium")
    before = found(database, "Organization", scope=QH)
    put(database, organization, visibility="institution")

    assert (before, found(database, "Organization", scope=QH)) == (["o"], [])


# --- the reach of the asker --------------------------------------------------------------------------------------


def consortium(database: SqlDatabase) -> None:
    """Two hospitals' data; of KN's, YL may see one Observation, one Task and the whole record of p2."""
    for owner in ("KN", "YL", "QH"):
        low = owner.lower()
        put(
            database,
            *(patient(f"{low}-p{n}", gender="male", identifier=[{"system": "urn:mrn", "value": str(n)}]) for n in range(3)),
            *(observation(f"{low}-o{n}", f"{low}-p{n % 3}") for n in range(6)),
            {"resourceType": "Task", "id": f"{low}-t", "status": "requested", "intent": "order", "for": {"reference": f"Patient/{low}-p0"}},
            owner=owner,
        )  # fmt: skip
        put(
            database,
            {"resourceType": "Organization", "id": f"{low}-org", "name": owner},
            owner=owner,
            visibility="consortium",
        )
    lend(database, "Observation", "kn-o0")
    lend(database, "Task", "kn-t")
    lend(database, "patient-record", "kn-p2")
    grant = Grant(
        grantee="YL",
        target_type="Observation",
        target_id="kn-o1",
        task_id="ended",
        until=datetime(2020, 1, 1, tzinfo=UTC),
    )
    database.write(lambda tx: tx.grants.open(grant, now=utc_now()))


SCOPES = {
    "KN": KN,
    "YL": YL,
    "operator": Scope(institution="YL", directory_only=True),
    "patient": Scope(institution="KN", patient="kn-p1"),
    "hub": UNRESTRICTED,
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlDatabase]:
    if request.param == "sqlite":
        from tests.support.databases import _copied

        url = _copied(request.getfixturevalue("sqlite_template"), tmp_path_factory.mktemp("shared"))
    else:
        url = request.getfixturevalue("postgres").migrated_database()
    with opened(url) as database:
        consortium(database)
        yield database


def test_lent_data_is_found_and_nothing_else_of_the_lender(shared: SqlDatabase) -> None:
    own = [f"yl-o{n}" for n in range(6)]

    assert found(shared, "Observation", scope=YL) == ["kn-o0", "kn-o2", "kn-o5", *own]
    assert found(shared, "Patient", scope=YL) == ["kn-p2", "yl-p0", "yl-p1", "yl-p2"]
    assert found(shared, "Task", scope=YL) == ["kn-t", "yl-t"]
    assert found(shared, "Organization", scope=YL) == ["kn-org", "qh-org", "yl-org"]
    assert found(shared, "Observation", "patient=kn-p0", YL) == ["kn-o0"]
    assert found(shared, "Observation", "patient.identifier=0", YL) == ["yl-o0", "yl-o3"]
    assert run(shared, "Observation", "_total=accurate", YL).total == 9


@pytest.mark.parametrize("name", SCOPES)
@pytest.mark.parametrize(
    ("resource_type", "query"),
    [
        ("Patient", ""),
        ("Patient", "identifier=urn:mrn|0"),
        ("Patient", "gender=male&_sort=name"),
        ("Patient", "gender:not=female"),
        ("Patient", "_has:Observation:patient:code=2823-3"),
        ("Patient", "_revinclude=Observation:patient&_revinclude=Task:patient"),
        ("Observation", ""),
        ("Observation", "patient.identifier=0&_include=Observation:*"),
        ("Observation", "subject:Patient.gender=male"),
        ("Observation", "_include=Observation:patient"),
        ("Task", "_include=Task:patient"),
        ("Organization", ""),
    ],
)
def test_whatever_a_search_returns_can_be_read_by_its_id(
    shared: SqlDatabase, name: str, resource_type: str, query: str
) -> None:
    scope = SCOPES[name]
    page = run(shared, resource_type, query, scope)
    everything = [*page.matches, *page.included]

    readable = shared.read(lambda tx: [tx.records.get(one.type, one.id, scope) for one in everything])

    assert all(one is not None for one in readable)


def test_a_filter_on_hidden_records_tells_nothing(shared: SqlDatabase) -> None:
    # kn-o0 is lent, its patient is not: neither a chain nor _has may speak of what stands there.
    assert found(shared, "Observation", "patient.identifier=0&_id=kn-o0", YL) == []
    assert found(shared, "Patient", "_has:Observation:patient:_id=kn-o3", YL) == []
    page = run(shared, "Observation", "_id=kn-o0&_include=Observation:patient", YL)
    assert (len(page.matches), page.included) == (1, ())


@pytest.mark.parametrize("name", SCOPES)
def test_the_ways_exclude_one_another_and_together_are_the_predicate(shared: SqlDatabase, name: str) -> None:
    import sqlalchemy as sa

    scope, now = SCOPES[name], int(utc_now().timestamp() * 1e6)

    def rids(tx: Any, resource_type: str, condition: Any) -> list[int]:
        statement = sa.select(record.c.rid).where(record.c.type == resource_type, condition)
        return list(tx.connection.execute(statement).scalars())

    for kind in ("Patient", "Observation", "Task", "Organization"):
        parts = [
            rid
            for way in ways(record, scope, now, kind)
            for rid in shared.read(lambda tx, way=way, kind=kind: rids(tx, kind, way))
        ]
        whole = shared.read(lambda tx, kind=kind: rids(tx, kind, visible(record, scope, now)))
        assert sorted(parts) == sorted(whole)


# --- against a plain reading of the rows ---------------------------------------------------------------------------

_CODES = st.sampled_from(["a", "b", "c"])
_SYSTEMS = st.sampled_from(["", "urn:s", "urn:t"])
_TEXTS = st.sampled_from(["王小明", "曾明", "王", "Wang Ming", "明王明", "O'Neil", "欧阳王"])
_DATES = st.sampled_from(
    ["2023", "2024", "2024-05", "2024-05-04", "2024-05-04T10:00:00Z", "2024-12-31T23:59:59.5+08:00"]
)
_NUMBERS = st.sampled_from(["1", "1.0", "1.04", "1.05", "2", "20", "-3.5"])


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"code": code, **({"system": system} if system else {})}]}


_RESOURCES = st.builds(
    lambda text, system, code, gender, date, span, number, comparator: [
        patient("x", text, **({"gender": gender} if gender else {}), **({"birthDate": date[:10]} if date else {})),
        observation(
            "x",
            code=_concept(system, code),
            **(({"effectivePeriod": {"start": date}} if span else {"effectiveDateTime": date}) if date else {}),
            **(
                {"valueQuantity": {"value": loads(number), "unit": code, **({"comparator": comparator} if comparator else {})}}
                if number
                else {}
            ),
        ),
    ],
    _TEXTS, _SYSTEMS, _CODES, st.sampled_from(["", "male", "female"]), st.one_of(st.just(""), _DATES),
    st.booleans(), st.one_of(st.just(""), _NUMBERS), st.sampled_from(["", "<", ">="]),
)  # fmt: skip

_PREFIXES = st.sampled_from(["", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"])
_QUERIES = st.one_of(
    st.builds(lambda m, t: ("Patient", f"name{m}={t}"), st.sampled_from(["", ":exact", ":contains"]),
              st.sampled_from(["王", "明", "小明", "wang", "wm", "w", "Wang Ming", "o", "zeng", "明王"])),
    st.builds(lambda m, c: ("Patient", f"gender{m}={c}"), st.sampled_from(["", ":not"]), st.sampled_from(["male", "female", "male,female"])),
    st.builds(lambda p, d: ("Patient", f"birthdate={p}{d[:10]}"), _PREFIXES, _DATES),
    st.builds(lambda p, d: ("Observation", f"date={p}{d.replace('+', '%2B')}"), _PREFIXES, _DATES),
    st.builds(lambda m, s, c: ("Observation", f"code{m}={s}|{c}"), st.sampled_from(["", ":not"]), _SYSTEMS, _CODES),
    st.builds(lambda c: ("Observation", f"code={c}"), _CODES),
    st.builds(lambda p, n, u: ("Observation", f"value-quantity={p}{n}{u}"), _PREFIXES, _NUMBERS, st.sampled_from(["", "||a"])),
    st.builds(lambda p, v: ("Observation", f"{p}:missing={v}"), st.sampled_from(["date", "value-quantity", "code"]),
              st.sampled_from(["true", "false"])),
)  # fmt: skip


def _fulfils(resource: dict[str, Any], one: ast.PlainFilter) -> bool:
    """Return what the index rows say, by the words of hub.search.ast and index_rows."""
    rows = extract(resource)
    match one:
        case ast.Token(param=param, modifier=modifier, values=values):
            any_row = any(
                row.param == param and v.code in (None, row.code) and v.system in (None, row.system)
                for row in rows.tokens
                for v in values
            )
            return any_row != (modifier == "not")
        case ast.String(param=param, modifier="exact", values=values):
            return any(
                row.param == param and row.kind == "text" and row.exact == v.exact
                for row in rows.strings
                for v in values
            )
        case ast.String(param=param, modifier="contains", values=values):
            return any(
                row.param == param and row.kind in {"text", "pinyin"} and v.folded in row.value
                for row in rows.strings
                for v in values
            )
        case ast.String(param=param, values=values):
            return any(row.param == param and row.value.startswith(v.folded) for row in rows.strings for v in values)
        case ast.Date(param=param, values=values):
            return any(row.param == param and _dates(row.low_us, row.high_us, v) for row in rows.dates for v in values)
        case ast.Quantity(param=param, values=values):
            return any(
                row.param == param
                and _numbers(row.low, row.high, v)
                and (v.code is None or v.code in {row.code, row.unit})
                for row in rows.quantities
                for v in values
            )
        case ast.Missing(param=param, missing=missing):
            everything = [*rows.tokens, *rows.dates, *rows.quantities]
            return any(row.param == param for row in everything) != missing
    raise AssertionError(one)


def _dates(low: int, high: int, v: ast.DateValue) -> bool:
    equal = low >= v.low_us and high <= v.high_us
    return {
        "eq": equal, "ne": not equal, "gt": high > v.high_us, "lt": low < v.low_us, "ge": high > v.high_us or equal,
        "le": low < v.low_us or equal, "sa": low >= v.high_us, "eb": high <= v.low_us,
        "ap": low < v.high_us and high > v.low_us,
    }[v.prefix]  # fmt: skip


def _numbers(low: float, high: float, v: ast.QuantityValue) -> bool:
    equal = low >= v.low and high < v.high
    return {
        "eq": equal, "ne": not equal, "gt": high > v.value, "lt": low < v.value, "ge": high >= v.value,
        "le": low <= v.value, "sa": low > v.value, "eb": high < v.value, "ap": low < v.high and high >= v.low,
    }[v.prefix]  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlDatabase]:
    if request.param == "sqlite":
        from tests.support.databases import _copied

        url = _copied(request.getfixturevalue("sqlite_template"), tmp_path_factory.mktemp("plain"))
    else:
        url = request.getfixturevalue("postgres").migrated_database()
    with opened(url) as database:
        yield database


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(_RESOURCES, min_size=1, max_size=6), queries=st.lists(_QUERIES, min_size=1, max_size=8))
def test_a_search_agrees_with_a_plain_reading_of_the_rows(
    plain: SqlDatabase,
    groups: list[list[dict[str, Any]]],
    queries: list[tuple[str, str]],
) -> None:
    resources = [{**one, "id": f"r{number}"} for number, group in enumerate(groups) for one in group]

    def work(tx: Any) -> None:
        tx.records.put_many([NewVersion(resource=one, owner="KN") for one in resources])
        for kind, text in queries:
            query = ask(kind, text.replace("%2B", "+"))
            expected = sorted(
                one["id"]
                for one in resources
                if one["resourceType"] == kind and all(_fulfils(one, f) for f in query.filters)
            )
            assert sorted(one.id for one in tx.records.search(query, KN).matches) == expected, (kind, text)
        raise _Undo

    with pytest.raises(_Undo):
        plain.write(work)


class _Undo(Exception):
    """Rolls the resources of one example back."""


def test_every_reference_parameter_is_followed_by_a_star() -> None:
    from storage.sql.search_includes import params

    rows = params(ast.Include(source_type="Observation", param="*"))

    assert "Observation.patient" in rows
    assert len(rows) == sum(1 for one in search_parameters("Observation").values() if one.type == "reference")
