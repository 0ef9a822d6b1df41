"""The audit trail: one hash chain per node, so that an edit, a gap or a cut tail shows.

``hash = SHA-256(previous hash || head || body)``, where the head is everything that the trail is searched by, the
patients named included, so that a line cannot be hidden from those it concerns. A row commits with the work it tells
of; a read waits for that commit before its bytes leave (DESIGN rule 12). Checkpoints signed with the node's key close
the chain's open end.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fhir_mappings.audit_event import audit_event
from fhir_mappings.json import dumps, loads
from hub.clock import instant, to_us
from hub.errors import Category, HubError
from hub.ports import AuditLine
from storage.sql.prepared import Prepared
from storage.sql.schema import audit, audit_checkpoint, audit_patient

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from storage.sql.transaction import SqlTx

#: What the hash of the first row of a chain builds on.
GENESIS = b"\0" * 32


class SqlAuditLog:
    """The :class:`hub.ports.AuditLog` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    def write(self, line: AuditLine) -> None:
        """Append *line* to this node's chain."""
        seq, previous = self._tail()
        id_ = str(uuid.uuid4())
        event = audit_event(
            id=id_,
            recorded=instant(line.recorded_at),
            type=line.type,
            subtype=line.subtype,
            action=line.action,
            outcome=line.outcome,
            institution=line.actor.institution,
            practitioner=line.actor.practitioner,
            client=line.actor.client,
            address=line.actor.address,
            roles=sorted(line.actor.roles),
            patients=line.patients,
            entities=line.entities,
            query=line.query,
            count=line.count,
            correlation_id=line.correlation_id,
            detail=line.detail,
        )
        moment = to_us(line.recorded_at)
        patients = sorted({(owner, patient) for owner, patient in line.patients if patient})
        values = {
            "shard": self._tx.node,
            "seq": seq + 1,
            "id": id_,
            "recorded_at": moment,
            "institution": line.actor.institution,
            "who": line.actor.practitioner or line.actor.client,
            "type": line.type,
            "subtype": line.subtype,
            "action": line.action,
            "outcome": line.outcome,
            "correlation_id": line.correlation_id,
            "body": dumps(event),
        }
        digest = chained(previous, values, patients)
        _INSERT.run(self._connection, {**values, "hash": digest})
        if patients:
            _INSERT_PATIENT.run_many(
                self._connection,
                [
                    {
                        "shard": self._tx.node,
                        "seq": seq + 1,
                        "owner": owner,
                        "patient_id": patient,
                        "recorded_at": moment,
                    }
                    for owner, patient in patients
                ],
            )
        self._tx.audit_tail.update(seq=seq + 1, hash=digest)

    def _tail(self) -> tuple[int, bytes]:
        tail = self._tx.audit_tail
        if "seq" not in tail:
            row = self._connection.execute(
                sa.select(audit.c.seq, audit.c.hash)
                .where(audit.c.shard == self._tx.node)
                .order_by(audit.c.seq.desc())
                .limit(1)
            ).first()
            tail.update(seq=row.seq if row else 0, hash=bytes(row.hash) if row else GENESIS)
        return tail["seq"], tail["hash"]

    def search(
        self, criteria: Mapping[str, str], *, institution: str | None, limit: int, before: int | None
    ) -> Sequence[Mapping[str, Any]]:
        """Return AuditEvent resources, newest first.

        A page ends with a whole millisecond, so it may be a little longer than *limit*, and the ``recorded`` of its
        last event is the *before* of the next page.

        Args:
            criteria: ``patient`` (Patient id), ``agent`` (institution), ``who`` (person or
                client), ``type``, ``subtype``, ``action``, ``outcome``,
                ``since`` and ``until`` (ISO instants), ``correlation``.
            institution: only what this institution did, or what was done to its patients' data; ``None`` = all.
            limit: lines wanted.
            before: microseconds; only what was recorded earlier.
        """
        conditions = _conditions(criteria)
        if before is not None:
            conditions.append(audit.c.recorded_at < before)
        ways = _ways(criteria.get("patient"), institution)
        found = self._first(ways, conditions, limit)
        if len(found) > limit:
            edge = found[limit - 1].recorded_at // 1000 * 1000
            found = self._first(ways, [*conditions, audit.c.recorded_at >= edge], None)
        return [loads(bytes(row.body)) for row in found]

    def _first(
        self, ways: Sequence[sa.Select[Any]], conditions: Sequence[sa.ColumnElement[bool]], limit: int | None
    ) -> list[Any]:
        """Return the newest lines that any of *ways* finds, one more than *limit*."""
        rows: dict[tuple[str, int], Any] = {}
        for way in ways:
            statement = way.where(*conditions).order_by(
                way.selected_columns.moment.desc(), audit.c.shard, audit.c.seq.desc()
            )
            if limit is not None:
                statement = statement.limit(limit + 1)
            rows |= {(row.shard, row.seq): row for row in self._connection.execute(statement)}
        found = sorted(rows.values(), key=lambda row: (-row.recorded_at, row.shard, -row.seq))
        return found if limit is None else found[: limit + 1]

    def checkpoint(self, sign: Callable[[bytes], bytes], *, now: datetime) -> int:
        """Sign the present end of every chain that has grown; returns how many did."""
        return sum(checkpoint(self._connection, shard, sign=sign, now=now) for shard in shards(self._connection))

    def verify(self, check: Callable[[bytes, bytes], bool]) -> Iterator[str]:
        """Yield one sentence for each break found in any chain."""
        return verify(self._connection, check=check)

    def get(self, id: str, *, institution: str | None) -> Mapping[str, Any] | None:
        """Return one AuditEvent inside the institution's reach."""
        statement = sa.select(audit.c.body).where(audit.c.id == id)
        if institution is not None:
            statement = statement.where(sa.or_(audit.c.institution == institution, _concerns(institution)))
        row = self._connection.execute(statement).first()
        return None if row is None else loads(bytes(row.body))


_ABOUT = sa.and_(audit_patient.c.shard == audit.c.shard, audit_patient.c.seq == audit.c.seq)
_COLUMNS = {
    "agent": "institution",
    "who": "who",
    "type": "type",
    "subtype": "subtype",
    "action": "action",
    "outcome": "outcome",
    "correlation": "correlation_id",
}
#: What the chain covers besides the body, in this order.
_HEAD = (
    "shard", "seq", "id", "recorded_at", "institution", "who", "type", "subtype", "action", "outcome", "correlation_id",
)  # fmt: skip
_INSERT = Prepared(sa.insert(audit), keys=(*_HEAD, "body", "hash"))
_INSERT_PATIENT = Prepared(sa.insert(audit_patient), keys=("shard", "seq", "owner", "patient_id", "recorded_at"))


def _conditions(criteria: Mapping[str, str]) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    for name, value in criteria.items():
        if name in _COLUMNS:
            conditions.append(audit.c[_COLUMNS[name]] == value)
        elif name in {"since", "until"}:
            moment = to_us(datetime.fromisoformat(value))
            conditions.append(audit.c.recorded_at >= moment if name == "since" else audit.c.recorded_at < moment)
        elif name != "patient":
            raise HubError(Category.INCORRECT, f"AuditEvent cannot be searched by {name}.", where=name)
    return conditions


def _concerns(institution: str) -> sa.ColumnElement[bool]:
    return sa.exists(sa.select(sa.literal(1)).where(_ABOUT, audit_patient.c.owner == institution))


def _ways(patient: str | None, institution: str | None) -> list[sa.Select[Any]]:
    """Return statements that together find the lines in reach, each in the order of one index."""
    columns = (audit.c.shard, audit.c.seq, audit.c.recorded_at, audit.c.body)
    own = sa.select(*columns, audit.c.recorded_at.label("moment"))
    named = sa.select(*columns, audit_patient.c.recorded_at.label("moment")).join(audit, _ABOUT).distinct()
    if patient is not None:
        about = named.where(audit_patient.c.patient_id == patient)
        if institution is not None:
            about = about.where(sa.or_(audit.c.institution == institution, audit_patient.c.owner == institution))
        return [about]
    if institution is None:
        return [own]
    return [own.where(audit.c.institution == institution), named.where(audit_patient.c.owner == institution)]


def chained(previous: bytes, values: Mapping[str, Any], patients: Sequence[tuple[str, str]]) -> bytes:
    """Return the hash of a line that follows the one with hash *previous*; *patients* are (owner, id) in order."""
    head = [*(values[name] for name in _HEAD), [list(pair) for pair in patients]]
    return hashlib.sha256(previous + dumps(head) + b"\n" + bytes(values["body"])).digest()


def checkpoint(connection: Connection, shard: str, *, sign: Callable[[bytes], bytes], now: datetime) -> bool:
    """Sign the present end of *shard*; returns whether it had grown since the last checkpoint."""
    last = connection.execute(
        sa.select(audit.c.seq, audit.c.hash).where(audit.c.shard == shard).order_by(audit.c.seq.desc()).limit(1)
    ).first()
    if last is None:
        return False
    have = connection.execute(
        sa.select(sa.func.max(audit_checkpoint.c.seq)).where(audit_checkpoint.c.shard == shard)
    ).scalar()
    if have is not None and have >= last.seq:
        return False
    connection.execute(
        sa.insert(audit_checkpoint).values(
            shard=shard,
            seq=last.seq,
            hash=bytes(last.hash),
            signed_at=to_us(now),
            signature=sign(checkpoint_text(shard, last.seq, bytes(last.hash))),
        )
    )
    return True


def checkpoint_text(shard: str, seq: int, digest: bytes) -> bytes:
    """Return the bytes that a checkpoint's signature covers."""
    return f"{shard}|{seq}|{digest.hex()}".encode()


def shards(connection: Connection) -> list[str]:
    """Return the names of all chains."""
    return sorted({*_names(connection, audit.c.shard)} | {*_names(connection, audit_checkpoint.c.shard)})


def _names(connection: Connection, column: sa.Column[str]) -> Iterator[str]:
    # One step of the primary key for each name; DISTINCT would read the whole table each minute.
    name = connection.execute(sa.select(sa.func.min(column))).scalar()
    while name is not None:
        yield name
        name = connection.execute(sa.select(sa.func.min(column)).where(column > name)).scalar()


def verify(connection: Connection, *, check: Callable[[bytes, bytes], bool]) -> Iterator[str]:
    """Yield one sentence for each break found in any chain; nothing when all chains hold.

    Args:
        check: takes (text, signature), returns whether the signature is this hub's.
    """
    for shard in shards(connection):
        marks = {
            row.seq: row
            for row in connection.execute(
                sa.select(audit_checkpoint).where(audit_checkpoint.c.shard == shard).order_by(audit_checkpoint.c.seq)
            )
        }
        for seq, mark in marks.items():
            if not check(checkpoint_text(shard, seq, bytes(mark.hash)), bytes(mark.signature)):
                yield f"Chain {shard}: the checkpoint at {seq} is not signed by this hub."
        previous, expected, broken = GENESIS, 1, False
        for row, patients in _lines(connection, shard):
            if row.seq != expected:
                yield f"Chain {shard}: {row.seq - expected} line(s) are missing from {expected} on."
                broken = True
            if chained(previous, row._mapping, patients) != bytes(row.hash) and not broken:  # noqa: SLF001 - SQLAlchemy's public name
                yield f"Chain {shard}: line {row.seq} was changed."
                broken = True
            if row.seq in marks and bytes(marks[row.seq].hash) != bytes(row.hash):
                yield f"Chain {shard}: line {row.seq} does not agree with its signed checkpoint."
            previous, expected = bytes(row.hash), row.seq + 1
        if marks and max(marks) >= expected:
            yield f"Chain {shard}: its end from {expected} to {max(marks)} was cut off."


def _lines(connection: Connection, shard: str) -> Iterator[tuple[Any, list[tuple[str, str]]]]:
    """Yield the lines of *shard* in order, each with the patients it names."""
    start = 0
    while True:
        rows = list(
            connection.execute(
                sa.select(audit).where(audit.c.shard == shard, audit.c.seq > start).order_by(audit.c.seq).limit(1000)
            )
        )
        if not rows:
            return
        named: dict[int, list[tuple[str, str]]] = {}
        for one in connection.execute(
            sa.select(audit_patient)
            .where(audit_patient.c.shard == shard, audit_patient.c.seq > start, audit_patient.c.seq <= rows[-1].seq)
            .order_by(audit_patient.c.seq, audit_patient.c.owner, audit_patient.c.patient_id)
        ):
            named.setdefault(one.seq, []).append((one.owner, one.patient_id))
        for row in rows:
            yield row, named.get(row.seq, [])
        start = rows[-1].seq
