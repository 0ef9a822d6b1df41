"""The FHIR door as a client meets it: tokens, interactions, conditions, bundles, scopes."""

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


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as one:
        yield one


@pytest.fixture
def kn(services: Services) -> Client:
    return client_of(build(services), services, Actor(institution="KN"))


@pytest.fixture
def yl(services: Services) -> Client:
    return client_of(build(services), services, Actor(institution="YL"))


def patient(value: str = "1", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "name": [{"text": "欧阳明月"}],
        "identifier": [{"system": SYSTEM, "value": value}],
        **more,
    }


def test_without_a_token_nothing_is_answered_but_the_capabilities(services: Services) -> None:
    nobody = client_of(build(services), services, None)

    assert nobody.get("/fhir/Patient").status_code == 401
    assert nobody.get("/fhir/Patient").headers["www-authenticate"].startswith("Bearer")
    assert nobody.get("/fhir/metadata").json()["fhirVersion"] == "4.0.1"


def test_a_revoked_token_is_refused(services: Services) -> None:
    token = services.directory.issue_token(Actor(institution="KN"), ttl_s=60)
    services.directory.revoke(token)
    client = client_of(build(services), services, None)

    assert client.get("/fhir/Patient", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_a_created_resource_has_location_and_etag_and_reads_back_exactly(kn: Client) -> None:
    body = (
        b'{"resourceType":"Observation","status":"final","code":{"text":"K"},'
        b'"valueQuantity":{"value":6.90,"unit":"mmol/L"}}'
    )

    made = kn.post("/fhir/Observation", content=body, headers={"Content-Type": "application/fhir+json"})
    read = kn.get(f"/fhir/Observation/{made.json()['id']}")

    assert made.status_code == 201
    assert made.headers["etag"] == 'W/"1"'
    assert made.headers["location"].endswith("/_history/1")
    assert b'"value":6.90' in read.content


def test_another_institution_gets_the_answer_for_what_does_not_exist(kn: Client, yl: Client) -> None:
    made = kn.create(patient())

    hidden, absent = yl.get(f"/fhir/Patient/{made['id']}"), yl.get("/fhir/Patient/no-such")

    assert hidden.status_code == absent.status_code == 404
    same = [
        {key: value for key, value in one.json()["issue"][0].items() if key != "expression"} for one in (hidden, absent)
    ]
    assert str(same[0]).replace(made["id"], "") == str(same[1]).replace("no-such", "")
    assert yl.search("/fhir/Patient?_total=accurate") == []


def test_an_update_needs_the_version_it_was_based_on(kn: Client) -> None:
    made = kn.create(patient())
    url = f"/fhir/Patient/{made['id']}"

    first = kn.put(url, json={**made, "gender": "female"}, headers={"If-Match": 'W/"1"'})
    second = kn.put(url, json={**made, "gender": "male"}, headers={"If-Match": 'W/"1"'})

    assert (first.status_code, second.status_code) == (200, 412)
    assert kn.get(url).json()["gender"] == "female"
    assert [entry["resource"]["meta"]["versionId"] for entry in kn.get(f"{url}/_history").json()["entry"]] == ["2", "1"]
    assert "gender" not in kn.get(f"{url}/_history/1").json()


def test_a_deleted_resource_is_gone_and_its_history_stays(kn: Client) -> None:
    made = kn.create(patient())
    url = f"/fhir/Patient/{made['id']}"

    assert kn.delete(url).status_code == 204
    assert kn.get(url).status_code == 410
    assert kn.get(f"{url}/_history").status_code == 200
    assert kn.search(f"/fhir/Patient?identifier={SYSTEM}|1") == []


def test_eight_conditional_creates_at_once_make_one_resource(kn: Client) -> None:
    statuses: list[int] = []

    def create() -> None:
        answer = kn.post("/fhir/Patient", json=patient("7"), headers={"If-None-Exist": f"identifier={SYSTEM}|7"})
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(statuses) == [200] * 7 + [201]
    assert len(kn.search(f"/fhir/Patient?identifier={SYSTEM}|7")) == 1


def test_a_conditional_update_of_several_matches_is_refused(kn: Client) -> None:
    kn.create(patient("8"))
    kn.create(patient("8"))

    assert kn.put(f"/fhir/Patient?identifier={SYSTEM}|8", json=patient("8")).status_code == 412


@pytest.mark.parametrize(
    "query", ["name=欧阳", "name=oymy", "name=ouyang", "name:contains=明", f"identifier={SYSTEM}|1"]
)
def test_a_patient_is_found_by_han_pinyin_initials_and_number(kn: Client, query: str) -> None:
    made = kn.create(patient())

    assert [one["id"] for one in kn.search(f"/fhir/Patient?{query}")] == [made["id"]]


def test_a_misspelt_parameter_is_refused_unless_lenient(kn: Client) -> None:
    strict = kn.get("/fhir/Patient?naem=x")
    lenient = kn.get("/fhir/Patient?naem=x", headers={"Prefer": "handling=lenient"})

    assert strict.status_code == 400
    assert "naem" in strict.text
    assert lenient.status_code == 200
    assert "naem" not in lenient.json()["link"][0]["url"]


def test_pages_follow_each_other_without_gap_or_repeat(kn: Client) -> None:
    made = {kn.create(patient(str(number)))["id"] for number in range(7)}
    seen: list[str] = []
    url: str | None = "/fhir/Patient?_count=3"
    while url:
        page = kn.get(url).json()
        seen += [entry["resource"]["id"] for entry in page["entry"]]
        # What arrives between two pages must not disturb them.
        kn.create(patient("later"))
        following = [link["url"] for link in page["link"] if link["relation"] == "next"]
        url = "/fhir" + following[0].split("/fhir", 1)[1] if following else None

    assert len(seen) == len(set(seen))
    assert made <= set(seen)


def test_a_transaction_is_kept_whole_or_not_at_all(kn: Client) -> None:
    mother = "urn:uuid:0b4a8a0e-1111-4111-8111-000000000001"
    good = {"resource": patient("t1"), "fullUrl": mother, "request": {"method": "POST", "url": "Patient"}}
    tied = {
        "resource": {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": "K"},
            "subject": {"reference": mother},
        },
        "request": {"method": "POST", "url": "Observation"},
    }
    bad = {
        "resource": {"resourceType": "Observation", "status": "bogus"},
        "request": {"method": "POST", "url": "Observation"},
    }

    def send(*entries: dict[str, Any]) -> httpx.Response:
        return kn.post("/fhir", json={"resourceType": "Bundle", "type": "transaction", "entry": list(entries)})

    refused = send(good, bad)
    after_refusal = kn.search("/fhir/Patient")
    taken = send(good, tied)
    [observation] = kn.search("/fhir/Observation")

    assert refused.status_code in {400, 422}
    assert "entry[1]" in refused.text
    assert after_refusal == []
    assert taken.status_code == 200
    assert observation["subject"]["reference"] == f"Patient/{kn.search('/fhir/Patient')[0]['id']}"


def test_a_bundle_of_a_hundred_thousand_entries_is_refused(kn: Client) -> None:
    body = b'{"resourceType":"Bundle","type":"transaction","entry":[' + b",".join([b"{}"] * 100_000) + b"]}"

    answer = kn.post("/fhir", content=body, headers={"Content-Type": "application/fhir+json"})

    assert answer.status_code in {400, 413, 422}
    assert answer.json()["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"resourceType":"Patient","resourceType":"Patient"}',
        b'{"resourceType":"Patient","extension":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"resourceType":"Patient","birthDate":"1990-13-45"}',
        b'{"resourceType":"Patient","gender":"bogus"}',
        b'{"resourceType":"Patient","nonsense":1}',
        b"\xff\xfe",
        b'{"resourceType":"Patient","multipleBirthInteger":NaN}',
    ],
)
def test_hostile_and_wrong_bodies_get_an_outcome(kn: Client, body: bytes) -> None:
    answer = kn.post("/fhir/Patient", content=body, headers={"Content-Type": "application/fhir+json"})

    assert answer.status_code in {400, 422}
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert kn.search("/fhir/Patient") == []


def test_a_reference_to_what_the_sender_cannot_see_is_refused_like_one_to_nothing(kn: Client, yl: Client) -> None:
    made = kn.create(patient())
    observation = {"resourceType": "Observation", "status": "final", "code": {"text": "K"}}

    hidden = yl.post("/fhir/Observation", json={**observation, "subject": {"reference": f"Patient/{made['id']}"}})
    absent = yl.post("/fhir/Observation", json={**observation, "subject": {"reference": "Patient/none"}})

    assert hidden.status_code == absent.status_code == 422


def test_includes_and_chains_stay_inside_the_scope(kn: Client, yl: Client) -> None:
    made = kn.create(patient())
    kn.create(
        {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": "K"},
            "subject": {"reference": f"Patient/{made['id']}"},
        }
    )

    with_include = kn.get("/fhir/Observation?_include=Observation:subject&subject:Patient.name=欧阳").json()

    assert [entry["resource"]["resourceType"] for entry in with_include["entry"]] == ["Observation", "Patient"]
    assert kn.search("/fhir/Patient?_has:Observation:subject:status=final") != []
    assert yl.search("/fhir/Observation?subject:Patient.name=欧阳") == []


def test_a_patch_changes_one_element(kn: Client) -> None:
    made = kn.create(patient())

    answer = kn.patch(
        f"/fhir/Patient/{made['id']}",
        json=[{"op": "add", "path": "/gender", "value": "female"}],
        headers={"Content-Type": "application/json-patch+json"},
    )

    assert answer.status_code == 200
    assert answer.json()["gender"] == "female"


def test_every_read_is_in_the_audit_trail_of_the_patient_s_institution(kn: Client, yl: Client) -> None:
    made = kn.create(patient())
    kn.get(f"/fhir/Patient/{made['id']}")

    own = kn.get(f"/fhir/AuditEvent?patient={made['id']}").json()
    foreign = yl.get(f"/fhir/AuditEvent?patient={made['id']}").json()

    assert {entry["resource"]["subtype"][0]["code"] for entry in own["entry"]} >= {"create", "read"}
    assert foreign.get("entry", []) == []


def test_everything_returns_the_record_of_one_patient(kn: Client) -> None:
    made, other = kn.create(patient()), kn.create(patient("2"))
    for subject in (made, other):
        kn.create(
            {
                "resourceType": "Observation",
                "status": "final",
                "code": {"text": "K"},
                "subject": {"reference": f"Patient/{subject['id']}"},
            }
        )

    found = kn.get(f"/fhir/Patient/{made['id']}/$everything").json()["entry"]

    assert sorted(entry["resource"]["resourceType"] for entry in found) == ["Observation", "Patient"]


def test_validate_tells_what_is_wrong_and_stores_nothing(kn: Client) -> None:
    answer = kn.post("/fhir/Patient/$validate", json={"resourceType": "Patient", "gender": "bogus"})

    assert answer.status_code == 200
    assert any(issue["severity"] == "error" for issue in answer.json()["issue"])
    assert kn.search("/fhir/Patient") == []


def test_client_credentials_give_a_token_that_works(services: Services) -> None:
    client_id, secret = services.directory.add_client("KN")
    nobody = client_of(build(services), services, None)
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}

    token = nobody.post("/oauth/token", data=form).json()["access_token"]
    wrong = nobody.post("/oauth/token", data={**form, "client_secret": "x"})

    assert nobody.get("/fhir/Patient", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")


def test_v2_over_http_gets_its_acknowledgement(kn: Client) -> None:
    message = "MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611083000||ADT^A04|H1|P|2.4\rEVN|A04|20250611083000\rPID|1||0000010086^^^^IDCard||郑伟||19760229|M\r"

    answer = kn.post("/hl7", content=message.encode("gb18030"), headers={"Content-Type": "x-application/hl7-v2+er7"})

    assert answer.status_code == 200
    assert b"MSA|AA|H1" in answer.content
    assert len(kn.search("/fhir/Patient?name=郑伟")) == 1
