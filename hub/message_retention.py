"""HL7 v2 messages whose member keeps them no longer, and their removal by the operator.

After how many years is a setting of the member (:data:`hub.retention_policy.MESSAGES`); without it nothing goes. What was
made of a message stays. The operator's command has two steps, as for images (:mod:`hub.retention`): the first says what
would go and gives a word for it, the second needs this word and a reason. A message stays while it waits or has failed,
while something that it caused is not delivered, while an open Task is about its patient or a study of that patient is on
legal hold, and where it marks how far a source was read.

Removal goes in small transactions, so that nobody who brings messages waits. It can be stopped, and started again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING

from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.askers import is_operator
from hub.deletion import name_of, reason_of
from hub.errors import Category, HubError
from hub.pending import DOORS
from hub.ports import AuditLine, Old, StudyKey, Tx
from hub.retention import years_later
from hub.retention_policy import MESSAGES
from hub.search import parse
from hub.workflows.base import ENDED

if TYPE_CHECKING:
    from hub.boot import Services

#: Messages of one transaction.
_STEP = 500
_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What would go.

    Attributes:
        years: how long the member keeps messages, ``None`` for ever.
        before: what came earlier would go.
        size: bytes of the messages' bodies.
        kept: how many stay all the same, by what stands against it: ``open``, ``delivery``, ``mark``, ``task``, ``hold``.
    """

    member: str
    years: int | None
    before: datetime | None
    count: int = 0
    size: int = 0
    last: int = 0
    kept: Mapping[str, int]

    @property
    def word(self) -> str:
        """The word that stands for removing exactly this."""
        said = f"{self.member}|{self.before}|{self.count}|{self.size}|{self.last}"
        return hashlib.sha256(said.encode()).hexdigest()[:12]


class MessageRetention:
    """What has run out, and its removal."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def due(self, actor: Actor, member: str) -> Due:
        """Return what of *member* would go now; removes nothing.

        Raises:
            HubError: forbidden unless *actor* runs the hub; not-found when there is no such member.
        """
        _require_operator(actor)
        years, before = self._limit(member)
        if before is None:
            return Due(member=member, years=years, before=before, kept={})
        protected = self._services.database.read(lambda tx: _protected(tx, member))
        count = size = last = above = 0
        kept: Counter[str] = Counter()
        while page := self._services.database.read(lambda tx, above=above: _old(tx, member, before, above)):  # type: ignore[misc]
            above = page[-1].seq
            for one in page:
                if why := one.why_kept or protected.get(one.patient_id, ""):
                    kept[why] += 1
                else:
                    count, size, last = count + 1, size + one.size, one.seq
        return Due(member=member, years=years, before=before, count=count, size=size, last=last, kept=dict(kept))

    def remove(self, actor: Actor, member: str, *, reason: str, word: str) -> int:
        """Remove what :attr:`Due.word` was given for and return how many messages went; durable on return.

        Raises:
            HubError: as :meth:`due`; incorrect without a reason; conflict when what would go is no longer what the word
                was given for, or when a study was put on hold meanwhile. What went before that is gone.
        """
        why = reason_of(reason)
        due = self.due(actor, member)
        before = due.before
        if before is None or not due.count or word != due.word:
            raise HubError(
                Category.CONFLICT,
                "What would be removed is not what the word was given for.",
                where="confirm",
                remedy="List it again without the word, look at it, and use the new word.",
            )
        database = self._services.database
        protected, holds = database.read(lambda tx: (_protected(tx, member), _holds(tx, member)))
        removed = above = 0

        def step(tx: Tx) -> tuple[int, int | None]:
            if _holds(tx, member) != holds:
                raise HubError(Category.CONFLICT, "A study was put on hold or released meanwhile.", where=member)
            page = [one for one in _old(tx, member, before, above) if one.seq <= due.last]
            going = [one.seq for one in page if not (one.why_kept or one.patient_id in protected)]
            gone = tx.journal.remove(going)
            if gone:
                tx.audit.write(
                    AuditLine(
                        type="hl7v2",
                        action="D",
                        subtype="expire-messages",
                        actor=actor,
                        recorded_at=self._services.clock(),
                        count=gone,
                        detail=f"{member} messages {going[0]} to {going[-1]} by {name_of(actor)}: {why}",
                    )
                )
            return gone, page[-1].seq if page else None

        while True:
            gone, after = database.write(step)
            removed += gone
            if after is None:
                break
            above = after
        while database.write(lambda tx: tx.journal.reclaim()):
            pass
        return removed

    def _limit(self, member: str) -> tuple[int | None, datetime | None]:
        found = self._services.database.read(lambda tx: tx.members.get(member))
        if found is None:
            raise HubError(
                Category.NOT_FOUND, "There is no such member.", where=member[:64], remedy="See `hub members list`."
            )
        if MESSAGES not in found.settings:
            return None, None
        # It was checked when the member was imported. A day's begin, so that a word is good for that day.
        years = int(str(found.settings[MESSAGES]))
        day = years_later(self._services.clock().astimezone(UTC).date(), -years)
        return years, datetime.combine(day, time(), UTC)


def _old(tx: Tx, member: str, before: datetime, above: int) -> Sequence[Old]:
    return tx.journal.old(member, doors=DOORS, before=before, above=above, limit=_STEP)


def _holds(tx: Tx, member: str) -> frozenset[StudyKey]:
    return frozenset(one.key for one in tx.imaging.deletions.holds(owner=member))


def _protected(tx: Tx, member: str) -> dict[str, str]:
    """Return the ids of Patients whose messages stay, and why: all records of each person."""
    found: dict[str, str] = {}
    states = ("status:not", ",".join(sorted(ENDED | {"entered-in-error"})))
    cursor: str | None = None
    patients: dict[str, str] = {}
    while True:
        query = parse("Task", [states, ("_count", str(_PAGE)), *([("_cursor", cursor)] if cursor else [])])
        page = tx.records.search(query, UNRESTRICTED)
        patients |= {one.patient_id: "task" for one in page.matches if one.patient_id}
        cursor = page.next_cursor
        if cursor is None:
            break
    for key in _holds(tx, member):
        study = tx.imaging.study(key)
        if study is not None and study["patient_id"]:
            patients[study["patient_id"]] = "hold"
    for patient, why in patients.items():
        for one in tx.records.one_person(patient):
            found[one] = why if found.get(one) != "hold" else "hold"
    return found


def _require_operator(actor: Actor) -> None:
    if not is_operator(actor):
        raise HubError(
            Category.FORBIDDEN,
            "Only the operator of the hub may list or remove what has run out.",
            where="Authorization",
            remedy="Run `hub messages expire` where the hub runs.",
        )
