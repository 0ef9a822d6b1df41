"""What a workitem's state allows, and what is said where it does not (PS3.4 tables CC.1.1-2 and CC.2.1-3 to CC.2.6-4)."""

from __future__ import annotations

from enum import Enum

from fhir_mappings.dicom.workitem import CANCELED, FINAL, IN_PROGRESS, SCHEDULED
from hub.access import scope_of
from hub.actor import Actor
from hub.errors import Category, HubError

_READ_ONLY = frozenset({"patient", "auditor"})


class Reason(Enum):
    """Why a request is refused: what the standard has a status for (PS3.4 tables CC.2.1-3 to CC.2.6-4)."""

    OVER = "The workitem is COMPLETED or CANCELED and may no longer be updated."
    NO_LOCK = "The Transaction UID is missing."
    WRONG_LOCK = "The Transaction UID is incorrect."
    CLAIMED = "The workitem is already IN PROGRESS."
    TO_SCHEDULED = "A workitem becomes SCHEDULED by its creation only."
    NOT_READY = "The workitem does not meet the requirements of the final state."
    ABSENT = "There is no such workitem."
    NOT_SCHEDULED = "A workitem is created in the state SCHEDULED."
    UNCLAIMED = "The workitem is not IN PROGRESS."
    IS_COMPLETED = "The workitem is already COMPLETED."
    UNREACHABLE = "The performer of the workitem cannot be contacted."
    DUPLICATE = "There is a workitem with this UID."
    UNKNOWN_RECEIVER = "The Receiving AE is unknown."
    INAPPROPRIATE = "The action does not fit what it is asked of."


class Remark(Enum):
    """What a success adds: the warnings of PS3.4 and the Warning headers of PS3.18."""

    NONE = ""
    CREATED_MODIFIED = "The Workitem was created with modifications."
    ALREADY_CANCELED = "The UPS is already in the requested state of CANCELED."
    ALREADY_COMPLETED = "The UPS is already in the requested state of COMPLETED."


class WorkitemError(HubError):
    """A request that the state of a workitem does not allow."""

    def __init__(self, reason: Reason, *, where: str = "", remedy: str = "", status: int | None = None) -> None:
        category = {
            Reason.ABSENT: Category.NOT_FOUND,
            Reason.NO_LOCK: Category.INCORRECT,
            Reason.WRONG_LOCK: Category.INCORRECT,
            Reason.NOT_SCHEDULED: Category.INCORRECT,
            Reason.TO_SCHEDULED: Category.INCORRECT,
            Reason.UNKNOWN_RECEIVER: Category.INCORRECT,
            Reason.INAPPROPRIATE: Category.INCORRECT,
        }.get(reason, Category.CONFLICT)
        super().__init__(category, reason.value, where=where, remedy=remedy, status=status)
        self.reason = reason


class SubscriptionChange(Enum):
    """The actions of PS3.4 section CC.2.3; the values are their Action Type IDs."""

    SUBSCRIBE = 3
    UNSUBSCRIBE = 4
    SUSPEND = 5


def judge_state(state: str, wanted: str, *, given: bool, right: bool) -> Reason | Remark:
    """Return what table CC.1.1-2 says to a change from *state* to *wanted*; ``Remark.NONE`` is a change.

    Args:
        given: a Transaction UID came with the request.
        right: it is the one that the item was claimed with; of an item that nobody has claimed, any is.
    """
    if wanted == SCHEDULED:
        return Reason.TO_SCHEDULED
    if not given:
        return Reason.NO_LOCK
    if not right:
        return Reason.WRONG_LOCK
    if wanted == IN_PROGRESS:
        if state in FINAL:
            return Reason.OVER
        return Remark.NONE if state == SCHEDULED else Reason.CLAIMED
    if state == SCHEDULED:
        return Reason.UNCLAIMED
    if state == wanted:
        return Remark.ALREADY_CANCELED if state == CANCELED else Remark.ALREADY_COMPLETED
    return Remark.NONE if state == IN_PROGRESS else Reason.OVER


def may_change(actor: Actor) -> None:
    """Raise HubError(forbidden) for a role that changes no workitems and subscribes to none."""
    if actor.patient is not None or not actor.roles - _READ_ONLY or scope_of(actor).directory_only:
        raise HubError(Category.FORBIDDEN, "This role changes no workitems.")
