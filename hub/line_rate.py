"""How fast objects may go to an endpoint whose line carries other work too: the setting ``max-kbit-s``.

No standard sets it. A county hospital's line to the centre is often shared with its HIS, and one CT study would fill it
for minutes; ``2000 mon-fri 08:00-18:00`` leaves room in working hours and none unused at night.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from hub.routing import Window

SETTING = "max-kbit-s"
#: Slower lines would hold up each fragment for longer than peers are used to wait for one.
LEAST_KBIT_S = 64
_MOST_KBIT_S = 10_000_000
_RULE = re.compile(r"(\d{1,8})(?: (.+))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRate:
    """Most kilobits (1000 bits) a second of data sets, always or while a window is open."""

    kbit_s: int
    window: Window | None = None

    @classmethod
    def of(cls, text: str) -> LineRate:
        """Return what *text* (``2000``, ``2000 08:00-18:00``, ``2000 mon-fri 08:00-18:00``) means.

        Raises:
            ValueError: it means nothing, or a rate of no use.
        """
        found = _RULE.fullmatch(text.strip())
        if found is None or not LEAST_KBIT_S <= int(found[1]) <= _MOST_KBIT_S:
            raise ValueError(text)
        return cls(kbit_s=int(found[1]), window=Window.of(found[2]) if found[2] else None)

    def bytes_per_s(self, now: datetime, zone: ZoneInfo) -> int | None:
        """Return how many bytes a second may go at *now*; ``None`` for as many as the line takes."""
        if self.window is not None and self.window.opening(now, zone) > now:
            return None
        return self.kbit_s * 125


def is_line_rate(text: str) -> bool:
    """Return whether *text* is a rate that :class:`LineRate` understands."""
    try:
        LineRate.of(text)
    except ValueError:
        return False
    return True
