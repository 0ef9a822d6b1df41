"""What has run out of the time that its member keeps images for, and its removal by the operator.

The policy is a member's own (:mod:`hub.retention_policy`) and counts from the patient's last study there. What has run
out is a list first. Removing is the operator's command in two steps: the first says what would go and gives a word for
exactly that, the second needs this word and a reason. What is on legal hold, lent by an open grant, at work in an open
Task or contested stays, and so does what arrived within the last year, however old it says it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from fhir_mappings.json import loads
from hub import conflicts
from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.askers import is_operator
from hub.deletion import name_of, reason_of
from hub.errors import Category, HubError
from hub.imaging_ids import STUDY_QUIET
from hub.ports import AuditLine, ObjectRef, StudyKey, Tx
from hub.ports.imaging import Kept
from hub.retention_policy import SETTING, Policy
from hub.search import parse
from hub.workflows.base import ENDED

if TYPE_CHECKING:
    from hub.boot import Services

#: What came this late is not judged yet: it may have been fetched for work that goes on.
GRACE = timedelta(days=365)
#: Conflicts that may be open at once; far more than anybody leaves lying.
_MOST_CONFLICTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """A study whose time is over.

    Attributes:
        last: day of the patient's last study at the institution.
        ended: day on which the time was over.
        why_kept: what stands against its removal: ``hold``, ``grant``, ``task``, ``conflict``.
    """

    kept: Kept
    years: int
    last: date
    ended: date
    why_kept: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What a removal came to."""

    studies: int
    instances: int
    objects: Sequence[ObjectRef]


class Retention:
    """The list of what has run out, and its removal."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def policy(self, member: str) -> Policy:
        """Return the policy of *member*.

        Raises:
            HubError: not-found when there is no such member.
        """
        found = self._services.database.read(lambda tx: tx.members.get(member))
        if found is None:
            raise HubError(
                Category.NOT_FOUND, "There is no such member.", where=member[:64], remedy="See `hub members list`."
            )
        # It was checked when the member was imported.
        return Policy.of(str(found.settings.get(SETTING, "")))

    def expired(self, actor: Actor, member: str) -> Sequence[Expired]:
        """Return the member's studies whose time is over, the oldest first.

        Raises:
            HubError: forbidden unless *actor* runs the hub; not-found when there is no such member.
        """
        _require_operator(actor)
        policy = self.policy(member)
        return self._services.database.read(lambda tx: self._expired(tx, member, policy))

    def remove(self, actor: Actor, member: str, *, reason: str, word: str) -> Removed:
        """Remove the studies for which :func:`word_for` gave *word*; durable on return.

        Their objects are left to the sweep, which removes what no row names.

        Raises:
            HubError: as :meth:`expired`; incorrect without a reason; conflict when what would go is no longer what the
                word was given for. Studies before the one that failed are gone then.
        """
        why = reason_of(reason)
        going = [one for one in self.expired(actor, member) if not one.why_kept]
        if not going or word != word_for(going):
            raise HubError(
                Category.CONFLICT,
                "What would be removed is not what the word was given for.",
                where="confirm",
                remedy="List it again without the word, look at it, and use the new word.",
            )
        policy = self.policy(member)
        objects: list[ObjectRef] = []
        for one in going:
            objects += self._services.database.write(
                lambda tx, study=one: self._remove(tx, actor, study, policy, why)  # type: ignore[misc]
            )
        return Removed(studies=len(going), instances=sum(one.kept.instances for one in going), objects=objects)

    def _remove(self, tx: Tx, actor: Actor, study: Expired, policy: Policy, reason: str) -> Sequence[ObjectRef]:
        key, now = study.kept.key, self._services.clock()
        tx.imaging.hold_arrivals(key)
        # Whatever changed since the list was made is seen here, in the transaction that removes.
        if all(one.kept != study.kept or one.why_kept for one in self._expired(tx, key.owner, policy, only=key)):
            raise HubError(Category.CONFLICT, "The study has changed meanwhile; it stays.", where=key.StudyInstanceUID)
        objects = tx.imaging.deletions.purge(key, reason=reason, by=name_of(actor), at=now)
        tx.timers.cancel(STUDY_QUIET, f"{key.owner}|{key.StudyInstanceUID}")
        tx.records.delete("ImagingStudy", study.kept.resource_id, owner=key.owner)
        tx.audit.write(
            AuditLine(
                type="dicom",
                action="D",
                subtype="expire-study",
                actor=actor,
                recorded_at=now,
                patients=((key.owner, study.kept.patient_id),),
                entities=(key.StudyInstanceUID,),
                count=study.kept.instances,
                detail=reason,
            )
        )
        return objects

    # --- what has run out ------------------------------------------------------------------------------------

    def _expired(self, tx: Tx, owner: str, policy: Policy, *, only: StudyKey | None = None) -> list[Expired]:
        now = self._services.clock()
        today = now.date()
        found: list[Expired] = []
        contested = _contested(tx)
        people: dict[str, tuple[date, list[str]]] = {}
        first = years_later(today, -policy.least).strftime("%Y%m%d")
        for kept in tx.imaging.deletions.older(owner, day=first, before=now - GRACE, only=only):
            if kept.patient_id not in people:
                person = tx.records.one_person(kept.patient_id)
                people[kept.patient_id] = (self._last(tx, owner, person), person)
            last, person = people[kept.patient_id]
            years = policy.of_study(kept.modalities)
            ended = years_later(max(last, _day(kept)), years)
            if ended < today:
                why = self._why_kept(tx, kept, person, contested)
                found.append(Expired(kept=kept, years=years, last=last, ended=ended, why_kept=why))
        return found

    def _last(self, tx: Tx, owner: str, person: Sequence[str]) -> date:
        """Return the day of the person's last study at *owner*, told by its receipt where the image tells none."""
        return max(map(_day, tx.imaging.deletions.of_patients(owner, person)), default=date.min)

    def _why_kept(self, tx: Tx, kept: Kept, person: Sequence[str], contested: frozenset[StudyKey]) -> tuple[str, ...]:
        why = []
        if tx.imaging.deletions.held(kept.key) is not None:
            why.append("hold")
        if tx.imaging.deletions.granted(kept, person, now=self._services.clock()):
            why.append("grant")
        targets = [("patient", f"Patient/{one}") for one in person]
        targets.append(("focus", f"ImagingStudy/{kept.resource_id}"))
        if any(_open_tasks(tx, [target], limit=1) for target in targets):
            why.append("task")
        if kept.key in contested:
            why.append("conflict")
        return tuple(why)


def word_for(going: Sequence[Expired]) -> str:
    """Return the word that stands for removing exactly *going*."""
    said = sorted(
        f"{one.kept.key.owner}|{one.kept.key.StudyInstanceUID}|{one.kept.instances}|{one.kept.size}" for one in going
    )
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:12]


def years_later(day: date, years: int) -> date:
    """Return the same day *years* later; 29 February becomes 1 March where there is none."""
    year = day.year + years
    if year > date.max.year:
        return date.max
    try:
        return day.replace(year=max(year, 1))
    except ValueError:
        return date(year, 3, 1)


def _day(kept: Kept) -> date:
    """Return the day of a study; what tells no date, or one that has not come yet, was made when it was received."""
    received = kept.received_at.date()
    try:
        said = date(int(kept.StudyDate[:4]), int(kept.StudyDate[4:6]), int(kept.StudyDate[6:8]))
    except ValueError:
        return received
    return min(said, received)


def _open_tasks(tx: Tx, keys: Sequence[tuple[str, str]], *, limit: int) -> Sequence[Mapping[str, Any]]:
    states = [("status:not", ",".join(sorted(ENDED | {"entered-in-error"}))), ("_count", str(limit))]
    return [loads(one.body) for one in tx.records.search(parse("Task", [*keys, *states]), UNRESTRICTED).matches]


def _contested(tx: Tx) -> frozenset[StudyKey]:
    """Return the studies about which a conflict is open.

    Raises:
        HubError: conflict when there are more than can be looked at, so that none is missed.
    """
    kinds = f"{conflicts.PATIENT},{conflicts.NAME},{conflicts.BYTES}"
    found = _open_tasks(tx, [("code", kinds)], limit=_MOST_CONFLICTS)
    if len(found) >= _MOST_CONFLICTS:
        raise HubError(
            Category.CONFLICT, "Too many conflicts are open.", where="work items", remedy="Settle some of them first."
        )
    return frozenset(_study_of(one) for one in found)


def _study_of(task: Mapping[str, Any]) -> StudyKey:
    """Return the study that the work item of a conflict names."""
    said = {str(one["type"].get("text", "")): str(one.get("valueString", "")) for one in task.get("input", ())}
    owner = next((value for name, value in said.items() if name.startswith("来源机构")), "")
    study = next((value for name, value in said.items() if name.startswith("检查")), "")
    return StudyKey(owner=owner, StudyInstanceUID=study)


def _require_operator(actor: Actor) -> None:
    if not is_operator(actor):
        raise HubError(
            Category.FORBIDDEN,
            "Only the operator of the hub may list or remove what has run out.",
            where="Authorization",
            remedy="Run `hub studies expired` where the hub runs.",
        )
