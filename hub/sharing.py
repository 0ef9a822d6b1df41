"""Share links: a patient opens one study of a member, with a link and a password, and nothing else.

Theory of operation. The link carries 256 random bits; they and the password's Argon2id hash are all that admits, and the
hub keeps neither in clear. Wrong passwords are counted in the database before they are checked, per link and per
address, so that many at once, at any number of processes, are as few as in turn. A link that nobody made is asked for its
password, counted and locked like one that somebody did. The right password gives a short-lived token whose scope
(:class:`hub.access.Scope`) is the link's studies; the predicate itself asks whether the link is still open, so revoking
one ends its tokens with the next statement. Every attempt and every retrieval leaves an audit line under the client
``share:<id>``; secrets and passwords stand in none.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from hub.access import Scope
from hub.actor import HUB, Actor
from hub.directory import NOBODY, PASSWORDS, token_hash
from hub.errors import Category, HubError
from hub.ports import AuditLine, StudyKey, Tx
from hub.ports.sharing import Limits, Share
from hub.share_password import is_right

if TYPE_CHECKING:
    from hub.boot import Services

#: Who at a member may make a link; its administrator and auditor may see them, its administrator also end them.
SHARERS = frozenset({"doctor", "physician", "desk"})
_LOOKERS = SHARERS | {"admin", "auditor"}
_ENDERS = SHARERS | {"admin"}
#: What the token of a link begins with, so that other doors know it without a look into the database.
TOKEN_PREFIX = "share."  # noqa: S105 - the beginning of every such token, and no secret
_PASSWORD_DIGITS = 6
#: Longest text that is taken for a secret; what the hub makes is shorter.
_MAX_TEXT = 128
_MAX_NOTE = 500
#: Studies of one link. A person with more has the earlier ones left out.
MAX_STUDIES = 200
_MAX_ACCESSES = 200


class Outcome(Enum):
    """What came of an attempt to open a link."""

    #: The password was right.
    OPENED = "opened"
    #: No such link, or not its password; which of the two is not said.
    WRONG = "wrong"
    #: Too many wrong passwords; it may be tried again later.
    LOCKED = "locked"
    #: Too many wrong passwords for good.
    CLOSED = "closed"
    #: The link is revoked or expired.
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new link; secret and password are told this once."""

    share: Share
    url: str
    password: str
    institution: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The answer to an attempt.

    Attributes:
        institution: name of the member to ask, where the link is or was one.
        token: bearer token for the study, when it was opened.
        until: when a lock ends.
    """

    outcome: Outcome
    institution: str = ""
    token: str = ""
    StudyInstanceUID: str = ""
    until: datetime | None = None


class SharingService:
    """Making, opening, listing and revoking links; safe for many threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        settings = services.settings
        self._link_limits = Limits(
            attempts=settings.share_attempts, lock_s=settings.share_lock_s, ever=settings.share_attempts_ever
        )
        self._address_limits = Limits(attempts=settings.share_address_attempts, lock_s=settings.share_lock_s)

    # --- for the institution ---------------------------------------------------------------------------------

    def make(
        self,
        actor: Actor,
        imaging_study: str,
        *,
        days: int | None = None,
        history: bool = False,
        purpose: str = "",
        note: str = "",
        correlation_id: str = "",
    ) -> Made:
        """Return a new link to the actor's institution's own study; durable on return.

        Args:
            imaging_study: id of the ImagingStudy.
            days: how long it is open; ``None`` = as the setting has it.
            history: also the other studies that the institution has of the patient now; later ones are not added.

        Raises:
            HubError: forbidden for other roles, not-found unless the study is the institution's own, incorrect for a
                time that is too long.
        """
        self._may(actor, SHARERS, "share")
        settings = self._services.settings
        days = min(settings.share_days, settings.share_max_days) if days is None else days
        if not 1 <= days <= settings.share_max_days:
            raise HubError(
                Category.INCORRECT,
                f"A link is open for 1 to {settings.share_max_days} days.",
                where="days",
                remedy="Choose fewer days.",
                status=422,
            )
        if max(len(purpose), len(note)) > _MAX_NOTE:
            raise HubError(
                Category.INCORRECT, f"Purpose and note have at most {_MAX_NOTE} characters.", where="note", status=422
            )
        now = self._services.clock()
        secret = secrets.token_urlsafe(32)
        password = "".join(secrets.choice("0123456789") for _ in range(_PASSWORD_DIGITS))
        password_hash, id_ = PASSWORDS.hash(password), str(uuid.uuid4())

        def work(tx: Tx) -> Share:
            study = self._own_study(tx, actor, imaging_study)
            share = Share(
                id=id_,
                institution=actor.institution,
                StudyInstanceUID=study["StudyInstanceUID"],
                studies=_studies(tx, study, history=history),
                secret_hash=token_hash(secret),
                password_hash=password_hash,
                created_by=_name(actor),
                created_at=now,
                expires_at=now + timedelta(days=days),
                purpose=purpose.strip(),
                note=note.strip(),
            )
            tx.sharing.add(share)
            tx.audit.write(self._line(actor, "C", "share", share, "made", correlation_id=correlation_id))
            return share

        share = self._services.database.write(work)
        url = f"{settings.public()}/share/{secret}"
        return Made(share=share, url=url, password=password, institution=self._institution(share))

    def of_study(self, actor: Actor, imaging_study: str) -> Sequence[tuple[Share, Sequence[Mapping[str, Any]]]]:
        """Return the links made for a study, newest first, each with the AuditEvents of what was done by it; audited.

        Raises:
            HubError: forbidden for other roles, not-found unless the study is the institution's own.
        """
        self._may(actor, _LOOKERS, "shares")

        def work(tx: Tx) -> tuple[Mapping[str, Any], list[tuple[Share, Sequence[Mapping[str, Any]]]]]:
            study = self._own_study(tx, actor, imaging_study)
            return study, [
                (
                    one,
                    tx.audit.search(
                        {"who": client_of(one.id), "since": one.created_at.isoformat()},
                        institution=one.institution,
                        limit=_MAX_ACCESSES,
                        before=None,
                    ),
                )
                for one in tx.sharing.of_study(actor.institution, study["StudyInstanceUID"])
            ]

        study, found = self._services.database.read(work)
        line = AuditLine(
            type="rest",
            action="R",
            subtype="shares",
            actor=actor,
            recorded_at=self._services.clock(),
            patients=((study["owner"], study["patient_id"]),),
            entities=(study["StudyInstanceUID"],),
            count=len(found),
        )
        self._services.database.write(lambda tx: tx.audit.write(line))
        return found

    def revoke(self, actor: Actor, imaging_study: str, share: str, *, correlation_id: str = "") -> Share:
        """End a link and its tokens at once; durable on return, and harmless when it has ended already.

        Raises:
            HubError: forbidden for other roles, not-found unless it is a link to this study of the institution's own.
        """
        self._may(actor, _ENDERS, "share-revoke")

        def work(tx: Tx) -> Share:
            study = self._own_study(tx, actor, imaging_study)
            known = tx.sharing.get(share)
            if (
                known is None
                or known.institution != actor.institution
                or known.StudyInstanceUID != study["StudyInstanceUID"]
            ):
                raise HubError(Category.NOT_FOUND, "There is no such link.", where="share")
            tx.sharing.revoke(share, by=_name(actor), now=self._services.clock())
            tx.audit.write(self._line(actor, "D", "share-revoke", known, "revoked", correlation_id=correlation_id))
            ended = tx.sharing.get(share)
            assert ended is not None
            return ended

        return self._services.database.write(work)

    def _may(self, actor: Actor, roles: frozenset[str], subtype: str) -> None:
        if actor.share is None and actor.patient is None and actor.roles & roles:
            return
        line = AuditLine(
            type="rest", action="E", subtype=subtype, actor=actor, recorded_at=self._services.clock(), outcome="8"
        )
        self._services.database.write(lambda tx: tx.audit.write(line))
        raise HubError(
            Category.FORBIDDEN,
            "Your role does not do this with share links.",
            where="role",
            remedy=f"Ask somebody who is one of {', '.join(sorted(roles))}.",
        )

    def _own_study(self, tx: Tx, actor: Actor, imaging_study: str) -> Mapping[str, Any]:
        study = tx.imaging.study_by_resource(actor.institution, imaging_study)
        if study is None:
            raise HubError(
                Category.NOT_FOUND,
                "Your institution has no such study.",
                where="ImagingStudy",
                remedy="Only the institution that made the images shares them.",
            )
        return study

    def _institution(self, share: Share) -> str:
        member = self._services.directory.member(share.institution)
        return member.name if member is not None else share.institution

    # --- for the patient -------------------------------------------------------------------------------------

    def look(self, secret: str) -> Opening:
        """Return whether a link would ask for its password (WRONG: not given yet) or is GONE or CLOSED."""
        digest = token_hash(secret[:_MAX_TEXT])
        now = self._services.clock()

        def work(tx: Tx) -> tuple[Share | None, bool]:
            return tx.sharing.by_secret(digest), tx.sharing.closed(_link(digest), self._link_limits)

        share, closed = self._services.database.read(work)
        if share is not None and not share.open_at(now):
            return Opening(outcome=Outcome.GONE, institution=self._institution(share))
        return Opening(outcome=Outcome.CLOSED if closed else Outcome.WRONG)

    def open(self, secret: str, password: str, *, address: str, correlation_id: str = "") -> Opening:
        """Return what comes of *password*; audited whatever it is, durable on return."""
        digest = token_hash(secret[:_MAX_TEXT])
        keys = {_link(digest): self._link_limits, _address(address): self._address_limits}
        now = self._services.clock()
        share = self._services.database.read(lambda tx: tx.sharing.by_secret(digest))
        if share is not None and not share.open_at(now):
            self._note(share, "gone", address, correlation_id)
            return Opening(outcome=Outcome.GONE, institution=self._institution(share))
        tried = self._services.database.write(lambda tx: tx.sharing.attempt(keys, now=now))
        if not tried.allowed:
            self._note(share, "closed" if tried.closed else "locked", address, correlation_id)
            return Opening(outcome=Outcome.CLOSED if tried.closed else Outcome.LOCKED, until=tried.locked_until)
        # A link that nobody made costs the same time as a wrong password.
        if not is_right(share.password_hash if share is not None else NOBODY, password) or share is None:
            self._note(share, "wrong password", address, correlation_id)
            return Opening(outcome=Outcome.WRONG)
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        expires_at = min(share.expires_at, now + timedelta(seconds=self._services.settings.share_token_s))
        opened = share

        def work(tx: Tx) -> bool:
            known = tx.sharing.get(opened.id)
            # It may have been revoked while the password was checked.
            if known is None or not known.open_at(now):
                return False
            tx.sharing.succeeded(_link(digest), _address(address))
            tx.sharing.add_token(token_hash=token_hash(token), share=known.id, expires_at=expires_at, now=now)
            actor = _visitor(known, address)
            tx.audit.write(self._line(actor, "E", "share-open", known, "opened", correlation_id=correlation_id))
            return True

        if not self._services.database.write(work):
            self._note(share, "gone", address, correlation_id)
            return Opening(outcome=Outcome.GONE, institution=self._institution(share))
        return Opening(
            outcome=Outcome.OPENED,
            institution=self._institution(share),
            token=token,
            StudyInstanceUID=share.StudyInstanceUID,
        )

    def actor_for(self, token: str) -> Actor | None:
        """Return who the token of a link speaks for; ``None`` when it or the link has ended. Never remembered."""
        digest = token_hash(token)
        share = self._services.database.read(lambda tx: tx.sharing.token(digest, now=self._services.clock()))
        if share is None or self._services.directory.member(share.institution) is None:
            return None
        return _visitor(share, "")

    def _note(self, share: Share | None, detail: str, address: str, correlation_id: str) -> None:
        actor = _visitor(share, address) if share is not None else _stranger(address)
        line = self._line(actor, "E", "share-open", share, detail, outcome="4", correlation_id=correlation_id)
        self._services.database.write(lambda tx: tx.audit.write(line))

    def _line(
        self,
        actor: Actor,
        action: str,
        subtype: str,
        share: Share | None,
        detail: str,
        *,
        outcome: str = "0",
        correlation_id: str = "",
    ) -> AuditLine:
        return AuditLine(
            type="login" if subtype == "share-open" else "rest",
            action=action,
            subtype=subtype,
            actor=actor,
            recorded_at=self._services.clock(),
            outcome=outcome,
            patients=tuple(sorted({(share.institution, one) for one in share.studies.values()})) if share else (),
            entities=tuple(share.studies)[:MAX_STUDIES] if share else (),
            correlation_id=correlation_id,
            detail=f"share {share.id}: {detail}" if share else f"unknown link: {detail}",
        )


def client_of(share: str) -> str:
    """Return the name under which the audit trail has what was done by a link."""
    return f"share:{share}"


def _studies(tx: Tx, study: Mapping[str, Any], *, history: bool) -> Mapping[str, str]:
    """Return patient id by UID of what a link shows: the study, and with *history* the person's others, newest first."""
    key = StudyKey(owner=study["owner"], StudyInstanceUID=study["StudyInstanceUID"])
    found = {key.StudyInstanceUID: str(study["patient_id"])}
    if history:
        scope = Scope(institution=key.owner, patient=str(study["patient_id"]))
        for row in tx.imaging.studies(scope, [], limit=MAX_STUDIES - 1, owner=key.owner):
            found[row["StudyInstanceUID"]] = str(row["patient_id"])
    return found


def _visitor(share: Share, address: str) -> Actor:
    return Actor(
        institution=share.institution,
        roles=frozenset({"patient"}),
        client=client_of(share.id),
        address=address,
        share=share.id,
    )


def _stranger(address: str) -> Actor:
    """Return who tries a link that nobody made; the line is the operator's to see."""
    return Actor(institution=HUB.institution, roles=frozenset({"patient"}), client="share", address=address)


def _name(actor: Actor) -> str:
    return actor.practitioner or actor.client or actor.institution


def _link(digest: str) -> str:
    return f"link:{digest}"


def _address(address: str) -> str:
    return f"address:{address}"
