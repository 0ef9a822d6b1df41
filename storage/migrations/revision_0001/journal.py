"""The journal of what came in, as revision 0001 makes it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.revision_0001.types import Serial, String, partial


def create() -> None:
    """Create the table and its indexes."""
    op.create_table(
        "journal",
        sa.Column("seq", Serial, nullable=False),
        sa.Column("correlation_id", String, nullable=False),
        sa.Column("door", String, nullable=False),
        sa.Column("institution", String, nullable=False),
        sa.Column("peer", String, nullable=False),
        sa.Column("sending_application", String, nullable=False),
        sa.Column("sending_facility", String, nullable=False),
        sa.Column("control_id", String, nullable=False),
        sa.Column("message_type", String, nullable=False),
        sa.Column("version", String, nullable=False),
        sa.Column("charset", String, nullable=False),
        sa.Column("digest", String, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("state", String, nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("ack", sa.LargeBinary(), nullable=True),
        sa.Column("flags", String, nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("patient_id", String, nullable=False),
        sa.Column("placer", String, nullable=False),
        sa.Column("filler", String, nullable=False),
        sa.Column("accession", String, nullable=False),
        sa.Column("visit", String, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_journal"),
    )
    op.create_index("ix_journal_accession", "journal", ["accession"], **partial("accession != ''"))
    op.create_index("ix_journal_control", "journal", ["control_id", "sending_facility", "sending_application"])
    op.create_index("ix_journal_correlation_id", "journal", ["correlation_id"])
    op.create_index("ix_journal_digest", "journal", ["digest"], **partial("outcome != 'new'"))
    op.create_index("ix_journal_door", "journal", ["door", "seq"])
    op.create_index("ix_journal_filler", "journal", ["filler"], **partial("filler != ''"))
    op.create_index("ix_journal_institution", "journal", ["institution", "seq"])
    op.create_index("ix_journal_open", "journal", ["state", "seq"], **partial("state != 'done'"))
    op.create_index("ix_journal_patient_id", "journal", ["patient_id"], **partial("patient_id != ''"))
    op.create_index("ix_journal_pending", "journal", ["door", "seq"], **partial("state = 'received'"))
    op.create_index("ix_journal_placer", "journal", ["placer"], **partial("placer != ''"))
    op.create_index("ix_journal_received", "journal", ["received_at", "seq"])
    for name in ("sending_application", "sending_facility"):
        op.create_index(f"ix_journal_{name}", "journal", [name, "seq"], **partial(f"{name} != ''"))
    op.create_index("ix_journal_type", "journal", ["message_type", "seq"])
    op.create_index("ix_journal_visit", "journal", ["visit"], **partial("visit != ''"))
