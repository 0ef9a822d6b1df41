"""``Patient/$everything`` holds the record of one patient within the asker's reach and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.http.app import build
from hub.actor import Actor
from hub.boot import Services
from hub.clock import utc_now
from hub.ports import Grant
from tests.support.http import Client, client_of
from tests.support.services import running

NOTE = {"resourceType": "Observation", "status": "final", "code": {"text": "K"}}


@pytest.fixture
def services(tmp_path: Path, database_url: str) -> Iterator[Services]:
    with running(tmp_path, url=database_url) as one:
        yield one


@pytest.fixture
def clients(services: Services) -> dict[str, Client]:
    app = build(services)
    return {code: client_of(app, services, Actor(institution=code)) for code in ("KN", "YL", "QH")}


def record(client: Client) -> tuple[str, list[str]]:
    """Create a patient with two results; return the patient's id and the ids of the results."""
    patient = client.create({"resourceType": "Patient", "identifier": [{"system": "urn:oid:1.2.3", "value": "10086"}]})
    about = {"reference": f"Patient/{patient['id']}"}
    return patient["id"], [client.create({**NOTE, "subject": about})["id"] for _ in range(2)]


def grant(services: Services, type_: str, id_: str, grantee: str = "YL") -> None:
    one = Grant(grantee=grantee, target_type=type_, target_id=id_, task_id="t1")
    services.database.write(lambda tx: tx.grants.open(one, now=utc_now()))


def everything(client: Client, patient: str, more: str = "") -> list[str]:
    answer = client.get(f"/fhir/Patient/{patient}/$everything{more}")
    assert answer.status_code == 200, answer.text
    return sorted(entry["resource"]["id"] for entry in answer.json().get("entry", ()))


def test_a_stranger_gets_the_answer_for_what_does_not_exist(clients: dict[str, Client]) -> None:
    patient, _ = record(clients["KN"])

    assert clients["QH"].get(f"/fhir/Patient/{patient}/$everything").status_code == 404
    assert clients["QH"].get("/fhir/Patient/none/$everything").status_code == 404


def test_who_may_see_the_patient_and_one_result_gets_these_two(services: Services, clients: dict[str, Client]) -> None:
    patient, results = record(clients["KN"])
    grant(services, "Patient", patient)
    grant(services, "Observation", results[0])

    assert everything(clients["YL"], patient) == sorted([patient, results[0]])
    assert everything(clients["KN"], patient) == sorted([patient, *results])


def test_an_open_record_is_the_whole_of_one_patient_and_of_no_other(
    services: Services, clients: dict[str, Client]
) -> None:
    patient, results = record(clients["KN"])
    record(clients["KN"])
    same_number, _ = record(clients["QH"])
    grant(services, "patient-record", patient)

    assert everything(clients["YL"], patient) == sorted([patient, *results])
    assert clients["YL"].get(f"/fhir/Patient/{same_number}/$everything").status_code == 404
    services.database.write(lambda tx: tx.grants.close("t1", grantee="YL", until=utc_now()))
    assert clients["YL"].get(f"/fhir/Patient/{patient}/$everything").status_code == 404


def test_types_and_pages_can_be_chosen_and_the_rest_is_refused(clients: dict[str, Client]) -> None:
    kn = clients["KN"]
    patient, results = record(kn)
    seen: list[str] = []
    url: str | None = f"/fhir/Patient/{patient}/$everything?_count=1"
    while url:
        page: dict[str, Any] = kn.get(url).json()
        seen += [entry["resource"]["id"] for entry in page["entry"]]
        following = [link["url"] for link in page["link"] if link["relation"] == "next"]
        url = "/fhir" + following[0].split("/fhir", 1)[1] if following else None

    assert sorted(seen) == sorted([patient, *results])
    assert everything(kn, patient, "?_type=Observation") == sorted(results)
    assert kn.get(f"/fhir/Patient/{patient}/$everything?nonsense=1").status_code == 400


def test_it_is_audited_with_what_was_shown(clients: dict[str, Client]) -> None:
    kn = clients["KN"]
    patient, results = record(kn)
    kn.get(f"/fhir/Patient/{patient}/$everything")

    [event] = kn.search(f"/fhir/AuditEvent?patient={patient}&subtype=everything")

    shown = {entity["what"]["reference"] for entity in event["entity"] if "what" in entity}
    assert {f"Patient/{patient}", *(f"Observation/{one}" for one in results)} <= shown
