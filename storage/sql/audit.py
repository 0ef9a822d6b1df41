"""The audit trail: one hash chain per node, so that an edit, a gap or a cut tail shows.

``hash = SHA-256(previous hash || body)``. A row commits with the work it tells of; a read waits for that commit before
its bytes leave (DESIGN rule 12). Checkpoints signed with the node's key close the chain's open end.
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
        body = dumps(event)
        digest = hashlib.sha256(previous + body).digest()
        moment = to_us(line.recorded_at)
        self._connection.execute(
            _INSERT,
            {
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
                "body": body,
                "hash": digest,
            },
        )
        patients = {(owner, patient) for owner, patient in line.patients if patient}
        if patients:
            self._connection.execute(
                _INSERT_PATIENT,
                [
                    {
                        "owner": owner,
                        "patient_id": patient,
                        "shard": self._tx.node,
                        "seq": seq + 1,
                        "recorded_at": moment,
                    }
                    for owner, patient in sorted(patients)
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

        Args:
            criteria: ``patient`` (Patient id), ``agent`` (institution), ``type``, ``subtype``, ``action``, ``outcome``,
                ``since`` and ``until`` (ISO instants), ``correlation``.
            institution: only what this institution did, or what was done to its patients' data; ``None`` = all.
            before: microseconds; only what was recorded earlier.
        """
        statement = sa.select(audit.c.body)
        about = sa.and_(audit_patient.c.shard == audit.c.shard, audit_patient.c.seq == audit.c.seq)
        columns = {
            "agent": "institution",
            "type": "type",
            "subtype": "subtype",
            "action": "action",
            "outcome": "outcome",
            "correlation": "correlation_id",
        }
        for name, value in criteria.items():
            if name in columns:
                statement = statement.where(audit.c[columns[name]] == value)
            elif name == "patient":
                statement = statement.where(
                    sa.exists(sa.select(sa.literal(1)).where(about, audit_patient.c.patient_id == value))
                )
            elif name in {"since", "until"}:
                moment = to_us(datetime.fromisoformat(value))
                statement = statement.where(
                    audit.c.recorded_at >= moment if name == "since" else audit.c.recorded_at < moment
                )
            else:
                raise HubError(Category.INCORRECT, f"AuditEvent cannot be searched by {name}.", where=name)
        if institution is not None:
            statement = statement.where(
                sa.or_(
                    audit.c.institution == institution,
                    sa.exists(sa.select(sa.literal(1)).where(about, audit_patient.c.owner == institution)),
                )
            )
        if before is not None:
            statement = statement.where(audit.c.recorded_at < before)
        rows = self._connection.execute(statement.order_by(audit.c.recorded_at.desc(), audit.c.seq.desc()).limit(limit))
        return [loads(bytes(row.body)) for row in rows]

    def get(self, id: str, *, institution: str | None) -> Mapping[str, Any] | None:
        """Return one AuditEvent inside the institution's reach."""
        about = sa.and_(audit_patient.c.shard == audit.c.shard, audit_patient.c.seq == audit.c.seq)
        statement = sa.select(audit.c.body).where(audit.c.id == id)
        if institution is not None:
            statement = statement.where(
                sa.or_(
                    audit.c.institution == institution,
                    sa.exists(sa.select(sa.literal(1)).where(about, audit_patient.c.owner == institution)),
                )
            )
        row = self._connection.execute(statement).first()
        return None if row is None else loads(bytes(row.body))

    def checkpoint(self, sign: Callable[[bytes], bytes], *, now: datetime) -> int:
        """Sign the present end of every chain that has grown; returns how many did."""
        return sum(checkpoint(self._connection, shard, sign=sign, now=now) for shard in shards(self._connection))

    def verify(self, check: Callable[[bytes, bytes], bool]) -> Iterator[str]:
        """Yield one sentence for each break found in any chain."""
        return verify(self._connection, check=check)


_INSERT = sa.insert(audit)
_INSERT_PATIENT = sa.insert(audit_patient)


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
    return sorted(
        {*connection.execute(sa.select(audit.c.shard).distinct()).scalars()}
        | {*connection.execute(sa.select(audit_checkpoint.c.shard).distinct()).scalars()}
    )


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
        rows = connection.execution_options(yield_per=1000).execute(
            sa.select(audit.c.seq, audit.c.body, audit.c.hash).where(audit.c.shard == shard).order_by(audit.c.seq)
        )
        for row in rows:
            if row.seq != expected:
                yield f"Chain {shard}: {row.seq - expected} line(s) are missing from {expected} on."
                broken = True
            digest = hashlib.sha256(previous + bytes(row.body)).digest()
            if digest != bytes(row.hash) and not broken:
                yield f"Chain {shard}: line {row.seq} was changed."
                broken = True
            if row.seq in marks and bytes(marks[row.seq].hash) != bytes(row.hash):
                yield f"Chain {shard}: line {row.seq} does not agree with its signed checkpoint."
            previous, expected = bytes(row.hash), row.seq + 1
        if marks and max(marks) >= expected:
            yield f"Chain {shard}: its end from {expected} to {max(marks)} was cut off."
