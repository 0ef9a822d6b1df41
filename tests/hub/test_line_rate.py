"""How fast objects may go to an endpoint."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from hub.endpoint_settings import checked
from hub.line_rate import SETTING, LineRate

SHANGHAI = ZoneInfo("Asia/Shanghai")
#: A Wednesday, 10:00 in Shanghai.
MORNING = datetime(2025, 6, 11, 2, 0, tzinfo=UTC)
EVENING = datetime(2025, 6, 11, 12, 0, tzinfo=UTC)
SUNDAY = datetime(2025, 6, 15, 2, 0, tzinfo=UTC)


def test_a_rate_without_a_window_always_holds() -> None:
    rate = LineRate.of("2000")
    assert {rate.bytes_per_s(now, SHANGHAI) for now in (MORNING, EVENING, SUNDAY)} == {250_000}


def test_a_rate_holds_while_its_window_is_open_by_the_members_clock() -> None:
    rate = LineRate.of("800 mon-fri 08:00-18:00")
    assert rate.bytes_per_s(MORNING, SHANGHAI) == 100_000
    assert rate.bytes_per_s(EVENING, SHANGHAI) is None
    assert rate.bytes_per_s(SUNDAY, SHANGHAI) is None
    assert rate.bytes_per_s(EVENING, ZoneInfo("America/New_York")) == 100_000


@pytest.mark.parametrize(
    "text", ["", "fast", "0", "63", "99999999", "2000 daily", "2000 08:00-18:00 x", "-5", "２０００"]
)
def test_a_rate_of_no_use_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ValueError, match=SETTING):
        dict(checked("dicom", {SETTING: text}))


def test_the_table_takes_it_for_dicom_alone() -> None:
    assert dict(checked("dicom", {SETTING: "2000 mon-fri 08:00-18:00"})) == {SETTING: "2000 mon-fri 08:00-18:00"}
    with pytest.raises(ValueError, match=SETTING):
        dict(checked("mllp", {SETTING: "2000"}))
