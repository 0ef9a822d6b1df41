"""Links by which a patient sees studies: what is kept of them, the counters of wrong passwords, and their tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One link. Its secret and its password are kept as hashes only.

    Attributes:
        institution: whose studies they are.
        StudyInstanceUID: the study that was shared; the first that is opened.
        studies: patient id by Study Instance UID of all that the link shows. A study that turns out to be another
            patient's is no longer shown.
        created_by: business code of the person, or the client, that made it.
    """

    id: str
    institution: str
    StudyInstanceUID: str
    studies: Mapping[str, str]
    secret_hash: str
    password_hash: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    purpose: str = ""
    note: str = ""
    revoked_at: datetime | None = None
    revoked_by: str = ""

    def open_at(self, now: datetime) -> bool:
        """Return whether the link is neither revoked nor expired."""
        return self.revoked_at is None and now < self.expires_at

    def state_at(self, now: datetime) -> Literal["open", "expired", "revoked"]:
        """Return what has become of the link."""
        if self.revoked_at is not None:
            return "revoked"
        return "open" if self.open_at(now) else "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How often something may be tried.

    Attributes:
        attempts: failures before a lock.
        lock_s: length of a lock; failures older than that are forgotten.
        ever: failures before it is closed for good; ``None`` = never.
    """

    attempts: int
    lock_s: int
    ever: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What the counters say to one more attempt: it may go on, must wait until a moment, or is closed for good."""

    locked_until: datetime | None = None
    closed: bool = False

    @property
    def allowed(self) -> bool:
        """Whether the attempt may go on."""
        return self.locked_until is None and not self.closed


class Sharing(Protocol):
    def add(self, share: Share) -> None: ...
    def by_secret(self, secret_hash: str) -> Share | None: ...
    def get(self, id: str) -> Share | None: ...
    def of_study(self, institution: str, StudyInstanceUID: str) -> Sequence[Share]:
        """Return the links that were made for a study, newest first; revoked and expired ones included."""
        ...

    def revoke(self, id: str, *, by: str, now: datetime) -> None:
        """End a link and every token that came of it; one that is revoked keeps its date."""
        ...

    def revoke_joining(
        self, institution: str, patients: Collection[str], others: Collection[str], *, by: str, now: datetime
    ) -> Sequence[str]:
        """End the links of *institution* that show studies of *patients* beside studies of *others*; return their ids.

        They were made while the two were one person. A link that is over already is left as it is.
        """
        ...

    def attempt(self, keys: Mapping[str, Limits], *, now: datetime) -> Tried:
        """Count a failure under each of *keys* before it is known to be one, unless one of them is locked or closed.

        So of many attempts at once no more are let through than of as many in turn, whichever process they reach.
        """
        ...

    def succeeded(self, link: str, address: str) -> None:
        """Take the failure back that was counted before: *link* has no row of failures now, *address* one less."""
        ...

    def closed(self, key: str, limits: Limits) -> bool:
        """Return whether *key* is closed for good."""
        ...

    def add_token(self, *, token_hash: str, share: str, expires_at: datetime, now: datetime) -> None: ...
    def token(self, token_hash: str, *, now: datetime) -> Share | None:
        """Return the link that the token came of, while token and link are both open."""
        ...
