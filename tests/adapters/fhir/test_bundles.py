"""Batch and transaction: what goes together, what stands alone, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.http.app import build
from hub.actor import Actor
from hub.boot import Services
from tests.support.http import Client, client_of
from tests.support.services import running

SYSTEM = "urn:oid:1.2.3"
URN = "urn:uuid:0b4a8a0e-1111-4111-8111-00000000000"


@pytest.fixture
def services(tmp_path: Path, database_url: str) -> Iterator[Services]:
    with running(tmp_path, url=database_url) as one:
        yield one


@pytest.fixture
def kn(services: Services) -> Client:
    return client_of(build(services), services, Actor(institution="KN"))


def patient(value: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "identifier": [{"system": SYSTEM, "value": value}]}


def observation(subject: str) -> dict[str, Any]:
    return {"resourceType": "Observation", "status": "final", "code": {"text": "K"}, "subject": {"reference": subject}}


def entry(method: str, url: str, resource: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    full_url = more.pop("full_url", None)
    found: dict[str, Any] = {"request": {"method": method, "url": url, **more}}
    if resource is not None:
        found["resource"] = resource
    if full_url:
        found["fullUrl"] = full_url
    return found


def send(client: Client, kind: str, *entries: dict[str, Any], **headers: str) -> httpx.Response:
    body = {"resourceType": "Bundle", "type": kind, "entry": list(entries)}
    answer: httpx.Response = client.post("/fhir", json=body, headers=headers)
    return answer


def test_references_to_entries_that_come_later_are_resolved(kn: Client) -> None:
    answer = send(
        kn,
        "transaction",
        entry("POST", "Observation", observation(f"{URN}1")),
        entry("POST", "Patient", patient("1"), full_url=f"{URN}1"),
    )

    assert answer.status_code == 200
    assert [one["response"]["status"] for one in answer.json()["entry"]] == ["201", "201"]
    [made] = kn.search("/fhir/Patient")
    assert kn.search("/fhir/Observation")[0]["subject"]["reference"] == f"Patient/{made['id']}"


def test_a_temporary_id_that_no_entry_has_is_refused_with_its_place(kn: Client) -> None:
    answer = send(kn, "transaction", entry("POST", "Observation", observation(f"{URN}9")))

    assert answer.status_code == 422
    assert answer.json()["issue"][0]["expression"] == ["Bundle.entry[0].resource: Observation.subject.reference"]


def test_two_entries_about_one_resource_are_refused_naming_both(kn: Client) -> None:
    made = kn.create(patient("1"))
    url = f"Patient/{made['id']}"

    by_id = send(kn, "transaction", entry("PUT", url, made), entry("DELETE", url))
    by_condition = send(
        kn,
        "transaction",
        entry("POST", "Patient", patient("2"), ifNoneExist=f"identifier={SYSTEM}|2"),
        entry("POST", "Patient", patient("2"), ifNoneExist=f"identifier={SYSTEM}|2"),
    )
    by_both = send(
        kn, "transaction", entry("PUT", url, made), entry("PUT", f"Patient?identifier={SYSTEM}|1", patient("1"))
    )

    for answer in (by_id, by_condition, by_both):
        assert answer.status_code == 400
        assert "entry[0]" in answer.text
        assert "entry[1]" in answer.text
    assert len(kn.search("/fhir/Patient")) == 1


def test_a_conditional_reference_means_the_one_match(kn: Client) -> None:
    made = kn.create(patient("1"))

    found = send(kn, "transaction", entry("POST", "Observation", observation(f"Patient?identifier={SYSTEM}|1")))
    none = send(kn, "transaction", entry("POST", "Observation", observation(f"Patient?identifier={SYSTEM}|2")))
    kn.create(patient("1"))
    many = send(kn, "transaction", entry("POST", "Observation", observation(f"Patient?identifier={SYSTEM}|1")))

    assert (found.status_code, none.status_code, many.status_code) == (200, 422, 422)
    assert [one["subject"]["reference"] for one in kn.search("/fhir/Observation")] == [f"Patient/{made['id']}"]


def test_a_conditional_create_inside_a_transaction_links_to_what_is_there(kn: Client) -> None:
    made = kn.create(patient("1"))

    answer = send(
        kn,
        "transaction",
        entry("POST", "Patient", patient("1"), full_url=f"{URN}1", ifNoneExist=f"identifier={SYSTEM}|1"),
        entry("POST", "Observation", observation(f"{URN}1")),
    )

    assert [one["response"]["status"] for one in answer.json()["entry"]] == ["200", "201"]
    assert kn.search("/fhir/Observation")[0]["subject"]["reference"] == f"Patient/{made['id']}"


def test_a_stale_version_in_one_entry_undoes_all(kn: Client) -> None:
    made = kn.create(patient("1"))
    kn.put(f"/fhir/Patient/{made['id']}", json={**made, "gender": "male"})

    answer = send(
        kn,
        "transaction",
        entry("POST", "Patient", patient("2")),
        entry("PUT", f"Patient/{made['id']}", made, ifMatch='W/"1"'),
    )

    assert answer.status_code == 412
    assert len(kn.search("/fhir/Patient")) == 1


def test_a_transaction_reads_after_it_has_written(kn: Client) -> None:
    answer = send(
        kn,
        "transaction",
        entry("GET", f"Patient?identifier={SYSTEM}|1"),
        entry("POST", "Patient", patient("1")),
    )

    found = answer.json()["entry"][0]["resource"]
    assert [one["resource"]["identifier"][0]["value"] for one in found["entry"]] == ["1"]


def test_the_entries_of_a_batch_stand_alone(kn: Client) -> None:
    answer = send(
        kn,
        "batch",
        entry("POST", "Patient", patient("1")),
        entry("POST", "Patient", {"resourceType": "Patient", "gender": "bogus"}),
        entry("DELETE", "Patient/none"),
        entry("POST", "Organization", {"resourceType": "Organization", "name": "x"}),
        entry("GET", "Patient"),
        entry("POST", "Observation", observation(f"{URN}1")),
    )

    assert [one["response"]["status"] for one in answer.json()["entry"]] == ["201", "422", "404", "403", "200", "422"]
    assert len(kn.search("/fhir/Patient")) == 1


def test_a_patch_and_a_delete_in_a_transaction(kn: Client) -> None:
    import base64

    first, second = kn.create(patient("1")), kn.create(patient("2"))
    data = base64.b64encode(b'[{"op":"add","path":"/gender","value":"female"}]').decode()
    binary = {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": data}

    answer = send(
        kn,
        "transaction",
        entry("PATCH", f"Patient/{first['id']}", binary),
        entry("DELETE", f"Patient/{second['id']}"),
    )

    assert [one["response"]["status"] for one in answer.json()["entry"]] == ["200", "204"]
    assert [one["gender"] for one in kn.search("/fhir/Patient")] == ["female"]


def test_representation_is_returned_when_preferred(kn: Client) -> None:
    answer = send(kn, "transaction", entry("POST", "Patient", patient("1")), Prefer="return=representation")

    assert answer.json()["entry"][0]["resource"]["identifier"][0]["value"] == "1"


def test_five_hundred_entries_are_taken_and_one_more_is_not(kn: Client) -> None:
    entries = [entry("POST", "Patient", patient(str(number))) for number in range(501)]

    assert send(kn, "transaction", *entries).status_code == 413
    assert send(kn, "transaction", *entries[:500]).status_code == 200
    assert kn.get("/fhir/Patient?_summary=count").json()["total"] == 500


def test_a_document_is_stored_as_it_is(kn: Client) -> None:
    document = {
        "resourceType": "Bundle",
        "type": "document",
        "identifier": {"system": SYSTEM, "value": "d"},
        "timestamp": "2025-06-11T08:30:00+08:00",
        "entry": [
            {
                "fullUrl": f"{URN}1",
                "resource": {
                    "resourceType": "Composition",
                    "status": "final",
                    "type": {"text": "小结"},
                    "subject": {"reference": f"{URN}2"},
                    "date": "2025-06-11",
                    "author": [{"display": "郑伟"}],
                    "title": "小结",
                },
            },
            {"fullUrl": f"{URN}2", "resource": {"resourceType": "Patient"}},
        ],
    }

    made = kn.create(document)

    assert kn.get(f"/fhir/Bundle/{made['id']}").json()["entry"] == document["entry"]


def test_transactions_with_the_same_conditions_at_once_make_one_of_each(kn: Client) -> None:
    statuses: list[int] = []

    def work(turn: int) -> None:
        entries = [
            entry("POST", "Patient", patient(value), ifNoneExist=f"identifier={SYSTEM}|{value}") for value in ("a", "b")
        ]
        # Half of them ask in the other order, which must make them wait and not deadlock.
        statuses.append(send(kn, "transaction", *(entries if turn % 2 else reversed(entries))).status_code)

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [200] * 8
    assert sorted(one["identifier"][0]["value"] for one in kn.search("/fhir/Patient")) == ["a", "b"]


@pytest.mark.parametrize("kind", [["batch"], {"batch": 1}, 5, None])
def test_a_type_that_is_no_word_is_refused(kn: Client, kind: object) -> None:
    answer = kn.request("POST", "/fhir", json={"resourceType": "Bundle", "type": kind, "entry": []})

    assert answer.status_code == 400
    assert answer.json()["issue"][0]["expression"] == ["Bundle.type"]
