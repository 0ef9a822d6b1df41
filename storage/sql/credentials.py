"""OAuth clients and access tokens; secrets and tokens are kept as hashes only (RFC 6749, RFC 6750)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fhir_mappings.json import dumps, loads
from hub.actor import Actor
from hub.clock import to_us
from storage.sql._dialect import insert
from storage.sql.schema import access_token, oauth_client

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx


class SqlCredentials:
    """The :class:`hub.ports.Credentials` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    def add_client(
        self, *, client_id: str, secret_hash: str, institution: str, roles: Sequence[str], now: datetime
    ) -> None:
        """Register a client, or give a registered one a new secret."""
        values = {
            "secret_hash": secret_hash,
            "institution": institution,
            "roles": dumps(sorted(roles)).decode(),
            "active": True,
            "created_at": to_us(now),
        }
        statement = insert(oauth_client, on_sqlite=self._tx.sqlite).values(client_id=client_id, **values)
        self._connection.execute(statement.on_conflict_do_update(index_elements=["client_id"], set_=values))

    def client(self, client_id: str) -> Mapping[str, Any] | None:
        """Return the active client, or ``None``."""
        row = self._connection.execute(
            sa.select(oauth_client).where(oauth_client.c.client_id == client_id, oauth_client.c.active == sa.true())
        ).first()
        if row is None:
            return None
        return {
            "client_id": row.client_id,
            "secret_hash": row.secret_hash,
            "institution": row.institution,
            "roles": tuple(loads(row.roles)),
        }

    def add_token(self, *, token_hash: str, actor: Actor, expires_at: datetime, now: datetime) -> None:
        """Keep a token, and forget those that ended more than a day ago."""
        self._connection.execute(
            sa.insert(access_token).values(
                token_hash=token_hash,
                institution=actor.institution,
                practitioner=actor.practitioner,
                roles=dumps(sorted(actor.roles)).decode(),
                client=actor.client,
                patient=actor.patient,
                issued_at=to_us(now),
                expires_at=to_us(expires_at),
                revoked_at=None,
            )
        )
        self._connection.execute(sa.delete(access_token).where(access_token.c.expires_at < to_us(now) - 86_400_000_000))

    def token(self, token_hash: str, *, now: datetime) -> Actor | None:
        """Return who the token speaks for, or ``None`` when it is unknown, expired or revoked."""
        row = self._connection.execute(
            sa.select(access_token).where(
                access_token.c.token_hash == token_hash,
                access_token.c.expires_at > to_us(now),
                access_token.c.revoked_at.is_(None),
            )
        ).first()
        if row is None:
            return None
        return Actor(
            institution=row.institution,
            practitioner=row.practitioner,
            roles=frozenset(loads(row.roles)),
            client=row.client,
            patient=row.patient,
        )

    def revoke(self, token_hash: str, *, now: datetime) -> None:
        """End a token at once."""
        self._connection.execute(
            sa.update(access_token).where(access_token.c.token_hash == token_hash).values(revoked_at=to_us(now))
        )
