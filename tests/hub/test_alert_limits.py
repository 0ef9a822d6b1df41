"""Limits of alerts: the operator's, and what a member's endpoint says otherwise."""

from __future__ import annotations

import pytest

from hub.alert_limits import AlertLimits, fits
from hub.config import Settings


def test_an_endpoint_that_says_nothing_has_the_operators_limits() -> None:
    settings = Settings(queue_alert_s=7, feed_alert_idle_factor=3)
    limits = AlertLimits.of(settings)
    assert (limits.queue_age_s, limits.idle_factor) == (7, 3)
    assert AlertLimits.of(settings, {"alerts": ""}) == limits


def test_an_endpoint_says_what_is_otherwise_and_what_is_off() -> None:
    limits = AlertLimits.of(Settings(), {"alerts": "queue-age-s=60 queue-depth=9 errors=5 unmapped=off idle=8"})
    assert limits == AlertLimits(queue_age_s=60, queue_depth=9, error_percent=5, unmapped_percent=0, idle_factor=8)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "errors",
        "errors=",
        "errors=0",
        "errors=101",
        "errors=-1",
        "errors=1.5",
        "errors=5 errors=6",
        "gap=5",
        "idle=٣",
    ],
)
def test_what_cannot_be_read_is_no_limit(text: str) -> None:
    assert not fits(text)
