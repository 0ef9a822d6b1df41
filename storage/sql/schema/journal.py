"""Everything that was received."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text

from storage.sql.schema.types import Serial, String, metadata

journal = Table(
    "journal",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=True),
    Column("correlation_id", String, nullable=False, index=True),
    Column("door", String, nullable=False),
    Column("institution", String, nullable=False),
    Column("peer", String, nullable=False, default=""),
    Column("sending_application", String, nullable=False, default=""),
    Column("sending_facility", String, nullable=False, default=""),
    Column("control_id", String, nullable=False, default=""),
    Column("message_type", String, nullable=False, default=""),
    Column("version", String, nullable=False, default=""),
    Column("charset", String, nullable=False, default=""),
    Column("digest", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=True),
    Column("state", String, nullable=False),
    Column("outcome", Text, nullable=False, default=""),
    Column("ack", LargeBinary, nullable=True),
    Column("flags", String, nullable=False, default=""),
    Column("received_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger, nullable=True),
    Column("patient_id", String, nullable=False, default=""),
    Column("placer", String, nullable=False, default=""),
    Column("filler", String, nullable=False, default=""),
    Column("accession", String, nullable=False, default=""),
    Column("visit", String, nullable=False, default=""),
    Index("ix_journal_control", "control_id", "sending_facility", "sending_application"),
    # Each gives the newest entries of one value first; a time is turned into a range of seq by the last one.
    Index("ix_journal_institution", "institution", "seq"),
    Index("ix_journal_door", "door", "seq"),
    Index("ix_journal_type", "message_type", "seq"),
    Index("ix_journal_received", "received_at", "seq"),
)

# Partial indexes keep their cost with what is pending or named, not with what is stored.
Index(
    "ix_journal_pending",
    journal.c.door,
    journal.c.seq,
    sqlite_where=journal.c.state == "received",
    postgresql_where=journal.c.state == "received",
)

Index(
    "ix_journal_waiting",
    journal.c.institution,
    journal.c.seq,
    sqlite_where=journal.c.state == "received",
    postgresql_where=journal.c.state == "received",
)

Index(
    "ix_journal_open",
    journal.c.state,
    journal.c.seq,
    sqlite_where=journal.c.state != "done",
    postgresql_where=journal.c.state != "done",
)

for _name in ("patient_id", "placer", "filler", "accession", "visit"):
    Index(
        f"ix_journal_{_name}",
        journal.c[_name],
        sqlite_where=journal.c[_name] != "",
        postgresql_where=journal.c[_name] != "",
    )

for _name in ("sending_application", "sending_facility"):
    Index(
        f"ix_journal_{_name}",
        journal.c[_name],
        journal.c.seq,
        sqlite_where=journal.c[_name] != "",
        postgresql_where=journal.c[_name] != "",
    )

# A new image is found by its digest in imaging_instance, so that it need not pay for a second index of digests.
Index(
    "ix_journal_digest",
    journal.c.digest,
    sqlite_where=journal.c.outcome != "new",
    postgresql_where=journal.c.outcome != "new",
)
