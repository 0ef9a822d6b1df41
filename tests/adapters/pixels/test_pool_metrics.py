"""What the metrics tell of pixel jobs: how many were asked for, what became of each, and how long they waited and took."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from adapters.ops.metrics import PrometheusSink
from hub import metrics
from tests.adapters.pixels.test_pool import ask, made, refused


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    one = CollectorRegistry()
    metrics.set_sink(PrometheusSink(one))
    yield one
    metrics.set_sink(None)


def test_each_job_is_counted_by_what_became_of_it(registry: CollectorRegistry) -> None:
    one = made(max_bytes=1000)
    ask(one, "echo", b"x")
    ask(one, "echo", b"y")
    refused(one, "crash")
    refused(one, "flood")
    refused(one, "unheard of", b"x" * 2000)
    refused(one, "grow")
    one.close()

    def jobs(outcome: str) -> float | None:
        return registry.get_sample_value("hub_pixel_jobs_total", {"work": "test", "outcome": outcome})

    assert registry.get_sample_value("hub_pixel_asked_total", {"work": "test"}) == 6
    assert (jobs("done"), jobs("killed"), jobs("refused")) == (2, 3, 1)
    assert registry.get_sample_value("hub_pixel_job_seconds_count", {"work": "test"}) == 6
    assert registry.get_sample_value("hub_pixel_wait_seconds_count") == 6


def test_a_job_that_finds_no_place_is_busy(registry: CollectorRegistry) -> None:
    one = made(processes=0, waiting=0)
    refused(one, "echo")
    labels = {"work": "test", "outcome": "busy"}
    assert registry.get_sample_value("hub_pixel_jobs_total", labels) == 1
    assert registry.get_sample_value("hub_pixel_wait_seconds_count") == 0
