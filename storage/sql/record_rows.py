"""Rows of the tables of records, and the resources they hold."""

from __future__ import annotations

from typing import Any

from hub.clock import from_us
from hub.ports import Stored
from storage.sql.schema import record, record_history

COLUMNS = (
    "type",
    "id",
    "version",
    "owner",
    "visibility",
    "patient_id",
    "deleted",
    "method",
    "last_updated",
    "asserted_at",
    "body",
)
CURRENT = tuple(record.c[name] for name in COLUMNS)
PAST = tuple(record_history.c[name] for name in COLUMNS)


def stored(row: Any) -> Stored:
    """Return a table row as a :class:`Stored`."""
    return Stored(
        type=row.type,
        id=row.id,
        version=row.version,
        owner=row.owner,
        visibility=row.visibility,
        patient_id=row.patient_id,
        deleted=bool(row.deleted),
        method=row.method,
        last_updated=from_us(row.last_updated),
        asserted_at=None if row.asserted_at is None else from_us(row.asserted_at),
        body=bytes(row.body),
    )
