"""The imaging index, as revision 0001 makes it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.revision_0001.types import Serial, String, partial


def create() -> None:
    """Create the tables and their indexes."""
    op.create_table(
        "imaging_study",
        sa.Column("owner", String, nullable=False),
        sa.Column("StudyInstanceUID", String, nullable=False),
        sa.Column("resource_id", String, nullable=False),
        sa.Column("patient_id", String, nullable=False),
        sa.Column("state", String, nullable=False),
        sa.Column("PatientID", String, nullable=False),
        sa.Column("IssuerOfPatientID", String, nullable=False),
        sa.Column("PatientName", String, nullable=False),
        sa.Column("name_search", String, nullable=False),
        sa.Column("PatientNamePinyin", String, nullable=False),
        sa.Column("PatientBirthDate", String, nullable=False),
        sa.Column("PatientSex", String, nullable=False),
        sa.Column("StudyDate", String, nullable=False),
        sa.Column("StudyTime", String, nullable=False),
        sa.Column("StudyID", String, nullable=False),
        sa.Column("StudyDescription", String, nullable=False),
        sa.Column("AccessionNumber", String, nullable=False),
        sa.Column("ReferringPhysicianName", String, nullable=False),
        sa.Column("ModalitiesInStudy", String, nullable=False),
        sa.Column("SOPClassesInStudy", String, nullable=False),
        sa.Column("NumberOfStudyRelatedSeries", sa.Integer(), nullable=False),
        sa.Column("NumberOfStudyRelatedInstances", sa.Integer(), nullable=False),
        sa.Column("charset_declared", String, nullable=False),
        sa.Column("charset_used", String, nullable=False),
        sa.Column("charset_evidence", String, nullable=False),
        sa.Column("charset_flagged", sa.Boolean(), nullable=False),
        sa.Column("correlation_id", String, nullable=False),
        sa.Column("first_received_at", sa.BigInteger(), nullable=False),
        sa.Column("counted_at", sa.BigInteger(), nullable=False),
        sa.Column("match", String, nullable=False),
        sa.PrimaryKeyConstraint("owner", "StudyInstanceUID", name="pk_imaging_study"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_imaging_study_accession", "imaging_study", ["AccessionNumber", "owner"])
    op.create_index("ix_imaging_study_date", "imaging_study", ["StudyDate", "StudyTime", "owner"])
    op.create_index("ix_imaging_study_patient", "imaging_study", ["PatientID", "owner"])
    op.create_index("ix_imaging_study_record", "imaging_study", ["patient_id"])
    op.create_index("ix_imaging_study_resource_id", "imaging_study", ["resource_id"])
    op.create_index("ix_imaging_study_uid", "imaging_study", ["StudyInstanceUID"])
    op.create_table(
        "imaging_series",
        sa.Column("owner", String, nullable=False),
        sa.Column("StudyInstanceUID", String, nullable=False),
        sa.Column("SeriesInstanceUID", String, nullable=False),
        sa.Column("Modality", String, nullable=False),
        sa.Column("SeriesNumber", String, nullable=False),
        sa.Column("SeriesDescription", String, nullable=False),
        sa.Column("SeriesDate", String, nullable=False),
        sa.Column("SeriesTime", String, nullable=False),
        sa.Column("BodyPartExamined", String, nullable=False),
        sa.Column("PerformedProcedureStepStartDate", String, nullable=False),
        sa.Column("PerformedProcedureStepStartTime", String, nullable=False),
        sa.Column("NumberOfSeriesRelatedInstances", sa.Integer(), nullable=False),
        sa.Column("metadata_etag", String, nullable=False),
        sa.Column("metadata_digest", String, nullable=False),
        sa.PrimaryKeyConstraint("owner", "StudyInstanceUID", "SeriesInstanceUID", name="pk_imaging_series"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_imaging_series_uid", "imaging_series", ["SeriesInstanceUID"])
    op.create_table(
        "imaging_instance",
        sa.Column("iid", Serial, nullable=False),
        sa.Column("owner", String, nullable=False),
        sa.Column("StudyInstanceUID", String, nullable=False),
        sa.Column("SeriesInstanceUID", String, nullable=False),
        sa.Column("SOPInstanceUID", String, nullable=False),
        sa.Column("digest", String, nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("SOPClassUID", String, nullable=False),
        sa.Column("TransferSyntaxUID", String, nullable=False),
        sa.Column("InstanceNumber", String, nullable=False),
        sa.Column("NumberOfFrames", sa.Integer(), nullable=True),
        sa.Column("Rows", sa.Integer(), nullable=True),
        sa.Column("Columns", sa.Integer(), nullable=True),
        sa.Column("BitsAllocated", sa.SmallInteger(), nullable=True),
        sa.Column("pixel_offset", sa.BigInteger(), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("attributes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("iid", name="pk_imaging_instance"),
        sa.UniqueConstraint(
            "owner", "SOPInstanceUID", "digest", name="uq_imaging_instance_owner_SOPInstanceUID_digest"
        ),
    )
    op.create_index("ix_imaging_instance_digest", "imaging_instance", ["digest"])
    op.create_index(
        "ix_imaging_instance_series",
        "imaging_instance",
        ["owner", "StudyInstanceUID", "SeriesInstanceUID", "current", "received_at"],
    )
    op.create_index(
        "uq_imaging_instance_current",
        "imaging_instance",
        ["owner", "SOPInstanceUID"],
        unique=True,
        **partial("current = 1", postgresql="current = true"),
    )
