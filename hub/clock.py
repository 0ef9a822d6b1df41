"""Time as the hub keeps it: aware UTC datetimes outside, integer microseconds since 1970 in tables."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc_now() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(UTC)


def to_us(moment: datetime) -> int:
    """Return *moment* (aware) as microseconds since 1970-01-01T00:00Z."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(value: int) -> datetime:
    """Return the UTC moment *value* microseconds after 1970-01-01T00:00Z."""
    return _EPOCH + timedelta(microseconds=value)


def instant(moment: datetime) -> str:
    """Return *moment* as a FHIR instant with milliseconds and zone."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
