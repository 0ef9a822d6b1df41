"""The guard in front of JSON bodies."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_mappings.errors import MalformedError
from fhir_mappings.prescan import JsonLimits, prescan

LIMITS = JsonLimits(max_bytes=10_000, max_depth=4, max_values=500, max_array=50, max_string_chars=100)


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


def test_a_body_is_decoded_with_its_decimals() -> None:
    value = prescan('{"value": 6.90, "unit": "毫摩尔", "n": 3}'.encode())
    assert value == {"value": Decimal("6.90"), "unit": "毫摩尔", "n": 3}
    assert str(value["value"]) == "6.90"


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"c":2,"b":3}}',
        b'[{"a":1},{"a":1,"\\u0061":2}]',
        b"NaN",
        b'{"a":-Infinity}',
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'{"\\ud800":1}',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b'"a\x01b"',
        b'"a\\u0000b"',
        b'{"a\\u0000":1}',
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b'{"a":1,}',
        b"{'a':1}",
        b"01",
        b"",
        b"9" * 5_000,
    ],
)
def test_what_is_ambiguous_or_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedError):
        prescan(body, LIMITS)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6, 100, 2_000])
def test_depth_is_bounded(depth: int) -> None:
    if depth <= LIMITS.max_depth:
        prescan(nested(depth), LIMITS)
        prescan(b"[" * depth + b'"\\u0001"' + b"]" * depth, LIMITS)
    else:
        with pytest.raises(MalformedError):
            prescan(nested(depth), LIMITS)


def test_depth_is_bounded_where_texts_are_looked_at_too() -> None:
    assert prescan(b'[[[["\\\\u0000"]]]]', LIMITS) == [[[["\\u0000"]]]]
    with pytest.raises(MalformedError, match="deeper"):
        prescan(b'[[[[["\\\\u0000"]]]]]', LIMITS)


def test_a_hundred_thousand_brackets_are_refused() -> None:
    with pytest.raises(MalformedError):
        prescan(b"[" * 100_000)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b'"' + b"a" * 100 + b'"', None),
        (b"[" + b",".join([b"1"] * 50) + b"]", b"[" + b",".join([b"1"] * 51) + b"]"),
        (b" " * 9_998 + b"{}", b" " * 9_999 + b"{}"),
        (None, b"[" + b",".join([b"[" + b",".join([b"{}"] * 20) + b"]"] * 20) + b"]"),
    ],
)
def test_size_is_bounded(good: bytes | None, bad: bytes | None) -> None:
    if good is not None:
        prescan(good, LIMITS)
    if bad is not None:
        with pytest.raises(MalformedError):
            prescan(bad, LIMITS)


def test_a_long_string_is_refused() -> None:
    with pytest.raises(MalformedError, match="string is longer"):
        prescan(b'["' + b"a" * 101 + b'"]', LIMITS)


def test_messages_repeat_nothing_of_the_body() -> None:
    with pytest.raises(MalformedError) as caught:
        prescan(b'{"990001199006062488":1,"990001199006062488":2}')
    assert "990001" not in f"{caught.value} {caught.value.where} {caught.value.remedy}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(JSON, st.booleans())
def test_whatever_json_writes_comes_back(value: Any, ascii_only: bool) -> None:
    assert prescan(json.dumps(value, ensure_ascii=ascii_only).encode()) == value
