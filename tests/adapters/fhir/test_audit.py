"""Each way of reading and writing a patient's record leaves a line that the patient's institution finds (rule 12)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.http.app import build
from hub.actor import Actor
from hub.boot import Services
from hub.clock import utc_now
from hub.ports import Grant, Tx
from tests.support.http import Client, client_of
from tests.support.services import running

PATCH = {"Content-Type": "application/json-patch+json"}


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as one:
        yield one


@pytest.fixture
def kn(services: Services) -> Client:
    return client_of(build(services), services, Actor(institution="KN"))


@pytest.fixture
def record(kn: Client) -> dict[str, str]:
    """The ids of one patient and one result, at its second version."""
    person = kn.create({"resourceType": "Patient", "identifier": [{"system": "urn:oid:1.2.3", "value": "10086"}]})
    result = kn.create(observation(person["id"]))
    kn.put(f"/fhir/Observation/{result['id']}", json={**result, "status": "amended"})
    return {"p": person["id"], "o": result["id"]}


def observation(patient_id: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "K"},
        "subject": {"reference": f"Patient/{patient_id}"},
        **more,
    }


def lines(services: Services, patient_id: str) -> list[dict[str, Any]]:
    """Return what KN finds about its patient, oldest first."""
    found = services.database.read(
        lambda tx: tx.audit.search({"patient": patient_id}, institution="KN", limit=100, before=None)
    )
    return list(found)[::-1]


def bundle(kind: str, *requests: tuple[str, str, dict[str, Any] | None]) -> dict[str, Any]:
    entries = [
        {"request": {"method": method, "url": url}, **({"resource": resource} if resource else {})}
        for method, url, resource in requests
    ]
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


READS = [
    "/fhir/Observation/{o}",
    "/fhir/Observation/{o}/_history/1",
    "/fhir/Observation/{o}/_history",
    "/fhir/Observation/_history",
    "/fhir/_history",
    "/fhir/Observation?status=amended",
    "/fhir/Observation?_id={o}&_include=Observation:subject",
    "/fhir/Patient?_id={p}&_revinclude=Observation:subject",
    "/fhir/Observation?_id={o}&_elements=status",
    "/fhir/Patient/{p}/$everything",
]


@pytest.mark.parametrize("path", READS)
def test_every_way_of_reading_is_told_to_the_patients_institution(
    services: Services, kn: Client, record: dict[str, str], path: str
) -> None:
    before = len(lines(services, record["p"]))
    answer = kn.get(path.format(**record))
    assert answer.status_code == 200
    assert record["o"] in answer.text
    told = lines(services, record["p"])[before:]
    assert [(one["outcome"], one["action"] in {"R", "E"}) for one in told] == [("0", True)]


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_what_a_bundle_reads_is_told_too(services: Services, kn: Client, record: dict[str, str], kind: str) -> None:
    before = len(lines(services, record["p"]))
    wanted = bundle(kind, ("GET", f"Observation/{record['o']}", None), ("GET", "Observation?status=amended", None))
    answer = kn.post("/fhir", json=wanted)
    assert answer.status_code == 200
    assert answer.text.count(record["o"]) >= 2
    assert len(lines(services, record["p"])) > before


def test_a_search_by_post_is_told_too(services: Services, kn: Client, record: dict[str, str]) -> None:
    before = len(lines(services, record["p"]))
    answer = kn.post("/fhir/Observation/_search", data={"_id": record["o"]})
    assert answer.status_code == 200
    assert len(lines(services, record["p"])) == before + 1


def test_what_a_partner_reads_by_a_grant_is_found_by_the_owner(services: Services, record: dict[str, str]) -> None:
    def open_grant(tx: Tx) -> None:
        target = Grant(grantee="YL", target_type="Observation", target_id=record["o"], task_id="t1")
        tx.grants.open(target, now=utc_now())

    services.database.write(open_grant)
    yl = client_of(build(services), services, Actor(institution="YL", client="YL_DESK"))
    assert yl.get(f"/fhir/Observation/{record['o']}").status_code == 200
    last = lines(services, record["p"])[-1]
    assert last["agent"][0]["who"]["identifier"]["value"] == "YL_DESK"
    refused = services.database.read(lambda tx: tx.audit.search({}, institution="QH", limit=100, before=None))
    assert refused == []


@pytest.mark.parametrize(
    ("action", "write"),
    [
        ("C", lambda c, r: c.post("/fhir/Observation", json=observation(r["p"]))),
        (
            "U",
            lambda c, r: c.put(
                f"/fhir/Observation/{r['o']}", json=observation(r["p"], id=r["o"]), headers={"If-Match": 'W/"2"'}
            ),
        ),
        (
            "U",
            lambda c, r: c.patch(
                f"/fhir/Observation/{r['o']}",
                json=[{"op": "replace", "path": "/status", "value": "corrected"}],
                headers=PATCH,
            ),
        ),
        ("D", lambda c, r: c.delete(f"/fhir/Observation/{r['o']}")),
        (
            "U",
            lambda c, r: c.put(
                "/fhir/Patient?identifier=urn:oid:1.2.3|10086",
                json={
                    "resourceType": "Patient",
                    "identifier": [{"system": "urn:oid:1.2.3", "value": "10086"}],
                    "gender": "male",
                },
            ),
        ),
        ("C", lambda c, r: c.post("/fhir", json=bundle("transaction", ("POST", "Observation", observation(r["p"]))))),
        ("C", lambda c, r: c.post("/fhir", json=bundle("batch", ("POST", "Observation", observation(r["p"]))))),
    ],
)
def test_every_way_of_writing_is_told_with_what_it_was(
    services: Services, kn: Client, record: dict[str, str], action: str, write: Any
) -> None:
    before = len(lines(services, record["p"]))
    assert write(kn, record).status_code in {200, 201, 204}
    told = lines(services, record["p"])[before:]
    assert action in {one["action"] for one in told}
    assert {one["outcome"] for one in told} == {"0"}


def test_reading_what_is_gone_is_told(services: Services, kn: Client, record: dict[str, str]) -> None:
    kn.delete(f"/fhir/Observation/{record['o']}")
    before = services.database.read(lambda tx: len(tx.audit.search({}, institution="KN", limit=100, before=None)))
    assert kn.get(f"/fhir/Observation/{record['o']}").status_code == 410
    after = services.database.read(lambda tx: len(tx.audit.search({}, institution="KN", limit=100, before=None)))
    assert after == before + 1
