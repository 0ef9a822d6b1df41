"""Who may write what, what the hub keeps for itself, and that each path to a Task is judged alike."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.http.app import build
from hub.actor import Actor
from hub.boot import Services
from hub.errors import Category, HubError
from tests.support.http import Client, client_of
from tests.support.services import running

PATCH = {"Content-Type": "application/json-patch+json"}
WORKFLOW = "https://yixiehub.example/fhir/CodeSystem/workflow"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as one:
        yield one


def client(services: Services, institution: str, *roles: str, **more: Any) -> Client:
    actor = Actor(institution=institution, roles=frozenset(roles or {"system"}), **more)
    return client_of(build(services), services, actor)


@pytest.fixture
def kn(services: Services) -> Client:
    return client(services, "KN")


# --- roles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["auditor", "patient"])
def test_readers_do_not_write(services: Services, role: str) -> None:
    assert client(services, "KN", role).post("/fhir/Patient", json={"resourceType": "Patient"}).status_code == 403


def test_a_patient_sees_their_own_record_alone(services: Services, kn: Client) -> None:
    me, other = kn.create({"resourceType": "Patient"}), kn.create({"resourceType": "Patient"})
    observation = {"resourceType": "Observation", "status": "final", "code": {"text": "K"}}
    for one in (me, other):
        kn.create({**observation, "subject": {"reference": f"Patient/{one['id']}"}})
    mine = client(services, "KN", "patient", patient=me["id"])

    assert [one["id"] for one in mine.search("/fhir/Patient")] == [me["id"]]
    assert len(mine.search("/fhir/Observation")) == 1
    assert mine.get(f"/fhir/Patient/{other['id']}").status_code == 404
    assert mine.get("/fhir/AuditEvent").status_code == 403


def test_the_operator_sees_no_patient(services: Services, kn: Client) -> None:
    made = kn.create({"resourceType": "Patient"})
    operator = client(services, "YY", "operator")

    assert operator.get(f"/fhir/Patient/{made['id']}").status_code == 404
    assert operator.post("/fhir/Patient", json={"resourceType": "Patient"}).status_code == 403


def test_only_the_operator_changes_the_directory_and_the_doors_know_at_once(services: Services, kn: Client) -> None:
    [organization] = kn.search("/fhir/Organization?identifier=https://yixiehub.example/fhir/NamingSystem/member|QH")
    url = f"/fhir/Organization/{organization['id']}"
    closed = {**organization, "active": False}

    refused = kn.put(url, json=closed).status_code
    taken = client(services, "YY", "operator").put(url, json=closed).status_code

    assert (refused, taken) == (403, 200)
    assert services.directory.member("QH") is None
    assert services.directory.member("KN") is not None


def test_an_endpoint_that_no_door_could_work_with_is_refused_and_the_doors_go_on(services: Services) -> None:
    operator = client(services, "YY", "operator")
    [endpoint] = [
        one for one in operator.search("/fhir/Endpoint") if one["connectionType"]["code"] == "hl7v2-mllp"
        and "KNYY" in str(one)
    ]  # fmt: skip
    wrong = {"name": "cidr", "value": "10.0.0.0/33"}
    setting = {
        "url": "https://yixiehub.example/fhir/StructureDefinition/endpoint-setting",
        "extension": [{"url": url, "valueString": text} for url, text in wrong.items()],
    }

    answer = operator.put(
        f"/fhir/Endpoint/{endpoint['id']}", json={**endpoint, "extension": [*endpoint["extension"], setting]}
    )

    assert answer.status_code in {400, 422}
    assert "cidr" in answer.text
    assert services.directory.mllp_member("HIS", "KNYY", "127.0.0.1") is not None


def test_members_are_switched_off_and_never_deleted(services: Services, kn: Client) -> None:
    [organization] = kn.search("/fhir/Organization?identifier=https://yixiehub.example/fhir/NamingSystem/member|QH")

    assert client(services, "YY", "operator").delete(f"/fhir/Organization/{organization['id']}").status_code == 409


@pytest.mark.parametrize(
    "kind", ["AuditEvent", "Parameters", "OperationOutcome", "Subscription", "CapabilityStatement"]
)
def test_what_is_no_record_is_not_stored(kn: Client, kind: str) -> None:
    assert kn.post(f"/fhir/{kind}", json={"resourceType": kind}).status_code == 405


def test_the_capability_statement_leaves_out_what_is_not_stored(kn: Client) -> None:
    statement = kn.get("/fhir/metadata").json()

    kinds = {one["type"]: one for one in statement["rest"][0]["resource"]}
    assert {"Parameters", "Subscription", "OperationOutcome"}.isdisjoint(kinds)
    assert [one["code"] for one in kinds["AuditEvent"]["interaction"]] == ["read", "search-type"]
    assert (
        kn.post("/fhir/CapabilityStatement/$validate", json=statement).json()["issue"][0]["severity"] == "information"
    )


def test_each_search_parameter_of_the_capability_statement_is_taken(kn: Client) -> None:
    values = {
        "token": "a|b",
        "string": "x",
        "reference": "Patient/x",
        "date": "2025",
        "number": "1",
        "quantity": "1",
        "uri": "u:x",
    }
    statement = kn.get("/fhir/metadata").json()
    for one in statement["rest"][0]["resource"]:
        if one["type"] not in {"Patient", "Task", "Observation", "ImagingStudy", "AuditEvent", "DiagnosticReport"}:
            continue
        for parameter in one["searchParam"]:
            value = "x" if parameter["name"] == "_id" else values[parameter["type"]]
            if parameter["type"] == "reference":
                value = "x"
            answer = kn.get(f"/fhir/{one['type']}", params={parameter["name"]: value})
            assert answer.status_code == 200, (one["type"], parameter["name"], answer.text)


# --- ids and objects ---------------------------------------------------------------------------------------------


def test_an_id_of_the_sender_s_own_is_taken_once(services: Services, kn: Client) -> None:
    body = {"resourceType": "Patient", "id": "kn-1"}

    assert kn.put("/fhir/Patient/kn-1", json=body).status_code == 201
    assert kn.put("/fhir/Patient/kn-1", json={**body, "gender": "male"}).status_code == 200
    assert client(services, "QH").put("/fhir/Patient/kn-1", json=body).status_code == 404
    assert kn.put("/fhir/Patient/kn-2", json=body).status_code == 400
    again = kn.put("/fhir/Patient/kn-1", json=body, headers={"If-None-Match": "*"})
    assert again.status_code == 412


def test_ids_that_the_hub_makes_from_business_keys_cannot_be_taken(kn: Client) -> None:
    id_ = "886313e1-3b8a-5372-9b90-0c9aee199e5d"

    assert kn.put(f"/fhir/Patient/{id_}", json={"resourceType": "Patient", "id": id_}).status_code == 422


def test_a_sender_cannot_point_a_binary_at_a_stored_object(services: Services, kn: Client) -> None:
    digest = services.objects.put_bytes(b"of another institution").digest
    extension = {"url": "https://yixiehub.example/fhir/StructureDefinition/object-digest", "valueString": digest}
    binary = {"resourceType": "Binary", "contentType": "text/plain", "_data": {"extension": [extension]}}

    posted = kn.post("/fhir/Binary", json=binary)
    made = kn.create({"resourceType": "Binary", "contentType": "text/plain", "data": "eA=="})
    patched = kn.patch(
        f"/fhir/Binary/{made['id']}",
        json=[{"op": "remove", "path": "/data"}, {"op": "add", "path": "/_data", "value": binary["_data"]}],
        headers=PATCH,
    )

    assert (posted.status_code, patched.status_code) == (422, 422)


def test_a_binary_goes_in_and_out_as_its_bytes(kn: Client) -> None:
    made = kn.post("/fhir/Binary", content=b"%PDF-1.7 \xff", headers={"Content-Type": "application/pdf"})
    url = f"/fhir/Binary/{made.json()['id']}"

    raw = kn.get(url, headers={"Accept": "application/pdf"})
    resource = kn.get(url, headers={"Accept": "application/fhir+json"}).json()

    assert (raw.content, raw.headers["content-type"]) == (b"%PDF-1.7 \xff", "application/pdf")
    assert base64.b64decode(resource["data"]) == b"%PDF-1.7 \xff"


# --- answers -----------------------------------------------------------------------------------------------------


def test_every_write_is_in_the_journal_with_its_body(services: Services, kn: Client) -> None:
    body = b'{"resourceType":"Patient","gender":"male"}'
    headers = {"Content-Type": "application/fhir+json", "X-Correlation-Id": "case-1"}

    made = kn.post("/fhir/Patient", content=body, headers=headers)

    [one] = services.database.read(lambda tx: tx.journal.by_correlation("case-1"))
    assert made.headers["x-correlation-id"] == "case-1"
    assert (one.door, one.institution, one.body, one.state) == ("fhir", "KN", body, "done")
    assert one.outcome == f"Patient/{made.json()['id']}/_history/1"


def test_a_read_whose_audit_line_cannot_be_written_gives_nothing(services: Services, kn: Client) -> None:
    made = kn.create({"resourceType": "Patient", "name": [{"text": "郑伟"}]})
    whole = services.database.write

    def broken(work: Any) -> Any:
        raise HubError(Category.UNAVAILABLE, "The disk is full.")

    services.database.write = broken  # type: ignore[method-assign]
    try:
        answers = [
            kn.get(f"/fhir/Patient/{made['id']}"),
            kn.get("/fhir/Patient"),
            kn.get(f"/fhir/Patient/{made['id']}/_history"),
            kn.get(f"/fhir/Patient/{made['id']}/$everything"),
        ]
    finally:
        services.database.write = whole  # type: ignore[method-assign]

    assert {one.status_code for one in answers} == {503}
    assert all("郑伟" not in one.text for one in answers)


def test_the_audit_trail_pages_without_gap(kn: Client) -> None:
    made = kn.create({"resourceType": "Patient"})
    for _ in range(6):
        kn.get(f"/fhir/Patient/{made['id']}")
    seen: list[str] = []
    url: str | None = f"/fhir/AuditEvent?patient={made['id']}&_count=2"
    while url:
        page = kn.get(url).json()
        seen += [entry["resource"]["id"] for entry in page.get("entry", ())]
        following = [link["url"] for link in page["link"] if link["relation"] == "next"]
        url = "/fhir" + following[0].split("/fhir", 1)[1] if following else None

    assert len(seen) == len(set(seen)) == 7


def test_the_trail_keeps_no_words_about_a_person(kn: Client) -> None:
    kn.get("/fhir/Patient", params={"name": "郑伟", "gender": "male"})

    trail = kn.get("/fhir/AuditEvent?subtype=search").text

    assert "gender=male" in trail
    assert "郑伟" not in trail


def test_elements_and_summaries_are_marked_as_parts(kn: Client) -> None:
    made = kn.create({"resourceType": "Patient", "gender": "male", "birthDate": "1990-01-02"})

    [one] = kn.search("/fhir/Patient?_elements=gender")
    read = kn.get(f"/fhir/Patient/{made['id']}?_summary=text").json()

    assert set(one) == {"resourceType", "id", "meta", "gender"}
    assert one["meta"]["tag"][0]["code"] == read["meta"]["tag"][0]["code"] == "SUBSETTED"
    assert "birthDate" not in read


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("GET", "/fhir/Nonsense", 404),
        ("GET", "/fhir/Nonsense/1", 404),
        ("GET", "/fhir/Patient/1/2/3/4", 404),
        ("DELETE", "/fhir", 405),
        ("GET", "/fhir/Patient?_format=xml", 406),
        ("GET", "/fhir/Patient?_count=x", 400),
        ("GET", "/fhir/Patient?_cursor=zzzz", 400),
        ("GET", "/fhir/Patient?birthdate=2025-13", 400),
        ("GET", "/fhir/Patient/_history?_before=1", 400),
        ("GET", "/fhir/Patient/x/_history/99999999999", 404),
        ("GET", "/fhir/Patient/%00", 404),
        ("GET", "/fhir/Patient?name=%ff", 400),
        ("POST", "/fhir/Patient", 400),
    ],
)
def test_odd_requests_get_an_outcome_without_inner_words(kn: Client, method: str, url: str, status: int) -> None:
    answer = kn.request(method, url)

    assert answer.status_code == status, answer.text
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert not any(word in answer.text for word in ("Traceback", "sqlalchemy", "SELECT", "sqlite"))


def test_other_media_types_are_refused(kn: Client) -> None:
    xml = kn.post("/fhir/Patient", content=b"<Patient/>", headers={"Content-Type": "application/fhir+xml"})
    patch = kn.patch("/fhir/Patient/1", content=b"{}", headers={"Content-Type": "application/fhir+json"})

    assert (xml.status_code, patch.status_code) == (415, 415)


def test_a_patch_that_doubles_itself_is_stopped(kn: Client) -> None:
    made = kn.create({"resourceType": "Patient", "name": [{"text": "x" * 1000}]})
    doubling = [{"op": "copy", "from": "/name", "path": "/name/-"}] * 60

    answer = kn.patch(f"/fhir/Patient/{made['id']}", json=doubling, headers=PATCH)

    assert answer.status_code == 413
    assert kn.get(f"/fhir/Patient/{made['id']}").json()["meta"]["versionId"] == "1"


@pytest.mark.parametrize(
    ("operations", "status"),
    [
        ([], 400),
        ({"op": "add"}, 400),
        ([{"op": "nonsense", "path": "/x"}], 400),
        ([{"op": "add"}], 400),
        ([{"op": "test", "path": "/gender", "value": "female"}], 422),
        ([{"op": "replace", "path": "/name/7/text", "value": "x"}], 422),
        ([{"op": "replace", "path": "/gender", "value": "bogus"}], 422),
        ([{"op": "replace", "path": "/id", "value": "other"}], 422),
        ([{"op": "replace", "path": "", "value": 1}], 422),
    ],
)
def test_a_patch_that_does_not_fit_changes_nothing(kn: Client, operations: Any, status: int) -> None:
    made = kn.create({"resourceType": "Patient", "gender": "male"})

    answer = kn.patch(f"/fhir/Patient/{made['id']}", json=operations, headers=PATCH)

    assert answer.status_code == status, answer.text
    assert kn.get(f"/fhir/Patient/{made['id']}").json()["meta"]["versionId"] == "1"


# --- Tasks -------------------------------------------------------------------------------------------------------


def referral(kn: Client) -> dict[str, Any]:
    """Create a referral from KN to YL and return its Task."""
    patient = kn.create(
        {
            "resourceType": "Patient",
            "identifier": [{"system": "urn:oid:1.2.3", "value": "10086"}],
            "name": [{"text": "郑伟"}],
            "gender": "male",
            "birthDate": "1976-02-29",
        }
    )
    about = {"reference": f"Patient/{patient['id']}"}
    request = kn.create(
        {
            "resourceType": "ServiceRequest",
            "status": "active",
            "intent": "order",
            "code": {"text": "转诊"},
            "subject": about,
            "authoredOn": "2025-06-11T08:30:00+08:00",
            "reasonCode": [{"text": "胸痛"}],
        }
    )
    organizations = {one["identifier"][0]["value"]: one["id"] for one in kn.search("/fhir/Organization")}
    return kn.create(
        {
            "resourceType": "Task",
            "status": "requested",
            "intent": "order",
            "code": {"coding": [{"system": WORKFLOW, "code": "referral"}]},
            "focus": {"reference": f"ServiceRequest/{request['id']}"},
            "for": about,
            "requester": {"reference": f"Organization/{organizations['KN']}"},
            "owner": {"reference": f"Organization/{organizations['YL']}"},
        }
    )


def test_every_path_to_a_task_is_judged_by_its_table(services: Services, kn: Client) -> None:
    task = referral(kn)
    url = f"/fhir/Task/{task['id']}"
    yl, qh = client(services, "YL", "desk", "system"), client(services, "QH")
    wrong = {**task, "status": "completed"}
    bundle = {"resourceType": "Bundle", "type": "transaction"}
    entry = {"resource": wrong, "request": {"method": "PUT", "url": f"Task/{task['id']}"}}

    refused = [
        kn.put(url, json=wrong),
        kn.patch(url, json=[{"op": "replace", "path": "/status", "value": "completed"}], headers=PATCH),
        kn.post("/fhir", json={**bundle, "entry": [entry]}),
        kn.post(f"{url}/$transition", json=parameters("outcome")),
    ]
    stranger = qh.post(f"{url}/$transition", json=parameters("accept"))
    deleted = kn.delete(url)
    seen = yl.get(url).status_code

    assert all(one.status_code in {403, 409, 422} for one in refused), [one.text for one in refused]
    assert (stranger.status_code, deleted.status_code, seen) == (404, 409, 200)
    assert kn.get(url).json()["status"] == task["status"]


def parameters(event: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": [{"name": "event", "valueCode": event}]}


def test_an_ordinary_task_cannot_become_one_of_a_workflow(kn: Client) -> None:
    plain = kn.create({"resourceType": "Task", "status": "draft", "intent": "order"})
    ruled = {**plain, "code": {"coding": [{"system": WORKFLOW, "code": "referral"}]}}

    assert kn.put(f"/fhir/Task/{plain['id']}", json=ruled).status_code == 422


@pytest.mark.parametrize(
    "parameter",
    [
        [],
        [{"name": "event", "valueCode": "x"}] * 2,
        [{"name": "nonsense", "valueCode": "x"}],
        [{"name": "event", "valueCode": "no-such"}],
    ],
)
def test_a_transition_that_names_no_event_is_refused(kn: Client, parameter: list[Any]) -> None:
    task = referral(kn)
    body = {"resourceType": "Parameters", **({"parameter": parameter} if parameter else {})}

    answer = kn.post(f"/fhir/Task/{task['id']}/$transition", json=body)

    assert answer.status_code in {400, 409, 422}
    assert answer.json()["resourceType"] == "OperationOutcome"
