"""The access predicate as SQL: one function, joined into every statement over member data.

Own institution, or directory data, or a live grant that a Task opened (DESIGN rules 4 and 5). Nothing else in the
stores decides who sees what.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from hub.access import DIRECTORY_TYPES, Scope
from storage.sql.merges import own_records
from storage.sql.schema import access_grant, imaging_study, record, share_link, share_study

#: ``access_grant.until`` of a grant that is open without end: 9999-12-31T00:00:00Z.
FOREVER_US = 253_402_214_400_000_000

#: ``access_grant.target_type`` of a grant for a whole record, as a Task opened it and as merges carry it further (see
#: :mod:`storage.sql.grants`). As text, so that a statement that is built once may hold them.
WHOLE_RECORD, MERGED_RECORD = "patient-record", "merged-record"
_RECORDS = tuple(sa.literal_column(f"'{one}'", sa.String) for one in (WHOLE_RECORD, MERGED_RECORD))

#: Types that the operator works with: queues and notices, without patient data by construction.
_OPERATOR_TYPES = ("Communication", "Task")


#: ``visibility`` of what :func:`hub.access.is_restricted` says a grant for a whole record does not reach.
RESTRICTED = "restricted"
_RESTRICTED = sa.literal_column(f"'{RESTRICTED}'", sa.String)


def _granted(institution: Any, now_us: Any, target_types: Sequence[Any], target_id: Any) -> sa.ColumnElement[bool]:
    grant = access_grant.alias()
    of_type = grant.c.target_type.in_(target_types) if len(target_types) > 1 else grant.c.target_type == target_types[0]
    return sa.exists(
        sa.select(sa.literal(1)).where(
            grant.c.grantee == institution,
            of_type,
            grant.c.target_id == target_id,
            grant.c.until > now_us,
        )
    )


def _of_patient(column: Any, patient_id: str) -> sa.ColumnElement[bool]:
    """Return whether *column* names the Patient, or a record that its institution merged into it."""
    return sa.or_(column == patient_id, column.in_(own_records(patient_id)))


def visible(table: Any, scope: Scope, now_us: Any, *, institution: Any = None) -> sa.ColumnElement[bool]:
    """Return the predicate over *table* (record or record_history, or an alias) that *scope* may see.

    *institution* and *now_us* may be bind parameters, so that a statement can be built once.
    """
    if scope.everything:
        return sa.true()
    if scope.share is not None:
        return sa.false()
    who = institution if institution is not None else scope.institution
    directory = table.c.visibility == "consortium"
    if scope.patient is not None:
        return sa.or_(directory, sa.and_(_of_patient(table.c.patient_id, scope.patient), table.c.owner == who))
    if scope.directory_only:
        return sa.or_(
            directory, sa.and_(table.c.owner == who, table.c.type.in_((*sorted(DIRECTORY_TYPES), *_OPERATOR_TYPES)))
        )
    return sa.or_(
        table.c.owner == who,
        directory,
        _granted(who, now_us, [table.c.type], table.c.id),
        sa.and_(
            table.c.patient_id != "",
            table.c.visibility != _RESTRICTED,
            _granted(who, now_us, _RECORDS, table.c.patient_id),
        ),
    )


def ways(table: Any, scope: Scope, now_us: Any, resource_type: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Return "of this type and :func:`visible`" as predicates that exclude one another, each led by an index of its own.

    Together they let through exactly what :func:`visible` does; apart, each can be walked in order.
    """
    of_type = table.c.type == resource_type
    if scope.everything:
        return (of_type,)
    if scope.share is not None:
        return (sa.and_(of_type, sa.false()),)
    # A literal, because SQLite uses a partial index only where its condition stands word for word.
    directory = sa.and_(of_type, table.c.visibility == sa.literal_column("'consortium'"))
    own = table.c.owner == scope.institution
    if scope.patient is not None:
        mine = sa.and_(of_type, table.c.patient_id == scope.patient, table.c.patient_id != sa.literal_column("''"), own)
        target = record.alias()
        former = sa.select(target.c.rid).where(
            target.c.patient_id.in_(own_records(scope.patient)),
            target.c.patient_id != sa.literal_column("''"),
            target.c.type == resource_type,
        )
        # The owner as an expression, which no index has: SQLite would walk all that is the owner's, and not the list.
        listed = sa.and_(table.c.rid.in_(former), table.c.owner.concat("") == scope.institution)
        merged = sa.and_(listed, table.c.patient_id != scope.patient)
        shared = sa.and_(directory, sa.not_(sa.and_(_of_patient(table.c.patient_id, scope.patient), own)))
        return mine, merged, shared
    if scope.directory_only:
        if resource_type not in DIRECTORY_TYPES and resource_type not in _OPERATOR_TYPES:
            return (directory,)
        return sa.and_(of_type, own), sa.and_(directory, sa.not_(own))
    grant, target = access_grant.alias(), record.alias()
    granted = sa.select(target.c.rid).where(
        grant.c.grantee == scope.institution, grant.c.until > now_us, target.c.type == resource_type
    )
    single = granted.where(grant.c.target_type == resource_type, grant.c.target_id == target.c.id)
    whole = granted.where(
        grant.c.target_type.in_(_RECORDS),
        grant.c.target_id == target.c.patient_id,
        target.c.patient_id != sa.literal_column("''"),
        target.c.visibility != _RESTRICTED,
    )
    # The type stands inside only: named outside too, it would invite SQLite to walk the type and not the list.
    lent = sa.and_(
        table.c.rid.in_(sa.union_all(single, whole)),
        sa.not_(own),
        table.c.visibility != sa.literal_column("'consortium'"),
    )
    return sa.and_(of_type, own), sa.and_(directory, sa.not_(own)), lent


def study_visible(scope: Scope, now_us: Any, table: Any = imaging_study) -> sa.ColumnElement[bool]:
    """Return the predicate over imaging_study (or an alias) that *scope* may see."""
    if scope.everything:
        return sa.true()
    if scope.share is not None:
        return _shared(scope, now_us, table)
    if scope.directory_only:
        return sa.false()
    if scope.patient is not None:
        return sa.and_(_of_patient(table.c.patient_id, scope.patient), table.c.owner == scope.institution)
    return sa.or_(
        table.c.owner == scope.institution,
        _granted(scope.institution, now_us, [sa.literal("ImagingStudy")], table.c.resource_id),
        sa.and_(
            _granted(scope.institution, now_us, _RECORDS, table.c.patient_id), sa.not_(_is_restricted_study(table))
        ),
    )


def _is_restricted_study(table: Any) -> sa.ColumnElement[bool]:
    study = record.alias()
    return sa.exists(
        sa.select(sa.literal(1)).where(
            study.c.type == sa.literal("ImagingStudy"),
            study.c.id == table.c.resource_id,
            study.c.visibility == _RESTRICTED,
        )
    )


def _shared(scope: Scope, now_us: Any, table: Any) -> sa.ColumnElement[bool]:
    """Return whether the link shows the study: at its end, and when it is revoked, the very next statement finds none."""
    listed = (
        sa.select(share_study.c.StudyInstanceUID)
        .join(share_link, share_link.c.id == share_study.c.share)
        .where(
            share_link.c.id == scope.share,
            share_link.c.institution == scope.institution,
            share_link.c.revoked_at.is_(None),
            share_link.c.expires_at > now_us,
        )
    )
    patients = sa.select(share_study.c.patient_id).where(share_study.c.share == scope.share)
    return sa.and_(
        table.c.owner == scope.institution, table.c.StudyInstanceUID.in_(listed), table.c.patient_id.in_(patients)
    )
