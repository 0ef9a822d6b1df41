"""The change feed: what arrived, changed and went, in an order that never has a number slipped in behind a reader.

A reader keeps the number up to which it was answered and asks for what is behind that. Only numbers that can no longer
be joined by a lower one are told (see :mod:`storage.sql.changes`), so an answer may end before the newest commit, and
what it left out comes with the next. What an asker sees is what its scope shows now: a study that it is let in on later
has its lines where they always stood, so the feed is whole for an institution's own images, and for others' from the
time they are granted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fhir_mappings.json import loads
from hub.access import Scope, scope_of
from hub.actor import Actor
from hub.ports import AuditLine, InstanceRow, StudyKey, Tx
from hub.ports.imaging import Change, Writers

if TYPE_CHECKING:
    from hub.boot import Services

MAX_CHANGES = 1000
#: With metadata a line is as large as a header, so fewer of them make an answer.
MAX_WITH_METADATA = 200
#: Numbers of the journal looked through in one statement, and statements in one answer.
WINDOW, WINDOWS = 20_000, 10
#: How long writers that were at work are waited for; they commit within milliseconds unless they import much.
PATIENCE_S = 2.0
_LOOK_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """One answer of the feed.

    Attributes:
        since: number to ask with the next time.
        more: whether that may be asked at once.
        metadata: DICOM JSON of the current version by (owner, SOP Instance UID), where it was asked for.
    """

    changes: Sequence[Change]
    since: int
    more: bool
    metadata: dict[tuple[str, str], object]


class ChangeFeed:
    """What the door asks; one for each process."""

    def __init__(self, services: Services, wait: Callable[[float], object] | None = None) -> None:
        self._services = services
        self._wait = wait if wait is not None else threading.Event().wait
        self._settled = 0
        self._lock = threading.Lock()

    def settled(self) -> int:
        """Return the number up to which no other will be committed any more."""
        read = self._services.database.read
        found: Writers = read(lambda tx: tx.imaging.changes.writers())
        until = time.monotonic() + PATIENCE_S
        open_ = found.open
        while open_ and time.monotonic() < until:
            self._wait(_LOOK_S)
            open_ &= read(lambda tx: tx.imaging.changes.writers()).open
        with self._lock:
            if not open_:
                self._settled = max(self._settled, found.last)
            # A writer that does not end holds the feed where it was; nothing is passed over.
            return self._settled

    def since(self, actor: Actor, since: int, *, limit: int = 100, metadata: bool = False) -> Feed:
        """Return the changes behind number *since* that *actor* may see; the audit line is durable on return."""
        wanted = max(1, min(MAX_WITH_METADATA if metadata else MAX_CHANGES, limit))
        last, scope = self.settled(), scope_of(actor)
        found: list[Change] = []
        place = since
        for _ in range(WINDOWS):
            if place >= last or len(found) >= wanted:
                break
            end = min(last, place + WINDOW)
            work = partial(_between, scope=scope, since=place, until=end, limit=wanted - len(found))
            page = self._services.database.read(work)
            found += page
            place = page[-1].sequence if len(found) >= wanted else end
        told = self._metadata(found) if metadata else {}
        self._audit(actor, found, f"since={since}")
        # A number that was never given out is not handed back as known.
        return Feed(changes=found, since=min(place, max(last, since)), more=place < last, metadata=told)

    def latest(self, actor: Actor, *, metadata: bool = False) -> Feed | None:
        """Return the newest change that *actor* may see, or ``None``; audited as :meth:`since`."""
        end, scope, width = self.settled(), scope_of(actor), WINDOW
        last = end
        while end > 0:
            start = max(0, end - width)
            page = self._services.database.read(
                partial(_between, scope=scope, since=start, until=end, limit=1, newest=True)
            )
            if page:
                self._audit(actor, page, "latest")
                told = self._metadata(page) if metadata else {}
                return Feed(changes=page, since=last, more=False, metadata=told)
            end, width = start, width * 4
        self._audit(actor, (), "latest")
        return None

    def _metadata(self, changes: Sequence[Change]) -> dict[tuple[str, str], object]:
        wanted = {(one.owner, one.StudyInstanceUID, one.SOPInstanceUID) for one in changes if one.state != "deleted"}

        def work(tx: Tx) -> list[InstanceRow]:
            rows: list[InstanceRow] = []
            for owner, study, uid in sorted(wanted):
                key = StudyKey(owner=owner, StudyInstanceUID=study)
                rows += tx.imaging.instances_of(key, SOPInstanceUID=uid, attributes=True)
            return rows

        imaging = self._services.imaging
        return {
            (row.owner, row.SOPInstanceUID): loads(imaging.instance_metadata(row))
            for row in self._services.database.read(work)
        }

    def _audit(self, actor: Actor, changes: Sequence[Change], query: str) -> None:
        line = AuditLine(
            type="dicom",
            action="E",
            subtype="changefeed",
            actor=actor,
            recorded_at=self._services.clock(),
            patients=tuple(sorted({(one.owner, one.patient_id) for one in changes})),
            query=query,
            count=len(changes),
        )
        self._services.database.write(lambda tx: tx.audit.write(line))


def _between(tx: Tx, *, scope: Scope, since: int, until: int, limit: int, newest: bool = False) -> Sequence[Change]:
    return tx.imaging.changes.between(scope, since=since, until=until, limit=limit, newest=newest)
