"""What translations could not say in standard codes, counted on the way and written down as a work queue.

The receive path must not wait for a statistic. A code that this process has not met is written in the message's own
transaction; of all others only a number grows in memory, which goes into the transaction of a message a minute later.
What a process still holds when it ends is lost from the counts, never from the queue.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from fhir_mappings.code_maps import UnmappedCode
from fhir_mappings.text import has_han
from hub.clock import Clock
from hub.ports import Tx
from hub.ports.codes import Sighting

#: A hospital's own lists have a few thousand codes; a sender that makes them up must not fill the database.
MAX_ITEMS = 5000
#: Longest code that is written down: CWE.1 has 20 characters in v2.5.1, and senders write more.
MAX_CODE = 64
#: Codes that are Chinese words are short; a sentence is text in the wrong place, which may speak of a patient.
MAX_HAN_CODE = 16
_KEPT_IN_MEMORY = 20_000
_FLUSHED_AFTER = timedelta(seconds=60)
#: Resident identity numbers, mobile numbers and dates of birth with more behind them are nobody's codes.
_OF_A_PERSON = re.compile(r"[0-9]{17}[0-9Xx]|[0-9]{15}|1[3-9][0-9]{9}")

Key = tuple[str, str, str]


def is_recordable(code: str) -> bool:
    """Return whether *code* may be written down: what looks like a person's number or a text is not."""
    if not code or len(code) > MAX_CODE or not code.isprintable():
        return False
    return _OF_A_PERSON.search(code) is None and (len(code) <= MAX_HAN_CODE or not has_han(code))


class UnmappedCounter:
    """What one process met; used inside transactions, which one thread runs one after the other."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: Key -> (messages since it was last written, newest message).
        self._known: dict[Key, tuple[int, int]] = {}
        self._full: dict[str, datetime] = {}
        self._flushed_at = clock()

    def note(self, tx: Tx, institution: str, unmapped: Sequence[UnmappedCode], seq: int) -> None:
        """Count the codes of message *seq* inside *tx*.

        When *tx* comes to nothing, a new code is written with the next count in its place.
        """
        if not unmapped:
            return
        now = self._clock()
        new: list[Sighting] = []
        for system, code in unmapped:
            key = (institution, system, code)
            held = self._known.get(key)
            if held is not None:
                self._known[key] = (held[0] + 1, seq)
            elif is_recordable(code):
                new.append(Sighting(institution=institution, system=system, code=code, count=1, seq=seq, at=now))
        if new:
            self._add(tx, institution, new, now)
        if now - self._flushed_at >= _FLUSHED_AFTER:
            self._flush(tx, now)

    def _add(self, tx: Tx, institution: str, new: list[Sighting], now: datetime) -> None:
        full_since = self._full.get(institution)
        if full_since is not None and now - full_since < _FLUSHED_AFTER:
            return
        if tx.unmapped_codes.number(institution) >= MAX_ITEMS:
            self._full[institution] = now
            return
        self._full.pop(institution, None)
        if len(self._known) + len(new) > _KEPT_IN_MEMORY:
            self._flush(tx, now)
            self._known.clear()
        tx.unmapped_codes.seen(new)
        self._known.update({(one.institution, one.system, one.code): (0, one.seq) for one in new})

    def _flush(self, tx: Tx, now: datetime) -> None:
        waiting = [(key, held) for key, held in self._known.items() if held[0]]
        tx.unmapped_codes.seen(
            [
                Sighting(institution=key[0], system=key[1], code=key[2], count=count, seq=seq, at=now)
                for key, (count, seq) in waiting
            ]
        )
        self._known.update({key: (0, seq) for key, (_, seq) in waiting})
        self._flushed_at = now
