"""Marked deleted, brought back, held: what an institution may do about images of its own that should not be seen.

Nothing is ever removed here. A mark takes instances out of every search, retrieval, count and cache and out of the
ImagingStudy at once; row and bytes stay, and so do the reason and who gave it. PS3.18 knows no DELETE; this is the
meaning of IHE IOCM (RAD TF-2, RAD-66, "Rejected for Quality Reasons" or "for Patient Safety Reasons") without its
object.

What a sender brings again is judged as hospitals expect it, because a PACS that was told nothing goes on resending:

- the same data set is answered success and stays deleted; the journal flags its arrival ``deleted``;
- other bytes under a marked SOP Instance UID are kept, shown to nobody, and raise the work item of hub.conflicts;
- new instances of the study, the corrected ones, are shown as any other.

A study on legal hold can neither be marked deleted nor expire (hub.retention).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from hub.access import UNRESTRICTED, Scope, scope_of
from hub.actor import Actor
from hub.askers import is_operator
from hub.attribute_matching import Match
from hub.errors import Category, HubError
from hub.imaging_ids import quiet_timer
from hub.ports import AuditLine, InstanceRow, StudyKey, Tx
from hub.ports.imaging import Hold, Mark

if TYPE_CHECKING:
    from hub.boot import Services

#: Who of an institution may take its images from view: its own software, and who administers it.
ROLES = frozenset({"admin", "system"})
MAX_REASON = 200
MAX_LIST = 1000


class Deletion:
    """Marks, holds and what ends them, for one asker at a time."""

    def __init__(self, services: Services) -> None:
        self._services = services

    # --- marks -----------------------------------------------------------------------------------------------

    def delete(
        self,
        actor: Actor,
        StudyInstanceUID: str,
        SeriesInstanceUID: str | None = None,
        SOPInstanceUID: str | None = None,
        *,
        reason: str,
        owner: str | None = None,
    ) -> int:
        """Mark what is shown of a study, a series or one instance deleted; returns how many; durable on return.

        Raises:
            HubError: incorrect without a reason; not-found when nothing of it is in the asker's reach; forbidden when it
                is another institution's, or the asker is neither its software nor its administrator; conflict when the
                study is on hold.
        """
        why = reason_of(reason)

        def work(tx: Tx) -> int:
            key = self._own(tx, actor, StudyInstanceUID, owner)
            # Or the same instance, on its way in for the second time, would stay in view beside its mark.
            tx.imaging.hold_arrivals(key)
            rows = tx.imaging.instances_of(key, SeriesInstanceUID, SOPInstanceUID)
            if not rows:
                raise _absent()
            self._not_held(tx, key)
            tx.imaging.deletions.mark(rows, reason=why, by=name_of(actor), at=self._services.clock())
            self._after(tx, actor, key, "delete-images", rows, why)
            return len(rows)

        return self._services.database.write(work)

    def restore(
        self,
        actor: Actor,
        StudyInstanceUID: str,
        SeriesInstanceUID: str | None = None,
        SOPInstanceUID: str | None = None,
        *,
        reason: str,
        owner: str | None = None,
    ) -> int:
        """Show again what is marked deleted of a study, a series or one instance; returns how many; durable on return.

        Raises:
            HubError: as :meth:`delete`; not-found when nothing of it is marked.
        """
        why = reason_of(reason)

        def work(tx: Tx) -> int:
            key = StudyKey(owner=self._owner(actor, owner), StudyInstanceUID=StudyInstanceUID)
            marks = [
                one
                for one in tx.imaging.deletions.of_study(key)
                if SeriesInstanceUID in {None, one.SeriesInstanceUID} and SOPInstanceUID in {None, one.SOPInstanceUID}
            ]
            if not marks:
                raise _absent()
            for one in marks:
                tx.imaging.make_current(key, one.SOPInstanceUID, one.digest)
            self._after(tx, actor, key, "restore-images", marks, why)
            return len(marks)

        return self._services.database.write(work)

    def marks(self, actor: Actor, *, owner: str | None = None, limit: int = 100) -> Sequence[Mark]:
        """Return what is marked deleted at the asker's institution, or anywhere for the operator, the newest first."""
        whose = owner if is_operator(actor) else self._owner(actor, owner)
        bounded = max(1, min(MAX_LIST, limit))
        return self._services.database.read(lambda tx: tx.imaging.deletions.newest(owner=whose, limit=bounded))

    # --- holds -----------------------------------------------------------------------------------------------

    def hold(self, actor: Actor, StudyInstanceUID: str, *, reason: str, owner: str | None = None) -> Hold:
        """Put a study on legal hold, all of it, what is marked deleted too; durable on return.

        Raises:
            HubError: as :meth:`delete`.
        """
        why = reason_of(reason)

        def work(tx: Tx) -> Hold:
            key = StudyKey(owner=self._owner(actor, owner), StudyInstanceUID=StudyInstanceUID)
            if tx.imaging.study(key) is None or not tx.imaging.versions_of(key):
                raise _absent()
            made = Hold(key=key, reason=why, held_by=name_of(actor), held_at=self._services.clock())
            tx.imaging.deletions.hold(made)
            self._audit(tx, actor, key, "hold-study", (), why)
            return made

        return self._services.database.write(work)

    def release(self, actor: Actor, StudyInstanceUID: str, *, reason: str, owner: str | None = None) -> None:
        """End the hold of a study; durable on return.

        Raises:
            HubError: as :meth:`delete`; not-found when the study is not on hold.
        """
        why = reason_of(reason)

        def work(tx: Tx) -> None:
            key = StudyKey(owner=self._owner(actor, owner), StudyInstanceUID=StudyInstanceUID)
            if not tx.imaging.deletions.release(key):
                raise _absent()
            self._audit(tx, actor, key, "release-study", (), why)

        self._services.database.write(work)

    def holds(self, actor: Actor, *, owner: str | None = None) -> Sequence[Hold]:
        """Return the studies on hold of the asker's institution, or of all for the operator."""
        whose = owner if is_operator(actor) else self._owner(actor, owner)
        return self._services.database.read(lambda tx: tx.imaging.deletions.holds(owner=whose))

    def key_of(self, actor: Actor, imaging_study_id: str) -> StudyKey:
        """Return which study the ImagingStudy *imaging_study_id* is.

        Raises:
            HubError: not-found when it is not of the asker's institution; the operator reaches all.
        """

        def work(tx: Tx) -> StudyKey:
            stored = tx.records.get("ImagingStudy", imaging_study_id, UNRESTRICTED)
            study = tx.imaging.study_by_resource(stored.owner, imaging_study_id) if stored is not None else None
            if study is None or not (is_operator(actor) or actor.institution == study["owner"]):
                raise _absent()
            return StudyKey(owner=study["owner"], StudyInstanceUID=study["StudyInstanceUID"])

        return self._services.database.read(work)

    # --- parts -----------------------------------------------------------------------------------------------

    def _own(self, tx: Tx, actor: Actor, StudyInstanceUID: str, owner: str | None) -> StudyKey:
        """Return the asker's own study of this UID; from the command line, the operator may name any institution's."""
        if is_operator(actor) and not scope_of(actor).directory_only:
            return StudyKey(owner=self._owner(actor, owner), StudyInstanceUID=StudyInstanceUID)
        uid = Match(keyword="StudyInstanceUID", vr="UI", kind="any", values=(StudyInstanceUID,))
        owners = {row["owner"] for row in tx.imaging.studies(scope_of(actor), [uid], limit=100, owner=owner)}
        if not owners:
            raise _absent()
        # Whoever may look at another's study learns that it is not theirs to take away; all others, that there is none.
        return StudyKey(
            owner=self._owner(actor, actor.institution if actor.institution in owners else min(owners)),
            StudyInstanceUID=StudyInstanceUID,
        )

    def _owner(self, actor: Actor, owner: str | None) -> str:
        whose = owner if owner is not None else actor.institution
        scope = scope_of(actor)
        may = actor.institution == whose and actor.roles & ROLES and scope == Scope(institution=whose)
        if may or is_operator(actor):
            return whose
        raise HubError(
            Category.FORBIDDEN,
            "Only the institution that the images belong to may do this, by its own software or its administrator.",
            where="Authorization",
            remedy="Use a token of that institution with the role admin or system.",
        )

    def _not_held(self, tx: Tx, key: StudyKey) -> None:
        if tx.imaging.deletions.held(key) is not None:
            raise HubError(
                Category.CONFLICT,
                "The study is on legal hold; nothing of it may be deleted.",
                where=key.StudyInstanceUID,
                remedy="Ask whoever put it on hold; `hub studies holds` and /ops/holds say who and why.",
            )

    def _after(
        self, tx: Tx, actor: Actor, key: StudyKey, what: str, rows: Sequence[InstanceRow | Mark], reason: str
    ) -> None:
        services = self._services
        services.imaging.recount(tx, key)
        # Another process may take instances of a series it knows without a look at its study; they are counted then.
        quiet = timedelta(seconds=services.settings.study_quiet_s)
        tx.timers.set(quiet_timer(key, services.clock() + quiet))
        self._audit(tx, actor, key, what, tuple(row.SOPInstanceUID for row in rows), reason)

    def _audit(self, tx: Tx, actor: Actor, key: StudyKey, what: str, instances: tuple[str, ...], reason: str) -> None:
        study = tx.imaging.study(key)
        tx.audit.write(
            AuditLine(
                type="dicom",
                action="D" if what == "delete-images" else "U",
                subtype=what,
                actor=actor,
                recorded_at=self._services.clock(),
                patients=((key.owner, study["patient_id"]),) if study is not None else (),
                # A study of thousands is named as a whole; the marks name each.
                entities=(key.StudyInstanceUID, *(instances if len(instances) <= MAX_LIST else ())),
                count=len(instances) or None,
                detail=reason,
            )
        )


def reason_of(text: str) -> str:
    """Return the reason that was given, in one line; raises HubError(incorrect) when there is none."""
    said = " ".join(text.split())[:MAX_REASON]
    if not said:
        raise HubError(Category.INCORRECT, "This needs a reason.", where="reason", remedy="Say why; it is kept.")
    return said


def name_of(actor: Actor) -> str:
    """Return who acts, as marks and holds keep it."""
    return f"{actor.institution}/{actor.practitioner or actor.client or 'system'}"


def _absent() -> HubError:
    return HubError(
        Category.NOT_FOUND,
        "There is no such study, series or instance.",
        remedy="Search with QIDO-RS for what you may see, or list what is marked deleted.",
    )
