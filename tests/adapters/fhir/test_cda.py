"""``POST /cda``: whose document it is the token says; what is wrong with one, the answer says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.http.app import build
from hub.actor import Actor
from hub.boot import Services
from tests.support.http import Client, client_of
from tests.support.quotas import with_intake
from tests.support.services import running

SAMPLE = (Path(__file__).parents[3] / "sample_data" / "cda" / "C0001" / "kn_summary.xml").read_bytes()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as one:
        yield one


@pytest.fixture
def kn(services: Services) -> Client:
    return client_of(build(services), services, Actor(institution="KN"))


def test_a_document_is_created_once_and_read_back_byte_for_byte(services: Services, kn: Client) -> None:
    answer = kn.post("/cda", content=SAMPLE, headers={"Content-Type": "text/xml; charset=iso-8859-1"})
    assert answer.status_code == 201, answer.text
    document = answer.json()
    assert answer.headers["location"] == f"/fhir/DocumentReference/{document['id']}/_history/1"
    assert kn.get(f"/fhir/DocumentReference/{document['id']}").json() == document
    kept = kn.get(f"/fhir/{document['content'][0]['attachment']['url']}", headers={"Accept": "application/xml"})
    assert kept.content == SAMPLE
    again = kn.post("/cda", content=SAMPLE)
    assert (again.status_code, again.json()) == (200, document)
    found = kn.search("/fhir/DocumentReference?type=urn:oid:2.16.156.10011.2.4|C0001&patient.name=郑伟")
    assert [one["id"] for one in found] == [document["id"]]
    (composition,) = kn.search("/fhir/Composition?type=C0001")
    assert [one["title"] for one in composition["section"]] == ["主要健康问题", "过敏史", "生命体征"]


def test_another_member_does_not_see_it(services: Services, kn: Client) -> None:
    id_ = kn.post("/cda", content=SAMPLE).json()["id"]
    yl = client_of(build(services), services, Actor(institution="YL"))
    assert yl.get(f"/fhir/DocumentReference/{id_}").status_code == 404


def test_without_a_token_nothing_is_taken(services: Services) -> None:
    answer = client_of(build(services), services, None).post("/cda", content=SAMPLE)
    assert answer.status_code == 401
    assert services.database.read(lambda tx: tx.journal.search({"door": "cda"}, limit=1)) == []


def test_a_refusal_says_what_where_and_what_to_do(kn: Client) -> None:
    answer = kn.post("/cda", content=SAMPLE.replace(b"<effectiveTime", b"<effectiveTimes", 1))
    assert answer.status_code == 400
    issue = answer.json()["issue"][0]
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert "郑伟" not in answer.text
    assert "YYYYMMDDHHMMSS" in issue["diagnostics"] or "well-formed" in issue["diagnostics"]
    other = kn.post("/cda", content=b"<a/>")
    assert other.status_code == 422
    assert "ClinicalDocument" in other.json()["issue"][0]["diagnostics"]


def test_a_body_beyond_the_bound_is_refused_before_it_is_read_whole(services: Services, kn: Client) -> None:
    answer = kn.post("/cda", content=b"<" * (services.settings.max_message_bytes + 1))
    assert answer.status_code == 413


def test_documents_count_for_the_quota_of_messages(services: Services, kn: Client) -> None:
    with_intake(services, "KN", "messages-per-minute=1")
    assert kn.post("/cda", content=SAMPLE).status_code == 201
    refused = kn.post("/cda", content=SAMPLE)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
    assert refused.json()["issue"][0]["code"] == "throttled"
