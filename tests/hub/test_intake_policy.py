"""The setting ``intake`` of a member: what it may say, and where it is refused."""

from __future__ import annotations

import pytest

from hub.intake_policy import IntakePolicy, policy_of, wrong_part


def test_every_part_is_read() -> None:
    text = "weight=3 messages-per-minute=600 bytes-per-minute=20000000 connections=8 bytes-per-day=9 over=refuse"
    assert IntakePolicy.of(text) == IntakePolicy(
        weight=3, messages_per_minute=600, bytes_per_minute=20_000_000, connections=8, bytes_per_day=9, refuse=True
    )


def test_without_the_setting_everybody_weighs_alike_and_has_no_quota() -> None:
    assert policy_of({}) == IntakePolicy()


@pytest.mark.parametrize(
    "part",
    [
        "weight=0", "weight=101", "weight=", "weight=x", "connections=-1", "connections=١", "over=drop", "per-hour=3",
        "messages-per-minute=1000000000001", "8",
    ],
)  # fmt: skip
def test_a_part_that_is_no_use_is_named(part: str) -> None:
    assert wrong_part(f"bytes-per-day=5 {part}") == part


@pytest.mark.parametrize("text", ["weight=1 weight=2", "over=slow over=refuse"])
def test_a_part_is_said_once(text: str) -> None:
    assert wrong_part(text) == text.split()[1]
