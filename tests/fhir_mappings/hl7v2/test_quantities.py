"""Times and numbers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.dialects import HIS_CN
from fhir_mappings.hl7v2.escapes import STANDARD
from fhir_mappings.hl7v2.quantities import (
    dtm_date,
    dtm_datetime,
    dtm_instant,
    nm_quantity,
    nm_value,
    reference_range,
    sn_value,
)
from fhir_mappings.hl7v2.tokenizer import Repetition

CTX = MappingContext(institution="KN", dialect=HIS_CN, received_at=datetime(2025, 6, 11, tzinfo=UTC))


def rep(raw: str) -> Repetition:
    return Repetition(raw, STANDARD)


@pytest.mark.parametrize(
    ("written", "date", "moment"),
    [
        ("1988", "1988", "1988"),
        ("198801", "1988-01", "1988-01"),
        ("19880101", "1988-01-01", "1988-01-01"),
        ("19880101000000", "1988-01-01", "1988-01-01T00:00:00+08:00"),
        ("2025061108", "2025-06-11", "2025-06-11T08:00:00+08:00"),
        ("202506110830", "2025-06-11", "2025-06-11T08:30:00+08:00"),
        ("20250611083015.25", "2025-06-11", "2025-06-11T08:30:15.25+08:00"),
        ("20250611083015+0000", "2025-06-11", "2025-06-11T08:30:15+00:00"),
        ("20250611083015-0330", "2025-06-11", "2025-06-11T08:30:15-03:30"),
        (" 20250611 ", "2025-06-11", "2025-06-11"),
        ("", None, None),
        ("19", None, None),
        ("00000000", None, None),
        ("20230230", None, None),
        ("20251301", None, None),
        ("2025-06-11", None, None),
        ("昨天", None, None),
        ("٢٠٢٥", None, None),
    ],
)
def test_dates_and_times_keep_their_precision(written: str, date: str | None, moment: str | None) -> None:
    assert dtm_date(written) == date
    assert dtm_datetime(written, CTX) == moment


@pytest.mark.parametrize(
    ("written", "date", "moment"),
    [
        ("1948-02-12", "1948-02-12", "1948-02-12"),
        ("1948/02/12", "1948-02-12", "1948-02-12"),
        ("1948/2/2", "1948-02-02", "1948-02-02"),
        ("1948-02", "1948-02", "1948-02"),
        ("2025-06-13 08:30:00", "2025-06-13", "2025-06-13T08:30:00+08:00"),
        ("2025/6/13 8:30", "2025-06-13", "2025-06-13T08:30:00+08:00"),
        ("2025-06-13T08:30:00.250", "2025-06-13", "2025-06-13T08:30:00.250+08:00"),
        ("2025-06-13T00:30:00Z", "2025-06-13", "2025-06-13T00:30:00+00:00"),
        ("2025-06-13T08:30:00+09:00", "2025-06-13", "2025-06-13T08:30:00+09:00"),
        ("20250613083000", "2025-06-13", "2025-06-13T08:30:00+08:00"),
        ("1948-02-30", None, None),
        ("1948-02/12", None, None),
        ("12/02/1948", None, None),
        ("1948-02-12 08", None, None),
        ("0000-00-00", None, None),
        ("１９４８-02-12", None, None),
    ],
)
def test_dates_with_separators_are_read_where_the_dialect_says_so(
    written: str, date: str | None, moment: str | None
) -> None:
    separated = replace(CTX, dialect=HIS_CN.varied({"dates": "separated"}))
    assert (dtm_date(written, separated), dtm_datetime(written, separated)) == (date, moment)
    if written[4] in "-/":
        assert (dtm_date(written, CTX), dtm_datetime(written, CTX)) == (None, None)


def test_impossible_times_are_not_said() -> None:
    assert dtm_datetime("2025061125", CTX) is None
    assert dtm_datetime("20250611083060", CTX) is None
    assert dtm_datetime("20250611083000+9900", CTX) is None


def test_instants_are_aware_and_in_the_senders_zone() -> None:
    moment = dtm_instant("20250611083000", CTX)
    assert moment == datetime(2025, 6, 11, 0, 30, tzinfo=UTC)
    assert dtm_instant("2025", CTX) == datetime(2024, 12, 31, 16, tzinfo=UTC)
    assert dtm_instant("x", CTX) is None


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)))
def test_no_time_leaves_without_an_offset(moment: datetime) -> None:
    made = dtm_datetime(f"{moment:%Y%m%d%H%M%S}", CTX)
    assert made is not None
    assert datetime.fromisoformat(made).tzinfo is not None
    assert datetime.fromisoformat(made).replace(tzinfo=None) == moment.replace(microsecond=0)


@pytest.mark.parametrize("written", ["6.90", "6", "-0.50", "+3", ".5", "1e3", "0.000"])
def test_numbers_keep_every_digit(written: str) -> None:
    number = nm_value(written)
    assert number == Decimal(written)
    assert str(number) == str(Decimal(written))


@pytest.mark.parametrize("written", ["", "阳性", "<5", "1,000", "NaN", "Infinity", "1_0", "６", "9" * 65])
def test_what_is_no_number_is_none(written: str) -> None:
    assert nm_value(written) is None


def test_units_are_ucum_only_where_the_sender_says_so() -> None:
    assert nm_quantity("6.90", rep("mmol/L"), CTX) == {"value": Decimal("6.90"), "unit": "mmol/L"}
    assert nm_quantity("6.90", rep("mmol/L^毫摩尔每升^UCUM"), CTX) == {
        "value": Decimal("6.90"),
        "unit": "毫摩尔每升",
        "system": "http://unitsofmeasure.org",
        "code": "mmol/L",
    }
    assert nm_quantity("6.90", None, CTX) == {"value": Decimal("6.90")}
    assert nm_quantity("阴性", None, CTX) is None


@pytest.mark.parametrize(
    ("written", "unit"),
    [
        ("10^9/L", "10^9/L"),
        ("10^12/L", "10^12/L"),
        ("×10^9/L", "×10^9/L"),
        ("x10^6/ml", "x10^6/ml"),
        ("10^9", "10^9"),
        ("10^-3", "10^-3"),
        ("10^9个/L", "10^9个/L"),
        ("10^9/L^10^9/L^L", "10^9/L"),
        # A code that happens to be ten, with the unit's name behind it, as table 0080 of an older system may have it.
        ("10^毫升", "毫升"),
        ("10^mmol/L^L", "mmol/L"),
    ],
)
def test_a_power_of_ten_that_was_not_escaped_keeps_its_base(written: str, unit: str) -> None:
    """``10^9/L`` of a blood count is the most frequent fault of a laboratory system; read by the letter it says 9/L."""
    assert nm_quantity("12.5", rep(written), CTX) == {"value": Decimal("12.5"), "unit": unit}
    assert reference_range("3.5-9.5", rep(written), CTX) == {
        "low": {"value": Decimal("3.5"), "unit": unit},
        "high": {"value": Decimal("9.5"), "unit": unit},
        "text": "3.5-9.5",
    }


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("^5", ("valueQuantity", {"value": Decimal(5)})),
        ("<^5.0", ("valueQuantity", {"value": Decimal("5.0"), "comparator": "<"})),
        ("≥^5", ("valueQuantity", {"value": Decimal(5), "comparator": ">="})),
        ("^1^-^2", ("valueRange", {"low": {"value": Decimal(1)}, "high": {"value": Decimal(2)}})),
        ("^1^:^128", ("valueRatio", {"numerator": {"value": Decimal(1)}, "denominator": {"value": Decimal(128)}})),
        ("^2^+", ("valueString", "2+")),
        ("<>^5", ("valueString", "<>5")),
        ("^阳性", ("valueString", "阳性")),
        ("", None),
    ],
)
def test_structured_numerics(written: str, expected: object) -> None:
    assert sn_value(rep(written), None, CTX) == expected


@pytest.mark.parametrize(
    ("written", "low", "high"),
    [
        ("3.50-5.30", "3.50", "5.30"),
        ("3.50--5.30", "3.50", "5.30"),
        ("3.5～5.3", "3.5", "5.3"),
        ("-2.0-3.0", "-2.0", "3.0"),
        ("-5--3", None, None),
        ("<5.2", None, "5.2"),
        ("≥60", "60", None),
        ("5.3-3.5", None, None),
        ("阴性", None, None),
        ("男:120-160", None, None),
        ("1-2-3", None, None),
    ],
)
def test_reference_ranges_keep_text_and_give_bounds_where_certain(
    written: str, low: str | None, high: str | None
) -> None:
    made = reference_range(written, rep("mmol/L"), CTX)
    assert made is not None
    assert made["text"] == written
    assert made.get("low", {}).get("value") == (Decimal(low) if low else None)
    assert made.get("high", {}).get("value") == (Decimal(high) if high else None)
    assert reference_range(" ", None, CTX) is None
