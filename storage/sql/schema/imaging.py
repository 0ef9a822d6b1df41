"""Studies, series and instances; columns that hold a DICOM attribute have its keyword (PS3.6)."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    UniqueConstraint,
    false,
    true,
)

from storage.sql.schema.types import Serial, String, metadata

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
    # Whether the last count found no current instance, so that nobody is shown a series without images.
    Column("emptied", Boolean, nullable=False, default=False, server_default=false()),
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

#: Instances marked deleted. The bytes and the row of the instance stay, unless retention has run out (``purged_at``).
imaging_deletion = Table(
    "imaging_deletion",
    metadata,
    Column("owner", String, primary_key=True),
    Column("SOPInstanceUID", String, primary_key=True),
    Column("StudyInstanceUID", String, nullable=False),
    Column("SeriesInstanceUID", String, nullable=False),
    # The version that was current when it was marked.
    Column("digest", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("marked_by", String, nullable=False),
    Column("marked_at", BigInteger, nullable=False),
    Column("purged_at", BigInteger, nullable=True),
    Index("ix_imaging_deletion_study", "owner", "StudyInstanceUID"),
    sqlite_with_rowid=False,
)

#: Studies on legal hold: nothing of them may be marked deleted or removed.
imaging_hold = Table(
    "imaging_hold",
    metadata,
    Column("owner", String, primary_key=True),
    Column("StudyInstanceUID", String, primary_key=True),
    Column("reason", String, nullable=False),
    Column("held_by", String, nullable=False),
    Column("held_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
