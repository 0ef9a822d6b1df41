"""Versions, deletion as a mark, and history (https://hl7.org/fhir/R4/http.html#vread, #delete, #history)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.http.app import build
from hub.actor import Actor
from hub.boot import Services
from tests.support.http import Client, client_of
from tests.support.services import running


@pytest.fixture
def services(tmp_path: Path, database_url: str) -> Iterator[Services]:
    with running(tmp_path, url=database_url) as one:
        yield one


@pytest.fixture
def kn(services: Services) -> Client:
    return client_of(build(services), services, Actor(institution="KN"))


def shown(client: Client, url: str) -> list[tuple[str, str, bool]]:
    """Return (method, status, whether a resource is given) of each entry of a history, newest first."""
    page = client.get(url).json()
    assert page["type"] == "history"
    return [
        (one["request"]["method"], one["response"]["status"][:3], "resource" in one) for one in page.get("entry", ())
    ]


def test_a_deletion_is_a_version_of_its_own(kn: Client) -> None:
    made = kn.create({"resourceType": "Patient", "gender": "male"})
    url = f"/fhir/Patient/{made['id']}"
    kn.put(url, json={**made, "gender": "female"})

    deleted = kn.delete(url)

    assert (deleted.status_code, deleted.headers["etag"]) == (204, 'W/"3"')
    assert [kn.get(f"{url}/_history/{n}").status_code for n in (1, 2, 3, 4)] == [200, 200, 410, 404]
    assert [kn.get(f"{url}/_history/{n}").json().get("gender") for n in (1, 2)] == ["male", "female"]
    assert shown(kn, f"{url}/_history") == [("DELETE", "204", False), ("PUT", "200", True), ("POST", "201", True)]
    assert shown(kn, "/fhir/Patient/_history")[0] == ("DELETE", "204", False)


def test_what_is_deleted_is_found_by_nothing(kn: Client) -> None:
    made = kn.create({"resourceType": "Patient", "gender": "male"})
    about = {"reference": f"Patient/{made['id']}"}
    note = {"resourceType": "Observation", "status": "final", "code": {"text": "K"}}
    kn.create({**note, "subject": about})
    kn.delete(f"/fhir/Patient/{made['id']}")

    assert kn.search("/fhir/Patient?gender=male") == []
    assert kn.search(f"/fhir/Patient?_id={made['id']}") == []
    assert kn.search("/fhir/Observation?subject:Patient.gender=male") == []
    page = kn.get("/fhir/Observation?_include=Observation:subject").json()
    assert [one["resource"]["resourceType"] for one in page["entry"]] == ["Observation"]
    # Nothing new may point at what is not there any more.
    assert kn.post("/fhir/Observation", json={**note, "subject": about}).status_code == 422


def test_deleting_again_makes_no_version_and_an_update_brings_it_back(kn: Client) -> None:
    made = kn.create({"resourceType": "Patient", "gender": "male"})
    url = f"/fhir/Patient/{made['id']}"

    answers = [kn.delete(url).status_code for _ in range(2)]
    back = kn.put(url, json=made)

    assert answers == [204, 204]
    assert (back.status_code, back.json()["meta"]["versionId"]) == (201, "3")
    assert [one["id"] for one in kn.search("/fhir/Patient?gender=male")] == [made["id"]]


def test_history_pages_without_gap_or_repeat(kn: Client) -> None:
    made = kn.create({"resourceType": "Patient"})
    url = f"/fhir/Patient/{made['id']}"
    for number in range(6):
        kn.put(url, json={**made, "birthDate": f"199{number}-01-01"})
    versions: list[str] = []
    following: str | None = f"{url}/_history?_count=3"
    while following:
        page: dict[str, Any] = kn.get(following).json()
        versions += [one["resource"]["meta"]["versionId"] for one in page["entry"]]
        links = [link["url"] for link in page["link"] if link["relation"] == "next"]
        following = "/fhir" + links[0].split("/fhir", 1)[1] if links else None

    assert versions == ["7", "6", "5", "4", "3", "2", "1"]


def test_an_unchanged_resource_is_not_sent_again(kn: Client) -> None:
    made = kn.create({"resourceType": "Patient"})
    url = f"/fhir/Patient/{made['id']}"

    same = kn.get(url, headers={"If-None-Match": 'W/"1"'})
    other = kn.get(url, headers={"If-None-Match": 'W/"9"'})

    assert (same.status_code, same.content) == (304, b"")
    assert other.status_code == 200
