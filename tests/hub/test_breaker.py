"""A circuit opens after so many failures in a row within a window, and not before."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.breaker import BreakerRule, FailuresInARow, is_breaker_rule
from hub.ports import MemberEndpoint

RULE = BreakerRule(failures=3, window_s=60.0)


def test_it_opens_at_the_third_failure_in_a_row_and_each_one_after() -> None:
    row = FailuresInARow()
    assert [row.failed("KN", RULE, float(now)) for now in range(5)] == [False, False, True, True, True]


def test_an_answer_ends_the_row_and_destinations_are_counted_apart() -> None:
    row = FailuresInARow()
    row.failed("KN", RULE, 0.0)
    row.failed("KN", RULE, 1.0)
    assert not row.failed("QH", RULE, 1.0)
    row.answered("QH")
    assert row.failed("KN", RULE, 2.0)
    row.answered("KN")
    assert not row.failed("KN", RULE, 3.0)


def test_failures_further_apart_than_the_window_are_no_outage() -> None:
    row = FailuresInARow()
    assert not any(row.failed("KN", RULE, now) for now in (0.0, 31.0, 62.0, 93.0))
    assert row.failed("KN", RULE, 94.0)


@given(
    rule=st.builds(BreakerRule, failures=st.integers(1, 5), window_s=st.floats(1, 100)),
    steps=st.lists(st.tuples(st.floats(0, 60), st.sampled_from(["KN", "QH"]), st.booleans()), max_size=40),
)
def test_it_opens_exactly_when_so_many_failures_since_the_last_answer_lie_in_the_window(
    rule: BreakerRule, steps: list[tuple[float, str, bool]]
) -> None:
    row, model = FailuresInARow(), {"KN": list[float](), "QH": list[float]()}
    for now_s, (_, destination, answered) in zip(accumulate(after for after, _, _ in steps), steps, strict=True):
        if answered:
            row.answered(destination)
            model[destination].clear()
            continue
        model[destination].append(now_s)
        within = [at for at in model[destination] if now_s - at <= rule.window_s]
        assert row.failed(destination, rule, now_s) is (len(within) >= rule.failures)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("failures=3 window-s=300", True),
        ("failures=1", True),
        ("window-s=5", True),
        ("", False),
        ("failures=0", False),
        ("failures=1001", False),
        ("failures=2 failures=3", False),
        ("failure=2", False),
        ("failures", False),
    ],
)
def test_a_setting_is_a_rule_or_none(text: str, fits: bool) -> None:
    assert is_breaker_rule(text) is fits


def test_an_endpoint_without_the_setting_has_the_default() -> None:
    endpoint = MemberEndpoint(id="KN/mllp", member="KN", kind="mllp", settings={"breaker": "failures=5"})
    assert BreakerRule.of(endpoint) == BreakerRule(failures=5, window_s=300.0)
    assert BreakerRule.of(None) == BreakerRule(failures=3, window_s=300.0)
