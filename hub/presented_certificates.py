"""When the certificates end that members show at the TLS doors, and their servers to the hub (RFC 5280 section 4.1.2.5).

A member's certificate is kept nowhere, so its end is noted when its endpoint shows it: one fact for each endpoint, with
the fingerprint, the end and when it was last shown. Several machines of a member may each show their own. One that has
not been shown for a day while others were has been replaced, and is forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from fhir_mappings.json import dumps, loads
from hub.certificates import Line
from hub.clock import Clock
from hub.errors import HubError
from hub.ports import Database, Tx

log = structlog.get_logger("hub.certificates")

#: Begins the names of these facts; the id of the endpoint follows.
FACT = "certificates "
#: How long a process does not write again what it has noted.
NOTED = timedelta(hours=1)
#: A certificate that is shown again so much later than another of its endpoint is none of a second machine's.
REPLACED_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """One certificate that an endpoint shows.

    Attributes:
        fingerprint: SHA-256 of the DER form, in lower-case hexadecimal.
        ends: its notAfter.
        shown_at: when it was last noted; up to :data:`NOTED` before it was last shown.
    """

    fingerprint: str
    ends: datetime
    shown_at: datetime


class PresentedCertificates:
    """Notes and reads them; safe for many threads."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._lock = threading.Lock()
        self._noted: dict[tuple[str, str], datetime] = {}

    def note(self, endpoint: str, line: Line) -> None:
        """Note what the peer of *endpoint* showed on *line*; never fails, for the work of the door goes on without it."""
        shown = line.certificate
        if shown is None or shown.ends is None:
            return
        now, key = self._clock(), (endpoint, shown.fingerprint)
        with self._lock:
            before = self._noted.get(key)
            if before is not None and now - before < NOTED:
                return
            self._noted[key] = now
        one = Presented(fingerprint=shown.fingerprint, ends=shown.ends, shown_at=now)
        try:
            self._database.write(lambda tx: _keep(tx, endpoint, one))
        except HubError as error:
            with self._lock:
                self._noted.pop(key, None)
            log.warning("certificate_not_noted", endpoint=endpoint, error=error.message)


def presented(tx: Tx, endpoint: str) -> list[Presented]:
    """Return the certificates that *endpoint* shows now, the first to end first; none where it never showed one."""
    found = _read(tx.facts.get(f"{FACT}{endpoint}"))
    latest = max((one.shown_at for one in found), default=datetime.min.replace(tzinfo=UTC))
    shown = (one for one in found if latest - one.shown_at <= REPLACED_AFTER)
    return sorted(shown, key=lambda one: (one.ends, one.fingerprint))


def days_left(ends: datetime, now: datetime) -> int:
    """Return the whole days until *ends*; negative once it has passed."""
    return (ends - now) // timedelta(days=1)


def _keep(tx: Tx, endpoint: str, one: Presented) -> None:
    tx.records.lock_condition(f"{FACT}{endpoint}")
    kept = {other.fingerprint: other for other in presented(tx, endpoint)}
    kept[one.fingerprint] = one
    fresh = [other for other in kept.values() if one.shown_at - other.shown_at <= REPLACED_AFTER]
    rows = {other.fingerprint: [other.ends.isoformat(), other.shown_at.isoformat()] for other in fresh}
    tx.facts.keep(f"{FACT}{endpoint}", dumps(rows).decode())


def _read(text: str | None) -> list[Presented]:
    rows: Mapping[str, list[str]] = loads(text.encode()) if text else {}
    return [
        Presented(fingerprint=name, ends=datetime.fromisoformat(ends), shown_at=datetime.fromisoformat(shown))
        for name, (ends, shown) in rows.items()
    ]
