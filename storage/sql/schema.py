"""The tables. Every row of member data carries its owner institution.

Moments are integer microseconds since 1970 UTC (``*_at``), so that both databases compare them alike. Bodies are the
bytes as stored. Index tables have no row id of their own: their primary key is the covering index of the search, and a
second index by record serves replacement, and the check of one record against a filter that many fulfil.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    true,
)
from sqlalchemy import String as _String

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: Text that is compared by code point on both databases: searches by start and sorted pages rely on it.
String = _String().with_variant(_String(collation="C"), "postgresql")
#: SQLite numbers rows with INTEGER PRIMARY KEY only, PostgreSQL with BIGINT identity.
Serial = BigInteger().with_variant(Integer(), "sqlite")

member = Table(
    "member",
    metadata,
    Column("code", String, primary_key=True),
    Column("organization_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("kind", String, nullable=False, default=""),
    Column("active", Boolean, nullable=False),
    Column("entitlements", Text, nullable=False, default="[]"),
    Column("settings", Text, nullable=False, default="{}"),
)

member_endpoint = Table(
    "member_endpoint",
    metadata,
    Column("id", String, primary_key=True),
    Column("member", String, nullable=False, index=True),
    Column("kind", String, nullable=False),
    Column("address", String, nullable=False, default=""),
    Column("ae_title", String, nullable=False, default=""),
    Column("sending_application", String, nullable=False, default=""),
    Column("sending_facility", String, nullable=False, default=""),
    Column("cidr", Text, nullable=False, default="[]"),
    Column("active", Boolean, nullable=False),
    Column("settings", Text, nullable=False, default="{}"),
)

member_practitioner = Table(
    "member_practitioner",
    metadata,
    Column("member", String, primary_key=True),
    Column("code", String, primary_key=True),
    Column("practitioner_id", String, nullable=False),
    Column("role_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("roles", Text, nullable=False, default="[]"),
    Column("active", Boolean, nullable=False),
)

#: Small facts of the hub itself, for example the version of the member directory.
setting = Table(
    "setting",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", Text, nullable=False),
)

oauth_client = Table(
    "oauth_client",
    metadata,
    Column("client_id", String, primary_key=True),
    Column("secret_hash", String, nullable=False),
    Column("institution", String, nullable=False),
    Column("roles", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

access_token = Table(
    "access_token",
    metadata,
    Column("token_hash", String, primary_key=True),
    Column("institution", String, nullable=False),
    Column("practitioner", String, nullable=True),
    Column("roles", Text, nullable=False),
    Column("client", String, nullable=False),
    Column("patient", String, nullable=True),
    Column("issued_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("revoked_at", BigInteger, nullable=True),
)

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

record = Table(
    "record",
    metadata,
    Column("rid", Serial, primary_key=True, autoincrement=True),
    Column("type", String, nullable=False),
    Column("id", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("owner", String, nullable=False),
    Column("visibility", String, nullable=False),
    Column("patient_id", String, nullable=False, default=""),
    Column("deleted", Boolean, nullable=False),
    Column("method", String, nullable=False),
    Column("last_updated", BigInteger, nullable=False),
    Column("asserted_at", BigInteger, nullable=True),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("type", "id"),
    Index("ix_record_updated", "type", "last_updated", "rid"),
    Index("ix_record_owner", "owner", "type", "rid"),
)
Index(
    "ix_record_directory",
    record.c.type,
    record.c.rid,
    sqlite_where=record.c.visibility == "consortium",
    postgresql_where=record.c.visibility == "consortium",
)
Index(
    "ix_record_patient",
    record.c.patient_id,
    record.c.type,
    record.c.rid,
    sqlite_where=record.c.patient_id != "",
    postgresql_where=record.c.patient_id != "",
)

record_history = Table(
    "record_history",
    metadata,
    Column("type", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("owner", String, nullable=False),
    Column("visibility", String, nullable=False),
    Column("patient_id", String, nullable=False, default=""),
    Column("deleted", Boolean, nullable=False),
    Column("method", String, nullable=False),
    Column("last_updated", BigInteger, nullable=False),
    Column("asserted_at", BigInteger, nullable=True),
    Column("body", LargeBinary, nullable=False),
    Index("ix_record_history_updated", "type", "last_updated"),
    sqlite_with_rowid=False,
)

idx_token = Table(
    "idx_token",
    metadata,
    Column("param", String, primary_key=True),
    Column("code", String, primary_key=True),
    Column("system", String, primary_key=True),
    Column("rid", BigInteger, primary_key=True),
    Column("text", String, primary_key=True, default=""),
    Index("ix_idx_token_rid", "rid", "param", "code"),
    sqlite_with_rowid=False,
)

idx_string = Table(
    "idx_string",
    metadata,
    Column("param", String, primary_key=True),
    Column("value", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("rid", BigInteger, primary_key=True),
    Column("exact", String, primary_key=True, default=""),
    Index("ix_idx_string_rid", "rid", "param", "value"),
    sqlite_with_rowid=False,
)

idx_reference = Table(
    "idx_reference",
    metadata,
    Column("param", String, primary_key=True),
    Column("target_id", String, primary_key=True),
    Column("target_type", String, primary_key=True),
    Column("rid", BigInteger, primary_key=True),
    Column("url", String, primary_key=True, default=""),
    Column("identifier_value", String, primary_key=True, default=""),
    Column("identifier_system", String, primary_key=True, default=""),
    Index("ix_idx_reference_rid", "rid", "param", "target_id"),
    sqlite_with_rowid=False,
)
Index(
    "ix_idx_reference_identifier",
    idx_reference.c.param,
    idx_reference.c.identifier_value,
    sqlite_where=idx_reference.c.identifier_value != "",
    postgresql_where=idx_reference.c.identifier_value != "",
)

Index(
    "ix_idx_reference_url",
    idx_reference.c.param,
    idx_reference.c.url,
    sqlite_where=idx_reference.c.url != "",
    postgresql_where=idx_reference.c.url != "",
)

idx_date = Table(
    "idx_date",
    metadata,
    Column("param", String, primary_key=True),
    Column("low", BigInteger, primary_key=True),
    Column("high", BigInteger, primary_key=True),
    Column("rid", BigInteger, primary_key=True),
    Index("ix_idx_date_rid", "rid", "param", "low"),
    Index("ix_idx_date_high", "param", "high", "low"),
    sqlite_with_rowid=False,
)

idx_quantity = Table(
    "idx_quantity",
    metadata,
    Column("param", String, primary_key=True),
    Column("low", Float, primary_key=True),
    Column("high", Float, primary_key=True),
    Column("rid", BigInteger, primary_key=True),
    Column("system", String, primary_key=True, default=""),
    Column("code", String, primary_key=True, default=""),
    Column("unit", String, primary_key=True, default=""),
    Index("ix_idx_quantity_rid", "rid", "param", "low"),
    sqlite_with_rowid=False,
)

idx_uri = Table(
    "idx_uri",
    metadata,
    Column("param", String, primary_key=True),
    Column("value", String, primary_key=True),
    Column("rid", BigInteger, primary_key=True),
    Index("ix_idx_uri_rid", "rid", "param", "value"),
    sqlite_with_rowid=False,
)

#: One row per condition that a conditional write has locked; the row lock makes the write race-free on PostgreSQL.
condition_lock = Table(
    "condition_lock",
    metadata,
    Column("key", String, primary_key=True),
    Column("touched", Integer, nullable=False),
)

access_grant = Table(
    "access_grant",
    metadata,
    Column("grantee", String, primary_key=True),
    Column("target_type", String, primary_key=True),
    Column("target_id", String, primary_key=True),
    Column("task_id", String, primary_key=True),
    Column("opened_at", BigInteger, nullable=False),
    # The far future while the Task is open, so that one comparison decides.
    Column("until", BigInteger, nullable=False),
    Index("ix_access_grant_task", "task_id"),
    sqlite_with_rowid=False,
)

imaging_study = Table(
    "imaging_study",
    metadata,
    Column("owner", String, primary_key=True),
    Column("StudyInstanceUID", String, primary_key=True),
    # Logical id of the ImagingStudy this study becomes, fixed at the first instance, so that grants can name it.
    Column("resource_id", String, nullable=False, index=True),
    # Logical id of the sender's Patient, by (institution, PatientID).
    Column("patient_id", String, nullable=False),
    Column("state", String, nullable=False),
    Column("PatientID", String, nullable=False, default=""),
    Column("IssuerOfPatientID", String, nullable=False, default=""),
    Column("PatientName", String, nullable=False, default=""),
    # The ways to find the name: folded text, full pinyin, initials, joined by U+0020 between leading blanks.
    Column("name_search", String, nullable=False, default=""),
    Column("PatientNamePinyin", String, nullable=False, default=""),
    Column("PatientBirthDate", String, nullable=False, default=""),
    Column("PatientSex", String, nullable=False, default=""),
    Column("StudyDate", String, nullable=False, default=""),
    Column("StudyTime", String, nullable=False, default=""),
    Column("StudyID", String, nullable=False, default=""),
    Column("StudyDescription", String, nullable=False, default=""),
    Column("AccessionNumber", String, nullable=False, default=""),
    Column("ReferringPhysicianName", String, nullable=False, default=""),
    Column("ModalitiesInStudy", String, nullable=False, default=""),
    Column("SOPClassesInStudy", String, nullable=False, default=""),
    Column("NumberOfStudyRelatedSeries", Integer, nullable=False, default=0),
    Column("NumberOfStudyRelatedInstances", Integer, nullable=False, default=0),
    Column("charset_declared", String, nullable=False, default=""),
    Column("charset_used", String, nullable=False, default=""),
    Column("charset_evidence", String, nullable=False, default=""),
    Column("charset_flagged", Boolean, nullable=False, default=False),
    Column("correlation_id", String, nullable=False, default=""),
    Column("first_received_at", BigInteger, nullable=False),
    Column("counted_at", BigInteger, nullable=False, default=0),
    Column("match", String, nullable=False, default=""),
    # The key comes before the owner, because the access predicate is an OR over owners and grants.
    Index("ix_imaging_study_patient", "PatientID", "owner"),
    Index("ix_imaging_study_date", "StudyDate", "StudyTime", "owner"),
    Index("ix_imaging_study_accession", "AccessionNumber", "owner"),
    Index("ix_imaging_study_record", "patient_id"),
    Index("ix_imaging_study_uid", "StudyInstanceUID"),
    sqlite_with_rowid=False,
)

imaging_series = Table(
    "imaging_series",
    metadata,
    Column("owner", String, primary_key=True),
    Column("StudyInstanceUID", String, primary_key=True),
    Column("SeriesInstanceUID", String, primary_key=True),
    Column("Modality", String, nullable=False, default=""),
    Column("SeriesNumber", String, nullable=False, default=""),
    Column("SeriesDescription", String, nullable=False, default=""),
    Column("SeriesDate", String, nullable=False, default=""),
    Column("SeriesTime", String, nullable=False, default=""),
    Column("BodyPartExamined", String, nullable=False, default=""),
    Column("PerformedProcedureStepStartDate", String, nullable=False, default=""),
    Column("PerformedProcedureStepStartTime", String, nullable=False, default=""),
    Column("NumberOfSeriesRelatedInstances", Integer, nullable=False, default=0),
    Column("metadata_etag", String, nullable=False, default=""),
    Column("metadata_digest", String, nullable=False, default=""),
    Index("ix_imaging_series_uid", "SeriesInstanceUID"),
    sqlite_with_rowid=False,
)

imaging_instance = Table(
    "imaging_instance",
    metadata,
    Column("iid", Serial, primary_key=True, autoincrement=True),
    Column("owner", String, nullable=False),
    Column("StudyInstanceUID", String, nullable=False),
    Column("SeriesInstanceUID", String, nullable=False),
    Column("SOPInstanceUID", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("current", Boolean, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("SOPClassUID", String, nullable=False),
    Column("TransferSyntaxUID", String, nullable=False),
    Column("InstanceNumber", String, nullable=False, default=""),
    Column("NumberOfFrames", Integer, nullable=True),
    Column("Rows", Integer, nullable=True),
    Column("Columns", Integer, nullable=True),
    Column("BitsAllocated", SmallInteger, nullable=True),
    Column("pixel_offset", BigInteger, nullable=True),
    Column("received_at", BigInteger, nullable=False),
    Column("attributes", LargeBinary, nullable=False),
    UniqueConstraint("owner", "SOPInstanceUID", "digest"),
    # Covers the counts of a study without a look at its rows.
    Index("ix_imaging_instance_series", "owner", "StudyInstanceUID", "SeriesInstanceUID", "current", "received_at"),
    Index("ix_imaging_instance_digest", "digest"),
)
#: One current version for each SOP Instance, whichever process wrote it.
Index(
    "uq_imaging_instance_current",
    imaging_instance.c.owner,
    imaging_instance.c.SOPInstanceUID,
    unique=True,
    sqlite_where=imaging_instance.c.current == true(),
    postgresql_where=imaging_instance.c.current == true(),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("lane", String, nullable=False),
    Column("destination", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("control_id", String, nullable=False, default=""),
    Column("content_type", String, nullable=False, default=""),
    Column("headers", Text, nullable=False, default="{}"),
    Column("payload", LargeBinary, nullable=False),
    # pending, sent, dead or skipped
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("last_error", Text, nullable=False, default=""),
    Column("ack", LargeBinary, nullable=True),
    Column("acked_at", BigInteger, nullable=True),
    Column("correlation_id", String, nullable=False, default="", index=True),
    Column("task_id", String, nullable=False, default=""),
    Column("patient_id", String, nullable=False, default=""),
    Column("on_ack", String, nullable=False, default=""),
    # Each gives the newest deliveries of one value first.
    Index("ix_outbox_destination", "destination", "id"),
    Index("ix_outbox_kind", "kind", "id"),
    Index("ix_outbox_lane", "lane", "id"),
    Index("ix_outbox_owner", "owner", "id"),
)
# Holds all that the state of the queues needs, so that what waits is counted without a look at its payload.
Index(
    "ix_outbox_open",
    outbox.c.lane,
    outbox.c.id,
    outbox.c.state,
    outbox.c.created_at,
    sqlite_where=outbox.c.state.in_(("pending", "dead")),
    postgresql_where=outbox.c.state.in_(("pending", "dead")),
)
Index(
    "ix_outbox_unsent",
    outbox.c.state,
    outbox.c.id,
    sqlite_where=outbox.c.state != "sent",
    postgresql_where=outbox.c.state != "sent",
)
for _name in ("control_id", "patient_id", "task_id"):
    Index(
        f"ix_outbox_{_name}",
        outbox.c[_name],
        sqlite_where=outbox.c[_name] != "",
        postgresql_where=outbox.c[_name] != "",
    )

#: A lane exists while it has something to deliver; the lease keeps two workers from sending one lane.
outbox_lane = Table(
    "outbox_lane",
    metadata,
    Column("lane", String, primary_key=True),
    Column("destination", String, nullable=False),
    # ready or parked (its head is a dead letter)
    Column("state", String, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("lease_owner", String, nullable=False, default=""),
    Column("lease_until", BigInteger, nullable=False, default=0),
    Column("epoch", Integer, nullable=False, default=0),
    Index("ix_outbox_lane_due", "destination", "state", "next_at"),
    Index("ix_outbox_lane_leased", "destination", "lease_until"),
)

outbox_destination = Table(
    "outbox_destination",
    metadata,
    Column("destination", String, primary_key=True),
    Column("paused", Boolean, nullable=False, default=False),
    Column("failures", Integer, nullable=False, default=0),
    Column("open_until", BigInteger, nullable=False, default=0),
    Column("last_error", Text, nullable=False, default=""),
    Column("last_ok_at", BigInteger, nullable=True),
)

timer = Table(
    "timer",
    metadata,
    Column("kind", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("due_at", BigInteger, nullable=False, index=True),
    Column("payload", Text, nullable=False, default="{}"),
)

#: Work that one node at a time may do; the epoch grows with each holder, so that a late one is known as such.
lease = Table(
    "lease",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
)

alert = Table(
    "alert",
    metadata,
    Column("key", String, primary_key=True),
    Column("opened_at", BigInteger, nullable=False),
    Column("detail", Text, nullable=False, default=""),
)

audit = Table(
    "audit",
    metadata,
    Column("shard", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("recorded_at", BigInteger, nullable=False),
    Column("institution", String, nullable=False),
    Column("who", String, nullable=False, default=""),
    Column("type", String, nullable=False),
    Column("subtype", String, nullable=False),
    Column("action", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("correlation_id", String, nullable=False, default=""),
    Column("body", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Index("ix_audit_institution", "institution", "recorded_at"),
    Index("ix_audit_recorded", "recorded_at"),
)

#: Whose data an audit line is about, so that each institution can list who looked at its patients.
audit_patient = Table(
    "audit_patient",
    metadata,
    Column("shard", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("owner", String, primary_key=True),
    Column("patient_id", String, primary_key=True),
    Column("recorded_at", BigInteger, nullable=False),
    Index("ix_audit_patient_owner", "owner", "recorded_at"),
    Index("ix_audit_patient_patient", "patient_id", "recorded_at"),
    sqlite_with_rowid=False,
)

audit_checkpoint = Table(
    "audit_checkpoint",
    metadata,
    Column("shard", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    Column("signed_at", BigInteger, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)
