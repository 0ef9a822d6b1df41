"""Stores in trouble behind the HTTP doors: 503 or 507, nothing half there, and the next request is served."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.http.app import build
from hub.actor import Actor
from hub.boot import Services
from hub.errors import HubError
from storage.objects import open_store
from storage.objects.s3 import S3Store
from tests.flows.test_referral_and_lab import REFERRAL
from tests.storage.objects.test_s3 import settings_for
from tests.support.http import Client, client_of
from tests.support.s3_stub import Stub, s3_stub
from tests.support.services import running

LARGE = b"%PDF-1.7 " + b"x" * (1 << 20)
PDF = {"Content-Type": "application/pdf"}
#: A message that is too large for the journal's own row, so that it is kept as an object.
MESSAGE = REFERRAL.replace(b"|AL|AL|CHN", b"||AL|CHN") + b"NTE|2||" + b"x" * (1 << 20) + b"\r"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as one:
        yield one


def kn_of(services: Services) -> Client:
    return client_of(build(services), services, Actor(institution="KN"))


def test_a_full_disk_takes_no_object_and_says_so(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = open_store(f"file://{tmp_path / 'objects'}", data_dir=tmp_path)
    # The disk fills up while the hub runs: no volume has this reserve left.
    monkeypatch.setattr(objects._area, "_min_free_bytes", 1 << 62)
    full = Services(
        settings=services.settings, database=services.database, objects=objects, node="test", clock=services.clock
    )
    kn = kn_of(full)

    refused = kn.post("/fhir/Binary", content=LARGE, headers=PDF)
    with pytest.raises(HubError) as caught:
        full.messages.receive(MESSAGE, "127.0.0.1:5000")

    assert refused.status_code in {503, 507}
    assert refused.json()["resourceType"] == "OperationOutcome"
    assert caught.value.transient, "MLLP closes without an answer, so the sender keeps the message"
    assert kn.get("/fhir/Binary/_history").json().get("entry", []) == []
    # Room again: the same is taken.
    again = kn_of(services)
    assert again.post("/fhir/Binary", content=LARGE, headers=PDF).status_code == 201
    answer = services.messages.receive(MESSAGE, "127.0.0.1:5000")
    assert answer is not None
    assert b"MSA|AA" in answer


@pytest.fixture
def stub() -> Iterator[Stub]:
    with s3_stub() as one:
        yield one


def test_an_s3_server_that_goes_away_is_no_success_and_loses_nothing(
    services: Services, stub: Stub, tmp_path: Path
) -> None:
    objects = open_store("s3://hub", data_dir=tmp_path, s3=settings_for(stub))
    assert isinstance(objects, S3Store)
    away = Services(
        settings=services.settings, database=services.database, objects=objects, node="test", clock=services.clock
    )
    kn = kn_of(away)
    kept = kn.post("/fhir/Binary", content=LARGE, headers=PDF).json()
    history = "/fhir/Binary/_history"
    stub.faults = dataclasses.replace(stub.faults, status=503)

    written = kn.post("/fhir/Binary", content=LARGE + b"2", headers=PDF)
    small = kn.post("/fhir/Patient", json={"resourceType": "Patient"})

    assert written.status_code == 503
    assert "retry-after" in written.headers
    assert [one["resource"]["id"] for one in kn.get(history).json()["entry"]] == [kept["id"]]
    # What needs no object goes on.
    assert small.status_code == 201
