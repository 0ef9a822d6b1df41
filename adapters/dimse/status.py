"""What a C-STORE is answered with (PS3.4 annex B.2.3, PS3.7 annex C)."""

from __future__ import annotations

from collections.abc import Mapping

from fhir_mappings.errors import MappingError
from hub.errors import Category, HubError

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


def comment(text: str) -> str:
    """Return *text* as an Error Comment."""
    return text.encode("ascii", "replace").decode("ascii").replace("\\", "/").strip()[:_COMMENT_CHARACTERS]
