"""FHIR dates as half-open ranges of instants (https://hl7.org/fhir/R4/search.html#date).

A value covers all of its precision: ``2025-06`` is the whole month. A value without a zone is read in China Standard
Time: that is where the sources stand, and it makes ``date=2025-06-11`` mean the day a hospital means by it.
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Final

from fhir_mappings.errors import MalformedError

#: Offset of values without a zone, +08:00; one fixed offset keeps index and search in step for historic dates too.
LOCAL_OFFSET_S: Final = 8 * 3600
_DAY_US: Final = 86_400_000_000
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_DATE: Final = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(?:(Z)|([+-])(\d\d):(\d\d))?)?)?)?", re.ASCII
)


@lru_cache(maxsize=8192)
def range_us(text: str) -> tuple[int, int]:
    """Return the first microsecond of *text* and the first after it, counted from 1970-01-01T00:00:00Z.

    Raises:
        MalformedError: *text* is not a FHIR date, dateTime or instant, or names no day of the calendar.
    """
    match = _DATE.fullmatch(text)
    if match is None:
        raise MalformedError(
            "The value is not a FHIR date or dateTime.",
            where="date",
            remedy="Write 2025-06-11T09:30:00+08:00 or a leading part of it.",
        )
    year, month, day, hour, minute, second, fraction, zulu, sign, zone_hour, zone_minute = match.groups()
    try:
        start = date(int(year), int(month or 1), int(day or 1)).toordinal()
        if day is None:
            end = _after_month(int(year), int(month)) if month else _after_year(int(year))
        else:
            end = start + 1
    except ValueError as error:
        raise MalformedError("The date is not in the calendar.", where="date", remedy="Check month and day.") from error
    offset_s = LOCAL_OFFSET_S
    if zulu:
        offset_s = 0
    elif sign:
        offset_s = (int(zone_hour) * 3600 + int(zone_minute) * 60) * (1 if sign == "+" else -1)
    low = (start - _EPOCH_ORDINAL) * _DAY_US - offset_s * 1_000_000
    if hour is None:
        return low, (end - _EPOCH_ORDINAL) * _DAY_US - offset_s * 1_000_000
    if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 60:
        raise MalformedError("The time of day does not exist.", where="date", remedy="Hours go to 23, minutes to 59.")
    low += (int(hour) * 60 + int(minute)) * 60_000_000
    if second is None:
        return low, low + 60_000_000
    low += int(second) * 1_000_000
    if fraction is None:
        return low, low + 1_000_000
    low += int(fraction[:6].ljust(6, "0"))
    return low, low + int(10 ** max(0, 6 - len(fraction)))


def _after_month(year: int, month: int) -> int:
    return _after_year(year) if month == 12 else date(year, month + 1, 1).toordinal()


def _after_year(year: int) -> int:
    return date(year, 12, 31).toordinal() + 1
