"""Whatever way a question is asked, the answer holds only what the asker could read by id (DESIGN rule 4)."""

from __future__ import annotations

import random
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

TYPES = ("Patient", "Encounter", "Observation", "DiagnosticReport")


@pytest.fixture
def services(tmp_path: Path, database_url: str) -> Iterator[Services]:
    with running(tmp_path, url=database_url) as one:
        yield one


def reference(one: dict[str, Any]) -> dict[str, str]:
    return {"reference": f"{one['resourceType']}/{one['id']}"}


def populate(client: Client, rng: random.Random, salt: str) -> list[dict[str, Any]]:
    """Create a small hospital: patients with the same names everywhere, visits, results, changes and deletions."""
    made: list[dict[str, Any]] = []
    for number in range(3):
        patient = client.create(
            {
                "resourceType": "Patient",
                "name": [{"text": rng.choice(["欧阳明月", "郑伟"])}],
                "identifier": [{"system": "urn:oid:1.2.3", "value": str(10086 + number)}],
            }
        )
        visit = client.create(
            {
                "resourceType": "Encounter",
                "status": "finished",
                "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
                "subject": reference(patient),
            }
        )
        results = [
            client.create(
                {
                    "resourceType": "Observation",
                    "status": "final",
                    "code": {"text": "K"},
                    "subject": reference(patient),
                    "encounter": reference(visit),
                    "valueQuantity": {"value": number + 1, "unit": "mmol/L"},
                }
            )
            for _ in range(rng.randint(1, 2))
        ]
        report = client.create(
            {
                "resourceType": "DiagnosticReport",
                "status": "final",
                "code": {"text": salt},
                "subject": reference(patient),
                "result": [reference(one) for one in results],
            }
        )
        made += [patient, visit, *results, report]
    changed = rng.choice([one for one in made if one["resourceType"] == "Observation"])
    client.put(f"/fhir/Observation/{changed['id']}", json={**changed, "status": "amended"})
    loose = client.create({"resourceType": "Observation", "status": "final", "code": {"text": "gone"}})
    client.delete(f"/fhir/Observation/{loose['id']}")
    return [*made, loose]


def open_grants(services: Services, owned: list[dict[str, Any]], grantee: str, rng: random.Random) -> None:
    def work(tx: Tx) -> None:
        for one in rng.sample(owned, 4):
            tx.grants.open(
                Grant(grantee=grantee, target_type=one["resourceType"], target_id=one["id"], task_id="t1"),
                now=utc_now(),
            )
        patient = rng.choice([one for one in owned if one["resourceType"] == "Patient"])
        tx.grants.open(
            Grant(grantee=grantee, target_type="patient-record", target_id=patient["id"], task_id="t1"), now=utc_now()
        )

    services.database.write(work)


def questions(everything: list[dict[str, Any]]) -> list[str]:
    found = [f"/fhir/{type_}?_count=500" for type_ in TYPES]
    found += [f"/fhir/{type_}?_count=500&_include=*" for type_ in TYPES]
    found += [f"/fhir/{type_}/_history?_count=500" for type_ in TYPES]
    found += [
        "/fhir/_history?_count=500",
        "/fhir/Patient?name=欧阳&_count=500",
        "/fhir/Patient?identifier=10086&_count=500",
        "/fhir/Patient?_count=500&_revinclude=Observation:subject&_revinclude=Encounter:subject",
        "/fhir/Encounter?_count=500&_revinclude=Observation:encounter&_include=Encounter:subject",
        "/fhir/Observation?_count=500&subject:Patient.identifier=10086",
        "/fhir/DiagnosticReport?_count=500&result.status=final,amended",
        "/fhir/Patient?_count=500&_has:Observation:subject:status=final",
        "/fhir/Observation?_count=500&code:not=zzz&_sort=-_lastUpdated",
        "/fhir/Observation?_count=500&encounter:missing=false&_elements=status",
    ]
    for one in everything:
        found.append(f"/fhir/{one['resourceType']}/{one['id']}/_history")
        found.append(f"/fhir/{one['resourceType']}/{one['id']}/_history/1")
        found.append(f"/fhir/{one['resourceType']}?_id={one['id']}")
        if one["resourceType"] == "Patient":
            found.append(f"/fhir/Patient/{one['id']}/$everything")
            found.append(f"/fhir/Observation?subject=Patient/{one['id']}")
    return found


def seen(body: dict[str, Any]) -> set[str]:
    """Return ``Type/id`` of every patient-related resource in an answer."""
    if body["resourceType"] == "OperationOutcome":
        return set()
    if body["resourceType"] != "Bundle":
        return {f"{body['resourceType']}/{body['id']}"}
    found = {"/".join(entry["fullUrl"].split("/")[-2:]) for entry in body.get("entry", ())}
    return {one for one in found if one.partition("/")[0] in TYPES}


@pytest.mark.parametrize("seed", [1, 2])
def test_no_way_of_asking_shows_more_than_reading_by_id(services: Services, seed: int) -> None:
    rng = random.Random(seed)
    app = build(services)
    clients = {code: client_of(app, services, Actor(institution=code)) for code in ("KN", "QH", "YL")}
    owned = {code: populate(clients[code], rng, code) for code in ("KN", "QH")}
    everything = [*owned["KN"], *owned["QH"]]
    open_grants(services, owned["KN"], "YL", rng)
    open_grants(services, owned["QH"], "KN", rng)

    for code, client in clients.items():
        reach = {
            f"{one['resourceType']}/{one['id']}"
            for one in everything
            if client.get(f"/fhir/{one['resourceType']}/{one['id']}").status_code in {200, 410}
        }
        assert {f"{one['resourceType']}/{one['id']}" for one in owned.get(code, [])} <= reach
        assert len(reach) < len(everything)
        for question in questions(everything):
            answer = client.get(question)
            assert answer.status_code in {200, 404, 410}, (question, answer.text)
            assert seen(answer.json()) <= reach, (code, question)
        for type_ in TYPES:
            page = client.get(f"/fhir/{type_}?_total=accurate&_count=500").json()
            assert page["total"] == len(page.get("entry", [])), type_


def test_a_closed_grant_ends_at_once(services: Services) -> None:
    app = build(services)
    kn, yl = (client_of(app, services, Actor(institution=code)) for code in ("KN", "YL"))
    made = kn.create({"resourceType": "Patient", "name": [{"text": "郑伟"}]})
    url = f"/fhir/Patient/{made['id']}"
    grant = Grant(grantee="YL", target_type="Patient", target_id=made["id"], task_id="t1")

    services.database.write(lambda tx: tx.grants.open(grant, now=utc_now()))
    during = [yl.get(url).status_code, yl.get(f"{url}/_history").status_code, len(yl.search("/fhir/Patient"))]
    services.database.write(lambda tx: tx.grants.close("t1", grantee="YL", until=utc_now()))
    after = [yl.get(url).status_code, yl.get(f"{url}/_history").status_code, len(yl.search("/fhir/Patient"))]

    assert (during, after) == ([200, 200, 1], [404, 404, 0])


def test_what_a_grant_shows_may_be_read_but_not_written(services: Services) -> None:
    app = build(services)
    kn, yl = (client_of(app, services, Actor(institution=code)) for code in ("KN", "YL"))
    made = kn.create({"resourceType": "Patient", "name": [{"text": "郑伟"}]})
    grant = Grant(grantee="YL", target_type="Patient", target_id=made["id"], task_id="t1")
    services.database.write(lambda tx: tx.grants.open(grant, now=utc_now()))
    url = f"/fhir/Patient/{made['id']}"
    patch = [{"op": "add", "path": "/gender", "value": "male"}]

    answers = [
        yl.put(url, json={**made, "gender": "male"}).status_code,
        yl.patch(url, json=patch, headers={"Content-Type": "application/json-patch+json"}).status_code,
        yl.delete(url).status_code,
    ]

    assert answers == [403, 403, 403]
    assert kn.get(url).json()["meta"]["versionId"] == "1"


def test_what_is_out_of_reach_cannot_be_written_and_looks_absent(services: Services) -> None:
    app = build(services)
    kn, qh = (client_of(app, services, Actor(institution=code)) for code in ("KN", "QH"))
    made = kn.create({"resourceType": "Patient", "name": [{"text": "郑伟"}]})
    url = f"/fhir/Patient/{made['id']}"

    answers = [qh.put(url, json={**made, "gender": "male"}), qh.delete(url), qh.delete("/fhir/Patient/none")]

    assert [one.status_code for one in answers] == [404, 404, 404]
    assert kn.get(url).json()["meta"]["versionId"] == "1"


def test_the_same_condition_at_two_institutions_makes_two_resources(services: Services) -> None:
    app = build(services)
    kn, qh = (client_of(app, services, Actor(institution=code)) for code in ("KN", "QH"))
    body = {"resourceType": "Patient", "identifier": [{"system": "urn:oid:1.2.3", "value": "10086"}]}
    headers = {"If-None-Exist": "identifier=urn:oid:1.2.3|10086"}

    first = kn.post("/fhir/Patient", json=body, headers=headers)
    grant = Grant(grantee="QH", target_type="Patient", target_id=first.json()["id"], task_id="t1")
    services.database.write(lambda tx: tx.grants.open(grant, now=utc_now()))
    second = qh.post("/fhir/Patient", json=body, headers=headers)

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]
