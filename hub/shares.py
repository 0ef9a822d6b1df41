"""Whose share of the hub a v2 message at the door counts for, before anything else is known of it.

A door has to choose whose message is next while many wait, and to slow a member that has gone beyond its quota
(:mod:`hub.intake_policy`). It knows bytes and an address; the header names the sender (MSH-3 and MSH-4, HL7 v2 chapter
2.14.9, or those of the batch, BHS and FHS). Only who is that member for the directory counts for it, so nobody uses up
another's quota; all else counts for the address that it came from. Nothing is decided here of what a message may do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import structlog

from hub import metrics
from hub.arrival import address_of
from hub.certificates import Line, why_not
from hub.intake_policy import IntakePolicy, policy_of

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("hub.shares")

#: How long an answer of :meth:`Shares.of` is good, like the directory's own; and a sum of the day's bytes.
_GOOD_S, _DAY_GOOD_S = 1.0, 10.0
_KEPT = 4096
#: A header segment that names its sender fits into these bytes, or names nobody here.
_HEAD_BYTES = 1024

#: What was asked: the sender's names, its address and its line.
_Asked = tuple[str, str, str, Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """For whom a message counts.

    Attributes:
        key: the member, or ``?`` and the address of a stranger.
        policy: the member's; strangers have weight 1 and no quota, because nothing of theirs is taken.
        day_is_full: whether the member's ``bytes-per-day`` are used up.
    """

    key: str
    policy: IntakePolicy
    day_is_full: bool = False


class Shares:
    """What a door asks; safe for several threads."""

    def __init__(self, services: Services, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._seconds = seconds
        self._known: dict[_Asked, tuple[float, Share]] = {}
        self._days: dict[str, tuple[float, int]] = {}

    def known(self, raw: bytes, peer: str, line: Line) -> Share | None:
        """Return the share if it was asked for just now, without a look at the database."""
        found = self._known.get(_asked(raw, peer, line))
        return found[1] if found is not None and self._seconds() < found[0] else None

    def of(self, raw: bytes, peer: str, line: Line) -> Share:
        """Return for whom *raw* counts; may look into the database.

        Raises:
            HubError: transient, when the database cannot answer.
        """
        asked = _asked(raw, peer, line)
        share = self._share(*asked)
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[asked] = (self._seconds() + _GOOD_S, share)
        return share

    def of_member(self, code: str) -> Share:
        """Return the share of the member *code*, which the door has proved; may look into the database.

        Raises:
            HubError: transient, when the database cannot answer.
        """
        member = self._services.directory.member(code)
        policy = policy_of(member.settings) if member is not None else IntakePolicy()
        full = policy.bytes_per_day is not None and self._today(code) >= policy.bytes_per_day
        return Share(key=code, policy=policy, day_is_full=full)

    def refuse(self, raw: bytes, peer: str, line: Line, quota: str) -> bytes | None:
        """Return what the sender of *raw* is told that has gone beyond *quota*; nothing of the message is kept."""
        return self._services.messages.refuse_unkept(
            raw,
            peer,
            f"已超出本成员的配额 {quota}，稍后重发 / Over this member's quota of {quota}; keep the message and send it later.",
            line=line,
        )

    def tell(self, share: Share, quota: str, outcome: str) -> None:
        """Count that a message was ``slowed``, ``refused`` or ``closed`` (left unanswered) for *quota*."""
        metrics.count("over_quota", member=share.key, quota=quota, outcome=outcome)
        if outcome != "slowed":
            log.warning("over_quota", member=share.key, quota=quota, outcome=outcome)

    def _share(self, application: str, facility: str, address: str, line: Line) -> Share:
        directory = self._services.directory
        endpoint = directory.mllp_member(application, facility, address) if facility or application else None
        if endpoint is None or why_not(endpoint, line, directory.all_endpoints()):
            return Share(key=f"?{address}", policy=IntakePolicy())
        return self.of_member(endpoint.member)

    def _today(self, member: str) -> int:
        known = self._days.get(member)
        if known is not None and self._seconds() < known[0]:
            return known[1]
        services = self._services
        now = services.clock().astimezone(ZoneInfo(services.settings.time_zone))
        midnight = now - timedelta(hours=now.hour, minutes=now.minute, seconds=now.second, microseconds=now.microsecond)
        total = services.database.read(lambda tx: tx.journal.received_bytes(member, since=midnight))
        self._days[member] = (self._seconds() + _DAY_GOOD_S, total)
        return total


def _asked(raw: bytes, peer: str, line: Line) -> _Asked:
    application, facility = names(raw)
    return application, facility, address_of(peer), line


def names(raw: bytes) -> tuple[str, str]:
    """Return MSH-3.1 and MSH-4.1 of *raw* (or of its BHS or FHS), empty when it does not begin with a header."""
    head = raw[:_HEAD_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n").split(b"\r", 1)[0].split(b"\n", 1)[0]
    # Names of facilities may be Chinese, and a trail byte of GB 18030 may be a delimiter: decoded first, split second.
    for charset in ("utf-8", "gb18030"):
        try:
            text = head.decode(charset)
            break
        except UnicodeDecodeError:
            continue
    else:
        return "", ""
    if text[:3] not in {"MSH", "BHS", "FHS"} or len(text) < 5:
        return "", ""
    fields = text.split(text[3])
    application, facility = (field.split(text[4], 1)[0].strip() for field in (*fields, "", "", "")[2:4])
    return application, facility
