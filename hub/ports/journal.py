"""What was received, by which door and with which outcome."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """Something that was received, before it has a sequence number.

    Attributes:
        body: the bytes as they came when they are at most 64 KiB; else ``None`` and ``digest`` names the object.
        state: ``received`` (to be processed later), ``done``, ``refused`` or ``failed``.
    """

    door: str
    institution: str
    peer: str
    correlation_id: str
    message_type: str
    digest: str
    size: int
    received_at: datetime
    body: bytes | None = None
    sending_application: str = ""
    sending_facility: str = ""
    control_id: str = ""
    version: str = ""
    charset: str = ""
    state: str = "done"
    outcome: str = ""
    ack: bytes | None = None
    flags: str = ""
    patient_id: str = ""
    placer: str = ""
    filler: str = ""
    accession: str = ""
    visit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(NewEntry):
    """A journal row."""

    seq: int
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is looked for in entries one by one, because no index tells it.

    Attributes:
        text: words as they stand in the message, in whatever character set it came; letters of one case are not the
            same as of the other.
        outcome: part of the outcome, whatever its case.
        flag: one of the flags, whole.
        finished_since, finished_until: bounds of the time of processing, the latter exclusive.
    """

    text: str = ""
    outcome: str = ""
    flag: str = ""
    finished_since: datetime | None = None
    finished_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """What one scan came to.

    Attributes:
        entries: those that may fit, newest first. A text was compared with the bytes only, and not with a body that is an
            object; whoever asked makes sure of it.
        next: go on below this number; ``None`` when everything was looked at.
    """

    entries: Sequence[Entry]
    next: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Old:
    """An entry whose time may be over.

    Attributes:
        why_kept: ``open`` (not processed, or failed), ``delivery`` (something it caused is not delivered), ``mark`` (its
            number or content tells where to go on), or empty.
    """

    seq: int
    patient_id: str
    size: int
    why_kept: str


class Journal(Protocol):
    def append(self, entry: NewEntry) -> int:
        """Write *entry*; returns its sequence number."""
        ...

    def get(self, seq: int) -> Entry | None: ...
    def find_message(
        self, *, institution: str, sending_application: str, sending_facility: str, control_id: str
    ) -> Sequence[Entry]:
        """Return earlier entries with the same sender and control id, oldest first."""
        ...

    def finish(
        self, seq: int, *, state: str, outcome: str = "", ack: bytes | None = None, patient_id: str = ""
    ) -> None: ...
    def pending(self, *, door: str, limit: int) -> Sequence[Entry]:
        """Return entries in state ``received``, oldest first."""
        ...

    def senders_waiting(self) -> Sequence[str]:
        """Return the institutions that have entries in state ``received``; it costs nothing that there are many."""
        ...

    def pending_from(self, institution: str, *, doors: Sequence[str], limit: int) -> Sequence[Entry]:
        """Return entries of *institution* in state ``received``, oldest first."""
        ...

    def failed_flags(self) -> Collection[str]:
        """Return the flags, each kind once, of all entries in state ``failed``; nothing else of them is read."""
        ...

    def failed_with(self, flags: Collection[str]) -> Sequence[int]:
        """Return the numbers of the entries in state ``failed`` whose flags are one of *flags*, oldest first."""
        ...

    def received_bytes(self, institution: str, *, since: datetime) -> int:
        """Return the sizes, summed up, of what *institution* has sent since then and the hub has stored."""
        ...

    def search(self, criteria: Mapping[str, str], *, limit: int, before_seq: int | None = None) -> Sequence[Entry]:
        """Return entries whose columns equal *criteria* (``since``/``until`` bound the receipt time), newest first."""
        ...

    def scan(self, criteria: Mapping[str, str], look: Look, *, limit: int, before_seq: int | None = None) -> Scanned:
        """Return entries that :meth:`search` would find and that may fit *look*.

        One scan looks at a bounded number of entries and bytes, however few it finds, and says where to go on.
        """
        ...

    def old(
        self, institution: str, *, doors: Collection[str], before: datetime, above: int, limit: int
    ) -> Sequence[Old]:
        """Return entries of *institution* that came by *doors* before *before*, with numbers *above*, lowest first."""
        ...

    def remove(self, numbers: Collection[int]) -> int:
        """Remove entries for good; returns how many there were. Objects of large bodies are left to the sweep."""
        ...

    def reclaim(self) -> bool:
        """Give some of the room of removed rows back to the file system; returns whether there is more to give.

        A database that cannot do so by steps keeps the room for new rows and returns false.
        """
        ...

    def by_correlation(self, correlation_id: str) -> Sequence[Entry]: ...
