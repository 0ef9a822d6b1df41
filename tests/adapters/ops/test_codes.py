"""/ops for whoever maps codes and changes settings: the whole way, within one institution's reach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from adapters.ops import application
from hub.actor import Actor
from hub.boot import Services
from tests.support.code_maps import LOINC, concept_map, local
from tests.support.images import FakeClock
from tests.support.services import running
from tests.support.v2 import oru


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path, clock=FakeClock()) as services:
        result = "OBX|1|NM|K^血钾^L||4.1|mmol/L|3.5-5.3|N|||F|||20250611070000"
        text = oru("1", "F", "4.1", at="20250611080000", obx=result)
        answer = services.messages.receive(text.encode("gb18030"), "127.0.0.1:40000")
        assert answer is not None
        assert b"|AA|" in answer
        yield services


def client(hub: Services, institution: str, role: str) -> TestClient:
    token = hub.directory.issue_token(Actor(institution=institution, roles=frozenset({role})), ttl_s=600)
    return TestClient(application(hub), headers={"Authorization": f"Bearer {token}"})


def test_a_code_is_tried_mapped_processed_again_compared_and_taken_back(hub: Services) -> None:
    kn = client(hub, "KN", "admin")
    (waiting,) = (one for one in kn.get("/ops/codes/unmapped").json()["codes"] if one["system"] == local("KN"))
    assert (waiting["code"], waiting["count"], waiting["mapped"]) == ("K", 1, False)
    proposed = concept_map("m", local("KN"), LOINC, K="2823-3")
    tried = kn.post("/ops/settings/dry-run", json={"endpoint": "KN/mllp", "resources": [proposed]}).json()
    assert (tried["messages"], tried["differing"]) == (1, 1)
    assert kn.get("/ops/codes").json() == {"codes": []}
    said = {"institution": "KN", "source": "local", "code": "K", "target": f"{LOINC}|2823-3"}
    made = kn.post("/ops/codes", json=said).json()
    assert made["version"] == 1
    assert [one["targets"] for one in kn.get("/ops/codes").json()["codes"]] == [[f"{LOINC}|2823-3"]]
    done = kn.post("/ops/codes/reprocess", json={"institution": "KN"}).json()
    assert (done["replayed"], done["next"]) == (1, None)
    kn.post("/ops/codes", json={**said, "target": ""})
    (changed,) = kn.get(f"/ops/settings/{made['map']}/diff").json()["changes"]
    assert (changed["before"], changed["after"]) == ([f"{LOINC}|2823-3"], ["-"])
    assert len(kn.get(f"/ops/settings/{made['map']}/history").json()["versions"]) == 2
    back = kn.post(f"/ops/settings/{made['map']}/rollback", json={"version": 1}).json()
    assert back == {"reference": made["map"], "version": 3, "like": 1}


def test_another_institution_reaches_none_of_it(hub: Services) -> None:
    qh = client(hub, "QH", "admin")
    assert qh.get("/ops/codes/unmapped").json() == {"codes": []}
    said = {"institution": "KN", "source": "local", "code": "K", "target": f"{LOINC}|2823-3"}
    for method, path, body in (
        ("GET", "/ops/codes/unmapped?institution=KN", None),
        ("POST", "/ops/codes", said),
        ("POST", "/ops/codes/reprocess", {"institution": "KN"}),
        ("POST", "/ops/settings/dry-run", {"endpoint": "KN/mllp"}),
        ("GET", "/ops/settings/KN/mllp/history", None),
        ("POST", "/ops/settings/KN/mllp/rollback", {"version": 1}),
    ):
        assert qh.request(method, path, json=body).status_code == 404, path
        assert client(hub, "KN", "doctor").request(method, path, json=body).status_code == 403, path


def test_the_operator_sees_every_queue(hub: Services) -> None:
    found = client(hub, "YY", "operator").get("/ops/codes/unmapped?limit=1").json()["codes"]
    assert [one["institution"] for one in found] == ["KN"]


@pytest.mark.parametrize(
    "resource",
    [
        {},
        {"resourceType": "Endpoint"},
        {"resourceType": "Endpoint", "id": "x", "identifier": "no list"},
        {"resourceType": 1, "id": "x"},
    ],
)
def test_what_is_no_resource_cannot_be_tried(hub: Services, resource: dict[str, object]) -> None:
    answer = client(hub, "KN", "admin").post(
        "/ops/settings/dry-run", json={"endpoint": "KN/mllp", "resources": [resource]}
    )
    assert answer.status_code in {400, 422}, answer.text
    assert answer.json()["issue"]
