"""The CapabilityStatement lists exactly what works: each thing it says is done, and what it leaves out is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.http.app import build
from fhir_mappings.definitions.search_parameters import search_parameters
from hub.actor import Actor
from hub.boot import Services
from hub.capability import capability
from hub.errors import HubError
from hub.search import parse
from tests.support.http import Client, client_of
from tests.support.services import running

RESOURCES: list[dict[str, Any]] = capability("http://h/fhir", "2025-06-11")["rest"][0]["resource"]
VALUES = {"string": "x", "reference": "x", "date": "2025", "number": "1", "quantity": "1", "uri": "u:x"}
PATCH = {"Content-Type": "application/json-patch+json"}


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as one:
        yield one


@pytest.fixture
def kn(services: Services) -> Client:
    return client_of(build(services), services, Actor(institution="KN"))


def test_every_parameter_and_include_of_every_type_can_be_asked_for() -> None:
    for one in RESOURCES:
        if one["type"] == "AuditEvent":
            continue
        for parameter in one["searchParam"]:
            value = "x" if parameter["name"] == "_id" else VALUES.get(parameter["type"], "a|b")
            parse(one["type"], [(parameter["name"], value)])
        for value in one.get("searchInclude", ()):
            parse(one["type"], [("_include", value)])
        for value in one.get("searchRevInclude", ()):
            parse(one["type"], [("_revinclude", value)])


def test_a_parameter_that_is_not_listed_is_refused() -> None:
    codes = {code for one in RESOURCES for code in search_parameters(one["type"])}
    for one in RESOURCES:
        listed = {parameter["name"] for parameter in one["searchParam"]}
        if one["type"] == "AuditEvent":
            continue
        for code in codes - listed:
            with pytest.raises(HubError) as caught:
                parse(one["type"], [(code, "x")])
            assert caught.value.status in {None, 400}


def test_the_audit_trail_takes_what_is_listed_and_nothing_else(kn: Client) -> None:
    [audit] = [one for one in RESOURCES if one["type"] == "AuditEvent"]
    listed = {one["name"] for one in audit["searchParam"]}
    values = {"date": "2025-06-11", "patient": "x", "action": "R", "outcome": "0", "subtype": "read", "type": "rest"}

    assert {kn.get(f"/fhir/AuditEvent?{name}={values[name]}").status_code for name in listed} == {200}
    assert {
        kn.get(f"/fhir/AuditEvent?{name}=x").status_code for name in search_parameters("AuditEvent").keys() - listed
    } <= {400}
    assert kn.post("/fhir/AuditEvent", json={"resourceType": "AuditEvent"}).status_code == 405


def test_every_interaction_that_is_listed_is_done(kn: Client) -> None:
    statement = kn.get("/fhir/metadata").json()["rest"][0]
    [patient] = [one for one in statement["resource"] if one["type"] == "Patient"]
    body = {"resourceType": "Patient", "identifier": [{"system": "urn:oid:1.2.3", "value": "1"}]}
    made = kn.create(body)
    url, condition = f"/fhir/Patient/{made['id']}", "identifier=urn:oid:1.2.3|1"
    patch = [{"op": "add", "path": "/gender", "value": "male"}]
    done = {
        "create": kn.post("/fhir/Patient", json={"resourceType": "Patient"}).status_code,
        "read": kn.get(url).status_code,
        "vread": kn.get(f"{url}/_history/1").status_code,
        "search-type": kn.get("/fhir/Patient").status_code,
        "history-instance": kn.get(f"{url}/_history").status_code,
        "history-type": kn.get("/fhir/Patient/_history").status_code,
        "update": kn.put(url, json={**made, "birthDate": "1990"}).status_code,
        "patch": kn.patch(url, json=patch, headers=PATCH).status_code,
        "conditionalCreate": kn.post("/fhir/Patient", json=body, headers={"If-None-Exist": condition}).status_code,
        "conditionalUpdate": kn.put(f"/fhir/Patient?{condition}", json=body).status_code,
        "updateCreate": kn.put("/fhir/Patient/own-1", json={"resourceType": "Patient", "id": "own-1"}).status_code,
        "conditionalDelete": kn.delete(f"/fhir/Patient?{condition}").status_code,
        "delete": kn.delete("/fhir/Patient/own-1").status_code,
        "history-system": kn.get("/fhir/_history").status_code,
        "batch": kn.post("/fhir", json={"resourceType": "Bundle", "type": "batch"}).status_code,
        "transaction": kn.post("/fhir", json={"resourceType": "Bundle", "type": "transaction"}).status_code,
    }

    listed = {one["code"] for one in (*patient["interaction"], *statement["interaction"])}
    flags = {
        name
        for name in ("conditionalCreate", "conditionalUpdate", "conditionalDelete", "updateCreate")
        if patient.get(name)
    }
    assert done.keys() == listed | flags
    assert {name: status for name, status in done.items() if status not in {200, 201, 204}} == {}
    assert patient["conditionalDelete"] == "single"
    for _ in range(2):
        kn.create(body)
    assert kn.delete(f"/fhir/Patient?{condition}").status_code == 412


def test_operations_that_are_listed_answer_and_others_do_not(kn: Client) -> None:
    made = kn.create({"resourceType": "Patient"})
    listed = {(one["type"], operation["name"]) for one in RESOURCES for operation in one.get("operation", ())}

    assert {type_ for type_, name in listed if name == "everything"} == {"Patient"}
    assert {type_ for type_, name in listed if name == "transition"} == {"Task"}
    assert kn.get(f"/fhir/Patient/{made['id']}/$everything").status_code == 200
    assert kn.post("/fhir/Task/none/$transition", json={"resourceType": "Parameters"}).status_code in {400, 404, 422}
    for type_ in ("Patient", "Basic", "Task"):
        assert kn.post(f"/fhir/{type_}/$validate", json={"resourceType": type_}).status_code == 200
    for path in (f"/fhir/Patient/{made['id']}/$lastn", "/fhir/Encounter/x/$everything", "/fhir/$export"):
        assert kn.get(path).status_code in {404, 405}, path
