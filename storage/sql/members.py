"""The member directory as the doors read it, distilled from FHIR at import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fhir_mappings.json import dumps, loads
from hub.ports import Member, MemberEndpoint, MemberPractitioner
from storage.sql._dialect import insert
from storage.sql.schema import member, member_endpoint, member_practitioner, setting

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx


class SqlMembers:
    """The :class:`hub.ports.Members` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    def replace(
        self,
        members: Sequence[Member],
        endpoints: Sequence[MemberEndpoint],
        practitioners: Sequence[MemberPractitioner],
    ) -> None:
        """Insert or update the given rows; rows not given stay."""
        for one in members:
            self._upsert(
                member,
                ["code"],
                code=one.code,
                organization_id=one.organization_id,
                name=one.name,
                kind=one.kind,
                active=one.active,
                entitlements=_text(list(one.entitlements)),
                settings=_text(dict(one.settings)),
            )
        for point in endpoints:
            self._upsert(
                member_endpoint,
                ["id"],
                id=point.id,
                member=point.member,
                kind=point.kind,
                address=point.address,
                ae_title=point.ae_title,
                sending_application=point.sending_application,
                sending_facility=point.sending_facility,
                cidr=_text(list(point.cidr)),
                active=point.active,
                settings=_text(dict(point.settings)),
            )
        for person in practitioners:
            self._upsert(
                member_practitioner,
                ["member", "code"],
                member=person.member,
                code=person.code,
                practitioner_id=person.practitioner_id,
                role_id=person.role_id,
                name=person.name,
                roles=_text(list(person.roles)),
                active=person.active,
            )
        # Counted by the database, because two nodes may import at once.
        following = sa.cast(sa.cast(setting.c.value, sa.BigInteger) + 1, sa.Text)
        statement = insert(setting, on_sqlite=self._tx.sqlite).values(key="members.version", value="1")
        self._connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": following}))

    def _upsert(self, table: sa.Table, keys: list[str], **values: Any) -> None:
        statement = insert(table, on_sqlite=self._tx.sqlite).values(**values)
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=keys, set_={k: v for k, v in values.items() if k not in keys}
            )
        )

    def all(self) -> Sequence[Member]:
        """Return every member, by code."""
        return [_member(row) for row in self._connection.execute(sa.select(member).order_by(member.c.code))]

    def get(self, code: str) -> Member | None:
        """Return the member *code*."""
        row = self._connection.execute(sa.select(member).where(member.c.code == code)).first()
        return None if row is None else _member(row)

    def endpoints(self, *, member: str | None = None, kind: str | None = None) -> Sequence[MemberEndpoint]:
        """Return endpoints, by id."""
        statement = sa.select(member_endpoint).order_by(member_endpoint.c.id)
        if member is not None:
            statement = statement.where(member_endpoint.c.member == member)
        if kind is not None:
            statement = statement.where(member_endpoint.c.kind == kind)
        return [
            MemberEndpoint(
                id=row.id,
                member=row.member,
                kind=row.kind,
                address=row.address,
                ae_title=row.ae_title,
                sending_application=row.sending_application,
                sending_facility=row.sending_facility,
                cidr=tuple(loads(row.cidr)),
                active=bool(row.active),
                settings=loads(row.settings),
            )
            for row in self._connection.execute(statement)
        ]

    def practitioner(self, member: str, code: str) -> MemberPractitioner | None:
        """Return the person with business code *code* at *member*."""
        row = self._connection.execute(
            sa.select(member_practitioner).where(
                member_practitioner.c.member == member, member_practitioner.c.code == code
            )
        ).first()
        return None if row is None else _practitioner(row)

    def practitioners(self, member: str | None = None) -> Sequence[MemberPractitioner]:
        """Return people, by member and code."""
        statement = sa.select(member_practitioner).order_by(member_practitioner.c.member, member_practitioner.c.code)
        if member is not None:
            statement = statement.where(member_practitioner.c.member == member)
        return [_practitioner(row) for row in self._connection.execute(statement)]

    def version(self) -> int:
        """Return a number that grows with each change."""
        value = self._connection.execute(sa.select(setting.c.value).where(setting.c.key == "members.version")).scalar()
        return int(value or 0)


def _text(value: Any) -> str:
    return dumps(value).decode()


def _member(row: Any) -> Member:
    return Member(
        code=row.code,
        organization_id=row.organization_id,
        name=row.name,
        kind=row.kind,
        active=bool(row.active),
        entitlements=tuple(loads(row.entitlements)),
        settings=loads(row.settings),
    )


def _practitioner(row: Any) -> MemberPractitioner:
    return MemberPractitioner(
        member=row.member,
        code=row.code,
        practitioner_id=row.practitioner_id,
        role_id=row.role_id,
        name=row.name,
        roles=tuple(loads(row.roles)),
        active=bool(row.active),
    )
