"""``Patient/$link`` and ``$unlink``: what desks say is kept, and its answer tells nothing of the other side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.http.app import build
from fhir_mappings.identifiers import naming_system, resource_id
from hub.actor import Actor
from hub.boot import Services
from tests.support.http import Client, client_of
from tests.support.images import resources
from tests.support.services import running

CARD = {"system": "urn:oid:2.16.156.10011.1.19", "value": "H1"}


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as one:
        yield one


@pytest.fixture
def desks(services: Services) -> dict[str, Client]:
    app = build(services)
    found = {}
    for code in ("KN", "YL"):
        system = client_of(app, services, Actor(institution=code))
        patient = {
            "resourceType": "Patient",
            "identifier": [{"system": naming_system(code, "patient-id"), "value": "1"}],
        }
        found[f"{code}-id"] = system.create(patient)["id"]
        found[code] = client_of(app, services, Actor(institution=code, roles=frozenset({"desk"})))
    return found


def said(client: Client, id_: Any, operation: str = "$link", **values: str) -> httpx.Response:
    parameters = [{"name": name, "valueString": value} for name, value in values.items()]
    body = {"resourceType": "Parameters", "parameter": parameters}
    answer: httpx.Response = client.post(f"/fhir/Patient/{id_}/{operation}", json=body)
    return answer


def test_a_statement_is_answered_alike_for_patients_that_exist_and_that_do_not(desks: dict[str, Any]) -> None:
    answers = [said(desks["KN"], desks["KN-id"], institution="YL", number=number) for number in ("1", "999")]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    assert answers[0].headers["cache-control"] == "no-store"
    withdrawn = said(desks["KN"], desks["KN-id"], "$unlink", institution="YL", number="999")
    assert withdrawn.json()["parameter"] == [{"name": "outcome", "valueCode": "withdrawn"}]


@pytest.mark.parametrize(
    "values",
    [{}, {"institution": "YL"}, {"institution": "YL", "number": ""}, {"institution": "YL", "number": "1", "more": "x"},
     {"institution": "KN", "number": "1"}, {"institution": "YL", "number": "9" * 65}],
)  # fmt: skip
def test_what_does_not_name_a_patient_of_another_member_is_refused(
    desks: dict[str, Any], values: dict[str, str]
) -> None:
    assert said(desks["KN"], desks["KN-id"], **values).status_code in {400, 422}


def test_only_a_desk_speaks_of_its_own_patients(services: Services, desks: dict[str, Any]) -> None:
    assert said(desks["KN"], desks["YL-id"], institution="YL", number="1").status_code == 404
    doctor = client_of(build(services), services, Actor(institution="KN", roles=frozenset({"doctor"})))
    assert said(doctor, desks["KN-id"], institution="YL", number="1").status_code == 403


def test_a_patient_written_over_fhir_is_held_against_those_of_other_institutions(services: Services) -> None:
    app = build(services)
    for code in ("KN", "YL"):
        client_of(app, services, Actor(institution=code)).create({"resourceType": "Patient", "identifier": [CARD]})
    codes = [task["code"]["coding"][0]["code"] for task in resources(services, "Task")]
    assert codes == ["patient-link"]


def test_an_id_that_can_be_computed_does_not_tell_whether_two_patients_are_linked(
    services: Services, desks: dict[str, Any]
) -> None:
    writer = client_of(build(services), services, Actor(institution="QH"))
    said(desks["KN"], desks["KN-id"], institution="YL", number="1")
    [task] = resources(services, "Task")
    answers = []
    for id_ in (task["id"], resource_id("YY", "patient-link", "Task", "nobody|said")):
        body = {"resourceType": "Task", "id": id_, "status": "requested", "intent": "order"}
        answer = writer.put(f"/fhir/Task/{id_}", json=body)
        answers.append((answer.status_code, [issue["details"]["text"] for issue in answer.json()["issue"]]))
    assert answers[0] == answers[1]
