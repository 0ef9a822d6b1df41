"""Which Patients of different institutions are one person: the links that :mod:`hub.identity` keeps, followed.

A link is a FHIR ``Linkage`` (https://hl7.org/fhir/R4/linkage.html) over two Patients. Only one that the operator's
institution owns counts, so that what a member writes under this type says nothing about another's patients. It is
found by the index of the search parameter ``item`` and gone from there once it is deleted.

Merges inside each institution carry a link along (:mod:`storage.sql.merges`). Links are not joined to chains: each
pair was agreed on by itself, and ends by itself.

Nothing here decides who may see what. What a link finds is bound by the access predicate like everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_mappings.json import loads
from hub.actor import HUB
from hub.identity_numbers import numbers_of
from hub.imaging_ids import number_record_id
from hub.ports.identity import Person
from storage.sql import merges
from storage.sql.index import MERGED_INTO, survivors
from storage.sql.prepared import Prepared
from storage.sql.schema import idx_reference, record

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx

#: ``param`` of the index rows of a link; one for each of its Patients.
_ITEM = "Linkage.item"
#: Most values in one list; SQLite takes 32,766 and PostgreSQL plans long lists slowly.
_CHUNK = 500

#: Every query for a number asks it, and where nobody was ever linked that is all it costs.
_ANY = Prepared(
    sa.select(sa.exists(sa.select(sa.literal(1)).where(idx_reference.c.param == _ITEM)).label("any"))
)  # fmt: skip

_LINKED = Prepared(
    sa.select(
        sa.exists(
            sa.select(sa.literal(1)).where(
                idx_reference.c.param == _ITEM, idx_reference.c.target_id == sa.bindparam("id")
            )
        ).label("any")
    )
)
#: Up to so many Patients are looked up one by one, which costs a fraction of a statement over all of them.
_FEW = 8


class SqlIdentity:
    """The :class:`hub.ports.Identity` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._connection = tx.connection

    def persons(self, institution: str, patients: Sequence[str]) -> Mapping[str, Sequence[Person]]:
        """Return, for each of *patients* that a link concerns, who it is to *institution*."""
        connection = self._connection
        if not patients or not _ANY.first(connection, {}).any:
            return {}
        groups = _people(connection, patients)
        near = _near(connection, {one for group in groups.values() for one in group})
        owners = self.owners(sorted(near.keys() | {one for ids in near.values() for one in ids}))
        seeds: dict[str, list[str]] = {}
        for id_, group in groups.items():
            ends = sorted({other for one in group for other in near.get(one, ())})
            linked = [one for one in group if one in near and owners.get(one) == institution]
            # A Patient of the institution's own begins its person itself; another's, by what it is linked to.
            found = linked[:1] or [one for one in ends if owners.get(one) == institution]
            if ends and found:
                seeds[id_] = found
        own = _people(connection, sorted({one for found in seeds.values() for one in found}))
        made = self._made(institution, {frozenset(group) for group in own.values()})
        return {
            id_: tuple({group: made[group] for group in (frozenset(own[one]) for one in found)}.values())
            for id_, found in seeds.items()
        }

    def owners(self, patients: Sequence[str]) -> Mapping[str, str]:
        """Return the owner institution of each of *patients* that is stored and not deleted."""
        found: dict[str, str] = {}
        for chunk in _chunks(patients):
            statement = sa.select(record.c.id, record.c.owner).where(
                record.c.type == "Patient", record.c.id.in_(chunk), record.c.deleted == sa.false()
            )
            found.update((row.id, row.owner) for row in self._connection.execute(statement))
        return found

    def _made(self, institution: str, groups: set[frozenset[str]]) -> dict[frozenset[str], Person]:
        """Return the person that each of *groups*, Patients of *institution*, is."""
        connection = self._connection
        near = _near(connection, {one for group in groups for one in group})
        owners = self.owners(sorted({one for ids in near.values() for one in ids}))
        far = {
            group: {one for id_ in group for one in near.get(id_, ()) if owners.get(one, institution) != institution}
            for group in groups
        }
        people = _people(connection, sorted({one for ids in far.values() for one in ids}))
        bodies = self._bodies({one for group in groups for one in group})
        found = {}
        for group in groups:
            # Dead records last: the number in use is the survivor's.
            order = sorted(group & bodies.keys(), key=lambda one: (bool(survivors(bodies[one])), one))
            numbers = dict.fromkeys(number for one in order for number in numbers_of(bodies[one], institution))
            others = frozenset(other for one in far[group] for other in people[one])
            found[group] = Person(own=tuple(order), numbers=tuple(numbers), others=others)
        return found

    def _bodies(self, ids: Iterable[str]) -> dict[str, dict[str, object]]:
        found = {}
        for chunk in _chunks(sorted(ids)):
            statement = sa.select(record.c.id, record.c.body).where(
                record.c.type == "Patient", record.c.id.in_(chunk), record.c.deleted == sa.false()
            )
            found.update({row.id: loads(bytes(row.body)) for row in self._connection.execute(statement)})
        return found


def linked_records(connection: Connection, institution: str, numbers: Iterable[str]) -> list[str]:
    """Return the Patients of other institutions that are linked to those whom *numbers* of *institution* name.

    A survivor's number stands for the numbers merged into it, as everywhere; a dead number for itself.
    """
    if not _ANY.first(connection, {}).any:
        return []
    named = [number_record_id(institution, number) for number in numbers]
    named = merges.standing_for(connection, named, None)
    if len(named) <= _FEW:
        named = [one for one in named if _LINKED.first(connection, {"id": one}).any]
    near = _near(connection, named) if named else {}
    if not near:
        return []
    statement = sa.select(record.c.id).where(
        record.c.type == "Patient",
        record.c.id.in_(sorted({one for ids in near.values() for one in ids})),
        record.c.owner != institution,
        record.c.deleted == sa.false(),
    )
    people = _people(connection, list(connection.execute(statement).scalars()))
    return sorted({one for group in people.values() for one in group})


def _near(connection: Connection, ids: Iterable[str]) -> dict[str, set[str]]:
    """Return the Patients that each of *ids* is linked to."""
    mine, other, link = idx_reference.alias(), idx_reference.alias(), record.alias()
    found: dict[str, set[str]] = {}
    for chunk in _chunks(sorted(ids)):
        statement = (
            sa.select(mine.c.target_id.label("one"), other.c.target_id.label("other"))
            .select_from(
                mine.join(link, link.c.rid == mine.c.rid).join(
                    other, sa.and_(other.c.rid == mine.c.rid, other.c.param == _ITEM)
                )
            )
            .where(
                mine.c.param == _ITEM,
                mine.c.target_id.in_(chunk),
                mine.c.target_type == "Patient",
                other.c.target_type == "Patient",
                other.c.target_id != mine.c.target_id,
                link.c.owner == HUB.institution,
            )
        )
        for row in connection.execute(statement):
            found.setdefault(row.one, set()).add(row.other)
    return found


def _people(connection: Connection, ids: Sequence[str]) -> dict[str, list[str]]:
    """Return for each of *ids* the records that its owner's merges make the same person's, itself first."""
    merged: set[str] = set()
    link = idx_reference
    for chunk in _chunks(ids):
        survives = sa.select(link.c.target_id).where(
            link.c.param == MERGED_INTO, link.c.target_id.in_(chunk), link.c.target_type == "Patient"
        )
        dead = (
            sa.select(record.c.id)
            .select_from(record.join(link, sa.and_(link.c.rid == record.c.rid, link.c.param == MERGED_INTO)))
            .where(record.c.type == "Patient", record.c.id.in_(chunk))
        )
        merged.update(connection.execute(survives).scalars(), connection.execute(dead).scalars())
    # Each of these costs a walk along its merges; almost nobody was merged.
    return {id_: merges.one_person(connection, id_) if id_ in merged else [id_] for id_ in ids}


def _chunks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]
