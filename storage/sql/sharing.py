"""Links by which patients see studies, their counters and their tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hub.clock import from_us, to_us
from hub.ports.sharing import Limits, Share, Tried
from storage.sql._dialect import insert
from storage.sql.schema import share_attempt, share_link, share_study, share_token

if TYPE_CHECKING:
    from storage.sql.transaction import SqlTx

_DAY_US = 86_400_000_000
#: Counters that nobody has touched for as long as a link can live are forgotten.
_FORGOTTEN_US = 365 * _DAY_US


class SqlSharing:
    """The :class:`hub.ports.sharing.Sharing` of one transaction."""

    def __init__(self, tx: SqlTx) -> None:
        self._tx = tx
        self._connection = tx.connection

    # --- links -----------------------------------------------------------------------------------------------

    def add(self, share: Share) -> None:
        """Keep a new link."""
        self._connection.execute(
            sa.insert(share_link).values(
                id=share.id,
                institution=share.institution,
                StudyInstanceUID=share.StudyInstanceUID,
                secret_hash=share.secret_hash,
                password_hash=share.password_hash,
                created_by=share.created_by,
                created_at=to_us(share.created_at),
                expires_at=to_us(share.expires_at),
                purpose=share.purpose,
                note=share.note,
                revoked_at=None,
                revoked_by="",
            )
        )
        self._connection.execute(
            sa.insert(share_study),
            [
                {"share": share.id, "StudyInstanceUID": uid, "patient_id": patient}
                for uid, patient in share.studies.items()
            ],
        )

    def by_secret(self, secret_hash: str) -> Share | None:
        """Return the link whose secret has this hash, revoked or expired ones included."""
        return self._first(share_link.c.secret_hash == secret_hash)

    def get(self, id: str) -> Share | None:
        """Return the link, revoked or expired ones included."""
        return self._first(share_link.c.id == id)

    def of_study(self, institution: str, StudyInstanceUID: str) -> Sequence[Share]:
        """Return the links that were made for a study, newest first."""
        rows = self._connection.execute(
            sa.select(share_link)
            .where(share_link.c.institution == institution, share_link.c.StudyInstanceUID == StudyInstanceUID)
            .order_by(share_link.c.created_at.desc(), share_link.c.id)
        ).all()
        return [self._share(row) for row in rows]

    def revoke(self, id: str, *, by: str, now: datetime) -> None:
        """End a link."""
        self._connection.execute(
            sa.update(share_link)
            .where(share_link.c.id == id, share_link.c.revoked_at.is_(None))
            .values(revoked_at=to_us(now), revoked_by=by)
        )

    def revoke_joining(
        self, institution: str, patients: Collection[str], others: Collection[str], *, by: str, now: datetime
    ) -> Sequence[str]:
        """End the links that show studies of *patients* beside studies of *others*, and return their ids."""
        moment = to_us(now)

        def shows(ids: Collection[str]) -> sa.ColumnElement[bool]:
            shown = sa.select(share_study.c.share).where(share_study.c.patient_id.in_(sorted(ids)))
            return share_link.c.id.in_(shown)

        statement = sa.select(share_link.c.id).where(
            share_link.c.institution == institution,
            share_link.c.revoked_at.is_(None),
            share_link.c.expires_at > moment,
            shows(patients),
            shows(others),
        )
        found = sorted(self._connection.execute(statement).scalars())
        for id_ in found:
            self.revoke(id_, by=by, now=now)
        return found

    def _first(self, *conditions: sa.ColumnElement[bool]) -> Share | None:
        row = self._connection.execute(sa.select(share_link).where(*conditions)).first()
        return None if row is None else self._share(row)

    def _share(self, row: Any) -> Share:
        studies = self._connection.execute(
            sa.select(share_study).where(share_study.c.share == row.id).order_by(share_study.c.StudyInstanceUID)
        )
        return Share(
            id=row.id,
            institution=row.institution,
            StudyInstanceUID=row.StudyInstanceUID,
            studies={one.StudyInstanceUID: one.patient_id for one in studies},
            secret_hash=row.secret_hash,
            password_hash=row.password_hash,
            created_by=row.created_by,
            created_at=from_us(row.created_at),
            expires_at=from_us(row.expires_at),
            purpose=row.purpose,
            note=row.note,
            revoked_at=None if row.revoked_at is None else from_us(row.revoked_at),
            revoked_by=row.revoked_by,
        )

    # --- counters --------------------------------------------------------------------------------------------

    def attempt(self, keys: Mapping[str, Limits], *, now: datetime) -> Tried:
        """Count a failure under each of *keys*, unless one of them is locked or closed."""
        moment = to_us(now)
        c = share_attempt.c
        # Two that take the same rows in one order cannot wait for each other.
        ordered = sorted(keys)
        statement = insert(share_attempt, on_sqlite=self._tx.sqlite)
        for key in ordered:
            # The update changes nothing; it takes the row for this transaction.
            self._connection.execute(
                statement.values(key=key, failures=0, ever=0, locked_until=0, last_at=moment).on_conflict_do_update(
                    index_elements=["key"], set_={"failures": share_attempt.c.failures}
                )
            )
        rows = {row.key: row for row in self._connection.execute(sa.select(share_attempt).where(c.key.in_(ordered)))}
        if any(_closed(rows[key].ever, keys[key]) for key in ordered):
            return Tried(closed=True)
        locked = max(rows[key].locked_until for key in ordered)
        if locked > moment:
            return Tried(locked_until=from_us(locked))
        for key in ordered:
            row, limits = rows[key], keys[key]
            lock_us = limits.lock_s * 1_000_000
            failures = 1 + (row.failures if moment - row.last_at < lock_us else 0)
            self._connection.execute(
                sa.update(share_attempt)
                .where(c.key == key)
                .values(
                    failures=failures,
                    ever=row.ever + 1,
                    locked_until=moment + lock_us if failures >= limits.attempts else 0,
                    last_at=moment,
                )
            )
        self._connection.execute(sa.delete(share_attempt).where(c.last_at < moment - _FORGOTTEN_US))
        return Tried()

    def succeeded(self, link: str, address: str) -> None:
        """Take back what :meth:`attempt` counted; whoever knows one password cannot clear the address of other guesses."""
        c = share_attempt.c
        for key, left in ((link, 0), (address, c.failures - 1)):
            # An attempt that was the last before the lock was right after all.
            self._connection.execute(
                sa.update(share_attempt)
                .where(c.key == key, c.ever > 0)
                .values(
                    failures=sa.case((c.failures > 0, left), else_=0),
                    ever=c.ever - 1,
                    locked_until=0,
                )
            )

    def closed(self, key: str, limits: Limits) -> bool:
        """Return whether *key* is closed for good."""
        ever = self._connection.execute(sa.select(share_attempt.c.ever).where(share_attempt.c.key == key)).scalar()
        return ever is not None and _closed(ever, limits)

    # --- tokens ----------------------------------------------------------------------------------------------

    def add_token(self, *, token_hash: str, share: str, expires_at: datetime, now: datetime) -> None:
        """Keep a token, and forget those that ended more than a day ago."""
        self._connection.execute(
            sa.insert(share_token).values(
                token_hash=token_hash, share=share, issued_at=to_us(now), expires_at=to_us(expires_at)
            )
        )
        self._connection.execute(sa.delete(share_token).where(share_token.c.expires_at < to_us(now) - _DAY_US))

    def token(self, token_hash: str, *, now: datetime) -> Share | None:
        """Return the link that the token came of, while token and link are both open."""
        id_ = self._connection.execute(
            sa.select(share_token.c.share).where(
                share_token.c.token_hash == token_hash, share_token.c.expires_at > to_us(now)
            )
        ).scalar()
        share = None if id_ is None else self.get(id_)
        return share if share is not None and share.open_at(now) else None


def _closed(ever: int, limits: Limits) -> bool:
    return limits.ever is not None and ever >= limits.ever
