"""The worker does export jobs step by step, and rests while there is none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.worker.exports import IDLE_S, ExportLoop
from hub.actor import Actor
from hub.boot import Services
from hub.export import Exports, Request
from tests.support.images import STUDY, FakeClock, ct, receive
from tests.support.services import running

ADMIN = Actor(institution="KN", roles=frozenset({"admin"}))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path, clock=FakeClock()) as services:
        yield services


def test_a_job_is_done_and_then_the_loop_rests(hub: Services) -> None:
    receive(hub, ct())
    loop = ExportLoop(hub, threading.Event())
    assert loop.turn() == IDLE_S
    job = Exports(hub).start(ADMIN, Request(project="lung", studies=[STUDY]))
    assert loop.turn() == 0.0
    assert Exports(hub).get(ADMIN, job["id"])["status"] == "completed"
    assert loop.turn() == IDLE_S


def test_a_worker_that_stops_leaves_the_job_for_the_next(hub: Services) -> None:
    receive(hub, ct())
    job = Exports(hub).start(ADMIN, Request(project="lung", studies=[STUDY]))
    stop = threading.Event()
    stop.set()
    ExportLoop(hub, stop).turn()
    assert Exports(hub).get(ADMIN, job["id"])["status"] == "requested"
    ExportLoop(hub, threading.Event()).turn()
    assert Exports(hub).get(ADMIN, job["id"])["status"] == "completed"
