"""What a workitem's state allows and its data set must hold, and what is said where they do not.

PS3.4 tables CC.1.1-2, CC.2.5-3 (attributes) and CC.2.1-3 to CC.2.6-4 (statuses).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from enum import Enum
from typing import Any

from fhir_mappings.dicom import workitem as mapping
from fhir_mappings.dicom.performed_step import first, items
from fhir_mappings.dicom.scanner import valid_uid
from fhir_mappings.dicom.workitem import CANCELED, FINAL, IN_PROGRESS, SCHEDULED
from hub.access import scope_of
from hub.actor import Actor
from hub.errors import Category, HubError

Json = dict[str, Any]

_READ_ONLY = frozenset({"patient", "auditor"})
#: DCM 110513 of CID 9300: what a cancellation says that was asked for without a reason.
_UNSPECIFIED: Json = {
    "00080100": {"vr": "SH", "Value": ["110513"]},
    "00080102": {"vr": "SH", "Value": ["DCM"]},
    "00080104": {"vr": "LO", "Value": ["Discontinued for unspecified reason"]},
}


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


def same_lock(held: str, lock: str) -> bool:
    """Return whether *lock* is the one that the item was claimed with, in a time that does not tell how alike they are."""
    return hmac.compare_digest(held, lock)


def unlock(held: str, lock: str) -> None:
    """Raise WorkitemError(NO_LOCK or WRONG_LOCK) unless *lock* is the one that the item was claimed with."""
    if not lock:
        raise WorkitemError(Reason.NO_LOCK, where="TransactionUID")
    if not same_lock(held, lock):
        raise WorkitemError(Reason.WRONG_LOCK, where="TransactionUID")


def check_new(uid: str, attributes: Mapping[str, Any]) -> None:
    """Hold a new item against the N-CREATE column of table CC.2.5-3.

    Raises:
        WorkitemError: NOT_SCHEDULED.
        HubError: incorrect, naming the attribute that is missing or wrong.
    """
    if not valid_uid(uid) or uid in mapping.WORKLISTS:
        raise HubError(Category.INCORRECT, "The UID of a workitem is not a UID of its own.", where="SOPInstanceUID")
    if first(attributes, mapping.STATE) != SCHEDULED:
        raise WorkitemError(Reason.NOT_SCHEDULED, where="ProcedureStepState")
    if mapping.has_value(attributes, mapping.TRANSACTION_UID):
        raise HubError(
            Category.INCORRECT, "A new workitem is nobody's yet; its Transaction UID is empty.", where="TransactionUID"
        )
    if first(attributes, mapping.CLASS_UID) not in {"", mapping.SOP_CLASS}:
        raise HubError(Category.INCORRECT, "The SOP class is not that of workitems.", where="SOPClassUID")
    for tag in mapping.REQUIRED:
        _needed(attributes, tag)
    for tag in (mapping.PROGRESS, mapping.PERFORMED):
        if mapping.has_value(attributes, tag):
            raise HubError(Category.INCORRECT, "A new workitem says nothing of its performance.", where=tag)


def check_changes(changes: Mapping[str, Any]) -> None:
    """Hold an update against the N-SET column of table CC.2.5-3; raises HubError(incorrect), naming the attribute."""
    fixed = sorted(mapping.FIXED.intersection(changes))
    if fixed:
        raise HubError(
            Category.INCORRECT,
            "An update does not change this attribute.",
            where=fixed[0],
            remedy="Leave it out; the state has a transaction of its own (PS3.4 table CC.2.5-3).",
        )
    for tag in (*mapping.REQUIRED, mapping.WORKLIST_LABEL):
        if tag in changes:
            _needed(changes, tag)


def _needed(attributes: Mapping[str, Any], tag: str) -> None:
    if not mapping.has_value(attributes, tag):
        raise HubError(
            Category.INCORRECT, "An attribute that every workitem has is missing.", where=tag, remedy="Give it a value."
        )


def cancellation(attributes: Mapping[str, Any], told: Mapping[str, Any], at: str) -> Json:
    """Return the progress information of an item that is cancelled as *told*, *at* a DT (table CC.2.2-1)."""
    progress = {**next(items(attributes, mapping.PROGRESS), {})}
    progress |= texts("DT", {mapping.CANCELLED_AT: at})
    if mapping.has_value(told, mapping.REASON):
        progress[mapping.REASON] = told[mapping.REASON]
    codes = told.get(mapping.REASON_CODES) if mapping.has_value(told, mapping.REASON_CODES) else None
    progress[mapping.REASON_CODES] = codes or {"vr": "SQ", "Value": [_UNSPECIFIED]}
    contact = {tag: told[tag] for tag in (mapping.CONTACT_URI, mapping.CONTACT_NAME) if tag in told}
    if contact:
        progress[mapping.COMMUNICATIONS] = {"vr": "SQ", "Value": [contact]}
    return progress


def texts(vr: str, values: Mapping[str, str]) -> Json:
    """Return elements of one *vr* with one value each, by tag."""
    return {tag: {"vr": vr, "Value": [value]} for tag, value in values.items()}
