"""Everything that was received, in the order it was received."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hub import metrics
from hub.clock import from_us, to_us
from hub.errors import Category, HubError
from hub.ports import Entry, NewEntry
from storage.sql.prepared import Prepared
from storage.sql.schema import journal

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx

_FIELDS = tuple(name for name in NewEntry.__dataclass_fields__)
#: The conditions of the partial indexes; SQLite uses those only when they stand in the statement word for word.
_RECEIVED = journal.c.state == sa.literal_column("'received'")
_NOT_DONE = journal.c.state != sa.literal_column("'done'")
_NAMED = {
    name: journal.c[name] != sa.literal_column("''")
    for name in ("patient_id", "placer", "filler", "accession", "visit")
}
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

    def search(self, criteria: Mapping[str, str], *, limit: int, before_seq: int | None = None) -> Sequence[Entry]:
        """Return entries whose columns equal *criteria*, newest first; ``since`` and ``until`` are ISO instants."""
        statement = sa.select(journal)
        for name, value in criteria.items():
            if name in {"since", "until"}:
                moment = to_us(datetime.fromisoformat(value))
                statement = statement.where(
                    journal.c.received_at >= moment if name == "since" else journal.c.received_at < moment
                )
            elif name in _SEARCHABLE:
                statement = statement.where(journal.c[name] == value)
                if name in _NAMED and value:
                    statement = statement.where(_NAMED[name])
                elif name == "state" and value != "done":
                    statement = statement.where(_NOT_DONE)
            else:
                raise HubError(
                    Category.INCORRECT,
                    f"Messages cannot be searched by {name}.",
                    where=name,
                    remedy=f"Use {', '.join(sorted(_SEARCHABLE))}, since or until.",
                )
        if before_seq is not None:
            statement = statement.where(journal.c.seq < before_seq)
        return [_entry(row) for row in self._connection.execute(statement.order_by(journal.c.seq.desc()).limit(limit))]

    def by_correlation(self, correlation_id: str) -> Sequence[Entry]:
        """Return the entries of one correlation id, oldest first."""
        statement = sa.select(journal).where(journal.c.correlation_id == correlation_id).order_by(journal.c.seq)
        return [_entry(row) for row in self._connection.execute(statement)]
