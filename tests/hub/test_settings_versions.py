"""Settings of members are versions: looked at, compared, and taken back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.actor import Actor
from hub.boot import Services
from hub.code_desk import CodeDesk
from hub.directory import Directory
from hub.errors import Category, HubError
from hub.settings_versions import SettingsVersions
from tests.support.code_maps import LOINC, concept_map, local
from tests.support.images import FakeClock
from tests.support.services import consortium, running

OPERATOR = Actor(institution="YY", roles=frozenset({"operator"}))
ADMIN = Actor(institution="KN", roles=frozenset({"admin"}))
Json = dict[str, Any]


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path, clock=FakeClock()) as one:
        yield one


@pytest.fixture
def versions(services: Services) -> SettingsVersions:
    return SettingsVersions(services)


def load(services: Services, old: str = '"his-cn"', new: str = '"standard"') -> None:
    """Import KN's v2 endpoint with *new* in the place of *old*, as an operator does."""
    found = consortium()
    for number, one in enumerate(found):
        if one["resourceType"] == "Endpoint" and any(item["value"] == "KN/mllp" for item in one.get("identifier", ())):
            text = json.dumps(one)
            assert old in text
            found[number] = json.loads(text.replace(old, new))
    services.directory.load(found, actor=Actor(institution="YY", client="cli:somebody"))


def dialect(services: Services) -> str:
    point = services.directory.endpoint("KN/mllp")
    assert point is not None
    return str(point.settings["dialect"])


def test_each_import_that_changes_an_endpoint_is_a_version_with_what_it_changed(
    services: Services, versions: SettingsVersions
) -> None:
    load(services)
    load(services)
    newest, first = versions.history(OPERATOR, "KN/mllp")
    assert (newest["version"], newest["changed"], newest["by"]) == (2, ["setting.dialect"], "cli:somebody")
    assert first["version"] == 1
    assert "setting.dialect" in first["changed"]


def test_two_versions_are_compared_by_the_names_of_settings(services: Services, versions: SettingsVersions) -> None:
    load(services)
    expected = [{"path": "setting.dialect", "change": "changed", "before": ["his-cn"], "after": ["standard"]}]
    assert versions.diff(OPERATOR, "KN/mllp") == expected
    assert versions.diff(OPERATOR, "KN/mllp", 1, 2) == expected
    assert versions.diff(OPERATOR, "KN/mllp", 2, 2) == []


def test_going_back_is_a_new_version_that_is_in_force_at_once_in_every_process(
    services: Services, versions: SettingsVersions
) -> None:
    load(services)
    other = Directory(services.database, services.clock)
    assert dialect(services) == "standard"
    told = versions.rollback(OPERATOR, "KN/mllp", 1)
    assert (told["version"], told["like"]) == (3, 1)
    assert dialect(services) == "his-cn"
    other.refresh()
    point = other.endpoint("KN/mllp")
    assert point is not None
    assert point.settings["dialect"] == "his-cn"
    assert versions.diff(OPERATOR, "KN/mllp", 1, 3) == []
    (line,) = services.database.read(
        lambda tx: tx.audit.search({"subtype": "members-rollback"}, institution=None, limit=9, before=None)
    )
    assert line["action"] == "U"


def test_going_back_to_what_stands_changes_nothing(services: Services, versions: SettingsVersions) -> None:
    assert versions.rollback(OPERATOR, "KN/mllp", 1)["version"] == 1
    assert len(versions.history(OPERATOR, "KN/mllp")) == 1


def test_a_code_map_is_looked_at_and_taken_back_by_its_owner(services: Services, versions: SettingsVersions) -> None:
    desk = CodeDesk(services)
    made = desk.map(ADMIN, "KN", "local", "K", f"{LOINC}|2823-3")
    desk.map(ADMIN, "KN", "local", "K", f"{LOINC}|6298-4")
    (changed,) = versions.diff(ADMIN, made["map"])
    assert changed["path"] == f"map.{local('KN')}|K"
    assert (changed["before"], changed["after"]) == ([f"{LOINC}|2823-3"], [f"{LOINC}|6298-4"])
    with pytest.raises(HubError) as refused:
        versions.rollback(OPERATOR, made["map"], 1)
    assert refused.value.category is Category.FORBIDDEN
    assert versions.rollback(ADMIN, made["map"], 1)["version"] == 3
    assert services.directory.code_maps("KN").codings[local("KN"), "K"][0]["code"] == "2823-3"


def test_a_map_that_was_removed_can_be_brought_back(services: Services, versions: SettingsVersions) -> None:
    services.directory.load([concept_map("m", local("KN"), LOINC, K="2823-3")])
    services.database.write(lambda tx: tx.records.delete("ConceptMap", "m", owner="YY"))
    newest, _ = versions.history(OPERATOR, "ConceptMap/m")
    assert newest["deleted"]
    with pytest.raises(HubError):
        versions.rollback(OPERATOR, "ConceptMap/m", 2)
    versions.rollback(OPERATOR, "ConceptMap/m", 1)
    assert (local("KN"), "K") in services.directory.code_maps("KN").codings


def test_a_version_that_the_directory_of_today_cannot_hold_is_refused(
    services: Services, versions: SettingsVersions
) -> None:
    load(services, '"KNYY"', '"KN2"')
    found = consortium()
    rival = next(
        one
        for one in found
        if one["resourceType"] == "Endpoint" and any(item["value"] == "QH/mllp" for item in one.get("identifier", ()))
    )
    text = json.dumps(rival)
    assert '"QHYY"' in text
    organizations = [one for one in found if one["resourceType"] == "Organization"]
    services.directory.load([*organizations, json.loads(text.replace('"QHYY"', '"KNYY"'))])
    with pytest.raises(HubError) as refused:
        versions.rollback(OPERATOR, "KN/mllp", 1)
    assert refused.value.category is Category.CONFLICT
    assert len(versions.history(OPERATOR, "KN/mllp")) == 2


def test_a_secret_is_told_to_have_changed_and_never_shown(services: Services, versions: SettingsVersions) -> None:
    def with_token(token: str) -> list[Json]:
        found = [one for one in consortium() if one["resourceType"] == "Organization"]
        point: Json = {
            "resourceType": "Endpoint",
            "id": "kn-fhir-out",
            "identifier": [{"system": "https://yixiehub.example/fhir/NamingSystem/endpoint", "value": "KN/fhir/out"}],
            "status": "active",
            "connectionType": {"code": "hl7-fhir-rest"},
            "managingOrganization": {
                "reference": next(f"Organization/{one['id']}" for one in found if "KN" in json.dumps(one["identifier"]))
            },
            "payloadType": [{"text": "any"}],
            "address": "https://192.0.2.1/fhir",
            "extension": [
                {
                    "url": "https://yixiehub.example/fhir/StructureDefinition/endpoint-setting",
                    "extension": [
                        {"url": "name", "valueString": "bearer"},
                        {"url": "value", "valueString": token},
                    ],
                }
            ],
        }
        return [*found, point]

    services.directory.load(with_token("first-token"))
    services.directory.load(with_token("second-token"))
    (changed,) = versions.diff(OPERATOR, "KN/fhir/out")
    assert (changed["path"], changed["change"]) == ("setting.bearer", "changed")
    assert "token" not in json.dumps([changed, versions.history(OPERATOR, "KN/fhir/out")])


@pytest.mark.parametrize("name", ["KN/none", "Endpoint/none", "Patient/x", "Endpoint/", ""])
def test_what_has_no_versions_here_is_not_found(versions: SettingsVersions, name: str) -> None:
    with pytest.raises(HubError) as refused:
        versions.history(OPERATOR, name)
    assert refused.value.category is Category.NOT_FOUND


@pytest.mark.parametrize("version", [0, 9, -1])
def test_a_version_that_never_was_is_not_found(versions: SettingsVersions, version: int) -> None:
    with pytest.raises(HubError) as refused:
        versions.rollback(OPERATOR, "KN/mllp", version)
    assert refused.value.category is Category.NOT_FOUND


def test_an_administrator_looks_at_the_own_settings_and_changes_no_endpoint(
    services: Services, versions: SettingsVersions
) -> None:
    load(services)
    assert len(versions.history(ADMIN, "KN/mllp")) == 2
    with pytest.raises(HubError) as refused:
        versions.rollback(ADMIN, "KN/mllp", 1)
    assert refused.value.category is Category.FORBIDDEN
    for actor in (Actor(institution="QH", roles=frozenset({"admin"})), Actor(institution="KN")):
        with pytest.raises(HubError):
            versions.history(actor, "KN/mllp")
    assert dialect(services) == "standard"
