"""From when something about a member's feed or queue is worth an alert: the operator's settings, and the member's own.

``queue-age-s=600 queue-depth=500 errors=10 unmapped=off idle=8`` as the setting ``alerts`` of an Endpoint; what it does not
name is as :class:`hub.config.Settings` says. ``off`` means never.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from hub.config import Settings

#: Name of the setting of an Endpoint.
SETTING = "alerts"
#: A part's name -> the attribute that it sets, and the largest value that makes sense.
_PARTS: Mapping[str, tuple[str, int]] = {
    "queue-age-s": ("queue_age_s", 366 * 86_400),
    "queue-depth": ("queue_depth", 1_000_000_000),
    "errors": ("error_percent", 100),
    "unmapped": ("unmapped_percent", 100),
    "idle": ("idle_factor", 100),
}
_OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertLimits:
    """The limits of one endpoint; 0 means that it never alerts.

    Attributes:
        queue_age_s: seconds that the oldest delivery to it may wait.
        queue_depth: deliveries to it that may wait.
        error_percent: share of its last messages that may be refused or fail.
        unmapped_percent: share of its last messages that may hold codes without a row in a map.
        idle_factor: how many times its usual gap its silence may last.
    """

    queue_age_s: float
    queue_depth: int
    error_percent: int
    unmapped_percent: int
    idle_factor: int

    @classmethod
    def of(cls, settings: Settings, endpoint: Mapping[str, Any] | None = None) -> Self:
        """Return the limits that *settings* and an *endpoint*'s own settings give.

        Raises:
            ValueError: as :func:`parsed`.
        """
        limits = cls(
            queue_age_s=settings.queue_alert_s,
            queue_depth=settings.queue_alert_depth,
            error_percent=settings.feed_alert_error_percent,
            unmapped_percent=settings.feed_alert_unmapped_percent,
            idle_factor=settings.feed_alert_idle_factor,
        )
        return replace(limits, **parsed(str((endpoint or {}).get(SETTING, ""))))


def parsed(text: str) -> dict[str, int]:
    """Return the attributes of :class:`AlertLimits` that *text* sets.

    Raises:
        ValueError: with the part that cannot be read.
    """
    found: dict[str, int] = {}
    for part in text.split():
        name, _, value = part.partition("=")
        attribute, most = _PARTS.get(name, ("", 0))
        number = 0 if value == _OFF else int(value) if value.isascii() and value.isdigit() and len(value) < 12 else -1
        if not attribute or attribute in found or not 0 <= number <= most or (number == 0 and value != _OFF):
            raise ValueError(part)
        found[attribute] = number
    return found


def fits(text: str) -> bool:
    """Return whether *text* says limits."""
    try:
        return bool(parsed(text))
    except ValueError:
        return False
