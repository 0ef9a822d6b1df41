"""Everything that was received, in the order it was received.

Theory of operation. Entries are numbered as they are committed, and every list is the newest of what it asks for first.
A time asked for is turned into a range of numbers, which every index here ends in, so that no list sorts or reads what
lies outside of it. Numbers and times need not grow together entry by entry, as several nodes write with a clock of
their own each; they do within ``_DISORDER``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hub import metrics
from hub.clock import from_us, to_us
from hub.errors import Category, HubError
from hub.ports import Entry, Look, NewEntry, Old, Scanned
from storage.sql import journal_removal, journal_scan
from storage.sql.criteria import beside, equal, has_key, named
from storage.sql.prepared import Prepared
from storage.sql.schema import imaging_instance, journal

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx

_FIELDS = tuple(name for name in NewEntry.__dataclass_fields__)
#: The conditions of the partial indexes; SQLite uses those only when they stand in the statement word for word.
_RECEIVED = journal.c.state == sa.literal_column("'received'")
_NOT_DONE = journal.c.state != sa.literal_column("'done'")
_FAILED = journal.c.state == "failed"
#: An entry is committed within this time of its receipt, by clocks that differ by less.
_DISORDER = timedelta(hours=1) // timedelta(microseconds=1)
#: Columns whose value few entries share; a state other than done is one too.
_KEYS = frozenset({"correlation_id", "control_id", "patient_id", "placer", "filler", "accession", "visit", "digest"})
_SENDER = frozenset({"sending_application", "sending_facility"})
#: Columns whose value many entries share, each with an index of its own.
_SHARED = _SENDER | {"institution", "door", "message_type"}
_PARTIAL = {name: named(journal.c[name]) for name in ("patient_id", "placer", "filler", "accession", "visit", *_SENDER)}
#: The statements of the receive path, built once.
_INSERT = Prepared(sa.insert(journal).returning(journal.c.seq), keys=(*_FIELDS, "finished_at"))
_OF_MESSAGE = Prepared(
    sa.select(journal)
    .where(
        journal.c.sending_facility == sa.bindparam("of_facility"),
        journal.c.control_id == sa.bindparam("of_control_id"),
        journal.c.sending_application == sa.bindparam("of_application"),
        journal.c.institution == sa.bindparam("of_institution"),
    )
    .order_by(journal.c.seq)
)
_BY_SEQ = Prepared(sa.select(journal).where(journal.c.seq == sa.bindparam("seq")))
#: Columns that the message browser may ask for.
_SEARCHABLE = frozenset(
    {
        "door", "institution", "sending_application", "sending_facility", "control_id", "message_type", "state",
        "patient_id", "placer", "filler", "accession", "visit", "correlation_id", "digest",
    }
)  # fmt: skip


#: What a time that is asked for says of an entry.
_TIMES: Mapping[str, Callable[[int], sa.ColumnElement[bool]]] = {
    "since": lambda moment: journal.c.received_at >= moment,
    "until": lambda moment: journal.c.received_at < moment,
}


def _of_digest(digest: str) -> sa.CompoundSelect[Any]:
    """Return the numbers of the entries of *digest*: new images by their instance, all else by an index of their own."""
    image = (
        sa.select(journal.c.seq)
        .join(imaging_instance, imaging_instance.c.SOPInstanceUID == journal.c.control_id)
        .where(
            imaging_instance.c.digest == digest,
            journal.c.digest == digest,
            journal.c.outcome == sa.literal_column("'new'"),
        )
    )
    other = sa.select(journal.c.seq).where(journal.c.digest == digest, journal.c.outcome != sa.literal_column("'new'"))
    return sa.union(image, other)


@cache
def _finish(names: tuple[str, ...]) -> Prepared:
    return Prepared(sa.update(journal).where(journal.c.seq == sa.bindparam("b_seq")), keys=names)


def _entry(row: Any) -> Entry:
    values = {name: getattr(row, name) for name in _FIELDS}
    values["received_at"] = from_us(row.received_at)
    for name in ("body", "ack"):
        values[name] = None if values[name] is None else bytes(values[name])
    return Entry(**values, seq=row.seq, finished_at=None if row.finished_at is None else from_us(row.finished_at))


class SqlJournal:
    """The :class:`hub.ports.Journal` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    def append(self, entry: NewEntry) -> int:
        """Write *entry*; returns its sequence number."""
        values: dict[str, Any] = {name: getattr(entry, name) for name in _FIELDS}
        values["received_at"] = to_us(entry.received_at)
        values["finished_at"] = None if entry.state == "received" else to_us(self._tx.clock())
        seq = _INSERT.first(self._connection, values).seq
        metrics.count("received", door=entry.door, state=entry.state)
        return int(seq)

    def get(self, seq: int) -> Entry | None:
        """Return the entry numbered *seq*."""
        row = _BY_SEQ.first(self._connection, {"seq": seq})
        return None if row is None else _entry(row)

    def find_message(
        self, *, institution: str, sending_application: str, sending_facility: str, control_id: str
    ) -> Sequence[Entry]:
        """Return earlier entries with the same sender and control id, oldest first."""
        names = {
            "of_institution": institution,
            "of_application": sending_application,
            "of_facility": sending_facility,
            "of_control_id": control_id,
        }
        return [_entry(row) for row in _OF_MESSAGE.all(self._connection, names)]

    def finish(
        self, seq: int, *, state: str, outcome: str = "", ack: bytes | None = None, patient_id: str = ""
    ) -> None:
        """Set the state and outcome of an entry that was received earlier; ``received`` lets it wait once more.

        Raises:
            HubError: not-found.
        """
        finished = None if state == "received" else to_us(self._tx.clock())
        values: dict[str, Any] = {"state": state, "outcome": outcome, "finished_at": finished}
        if ack is not None:
            values["ack"] = ack
        if patient_id:
            values["patient_id"] = patient_id
        if _finish(tuple(values)).run(self._connection, {**values, "b_seq": seq}) != 1:
            raise HubError(Category.NOT_FOUND, "There is no such message.", where=f"message {seq}")

    def pending(self, *, door: str, limit: int) -> Sequence[Entry]:
        """Return entries in state ``received``, oldest first."""
        statement = sa.select(journal).where(_RECEIVED, journal.c.door == door)
        return [_entry(row) for row in self._connection.execute(statement.order_by(journal.c.seq).limit(limit))]

    def senders_waiting(self) -> Sequence[str]:
        """Return the institutions that have entries in state ``received``, by one look at the index for each."""
        found: list[str] = []
        first = sa.select(sa.func.min(journal.c.institution)).where(_RECEIVED)
        while (
            name := self._connection.execute(
                first if not found else first.where(journal.c.institution > found[-1])
            ).scalar()
        ) is not None:
            found.append(name)
        return found

    def pending_from(self, institution: str, *, doors: Sequence[str], limit: int) -> Sequence[Entry]:
        """Return entries of *institution* in state ``received``, oldest first."""
        # The doors only choose among them: no index of theirs may lead, because it would read what others wait for.
        door = journal.c.door.concat(sa.literal_column("''"))
        statement = sa.select(journal).where(_RECEIVED, journal.c.institution == institution, door.in_(list(doors)))
        return [_entry(row) for row in self._connection.execute(statement.order_by(journal.c.seq).limit(limit))]

    def failed_flags(self) -> Collection[str]:
        """Return the flags, each kind once, of all entries in state ``failed``, by the index of what is not done."""
        statement = sa.select(journal.c.flags).where(_FAILED, _NOT_DONE).distinct()
        return frozenset(self._connection.execute(statement).scalars())

    def failed_with(self, flags: Collection[str]) -> Sequence[int]:
        """Return the numbers of the entries in state ``failed`` whose flags are one of *flags*, oldest first."""
        statement = sa.select(journal.c.seq).where(_FAILED, _NOT_DONE, journal.c.flags.in_(list(flags)))
        return list(self._connection.execute(statement.order_by(journal.c.seq)).scalars())

    def received_bytes(self, institution: str, *, since: datetime) -> int:
        """Return the sizes, summed up, of what *institution* has sent since then and the hub has stored."""
        span = self._span({"since": to_us(since)})
        if span is None:
            return 0
        statement = sa.select(sa.func.coalesce(sa.func.sum(journal.c.size), 0)).where(
            journal.c.institution == institution, journal.c.seq.between(*span), journal.c.received_at >= to_us(since)
        )
        return int(self._connection.execute(statement).scalar_one())

    def search(self, criteria: Mapping[str, str], *, limit: int, before_seq: int | None = None) -> Sequence[Entry]:
        """Return entries whose columns equal *criteria*, newest first; ``since`` and ``until`` are ISO instants.

        Raises:
            HubError: incorrect for a column that cannot be searched.
        """
        conditions = self._conditions(criteria)
        if conditions is None:
            return []
        if before_seq is not None:
            conditions.append(journal.c.seq < before_seq)
        statement = sa.select(journal).where(*conditions).order_by(journal.c.seq.desc()).limit(limit)
        return [_entry(row) for row in self._connection.execute(statement)]

    def scan(self, criteria: Mapping[str, str], look: Look, *, limit: int, before_seq: int | None = None) -> Scanned:
        """Return entries that may fit *look*; see :class:`hub.ports.Journal`.

        Raises:
            HubError: incorrect for a column that cannot be searched.
        """
        conditions = self._conditions(criteria)
        if conditions is None:
            return Scanned(entries=(), next=None)
        found, after = journal_scan.scan(self._connection, conditions, look, limit=limit, before_seq=before_seq)
        rows = self._connection.execute(
            sa.select(journal).where(journal.c.seq.in_(found)).order_by(journal.c.seq.desc())
        )
        return Scanned(entries=[_entry(row) for row in rows], next=after)

    def _conditions(self, criteria: Mapping[str, str]) -> list[sa.ColumnElement[bool]] | None:
        """Return the conditions of a search by *criteria*, ``None`` when nothing can fulfil them."""
        times = {name: to_us(datetime.fromisoformat(criteria[name])) for name in _TIMES if name in criteria}
        wanted = {name: value for name, value in criteria.items() if name not in times}
        for name in wanted:
            if name not in _SEARCHABLE:
                raise HubError(
                    Category.INCORRECT,
                    f"Messages cannot be searched by {name}.",
                    where=name,
                    remedy=f"Use {', '.join(sorted(_SEARCHABLE))}, since or until.",
                )
        keys, partial = _KEYS, _PARTIAL
        if wanted.get("state", "done") != "done":
            keys, partial = keys | {"state"}, {**partial, "state": _NOT_DONE}
        if wanted.get("control_id"):
            # Control ids are short at some senders, so the sender's names belong to the key where they are given.
            keys = keys | _SENDER
            partial = {name: condition for name, condition in partial.items() if name not in _SENDER}
        led = has_key(wanted, keys)
        digest = wanted.pop("digest", None)
        more: list[sa.ColumnElement[bool]] = []
        if not led:
            wanted, more = beside(self._connection, journal, "seq", wanted, _SHARED)
        conditions = [*equal(journal, wanted, keys=keys, led=led, partial=partial), *more]
        if digest is not None:
            conditions.append(journal.c.seq.in_(_of_digest(digest)))
        if times and not led:
            span = self._span(times)
            if span is None:
                return None
            conditions.append(journal.c.seq.between(*span))
        conditions += [_TIMES[name](moment) for name, moment in times.items()]
        return conditions

    def _span(self, times: Mapping[str, int]) -> tuple[int, int] | None:
        """Return the lowest and highest number that an entry of these *times* may have, ``None`` when there is none."""
        at = journal.c.received_at
        within = [_TIMES[name](moment) for name, moment in times.items()]
        ends = [
            self._connection.execute(sa.select(at).where(*within).order_by(order).limit(1)).scalar()
            for order in (at, at.desc())
        ]
        first, last = ends
        if first is None or last is None:
            return None
        # The first to come need not have the lowest number, but whoever has a lower one came soon after it. The sum is
        # no column, so that PostgreSQL cannot walk the numbers from either end of the journal until one fits.
        number = journal.c.seq + 0
        lowest = sa.select(sa.func.min(number)).where(at.between(first, first + _DISORDER))
        highest = sa.select(sa.func.max(number)).where(at.between(last - _DISORDER, last))
        return (
            int(self._connection.execute(lowest).scalar_one()),
            int(self._connection.execute(highest).scalar_one()),
        )

    def old(
        self, institution: str, *, doors: Collection[str], before: datetime, above: int, limit: int
    ) -> Sequence[Old]:
        """Return entries whose time may be over; see :class:`hub.ports.Journal`."""
        return journal_removal.old(self._connection, institution, doors=doors, before=before, above=above, limit=limit)

    def remove(self, numbers: Collection[int]) -> int:
        """Remove entries for good; see :class:`hub.ports.Journal`."""
        return journal_removal.remove(self._connection, numbers)

    def reclaim(self) -> bool:
        """Give some room back to the file system; see :class:`hub.ports.Journal`."""
        return journal_removal.reclaim(self._connection)

    def by_correlation(self, correlation_id: str) -> Sequence[Entry]:
        """Return the entries of one correlation id, oldest first."""
        statement = sa.select(journal).where(journal.c.correlation_id == correlation_id).order_by(journal.c.seq)
        return [_entry(row) for row in self._connection.execute(statement)]
