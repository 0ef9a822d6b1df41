"""What is wanted of a quota is given or not, as a whole; nobody gets more than its rate and one minute's worth."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_mappings.hl7v2.wrapping import alone
from hub.fairness import Allowance
from hub.intake_policy import IntakePolicy
from hub.quotas import Buckets, OverQuotaError, Wanted, messages_in, settle, wanted_of
from hub.shares import Share

MESSAGES = Wanted(quota="messages-per-minute", per_minute=60, amount=1.0)
BYTES = Wanted(quota="bytes-per-minute", per_minute=6000, amount=4000.0)


def test_what_is_over_one_quota_uses_up_nothing_of_another() -> None:
    buckets: Buckets = {}
    assert settle(buckets, [MESSAGES, BYTES], now_s=0.0, patience_s=0.0).over == ""
    assert settle(buckets, [MESSAGES, BYTES], now_s=0.0, patience_s=0.0).over == "bytes-per-minute"
    assert buckets["messages-per-minute"][1].state == (59.0, 0.0)


def test_within_its_patience_it_is_given_and_owed() -> None:
    buckets: Buckets = {"messages-per-minute": (60, Allowance(60, 0.0, left=0.0))}
    assert settle(buckets, [MESSAGES], now_s=0.0, patience_s=5.0).wait_s == 1.0
    assert settle(buckets, [MESSAGES], now_s=0.0, patience_s=5.0).wait_s == 2.0
    told = settle(buckets, [MESSAGES], now_s=0.0, patience_s=2.5)
    assert (told.over, told.wait_s) == ("messages-per-minute", 3.0)


def test_a_quota_that_was_changed_or_taken_away_begins_anew() -> None:
    buckets: Buckets = {
        "messages-per-minute": (1, Allowance(1, 0.0, left=0.0)),
        "bytes-per-minute": (1, Allowance(1, 0.0)),
    }
    assert settle(buckets, [MESSAGES], now_s=0.0, patience_s=0.0).over == ""
    assert list(buckets) == ["messages-per-minute"]


@given(
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(1, 20)), max_size=60),
    per_minute=st.integers(40, 600),
)
def test_no_more_is_given_than_one_minutes_worth_and_the_rate(steps: list[tuple[float, int]], per_minute: int) -> None:
    buckets: Buckets = {}
    given = 0
    for now_s, (_, amount) in zip(accumulate(after for after, _ in steps), steps, strict=True):
        wanted = [Wanted(quota="messages-per-minute", per_minute=per_minute, amount=amount)]
        given += 0 if settle(buckets, wanted, now_s=now_s, patience_s=0.0).over else amount
        assert given <= per_minute + per_minute / 60 * (now_s - steps[0][0]) + 1e-6


def test_without_a_quota_nothing_is_wanted() -> None:
    assert wanted_of(Share(key="KN", policy=IntakePolicy(connections=3)), messages=1, size=1) == []


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (b"MSH|^~\\&|A\rPID|1|MSH-3 of old\r", 1),
        (b"BHS|^~\\&\rMSH|^~\\&|\rPID|\rMSH|^~\\&|\rBTS|2\r", 2),
        (b"<a><![CDATA[BHS|^~\\&\nMSH|^~\\&|\nMSH|^~\\&|]]></a>", 2),
        (alone("BHS|^~\\&\rMSH|^~\\&|\rMSH|^~\\&|\r"), 2),
        (b'{"orgCode": "YLYY"}', 1),
        (b"", 1),
    ],
)
def test_a_batch_counts_for_each_of_its_messages(raw: bytes, number: int) -> None:
    assert messages_in(raw) == number


def test_whoever_is_over_a_quota_is_told_when_to_come_again() -> None:
    error = OverQuotaError("messages-per-minute", 2.1)
    assert (error.status, error.retry_after_s, error.transient) == (429, 3, True)
    assert "after 3 s" in str(error)
