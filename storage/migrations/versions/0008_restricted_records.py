"""What is labelled restricted gets the visibility that keeps it out of grants for a patient's whole record.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from storage.migrations.revision_0001.types import String

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_SYSTEM = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
_ROWS = 500


def upgrade() -> None:
    """Label the rows, with all that was said of the same resource before."""
    connection = op.get_bind()
    record = sa.table(
        "record",
        sa.column("rid", sa.BigInteger),
        sa.column("type", String),
        sa.column("id", String),
        sa.column("visibility", String),
        sa.column("body", sa.LargeBinary),
    )
    history = sa.table(
        "record_history", sa.column("type", String), sa.column("id", String), sa.column("visibility", String)
    )
    if connection.dialect.name == "sqlite":
        named = sa.func.instr(record.c.body, sa.literal(_SYSTEM.encode(), sa.LargeBinary)) > 0
    else:
        named = sa.func.position(sa.literal(_SYSTEM.encode(), sa.LargeBinary).op("IN")(record.c.body)) > 0
    last = -1
    while rows := connection.execute(
        sa.select(record.c.rid, record.c.type, record.c.id, record.c.body)
        .where(record.c.rid > last, record.c.visibility == "institution", named)
        .order_by(record.c.rid)
        .limit(_ROWS)
    ).all():
        for row in rows:
            last = row.rid
            if _is_restricted(json.loads(bytes(row.body))):
                connection.execute(sa.update(record).where(record.c.rid == row.rid).values(visibility="restricted"))
                older = sa.and_(history.c.type == row.type, history.c.id == row.id)
                connection.execute(sa.update(history).where(older).values(visibility="restricted"))


def _is_restricted(resource: dict[str, Any]) -> bool:
    labels = list(resource.get("meta", {}).get("security", ()))
    if resource.get("resourceType") == "DocumentReference":
        labels += [coding for one in resource.get("securityLabel", ()) for coding in one.get("coding", ())]
    return any(one.get("system") == _SYSTEM and one.get("code") in {"R", "V"} for one in labels)
