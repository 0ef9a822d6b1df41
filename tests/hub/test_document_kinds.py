"""All 53 kinds of WS/T 500 through the three ways in: ``POST /cda``, a member's folder, and MDM^T02 with the document in OBX-5."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from adapters.http.app import build
from adapters.worker.folders import FolderLoop
from fhir_mappings.cda import types
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.json import dumps, loads
from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.boot import Services
from hub.search.ast import Query
from tests.fhir_mappings.cda.golden import clinical_of, samples
from tests.fhir_mappings.hl7v2.golden import institution_of
from tests.support.http import Client, client_of
from tests.support.services import consortium, running

BASE = "https://yixiehub.example/fhir"
_FACILITY = {"KN": "KNYY", "YL": "YLYY", "QH": "QHYY", "QM": "QMJY"}
_PATHS = [pytest.param(path, id=path.parent.name) for path in samples()]


def every(services: Services, kind: str, owner: str) -> list[dict[str, Any]]:
    query = Query(resource_type=kind, count=1000)
    found = services.database.read(lambda tx: tx.records.search(query, UNRESTRICTED))
    return [cast("dict[str, Any]", loads(one.body)) for one in found.matches if one.owner == owner]


def original(services: Services, document: dict[str, Any]) -> bytes:
    """The stored bytes of the first content of *document*."""
    url = document["content"][0]["attachment"]["url"]
    stored = services.database.read(lambda tx: tx.records.get("Binary", url.removeprefix("Binary/"), UNRESTRICTED))
    assert stored is not None
    binary = loads(stored.body)
    digest = next(one["valueString"] for one in binary["_data"]["extension"] if one["url"].endswith("/object-digest"))
    return services.objects.read(digest)


def composition_of(services: Services, document: dict[str, Any]) -> dict[str, Any]:
    reference = next(one["reference"] for one in document["context"]["related"] if "reference" in one)
    stored = services.database.read(lambda tx: tx.records.get("Composition", reference.split("/")[1], UNRESTRICTED))
    assert stored is not None
    return cast("dict[str, Any]", loads(stored.body))


# --- HTTP -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Services, dict[str, Client]]]:
    with running(tmp_path_factory.mktemp("web")) as services:
        application = build(services)
        yield services, {code: client_of(application, services, Actor(institution=code)) for code in _FACILITY}


@pytest.mark.parametrize("path", _PATHS)
def test_by_http_the_document_is_made_and_read_back(path: Path, web: tuple[Services, dict[str, Client]]) -> None:
    services, clients = web
    client, raw = clients[institution_of(path)], path.read_bytes()
    answer = client.post("/cda", content=raw)
    assert answer.status_code == 201, answer.text
    document = answer.json()
    assert document["type"]["coding"][0]["code"] == path.parent.name
    assert document["custodian"]["display"]
    assert (
        client.get(
            f"/fhir/{document['content'][0]['attachment']['url']}", headers={"Accept": "application/xml"}
        ).content
        == raw
    )
    wanted = clinical_of(path).composition
    assert composition_of(services, document)["section"] == loads(dumps(wanted["section"]))
    again = client.post("/cda", content=raw)
    assert (again.status_code, again.json()) == (200, document)


# --- folder -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Services, Path]]:
    """A folder of each member, from which the worker has taken every sample."""
    place = tmp_path_factory.mktemp("folders")
    with running(tmp_path_factory.mktemp("data")) as services:
        services.directory.load([*consortium(), *(_folder(code, place) for code in _FACILITY)])
        for path in samples():
            file = place / institution_of(path) / "in" / f"{path.stem}.xml"
            file.write_bytes(path.read_bytes())
            os.utime(file, (1, 1))
        loop = FolderLoop(services)
        loop.turn()
        loop.turn()
        yield services, place


def _folder(code: str, place: Path) -> dict[str, Any]:
    known = next(one for one in consortium() if str(one.get("id", "")).endswith(f"{code.lower()}-mllp"))
    (place / code / "in").mkdir(parents=True)
    (place / code / "out").mkdir()
    given = {"sending-application": "EMR", "sending-facility": f"{_FACILITY[code]}-F", "quiet-s": "0"}
    return {
        **known,
        "id": f"{code.lower()}-folder",
        "identifier": [{"system": f"{BASE}/NamingSystem/endpoint", "value": f"{code}/folder"}],
        "address": f"file://{place / code}",
        "extension": [
            {
                "url": f"{BASE}/StructureDefinition/endpoint-setting",
                "extension": [{"url": "name", "valueString": name}, {"url": "value", "valueString": value}],
            }
            for name, value in given.items()
        ],
    }


def test_every_file_of_a_folder_is_done_and_none_refused(folders: tuple[Services, Path]) -> None:
    _, place = folders
    assert [one for code in _FACILITY for one in (place / code / "in").iterdir()] == []
    assert (
        sum(len(list((place / code / "done").iterdir())) for code in _FACILITY if (place / code / "done").exists())
        == 53
    )
    assert not any(
        (place / code / "refused").exists() and list((place / code / "refused").iterdir()) for code in _FACILITY
    )


@pytest.mark.parametrize("path", _PATHS)
def test_out_of_a_folder_the_document_is_the_same_as_by_http(
    path: Path, folders: tuple[Services, Path], web: tuple[Services, dict[str, Client]]
) -> None:
    services, _ = folders
    id_ = clinical_of(path).reference.split("/")[1]
    stored = services.database.read(lambda tx: tx.records.get("DocumentReference", id_, UNRESTRICTED))
    assert stored is not None
    document = loads(stored.body)
    assert (stored.owner, document["type"]["coding"][0]["code"]) == (institution_of(path), path.parent.name)
    assert original(services, document) == path.read_bytes()
    assert composition_of(services, document)["title"] == types.NAMES[path.parent.name] or path.parent.name < "C0008"


# --- MDM --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mllp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with running(tmp_path_factory.mktemp("mllp")) as services:
        yield services


@pytest.mark.parametrize("path", _PATHS)
def test_inside_an_mdm_the_document_gives_its_kind_sections_and_keeper(path: Path, mllp: Services) -> None:
    code, clinical = institution_of(path), clinical_of(path)
    (resident,) = clinical.target.resident_ids
    name = clinical.target.resource["name"][0]["text"]
    kind = path.parent.name
    application = {"KN": "HIS", "YL": "EMR", "QH": "HIS", "QM": "LIS"}[code]
    lines = [
        f"MSH|^~\\&|{application}|{_FACILITY[code]}|YIXIE|HUB|20250613160000||MDM^T02^MDM_T02|{kind}|P|2.5.1||||||UNICODE UTF-8",
        "EVN||20250613160000",
        f"PID|1||M{resident[-6:]}^^^^MR~{resident}^^^CN^NI||{name}",
        f"TXA|1||AP|20250613160000||||||||{kind}||||||LA",
        f"OBX|1|ED|{kind}||^text^XML^Base64^{base64.b64encode(path.read_bytes()).decode()}||||||F",
        "",
    ]
    answer = mllp.messages.receive("\r".join(lines).encode(), "127.0.0.1:1")
    assert answer is not None
    assert parse(answer.decode("utf-8", "replace")).get("MSA-1") == "AA", answer
    (document,) = (
        one for one in every(mllp, "DocumentReference", code) if one.get("masterIdentifier", {}).get("value") == kind
    )
    assert document["type"]["coding"][0]["code"] == kind
    assert original(mllp, document) == path.read_bytes()
    stored = composition_of(mllp, document)
    assert stored["section"] == loads(dumps(clinical.composition["section"]))
    assert stored["custodian"] == clinical.composition["custodian"]
    assert stored["subject"] == document["subject"]
