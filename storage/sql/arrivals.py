"""Instances as they arrive: one row for each, and the rows of its study and series when they are missing (PS3.3 A.1.2).

Theory of operation. What a process remembers of a study (whose it is) may be out of date, and somebody at another process
may be deciding about it right now: whose it becomes, what of it is deleted. So every instance that arrives holds the row
of its study in shared mode until it is committed, and whoever decides holds it alone (:meth:`Arrivals.hold_arrivals`).
On PostgreSQL a statement that waited for such a row goes on with the view of the tables that it began with. The statement
that writes an instance therefore also asks whether the row is still the version of that view; where it is not, nothing
is written, and the instance is taken again with a look at its study, which locks first and looks then.
SQLite lets one transaction write at a time, which is all of that.
"""

from __future__ import annotations

import zlib
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fhir_mappings.dicom.instance import InstanceHeader
from hub.attribute_matching import name_search
from hub.clock import to_us
from hub.ports import ObjectRef, StudyChangedError, StudyKey
from storage.sql._dialect import insert
from storage.sql.prepared import Prepared
from storage.sql.schema import imaging_instance, imaging_series, imaging_study
from storage.sql.schema.imaging import imaging_deletion

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx

_STUDY_FIELDS = (
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientNamePinyin", "PatientBirthDate", "PatientSex", "StudyDate",
    "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName", "charset_declared",
    "charset_used", "charset_evidence", "charset_flagged",
)  # fmt: skip
_SERIES_FIELDS = (
    "Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime", "BodyPartExamined",
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
)  # fmt: skip
_INSTANCE_FIELDS = (
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "TransferSyntaxUID", "InstanceNumber",
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "pixel_offset",
)  # fmt: skip
_BITS: dict[type[sa.Integer], int] = {sa.SmallInteger: 16, sa.Integer: 32, sa.BigInteger: 64}
#: The greatest number that each column of numbers holds; SQLite would take more, and PostgreSQL refuse the instance.
_MOST = {
    name: (1 << _BITS[type(kind)] - 1) - 1
    for name in _INSTANCE_FIELDS
    if isinstance(kind := imaging_instance.c[name].type, sa.Integer)
}


def _still_theirs(*, on_sqlite: bool) -> Any:
    """Return the condition that the study is the patient's; said inside the statement, so that it costs no other."""
    t = imaging_study
    theirs: sa.Select[Any] = sa.select(sa.literal_column("1")).where(
        t.c.owner == sa.bindparam("of_owner", type_=sa.String),
        t.c.StudyInstanceUID == sa.bindparam("of_study", type_=sa.String),
        t.c.patient_id == sa.bindparam("of_patient", type_=sa.String),
        t.c.state != "purged",
    )
    if on_sqlite:
        return sa.exists(theirs)
    # A row that was changed since the statement began is locked and judged as it is now, but everything else in the
    # statement is as it was then; the number of the transaction that wrote the row tells the two apart.
    seen = t.alias("seen")
    written: sa.Select[Any] = sa.select(sa.literal_column("seen.xmin")).where(
        seen.c.owner == sa.bindparam("of_owner", type_=sa.String),
        seen.c.StudyInstanceUID == sa.bindparam("of_study", type_=sa.String),
    )
    same = sa.literal_column("imaging_study.xmin") == written.scalar_subquery()
    return sa.exists(theirs.where(same).with_for_update(read=True))


def _insert_instance(*, on_sqlite: bool, current: Any) -> Any:
    t = imaging_instance
    statement = insert(t, on_sqlite=on_sqlite).values(current=current)
    theirs = _still_theirs(on_sqlite=on_sqlite).label("theirs")
    return statement.on_conflict_do_nothing().returning(t.c.iid, t.c.current, theirs)


#: What is marked deleted comes back as no current version, said inside the statement so that it costs no other.
_NOT_MARKED = sa.not_(
    sa.exists(
        sa.select(sa.literal_column("1")).where(
            imaging_deletion.c.owner == sa.bindparam("of_owner", type_=sa.String),
            imaging_deletion.c.SOPInstanceUID == sa.bindparam("of_instance", type_=sa.String),
            imaging_deletion.c.purged_at.is_(None),
        )
    )
)
_KEYS = (*_INSTANCE_FIELDS, "owner", "digest", "size", "received_at", "attributes")
_INSERT = Prepared(
    _insert_instance(on_sqlite=False, current=_NOT_MARKED),
    keys=_KEYS,
    on_sqlite=_insert_instance(on_sqlite=True, current=_NOT_MARKED),
)
_INSERT_BESIDE = Prepared(
    _insert_instance(on_sqlite=False, current=sa.false()),
    keys=_KEYS,
    on_sqlite=_insert_instance(on_sqlite=True, current=sa.false()),
)


class Arrivals:
    """What :class:`storage.sql.imaging.SqlImaging` does with an instance that arrives."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    def add(
        self,
        owner: str,
        header: InstanceHeader,
        ref: ObjectRef,
        received_at: datetime,
        patient_id: str,
        correlation_id: str,
        *,
        resource_id: str = "",
        series_known: bool = False,
    ) -> str:
        """Index one instance; returns ``new``, ``duplicate`` (same bytes) or ``conflict`` (other bytes, non-current).

        Other bytes of an instance that is marked deleted are ``rejected``, and non-current too.

        With *series_known* the caller vouches that the rows of study and series are committed and the study is
        *patient_id*'s; else they are written when they are missing, the study's with *patient_id* and *resource_id*,
        which then never change.

        Raises:
            StudyChangedError: with *series_known*, the study is another patient's by now, or is being changed at this
                moment; the transaction must not commit.
        """
        if not series_known:
            self._add_parents(owner, header, received_at, patient_id, correlation_id, resource_id)
        values: dict[str, Any] = {name: getattr(header, name) for name in _INSTANCE_FIELDS}
        for name, most in _MOST.items():
            # What no image can have (PS3.5 table 6.2-1 for IS) stays in the object and its header alone.
            if values[name] is not None and not -most - 1 <= values[name] <= most:
                values[name] = None
        values |= {
            "owner": owner,
            "digest": ref.digest,
            "size": ref.size,
            "received_at": to_us(received_at),
            "attributes": zlib.compress(header.attributes, 1),
        }
        # Two unique indexes decide, whichever process writes: one current row for a SOP Instance, one row for its bytes.
        values |= {"of_owner": owner, "of_study": header.StudyInstanceUID, "of_patient": patient_id}
        made = _INSERT.first(self._connection, {**values, "of_instance": header.SOPInstanceUID})
        if made is not None:
            outcome = "new" if made.current else "rejected"
        else:
            made = _INSERT_BESIDE.first(self._connection, values)
            outcome = "duplicate" if made is None else "conflict"
        if series_known and made is not None and not made.theirs:
            raise StudyChangedError
        return outcome

    def _add_parents(
        self,
        owner: str,
        header: InstanceHeader,
        received_at: datetime,
        patient_id: str,
        correlation_id: str,
        resource_id: str,
    ) -> None:
        key = {"owner": owner, "StudyInstanceUID": header.StudyInstanceUID}
        study = {name: getattr(header, name) for name in _STUDY_FIELDS}
        study |= key | {
            "resource_id": resource_id,
            "patient_id": patient_id,
            "state": "receiving",
            "name_search": name_search(header.PatientName, header.PatientNamePinyin),
            "correlation_id": correlation_id,
            "first_received_at": to_us(received_at),
        }
        series = {name: getattr(header, name) for name in _SERIES_FIELDS}
        series |= key | {"SeriesInstanceUID": header.SeriesInstanceUID}
        t = imaging_study
        fresh = insert(t, on_sqlite=self._tx.sqlite).on_conflict_do_nothing().returning(t.c.owner)
        if self._connection.execute(fresh, study).first() is None:
            # A study that was removed for good comes back as a new one.
            self._connection.execute(
                sa.update(t)
                .where(t.c.owner == owner, t.c.StudyInstanceUID == header.StudyInstanceUID, t.c.state == "purged")
                .values(study)
            )
            if not self._tx.sqlite:
                self._share(owner, header.StudyInstanceUID)
        self._connection.execute(insert(imaging_series, on_sqlite=self._tx.sqlite).on_conflict_do_nothing(), series)

    def _share(self, owner: str, StudyInstanceUID: str) -> None:
        """Hold the row of a study with all others whose instances arrive, until the transaction ends."""
        t = imaging_study
        row: sa.Select[Any] = sa.select(sa.literal_column("1")).where(
            t.c.owner == owner, t.c.StudyInstanceUID == StudyInstanceUID
        )
        receiving = row.where(t.c.state == "receiving").with_for_update(read=True)
        if self._connection.execute(receiving).first() is None:
            # The row is about to be changed, for the study receives again; two that shared it would wait for each other.
            self._connection.execute(row.with_for_update(key_share=True))

    def hold_arrivals(self, key: StudyKey) -> None:
        """Wait for the instances of a study that are on their way in, and let no other in until the transaction ends."""
        if self._tx.sqlite:
            return
        t = imaging_study
        row: sa.Select[Any] = sa.select(sa.literal_column("1")).where(
            t.c.owner == key.owner, t.c.StudyInstanceUID == key.StudyInstanceUID
        )
        self._connection.execute(row.with_for_update(key_share=True))
