"""What requests are answered with (PS3.4 annexes B.2.3, C.4.2.1.5 and C.4.3.1.4, PS3.7 annex C)."""

from __future__ import annotations

from collections.abc import Mapping

from fhir_mappings.errors import MappingError
from hub.errors import Category, HubError
from hub.workitem_rules import Reason, Remark

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DATA_SET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
NOT_AUTHORIZED = 0x0124
PROCESSING_FAILURE = 0x0110
SOP_CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNIZED_OPERATION = 0x0211
#: What only the DIMSE-N services say (PS3.7 annex C.5).
INVALID_ATTRIBUTE_VALUE = 0x0106
DUPLICATE_SOP_INSTANCE = 0x0111
NO_SUCH_SOP_INSTANCE = 0x0112
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT = 0x0115
MISSING_ATTRIBUTE = 0x0120
MISSING_ATTRIBUTE_VALUE = 0x0121
NO_SUCH_ACTION = 0x0123
RESOURCE_LIMITATION = 0x0213
#: What a C-MOVE and a C-GET say (PS3.4 tables C.4-2 and C.4-3).
PENDING = 0xFF00
CANCELLED = 0xFE00
SUB_OPERATIONS_WARNING = 0xB000
CANNOT_COUNT = 0xA701
NO_SUB_OPERATIONS = 0xA702
DESTINATION_UNKNOWN = 0xA801
IDENTIFIER_MISMATCH = 0xA900
UNABLE_TO_PROCESS = 0xC000
#: A match, when some optional key was returned but not matched, or neither (PS3.4 tables C.4-1 and K.4-1).
PENDING_PARTLY = 0xFF01

#: A sender tries again on A7xx, and gives the object up on the others.
BY_CATEGORY: Mapping[Category, int] = {
    Category.INCORRECT: CANNOT_UNDERSTAND,
    Category.UNSUPPORTED: SOP_CLASS_NOT_SUPPORTED,
    Category.FORBIDDEN: NOT_AUTHORIZED,
    Category.NOT_FOUND: PROCESSING_FAILURE,
    Category.CONFLICT: DATA_SET_MISMATCH,
    Category.BUSY: OUT_OF_RESOURCES,
    Category.UNAVAILABLE: OUT_OF_RESOURCES,
    Category.INTERRUPTED: OUT_OF_RESOURCES,
    Category.FAULT: PROCESSING_FAILURE,
}
#: As above for whoever retrieves.
RETRIEVAL_BY_CATEGORY: Mapping[Category, int] = {
    **dict.fromkeys(Category, UNABLE_TO_PROCESS),
    Category.INCORRECT: IDENTIFIER_MISMATCH,
    Category.FORBIDDEN: NOT_AUTHORIZED,
    Category.BUSY: CANNOT_COUNT,
    Category.UNAVAILABLE: CANNOT_COUNT,
    Category.INTERRUPTED: CANNOT_COUNT,
}
#: As above for whoever queries (PS3.4 tables C.4-1 and K.4-1).
QUERY_BY_CATEGORY: Mapping[Category, int] = {
    **dict.fromkeys(Category, UNABLE_TO_PROCESS),
    Category.CONFLICT: IDENTIFIER_MISMATCH,
    Category.FORBIDDEN: NOT_AUTHORIZED,
    Category.BUSY: OUT_OF_RESOURCES,
    Category.UNAVAILABLE: OUT_OF_RESOURCES,
    Category.INTERRUPTED: OUT_OF_RESOURCES,
}
#: As above for the DIMSE-N services (PS3.7 annex C.5); each says more of what it knows.
_NORMALIZED_BY_CATEGORY: Mapping[Category, int] = {
    **dict.fromkeys(Category, PROCESSING_FAILURE),
    Category.INCORRECT: INVALID_ATTRIBUTE_VALUE,
    Category.BUSY: RESOURCE_LIMITATION,
    Category.UNAVAILABLE: RESOURCE_LIMITATION,
    Category.INTERRUPTED: RESOURCE_LIMITATION,
}
MPPS_BY_CATEGORY: Mapping[Category, int] = {
    **_NORMALIZED_BY_CATEGORY,
    Category.CONFLICT: DUPLICATE_SOP_INSTANCE,
    Category.NOT_FOUND: NO_SUCH_SOP_INSTANCE,
}
AVAILABILITY_BY_CATEGORY: Mapping[Category, int] = {
    **_NORMALIZED_BY_CATEGORY,
    Category.CONFLICT: DUPLICATE_SOP_INSTANCE,
    Category.FORBIDDEN: NOT_AUTHORIZED,
}
UPS_BY_CATEGORY: Mapping[Category, int] = {**_NORMALIZED_BY_CATEGORY, Category.FORBIDDEN: NOT_AUTHORIZED}
#: What the services of the Unified Procedure Step say (PS3.4 tables CC.2.1-3 to CC.2.6-4).
UPS_NO_EVENT_REPORTS = 0xC315
BY_UPS_REASON: Mapping[Reason, int] = {
    Reason.OVER: 0xC300,
    Reason.NO_LOCK: 0xC301,
    Reason.WRONG_LOCK: 0xC301,
    Reason.CLAIMED: 0xC302,
    Reason.TO_SCHEDULED: 0xC303,
    Reason.NOT_READY: 0xC304,
    Reason.ABSENT: 0xC307,
    Reason.NOT_SCHEDULED: 0xC309,
    Reason.UNCLAIMED: 0xC310,
    Reason.IS_COMPLETED: 0xC311,
    Reason.UNREACHABLE: 0xC312,
    Reason.DUPLICATE: DUPLICATE_SOP_INSTANCE,
    Reason.UNKNOWN_RECEIVER: 0xC308,
    Reason.INAPPROPRIATE: 0xC314,
}
BY_UPS_REMARK: Mapping[Remark, int] = {
    Remark.NONE: SUCCESS,
    Remark.CREATED_MODIFIED: 0xB300,
    Remark.ALREADY_CANCELED: 0xB304,
    Remark.ALREADY_COMPLETED: 0xB306,
}
#: Statuses other than Bxxx that mean success with a remark (PS3.7 annex C.4.2).
_WARNINGS = frozenset({0x0001, 0x0107, 0x0111, 0x0116})
#: Error Comment is LO: 64 characters of the default repertoire.
_COMMENT_CHARACTERS = 64


def of_error(error: Exception) -> tuple[int, str]:
    """Return the status and Error Comment for *error*."""
    if isinstance(error, HubError):
        # After a failed fsync the sender must keep the object for another node, so even this fault reads as "later".
        status = OUT_OF_RESOURCES if error.fatal else BY_CATEGORY[error.category]
        return status, comment(f"{error.message} {error.where}")
    if isinstance(error, MappingError):
        return CANNOT_UNDERSTAND, comment(f"{error.where}: {error.message}" if error.where else error.message)
    if isinstance(error, OSError):
        return OUT_OF_RESOURCES, "The hub could not read what it received."
    return PROCESSING_FAILURE, "The hub failed; see its log."


def of_normalized(
    error: Exception, by_category: Mapping[Category, int], *, unreadable: int = PROCESSING_FAILURE
) -> tuple[int, str]:
    """Return the status and Error Comment of a DIMSE-N service for *error*; *unreadable* of a data set that is none."""
    code, told = of_error(error)
    if isinstance(error, HubError):
        return (RESOURCE_LIMITATION if error.fatal else by_category[error.category]), told
    return (unreadable if isinstance(error, MappingError) else code), told


def of_retrieval(error: HubError | MappingError) -> tuple[int, str]:
    """Return the status and Error Comment of a C-MOVE or C-GET that did not come to its sub-operations."""
    if isinstance(error, HubError):
        return RETRIEVAL_BY_CATEGORY[error.category], comment(f"{error.message} {error.where}")
    return IDENTIFIER_MISMATCH, comment(f"{error.where}: {error.message}" if error.where else error.message)


def is_warning(code: int) -> bool:
    """Return whether *code* says that it was done, with a remark; a duplicate is there already."""
    return code >> 12 == 0xB or code in _WARNINGS


def comment(text: str) -> str:
    """Return *text* as an Error Comment."""
    return text.encode("ascii", "replace").decode("ascii").replace("\\", "/").strip()[:_COMMENT_CHARACTERS]
