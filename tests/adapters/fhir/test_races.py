"""Clients that write the same thing at the same moment, through two nodes, on both databases (FHIR http.html#concurrency)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.http.app import build
from hub.actor import Actor
from tests.support.http import Client, client_of
from tests.support.services import running

SYSTEM = "urn:oid:1.2.3"
AT_ONCE = 4

#: What one client sends through the node that it is given.
Request = Callable[[Client, int], httpx.Response]


@pytest.fixture
def nodes(tmp_path: Path, database_url: str) -> Iterator[list[Client]]:
    """KN's clients at two nodes of one database; each node has its own connections and its own writer."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with running(folders[0], url=database_url) as one, running(folders[1], url=database_url) as other:
        yield [client_of(build(services), services, Actor(institution="KN")) for services in (one, other)]


def patient(value: str = "1", **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "identifier": [{"system": SYSTEM, "value": value}], **more}


def race(nodes: list[Client], send: Request) -> list[int]:
    """Send *send* from as many clients of each node, all at one moment, and return the statuses in order."""
    together = threading.Barrier(AT_ONCE * len(nodes))
    statuses: list[int] = []

    def work(node: Client, number: int) -> None:
        together.wait(20)
        statuses.append(send(node, number).status_code)

    threads = [
        threading.Thread(target=work, args=(node, at * AT_ONCE + number))
        for at, node in enumerate(nodes)
        for number in range(AT_ONCE)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return sorted(statuses)


PATCH = {"Content-Type": "application/json-patch+json"}

UPDATES: dict[str, Callable[[Client, str, dict[str, Any], int], httpx.Response]] = {
    "put": lambda node, url, made, n: node.put(
        url, json={**made, "birthDate": f"199{n}-01-01"}, headers={"If-Match": 'W/"1"'}
    ),
    "patch": lambda node, url, made, n: node.patch(
        url,
        json=[{"op": "add", "path": "/birthDate", "value": f"199{n}-01-01"}],
        headers={**PATCH, "If-Match": 'W/"1"'},
    ),
    "transaction": lambda node, url, made, n: node.post(
        "/fhir",
        json={
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [
                {
                    "resource": {**made, "birthDate": f"199{n}-01-01"},
                    "request": {"method": "PUT", "url": f"Patient/{made['id']}", "ifMatch": 'W/"1"'},
                }
            ],
        },
    ),
}


@pytest.mark.parametrize("way", UPDATES)
def test_of_many_updates_of_one_version_one_wins_and_the_others_are_told(nodes: list[Client], way: str) -> None:
    made = nodes[0].create(patient())
    url = f"/fhir/Patient/{made['id']}"

    statuses = race(nodes, lambda node, number: UPDATES[way](node, url, made, number))

    assert statuses == [200] + [412] * 7
    assert [one.get(url).json()["meta"]["versionId"] for one in nodes] == ["2", "2"]
    assert len(nodes[0].get(f"{url}/_history").json()["entry"]) == 2


def test_an_update_and_a_delete_of_one_version_do_not_both_happen(nodes: list[Client]) -> None:
    made = nodes[0].create(patient())
    url = f"/fhir/Patient/{made['id']}"

    def send(node: Client, number: int) -> httpx.Response:
        if number % 2:
            return node.delete(url, headers={"If-Match": 'W/"1"'})
        return node.put(url, json={**made, "gender": "male"}, headers={"If-Match": 'W/"1"'})

    statuses = race(nodes, send)

    # Deleting what is deleted is success again and no new version (http.html#delete); an update is not.
    assert statuses in ([200] + [412] * 7, [204] * 4 + [412] * 4), statuses
    assert len(nodes[1].get(f"{url}/_history").json()["entry"]) == 2


def test_updates_without_a_version_lose_none(nodes: list[Client]) -> None:
    made = nodes[0].create(patient())
    url = f"/fhir/Patient/{made['id']}"

    statuses = race(nodes, lambda node, number: node.put(url, json={**made, "birthDate": f"199{number}-01-01"}))

    history = nodes[0].get(f"{url}/_history").json()["entry"]
    assert statuses == [200] * 8
    assert [int(one["resource"]["meta"]["versionId"]) for one in history] == list(range(9, 0, -1))
    assert len({one["resource"].get("birthDate") for one in history}) == 9


def test_one_condition_creates_one_resource(nodes: list[Client]) -> None:
    condition = {"If-None-Exist": f"identifier={SYSTEM}|7"}

    statuses = race(nodes, lambda node, _: node.post("/fhir/Patient", json=patient("7"), headers=condition))

    assert statuses == [200] * 7 + [201]
    assert [len(one.search(f"/fhir/Patient?identifier={SYSTEM}|7")) for one in nodes] == [1, 1]


def test_one_condition_updates_one_resource(nodes: list[Client]) -> None:
    statuses = race(
        nodes,
        lambda node, number: node.put(
            f"/fhir/Patient?identifier={SYSTEM}|8", json=patient("8", birthDate=f"199{number}-01-01")
        ),
    )

    [one] = nodes[1].search(f"/fhir/Patient?identifier={SYSTEM}|8")
    assert statuses == [200] * 7 + [201]
    assert one["meta"]["versionId"] == "8"
