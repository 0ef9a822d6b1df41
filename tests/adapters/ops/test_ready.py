"""``/readyz`` while a store is really away: 503 with its name, alive all the same, and ready again by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.testclient import TestClient

from adapters.ops import metrics as ops
from adapters.ops import routes
from hub import metrics
from hub.boot import Services
from hub.clock import utc_now
from hub.config import Settings
from hub.ports import NewDelivery
from storage.objects import open_from
from storage.sql.database import SqlDatabase
from tests.support.databases import migrate, opened
from tests.support.s3_stub import s3_stub
from tests.support.services import running


def asker(services: Services) -> TestClient:
    return TestClient(Starlette(routes=routes(services)))


def states(client: TestClient) -> tuple[int, str, str]:
    answer = client.get("/readyz")
    assert client.get("/healthz").status_code == 200
    return answer.status_code, answer.json()["database"], answer.json()["objects"]


def test_an_object_store_that_is_away_makes_the_hub_unready_until_it_is_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    migrate(url)
    with s3_stub() as stub, opened(url) as database:
        settings = Settings(
            data_dir=tmp_path,
            objects_url="s3://bucket",
            s3_endpoint=stub.endpoint,
            s3_access_key="key",
            s3_secret_key="secret",
        )
        objects = open_from(settings)
        client = asker(Services(settings=settings, database=database, objects=objects, node="t", clock=utc_now))

        before = states(client)
        stub.faults.status = 503
        during = states(client)
        stub.faults.status = 0

        assert before == (200, "ok", "ok")
        assert (during[0], during[1]) == (503, "ok")
        assert during[2] in {"unavailable", "busy"}


def test_a_database_that_is_away_makes_the_hub_unready(tmp_path: Path, database_url: str) -> None:
    with running(tmp_path, url=database_url) as services:
        client = asker(services)
        before = states(client)
        assert isinstance(services.database, SqlDatabase)
        services.database.close()
        during = states(client)
        scraped = client.get("/metrics")

    assert before == (200, "ok", "ok")
    assert (during[0], during[2]) == (503, "ok")
    assert during[1] in {"unavailable", "interrupted"}
    # Prometheus still gets an answer, and it says which store is down.
    assert 'hub_stores_up{store="database"} 0.0' in scraped.text.splitlines()
    assert 'hub_stores_up{store="objects"} 1.0' in scraped.text.splitlines()


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ops, "_registry", None)
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    ops.install()
    yield
    metrics.set_sink(None)


@pytest.mark.usefixtures("counting")
def test_prometheus_reads_what_is_promised_to_it(sqlite_services: Services) -> None:
    delivery = NewDelivery(destination="KN/mllp", lane="KN/mllp|p", kind="mllp", payload=b"m", owner="KN")
    sqlite_services.database.write(lambda tx: tx.outbox.enqueue(delivery))

    text = asker(sqlite_services).get("/metrics").text

    names = {one.name for one in text_string_to_metric_families(text)}
    assert names >= {
        "hub_version",
        "hub_stores_up",
        "hub_received",
        "hub_deliveries",
        "hub_timers",
        "hub_http_requests",
        "hub_http_request_seconds",
        "hub_delivery_seconds",
        "hub_queue_depth",
        "hub_queue_dead_letters",
        "hub_queue_oldest_seconds",
        "hub_queue_paused",
        "hub_alert",
        "hub_journal_waiting",
    }


def test_what_waits_for_s3_is_told_and_does_not_make_the_hub_unready(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    migrate(url)
    settings = Settings(
        data_dir=tmp_path,
        objects_url="s3://bucket",
        objects_spool="durable",
        # Nothing listens on the discard port: the server is away from the start.
        s3_endpoint="http://127.0.0.1:9",
        s3_access_key="key",
        s3_secret_key="secret",
    )
    with opened(url) as database:
        objects = open_from(settings)
        objects.put_bytes(b"received")
        client = asker(Services(settings=settings, database=database, objects=objects, node="t", clock=utc_now))
        answer = client.get("/readyz")
        scraped = client.get("/metrics").text.splitlines()
        objects.close()

    assert (answer.status_code, answer.json()["objects"]) == (200, "ok")
    assert (answer.json()["uploads"]["waiting"], answer.json()["uploads"]["bytes"]) == (1, 8)
    assert answer.json()["uploads"]["oldest_s"] >= 0
    assert "hub_uploads_waiting 1.0" in scraped
    assert "hub_uploads_waiting_bytes 8.0" in scraped
    assert any(line.startswith("hub_uploads_oldest_seconds ") for line in scraped)
