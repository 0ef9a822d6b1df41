"""What DICOM keeps is read by FHIR and not changed by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.http.app import build
from fhir_mappings.dicom import performed_step
from fhir_mappings.dicom import workitem as mapping
from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.boot import Services
from hub.envelope import Envelope
from hub.performed_step import PerformedSteps, step_id
from hub.workitem import Workitems, task_id
from tests.adapters.dimse.test_mpps import UID as STEP
from tests.adapters.dimse.test_mpps import begun
from tests.support.http import Client, client_of
from tests.support.services import running
from tests.support.workitems import UID, workitem

PATCH = {"Content-Type": "application/json-patch+json"}
KN = Actor(institution="KN", client="KN_PACS")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as one:
        yield one


@pytest.fixture
def kn(services: Services) -> Client:
    return client_of(build(services), services, Actor(institution="KN", roles=frozenset({"doctor", "system"})))


def envelope(services: Services, kind: str) -> Envelope:
    return Envelope(door="dimse", actor=KN, peer="127.0.0.1:104", kind=kind, received_at=services.clock())


def kept_workitem(services: Services) -> str:
    Workitems(services).create(envelope(services, "N-CREATE"), UID, workitem())
    return f"Task/{task_id('KN', UID)}"


def kept_step(services: Services) -> str:
    PerformedSteps(services).create(envelope(services, "N-CREATE"), STEP, begun())
    return f"Procedure/{step_id('KN', STEP)}"


@pytest.mark.parametrize("make", [kept_workitem, kept_step])
def test_every_way_to_write_it_is_refused_and_says_where_to_go(
    services: Services, kn: Client, make: Callable[[Services], str]
) -> None:
    reference = make(services)
    stored = services.database.read(lambda tx: tx.records.get(*reference.split("/"), UNRESTRICTED))
    assert stored is not None
    resource = kn.get(f"/fhir/{reference}").json()
    changed: dict[str, Any] = {**resource, "note": [{"text": "x"}]}
    bare = {name: value for name, value in changed.items() if name != "extension"}
    operation = [{"op": "add", "path": "/note", "value": [{"text": "x"}]}]
    entry = {"resource": changed, "request": {"method": "PUT", "url": reference}}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    for answer in (
        kn.put(f"/fhir/{reference}", json=changed),
        kn.put(f"/fhir/{reference}", json=bare),
        kn.patch(f"/fhir/{reference}", json=operation, headers=PATCH),
        kn.delete(f"/fhir/{reference}"),
        kn.post("/fhir", json=bundle),
        kn.post(f"/fhir/{reference.split('/')[0]}", json={k: v for k, v in changed.items() if k not in {"id", "meta"}}),
    ):
        assert answer.status_code == 409, answer.text
        assert "FHIR" in answer.json()["issue"][0]["diagnostics"]
    after = services.database.read(lambda tx: tx.records.get(*reference.split("/"), UNRESTRICTED))
    assert after == stored


def test_nothing_becomes_kept_by_a_patch(services: Services, kn: Client) -> None:
    patient = kn.post("/fhir/Patient", json={"resourceType": "Patient", "name": [{"text": "郑伟"}]}).json()
    plain = kn.post(
        "/fhir/Procedure",
        json={"resourceType": "Procedure", "status": "completed", "subject": {"reference": f"Patient/{patient['id']}"}},
    )
    assert plain.status_code == 201, plain.text
    for url in (performed_step.EXTENSION, mapping.EXTENSION):
        value = [{"url": url, "valueBase64Binary": "e30="}]
        operation = [{"op": "add", "path": "/extension", "value": value}]
        answer = kn.patch(f"/fhir/Procedure/{plain.json()['id']}", json=operation, headers=PATCH)
        assert answer.status_code == 409, answer.text
