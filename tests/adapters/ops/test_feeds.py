"""The statistics of a feed over HTTP, for its own member and the operator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from adapters.ops import application
from hub.actor import Actor
from hub.boot import Services
from tests.support.services import running

ORDER = Path(__file__).parents[3] / "sample_data" / "hl7" / "ORM_O01" / "kn_ct_order.hl7"
PATH = "/ops/feeds/KN/mllp/statistics"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as services:
        services.messages.receive(ORDER.read_bytes(), "127.0.0.1:1")
        yield services


def client(hub: Services, institution: str, role: str) -> TestClient:
    token = hub.directory.issue_token(Actor(institution=institution, roles=frozenset({role})), ttl_s=60)
    return TestClient(application(hub), headers={"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize(("institution", "role"), [("YY", "operator"), ("KN", "admin")])
def test_a_feed_is_counted_for_who_runs_it(hub: Services, institution: str, role: str) -> None:
    found = client(hub, institution, role).get(PATH, params={"last": "5"}).json()
    assert (found["endpoint"], found["messages"], found["events"]) == ("KN/mllp", 1, {"ORM^O01": 1})
    assert (found["traffic"]["received"], found["traffic"]["applied"], found["traffic"]["waiting"]) == (1, 1, 0)
    assert found["traffic"]["commit_s"]["p50"] >= 0
    assert any(one["field"] == "PID-5" and one["valued"] == 1 and not one["codes"] for one in found["fields"])


def test_a_feed_of_another_member_is_not_there(hub: Services) -> None:
    assert client(hub, "QH", "admin").get(PATH).status_code == 404
    assert client(hub, "KN", "admin").get("/ops/feeds/KN/none/statistics").status_code == 404
    assert client(hub, "KN", "admin").get(PATH, params={"last": "many"}).status_code == 400
