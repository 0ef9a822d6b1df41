"""Reads the views of hospitals (:mod:`adapters.dbview`): how far, again from where, and what is known already.

Theory of operation. The mark, up to which a view has been read, is written down when a look ends, after the rows are in
the journal: so it may lag and never leads, and it stays when old rows are removed. A process that begins to read takes
it from there. A look begins ``overlap`` before the mark; a row that was read before is the same bytes, hence the same
control id, and the intake answers it as it did. A row that changed under its key is a new message.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import structlog

from adapters.dbview.settings import Key, View, load
from fhir_mappings.json import dumps, loads
from hub.arrival import VIEW_PEER
from hub.errors import Category, HubError
from hub.ports import Entry, Tx
from hub.quotas import Gate

if TYPE_CHECKING:
    from adapters.dbview.reader import Reader
    from hub.boot import Services

log = structlog.get_logger("adapters.worker.views")

DOOR = "hl7-view"
IDLE_S = 60.0
#: How often the loop looks whether a view is due.
POLL_S = 1.0
LEASE_S = 120.0
#: Journal entries looked through at a time for the last one of a view, where no mark was ever written down.
_PAGE = 200


class ViewLoop:
    """Looks into every view when it is due.

    Raises:
        HubError: incorrect, when the file of views or a URL in it is of no use.
    """

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._clock = clock
        self._looks = [_Look(services, one) for one in load(services.settings.views)]
        self._due = dict.fromkeys((one.view.name for one in self._looks), 0.0)

    def turn(self) -> float:
        """Look into what is due; returns the seconds until the next time.

        Raises:
            HubError: transient, when the hub's own stores cannot work now.
        """
        for look in self._looks:
            now = self._clock()
            if now < self._due[look.view.name]:
                continue
            more = look.once()
            self._due[look.view.name] = now if more else now + min(look.view.poll_s, look.rests_s or look.view.poll_s)
        return POLL_S if self._looks else IDLE_S


class _Look:
    """One view between its looks: the mark, and digests of what stands in the overlap."""

    def __init__(self, services: Services, view: View) -> None:
        from adapters.dbview.reader import Reader

        self.view = view
        self._services = services
        self._reader: Reader = Reader(view)
        self._known: dict[str, Key] = {}
        self._mark: Key = view.start
        self._epoch: int | None = None
        self._away = False
        self._gate = Gate(services)
        #: How many times ``limit`` rows are asked for; grows where a look met nothing that is new in all of them.
        self._wider = 1
        #: Seconds until the member's quota lets the next row through; 0 when it was not what ended the last look.
        self.rests_s = 0.0
        #: Names its lease and its mark.
        self._fact = f"view {view.name}"

    def once(self) -> bool:
        """Take at most ``limit`` rows; returns whether there may be more."""
        services, view = self._services, self.view
        now = services.clock()
        self.rests_s = 0.0
        if services.directory.member(view.institution) is None:
            self._tell("There is no active member of that code.")
            return False
        epoch = services.database.write(lambda tx: tx.timers.lease(self._fact, services.node, now=now, lease_s=LEASE_S))
        if epoch is None:
            return False
        if self._epoch is None or epoch != self._epoch + 1:
            # Another process may have read since this one last looked.
            self._mark = self._kept()
            self._known.clear()
        self._epoch = epoch
        start = view.before(self._mark)
        self._known = {digest: key for digest, key in self._known.items() if not _less(key, start)}
        taken, seen, marked = 0, 0, self._mark
        most = view.limit * self._wider + len(self._known)
        rows = self._reader.rows(start, most)
        try:
            while taken < view.limit:
                try:
                    found = next(rows, None)
                except HubError as error:
                    # Of the hospital's making: told once, tried again when due.
                    self._tell(error.message)
                    return False
                if found is None:
                    self._away = False
                    # Where the very same row stands in the view again and again, what is new may lie behind.
                    self._wider = self._wider * 2 if seen == most else 1
                    return seen == most
                seen += 1
                key, row = found
                digest = hashlib.sha256(row).hexdigest()
                if digest in self._known:
                    continue
                self.rests_s = self._gate.rest_s(view.institution, row)
                if self.rests_s:
                    # The view keeps the row, and the next look begins with it.
                    return False
                self._services.messages.receive(
                    row, f"{VIEW_PEER}{view.name}", door=DOOR, institution_hint=view.institution
                )
                self._known[digest] = key
                self._mark = key if _less(self._mark, key) else self._mark
                taken += 1
        finally:
            try:
                if self._mark != marked:
                    self._keep(epoch)
            finally:
                rows.close()  # type: ignore[attr-defined]
        self._wider = 1
        return True

    def _kept(self) -> Key:
        """Return the mark that was written down last; where there is none, the journal's, or the start."""
        view = self.view
        kept = self._services.database.read(lambda tx: tx.facts.get(self._fact))
        try:
            return self._journalled() if kept is None else view.key_of(loads(kept.encode()))
        except (ValueError, KeyError, TypeError) as error:
            raise HubError(
                Category.INCORRECT,
                f"The rows of view {view.name} that were read have another key than its settings say.",
                where=f"view {view.name}",
                remedy="Give the view another name when its key changes.",
            ) from error

    def _keep(self, epoch: int) -> None:
        mark = self._mark.isoformat() if isinstance(self._mark, datetime) else self._mark
        services, value = self._services, dumps(mark).decode()

        def work(tx: Tx) -> None:
            # Another node that reads now has a mark of its own, which must not go back.
            if tx.timers.hold(self._fact, epoch, now=services.clock(), lease_s=LEASE_S):
                tx.facts.keep(self._fact, value)

        services.database.write(work)

    def _journalled(self) -> Key:
        """Return the key of the row of this view that the journal has last, from before marks were written down."""
        services, view = self._services, self.view
        entry, before = None, None
        while entry is None:
            page = services.database.read(partial(self._page, before))
            entry = next((one for one in page if one.peer == f"{VIEW_PEER}{view.name}"), None)
            if entry is None and len(page) < _PAGE:
                return view.start
            before = page[-1].seq
        body = entry.body if entry.body is not None else services.objects.read(entry.digest)
        return view.key_of(loads(body)[view.key])

    def _page(self, before: int | None, tx: Tx) -> Sequence[Entry]:
        return tx.journal.search({"door": DOOR, "institution": self.view.institution}, limit=_PAGE, before_seq=before)

    def _tell(self, why: str) -> None:
        if not self._away:
            self._away = True
            log.warning("view_away", view=self.view.name, error=why)


def _less(one: Key, other: Key) -> bool:
    return one < other  # type: ignore[operator]
