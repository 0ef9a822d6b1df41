"""/ops as FastAPI serves it: what it describes is what it does, and it speaks in the hub's own words."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from adapters.http.app import build as door
from adapters.ops import application
from adapters.ops.api import build
from adapters.ops.models import OperationOutcome
from fhir_mappings.json import dumps
from hub.actor import Actor
from hub.boot import Services
from hub.deletion import Deletion
from hub.imaging_ids import study_resource_id
from hub.message_desk import MessageDesk
from hub.message_search import BESIDE
from hub.operations import Operations
from hub.ports import NewDelivery, StudyKey
from storage.sql import journal, outbox_views
from tests.support.images import STUDY, FakeClock, ct, receive
from tests.support.services import running

ROOT = Path(__file__).parents[3]
ORDER = ROOT / "sample_data" / "hl7" / "ORM_O01" / "kn_ct_order.hl7"
ADMIN = Actor(institution="KN", roles=frozenset({"admin"}), address="testclient")

OPERATIONS = {
    ("get", "/ops/queue"),
    ("get", "/ops/queue/deliveries"),
    ("post", "/ops/queue/deliveries/{number}/replay"),
    ("post", "/ops/queue/deliveries/{number}/skip"),
    ("post", "/ops/queue/{destination}/pause"),
    ("post", "/ops/queue/{destination}/resume"),
    ("get", "/ops/messages"),
    ("get", "/ops/messages/{number}"),
    ("get", "/ops/messages/{number}/compare"),
    ("get", "/ops/messages/export"),
    ("post", "/ops/messages/replay"),
    ("post", "/ops/messages/{number}/replay"),
    ("get", "/ops/trace/{id}"),
    ("get", "/ops/codes"),
    ("post", "/ops/codes"),
    ("get", "/ops/codes/unmapped"),
    ("post", "/ops/codes/reprocess"),
    ("get", "/ops/feeds/{name}/statistics"),
    ("post", "/ops/settings/dry-run"),
    ("get", "/ops/settings/{name}/history"),
    ("get", "/ops/settings/{name}/diff"),
    ("post", "/ops/settings/{name}/rollback"),
    ("get", "/ops/work-items"),
    ("post", "/ops/studies/{study}/settle"),
    ("post", "/ops/conflicts/{task}/settle"),
    ("get", "/ops/merges"),
    ("get", "/ops/merges/{patient}"),
    ("post", "/ops/merges/{patient}/settle"),
    ("get", "/ops/patient-links"),
    ("post", "/ops/patient-links/{task}/settle"),
    ("get", "/ops/deletions"),
    ("get", "/ops/holds"),
    ("post", "/ops/studies/{study}/hold"),
    ("post", "/ops/studies/{study}/release"),
    ("post", "/ops/studies/{study}/restore"),
    ("get", "/ops/exports"),
    ("post", "/ops/exports"),
    ("get", "/ops/exports/{job}"),
    ("post", "/ops/exports/{job}/cancel"),
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path, clock=FakeClock()) as services:
        yield services


@pytest.fixture
def kn(hub: Services) -> TestClient:
    """An administrator of KN."""
    token = hub.directory.issue_token(ADMIN, ttl_s=3600)
    return TestClient(application(hub), headers={"Authorization": f"Bearer {token}"})


def enqueue(hub: Services) -> int:
    delivery = NewDelivery(
        destination="KN/mllp",
        lane="KN/mllp|p1",
        kind="mllp",
        payload=b"MSH|secret",
        owner="KN",
        control_id="C1",
        correlation_id="way-1",
    )
    return hub.database.write(lambda tx: tx.outbox.enqueue(delivery))


def refused(answer: httpx.Response, status: int) -> list[dict[str, Any]]:
    """Return the issues of *answer*, which must be an error as the hub tells it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    outcome = answer.json()
    OperationOutcome.model_validate(outcome)
    assert outcome["id"] == answer.headers["x-correlation-id"]
    return list(outcome["issue"])


# --- the description


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return build().openapi()


def operations(described: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method, path): one for path, item in described["paths"].items() for method, one in item.items()}


def test_the_description_is_served_to_anybody(hub: Services, described: dict[str, Any]) -> None:
    client = TestClient(application(hub))
    assert client.get("/ops/openapi.json").json() == described
    assert "secret" not in str(described)
    for path in ("/ops/docs", "/docs", "/redoc", "/openapi.json"):
        refused(client.get(path), 404)


def test_the_http_door_serves_the_description_and_the_operations(hub: Services, described: dict[str, Any]) -> None:
    token = hub.directory.issue_token(ADMIN, ttl_s=3600)
    client = TestClient(door(hub), headers={"Authorization": f"Bearer {token}"})
    assert client.get("/ops/openapi.json").json() == described
    assert client.post("/ops/queue/KN/mllp/pause").json() == {"destination": "KN/mllp", "paused": True}
    refused(client.get("/ops"), 404)


def test_every_operation_is_described(described: dict[str, Any]) -> None:
    found = operations(described)
    assert set(found) == OPERATIONS
    for (_, path), one in found.items():
        chinese, slash, english = one["summary"].partition(" / ")
        assert slash, path
        assert (chinese.isascii(), english.isascii()) == (False, True), path
        assert " / " in one["x-who"]
        assert one["security"] == [{"HTTPBearer": []}]
        named = {parameter["name"] for parameter in one.get("parameters", ()) if parameter["in"] == "path"}
        assert named == {part.strip("{}") for part in path.split("/") if part.startswith("{")}
        for parameter in one.get("parameters", ()):
            assert parameter["description"], parameter
            assert parameter["schema"]["type"] in {"string", "integer"}, parameter


def test_every_answer_has_a_schema_and_every_error_is_an_outcome(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    assert not {"HTTPValidationError", "ValidationError"} & schemas.keys()
    for one in operations(described).values():
        responses = dict(one["responses"])
        done = responses.pop("200")["content"]["application/json"]["schema"]["$ref"]
        assert done.rpartition("/")[2] in schemas
        assert {"401", "403", "default"} <= responses.keys()
        for response in responses.values():
            assert response["content"] == {
                "application/fhir+json": {"schema": {"$ref": "#/components/schemas/OperationOutcome"}}
            }
        if "requestBody" in one:
            body = one["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            assert schemas[body.rpartition("/")[2]]["required"]


def test_every_reference_of_the_description_leads_somewhere(described: dict[str, Any]) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for one in value.values():
                yield from references(one)
        elif isinstance(value, list):
            for one in value:
                yield from references(one)

    found = set(references(described))
    assert {one.removeprefix("#/components/schemas/") for one in found} <= described["components"]["schemas"].keys()


def test_every_column_that_can_be_searched_is_a_parameter(described: dict[str, Any]) -> None:
    found = operations(described)

    def names(path: str) -> set[str]:
        return {one["name"] for one in found["get", path]["parameters"]}

    assert names("/ops/queue/deliveries") == outbox_views.SEARCHABLE | {"limit"}
    assert names("/ops/messages") == journal._SEARCHABLE | BESIDE | {"since", "until", "limit", "before"}


def test_each_parameter_narrows_the_search(hub: Services, kn: TestClient, described: dict[str, Any]) -> None:
    enqueue(hub)
    hub.messages.receive(ORDER.read_bytes(), "127.0.0.1:40000")
    for path, name in (("/ops/queue/deliveries", "deliveries"), ("/ops/messages", "messages")):
        whole = kn.get(path).json()[name]
        assert whole
        for parameter in operations(described)["get", path]["parameters"]:
            asked = parameter["name"]
            if asked in {"owner", "institution"}:
                # An administrator's own institution stands in for whatever is asked.
                assert kn.get(path, params={asked: "QH"}).json()[name] == whole
            elif asked not in {"limit", "before", "since", "until", "finished_since", "finished_until"}:
                assert kn.get(path, params={asked: "another"}).json()[name] == [], asked
    assert kn.get("/ops/messages", params={"before": "1"}).json()["messages"] == []
    for name in ("until", "finished_until"):
        assert kn.get("/ops/messages", params={name: "2000-01-01T00:00:00Z"}).json()["messages"] == []
    assert kn.get("/ops/messages", params={"finished_since": "2100-01-01T00:00:00Z"}).json()["messages"] == []
    refused(kn.get("/ops/messages", params={"finished_since": "yesterday"}), 400)


def test_what_messages_say_is_searched_by_their_institution_and_not_by_the_operator(
    hub: Services, kn: TestClient
) -> None:
    text = ORDER.read_bytes().decode("gb18030")
    hub.messages.receive(ORDER.read_bytes(), "127.0.0.1:40000")
    name, number = (text.split("PID|")[1].split("|")[field].partition("^")[0] for field in (4, 2))
    assert not name.isascii()
    for asked in ({"text": name}, {"number": number}):
        (found,) = kn.get("/ops/messages", params=asked).json()["messages"]
        assert found["institution"] == "KN"
        for actor, status in (
            (Actor(institution="YY", roles=frozenset({"operator"})), 403),
            (Actor(institution="QH", roles=frozenset({"admin"})), 200),
        ):
            token = hub.directory.issue_token(actor, ttl_s=60)
            answer = kn.get("/ops/messages", params=asked, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == status
            assert status == 403 or answer.json() == {"messages": []}


def test_many_messages_are_counted_processed_again_and_written_out_by_their_institution(
    hub: Services, kn: TestClient
) -> None:
    hub.messages.receive(ORDER.read_bytes(), "127.0.0.1:40000")
    (entry,) = hub.database.read(lambda tx: tx.journal.search({}, limit=9))
    asked = {"filter": {"message_type": "ORM^O01"}}
    refused(kn.post("/ops/messages/replay", json={}), 400)
    refused(kn.post("/ops/messages/replay", json={"filter": {"body": "x"}}), 400)
    counted = kn.post("/ops/messages/replay", json=asked).json()
    assert (counted["count"], counted["processed"], counted["refused"]) == (1, 0, [])
    refused(kn.post("/ops/messages/replay", json={**asked, "confirm": "0"}), 409)
    done = kn.post("/ops/messages/replay", json={**asked, "confirm": counted["confirm"]}).json()
    assert done == {**counted, "processed": 1}

    compared = kn.get(f"/ops/messages/{entry.seq}/compare").json()
    assert compared["segments"][0].startswith("MSH|")
    assert {"Patient", "ServiceRequest"} <= {one["reference"].partition("/")[0] for one in compared["resources"]}

    written = kn.get("/ops/messages/export", params={"door": "mllp"}).json()
    assert (written["count"], written["skipped"]) == (1, 0)
    assert written["content"].startswith("FHS|")
    assert kn.get("/ops/messages/export?format=jsonl").json()["content"].count("\n") == 1
    refused(kn.get("/ops/messages/export?format=xml"), 400)

    def other(institution: str, role: str) -> dict[str, str]:
        actor = Actor(institution=institution, roles=frozenset({role}))
        return {"Authorization": f"Bearer {hub.directory.issue_token(actor, ttl_s=60)}"}

    for path in (f"/ops/messages/{entry.seq}/compare", "/ops/messages/export"):
        refused(kn.get(path, headers=other("YY", "operator")), 403)
    refused(kn.get(f"/ops/messages/{entry.seq}/compare", headers=other("QH", "admin")), 404)
    assert kn.get("/ops/messages/export", headers=other("QH", "admin")).json()["count"] == 0
    assert kn.post("/ops/messages/replay", json=asked, headers=other("QH", "admin")).json()["count"] == 0


# --- answers


def test_answers_are_byte_for_byte_what_the_hub_found(hub: Services, kn: TestClient) -> None:
    number = enqueue(hub)
    hub.database.write(lambda tx: tx.alerts.open("queue|KN/mllp", detail="等待过久", now=hub.clock()))
    hub.messages.receive(ORDER.read_bytes(), "127.0.0.1:40000")
    (entry,) = hub.database.read(lambda tx: tx.journal.search({}, limit=9))
    told, desk = Operations(hub), MessageDesk(hub)
    expected = {
        "/ops/queue": told.queues(ADMIN),
        "/ops/queue/deliveries": {"deliveries": told.deliveries(ADMIN, {}, limit=100)},
        "/ops/messages": {"messages": desk.messages(ADMIN, {}, limit=100)},
        f"/ops/messages/{entry.seq}": desk.message(ADMIN, entry.seq),
        f"/ops/trace/{entry.correlation_id}": told.trace(ADMIN, entry.correlation_id),
        "/ops/trace/way-1": told.trace(ADMIN, "way-1"),
        "/ops/work-items": {"work_items": told.work_items(ADMIN)},
    }
    assert told.queues(ADMIN)["alerts"]
    for path, found in expected.items():
        answer = kn.get(path, headers={"X-Correlation-Id": "mine-1", "X-Request-Id": "his-2"})
        if not path.startswith("/ops/trace"):
            assert answer.content == dumps(found), path
        else:
            # Looking at the message above left one more act on its way.
            assert list(answer.json()) == list(found)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert (answer.headers["x-correlation-id"], answer.headers["x-request-id"]) == ("mine-1", "his-2")
    acts = {
        f"/ops/queue/deliveries/{number}/skip": ({"reason": "改用纸质"}, {"id": number, "done": "skip"}),
        f"/ops/queue/deliveries/{number}/replay": (None, {"id": number, "done": "replay"}),
        "/ops/queue/KN/mllp/pause": (None, {"destination": "KN/mllp", "paused": True}),
        "/ops/queue/KN/mllp/resume": (None, {"destination": "KN/mllp", "paused": False}),
    }
    for path, (body, done) in acts.items():
        assert kn.post(path, json=body).content == dumps(done)


def test_what_can_be_asked_with_get_can_be_asked_with_head(kn: TestClient) -> None:
    for path in ("/ops/queue", "/ops/messages"):
        assert kn.head(path).status_code == 200
    refused(kn.get("/ops/queue/KN/mllp/pause"), 405)
    refused(kn.delete("/ops/queue"), 405)
    refused(kn.get("/ops/nothing"), 404)
    refused(kn.get("/ops"), 404)


def test_an_export_is_asked_for_looked_at_and_cancelled(hub: Services, kn: TestClient) -> None:
    receive(hub, ct())
    refused(kn.post("/ops/exports", json={}), 400)
    refused(kn.post("/ops/exports", json={"project": "lung", "studies": ["1.2.3"]}), 404)
    asked = kn.post("/ops/exports", json={"project": "lung", "studies": [STUDY], "options": ["modified-dates"]}).json()
    assert (asked["status"], asked["options"]) == ("requested", ["modified-dates"])
    assert kn.get("/ops/exports").json() == {"exports": [asked]}
    assert kn.get(f"/ops/exports/{asked['id']}").json() == asked
    assert kn.post(f"/ops/exports/{asked['id']}/cancel").json()["status"] == "cancelled"
    refused(kn.post(f"/ops/exports/{asked['id']}/cancel"), 409)
    operator = hub.directory.issue_token(Actor(institution="YY", roles=frozenset({"operator"})), ttl_s=60)
    refused(kn.get("/ops/exports", headers={"Authorization": f"Bearer {operator}"}), 403)


def test_a_study_is_held_released_and_restored(hub: Services, kn: TestClient) -> None:
    receive(hub, ct())
    hub.database.write(lambda tx: hub.imaging._completion.complete(tx, StudyKey(owner="KN", StudyInstanceUID=STUDY)))
    study = study_resource_id("KN", STUDY)
    why = {"reason": "诉讼保全"}
    refused(kn.post(f"/ops/studies/{study}/hold", json={}), 400)
    refused(kn.post("/ops/studies/1/hold", json=why), 404)
    assert kn.post(f"/ops/studies/{study}/hold", json=why).json() == {"study": f"ImagingStudy/{study}", "done": "hold"}
    (held,) = kn.get("/ops/holds").json()["holds"]
    assert (held["institution"], held["study"], held["by"], held["reason"]) == ("KN", STUDY, "KN/system", "诉讼保全")
    for actor, status in (
        (Actor(institution="QH", roles=frozenset({"admin"})), 404),
        (Actor(institution="KN", roles=frozenset({"doctor"})), 403),
    ):
        token = hub.directory.issue_token(actor, ttl_s=60)
        refused(
            kn.post(f"/ops/studies/{study}/release", json=why, headers={"Authorization": f"Bearer {token}"}), status
        )
    operator = hub.directory.issue_token(Actor(institution="YY", roles=frozenset({"operator"})), ttl_s=60)
    as_operator = {"Authorization": f"Bearer {operator}"}
    assert len(kn.get("/ops/holds", headers=as_operator).json()["holds"]) == 1
    assert kn.post(f"/ops/studies/{study}/release", json=why, headers=as_operator).json()["done"] == "release"
    refused(kn.post(f"/ops/studies/{study}/release", json=why), 404)
    Deletion(hub).delete(ADMIN, STUDY, reason="错误")
    (gone,) = kn.get("/ops/deletions").json()["deletions"]
    assert (gone["study"], gone["reason"], gone["removed"]) == (STUDY, "错误", None)
    assert kn.post(f"/ops/studies/{study}/restore", json=why).json()["done"] == "restore"
    assert kn.get("/ops/deletions").json() == {"deletions": []}


def test_nothing_that_waits_is_done_on_the_event_loop(
    hub: Services, kn: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = enqueue(hub)
    hub.messages.receive(ORDER.read_bytes(), "127.0.0.1:40000")
    (entry,) = hub.database.read(lambda tx: tx.journal.search({}, limit=9))
    calls = []

    def watched(name: str) -> None:
        original = getattr(hub.database, name)

        def call(*arguments: Any, **named: Any) -> Any:
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()
            calls.append(name)
            return original(*arguments, **named)

        monkeypatch.setattr(hub.database, name, call)

    watched("read")
    watched("write")
    operator = Actor(institution="YY", roles=frozenset({"operator"}))
    token = hub.directory.issue_token(operator, ttl_s=3600)
    for method, path in sorted(OPERATIONS):
        filled = path.replace("messages/{number}", f"messages/{entry.seq}").format(
            number=number,
            destination="KN/mllp",
            name="KN/mllp",
            id=entry.correlation_id,
            study="1",
            task="1",
            job="1",
            patient="1",
        )
        before = len(calls)
        # Links between institutions' patients are refused to everybody else before anything is looked at.
        links = "patient-links" in path
        body: dict[str, Any] = {
            "reason": "x",
            "service_request": None,
            "decision": "keep",
            "project": "x",
            "studies": ["1.2"],
        }
        body["filter"] = {"state": "failed"}
        body |= {"institution": "KN", "source": "local", "code": "K", "target": "http://loinc.org|2823-3"}
        body |= {"endpoint": "KN/mllp", "version": 1}
        kn.request(
            method,
            filled,
            json={**body, **({"decision": "refuse"} if links else {})} if method == "post" else None,
            headers={"Authorization": f"Bearer {token}"} if links else None,
        )
        assert len(calls) > before, path


# --- what does not fit


@pytest.mark.parametrize(("path", "name"), [("/ops/queue/deliveries", "limit"), ("/ops/messages", "before")])
def test_what_is_no_number_is_refused_by_the_name_of_its_parameter(kn: TestClient, path: str, name: str) -> None:
    for text in ("many", "-1", "+1", " 1", "1_0", "1.0", "1e3", "", "١", "9" * 19, "9" * 5000):
        (issue,) = refused(kn.get(path, params={name: text}), 400)
        assert (issue["code"], issue["expression"]) == ("invalid", [name])
        assert issue["diagnostics"] == "This is no number. Write digits."


def test_the_page_has_a_largest_size_but_no_number_is_too_large_to_ask_for(hub: Services, kn: TestClient) -> None:
    enqueue(hub)
    for limit in ("0", "007", "9" * 18):
        assert len(kn.get("/ops/queue/deliveries", params={"limit": limit}).json()["deliveries"]) == 1


def test_every_wrong_parameter_is_named(kn: TestClient) -> None:
    answer = kn.get("/ops/messages?before=x&payload=secret&limit=y&limit=z")
    assert sorted(issue["expression"] for issue in refused(answer, 400)) == [["before"], ["limit"], ["payload"]]
    assert "secret" not in answer.text
    (issue,) = refused(kn.get("/ops/messages?since=yesterday"), 400)
    assert issue["expression"] == ["since"]
    (issue,) = refused(kn.get("/ops/queue/deliveries", params={"n" * 5000: "1"}), 400)
    assert issue["expression"] == ["n" * 64]
    assert "Use control_id, correlation_id, destination, kind, lane, limit, owner" in issue["diagnostics"]


def test_a_number_that_no_row_can_have_is_not_found(kn: TestClient) -> None:
    for number in ("abc", "-1", "1.5", "١", str(1 << 63), "9" * 5000, "0" * 5000):
        refused(kn.get(f"/ops/messages/{number}"), 404)
        refused(kn.post(f"/ops/queue/deliveries/{number}/replay"), 404)


def test_leading_zeros_do_not_change_a_number(hub: Services, kn: TestClient) -> None:
    number = enqueue(hub)
    assert kn.post(f"/ops/queue/deliveries/00{number}/skip", json={"reason": "x"}).json()["id"] == number


def test_a_body_that_does_not_fit_is_refused_by_the_place(hub: Services, kn: TestClient) -> None:
    path = f"/ops/queue/deliveries/{enqueue(hub)}/skip"
    for reason in ("", "{}", '{"reason": null}', '{"reason": 7.50}', '{"reason": ["x"]}', '{"reason": "  "}'):
        (issue,) = refused(kn.post(path, content=reason.encode()), 400)
        assert (issue["expression"], issue["diagnostics"]) == (["reason"], "A skip needs a reason. Say why.")
    for body in (b"[1]", b'"x"', b"{", b"\xff", b"[" * 60_000):
        (issue,) = refused(kn.post(path, content=body), 400)
        assert issue["expression"] == ["body"]
    (issue,) = refused(kn.post("/ops/studies/1/settle", content=b"{}"), 400)
    assert issue["expression"] == ["service_request"]
    assert issue["diagnostics"] == (
        "The body does not say which order the study belongs to. "
        'Send {"service_request": "ServiceRequest/<id>"}, or null when it has none.'
    )


def test_a_body_is_taken_whatever_media_type_it_is_said_to_have(hub: Services, kn: TestClient) -> None:
    for media_type in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
        path = f"/ops/queue/deliveries/{enqueue(hub)}/skip"
        answer = kn.post(path, content=b'{"reason": "x", "more": 1}', headers={"Content-Type": media_type})
        assert answer.status_code == 200, answer.text


def test_a_body_is_read_from_somebody_known_and_up_to_its_limit(hub: Services, kn: TestClient) -> None:
    path = f"/ops/queue/deliveries/{enqueue(hub)}/skip"
    refused(kn.post(path, content=b'{"reason": "' + b"x" * 65536 + b'"}'), 413)
    read: list[bytes] = []

    async def ask() -> int:
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            read.append(b"x")
            return {"type": "http.request", "body": b"{}", "more_body": True}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        await application(hub)(scope, receive, send)
        return statuses[0]

    assert (asyncio.run(ask()), read) == (401, [])


def test_a_stranger_learns_nothing_from_its_mistakes(hub: Services) -> None:
    stranger = TestClient(application(hub))
    for path in ("/ops/queue/deliveries?limit=x", "/ops/messages?payload=1", "/ops/messages/abc"):
        answer = stranger.get(path)
        refused(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_what_nobody_expected_is_a_fault_without_its_text(kn: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("张三")

    monkeypatch.setattr(Operations, "queues", broken)
    answer = kn.get("/ops/queue")
    (issue,) = refused(answer, 500)
    assert issue["code"] == "exception"
    assert "张三" not in answer.text


def test_an_answer_that_is_not_described_is_a_fault(kn: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Operations, "queues", lambda *_: {"destinations": [], "lanes": [], "alerts": [], "new": 1})
    refused(kn.get("/ops/queue"), 500)


# --- what it costs


def test_health_needs_nothing_of_fastapi(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from starlette.applications import Starlette
from starlette.testclient import TestClient
from adapters.ops import application, routes
from tests.support.services import running
with running(Path({str(tmp_path)!r})) as hub:
    client, ops = TestClient(Starlette(routes=routes(hub))), TestClient(application(hub))
    assert [client.get(path).status_code for path in ("/healthz", "/readyz", "/metrics")] == [200, 200, 200]
    assert "fastapi" not in sys.modules
    assert ops.get("/ops/queue").status_code == 401
    assert "fastapi" in sys.modules
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_an_application_that_cannot_be_made_says_so_and_is_tried_again(
    hub: Services, kn: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("adapters.ops.api.build", lambda _: 1 / 0)
        refused(kn.get("/ops/queue"), 500)
    assert kn.get("/ops/queue").status_code == 200


# --- the page for people


def test_the_page_for_operators_lists_every_route() -> None:
    spec = importlib.util.spec_from_file_location("operations_tables", ROOT / "docs" / "scripts" / "operations.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    table = script.tables()["routes"]
    assert f"<!-- generated: routes -->\n\n{table}\n\n<!-- end -->" in (ROOT / "docs" / "operations.md").read_text(
        "utf-8"
    )
    for method, path in OPERATIONS:
        assert f"| {method.upper()} | `{path}` |" in table
