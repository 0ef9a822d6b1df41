"""DICOMweb's answers to trouble: PS3.18 status codes with an OperationOutcome, and the reasons of failed instances."""

from __future__ import annotations

import re

from starlette.requests import Request

from adapters._http import Handler, guarded
from hub.errors import Category, HubError

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")

#: (0008,1197) Failure Reason of an instance that was not stored (PS3.18 table I.2-2; PS3.4 table B.2-1).
FAILURE_REASONS = {
    Category.INCORRECT: 0xC000,
    Category.UNSUPPORTED: 0x0122,
    Category.FORBIDDEN: 0x0124,
    Category.CONFLICT: 0x0110,
    Category.NOT_FOUND: 0x0110,
    Category.BUSY: 0xA700,
    Category.UNAVAILABLE: 0xA700,
    Category.INTERRUPTED: 0xA700,
    Category.FAULT: 0x0110,
}
WRONG_STUDY = 0xA900
#: (0008,1196) Warning Reason: stored, but shown to nobody until a person has decided. The reasons of PS3.18 table I.2-2
#: are of data sets that the server changed or that break their SOP class, and neither is the case.
KEPT_BESIDE = 0xB00E


def uid(request: Request, name: str) -> str | None:
    """Return the UID called *name* in the path; raises HubError(incorrect) when it is none."""
    value = request.path_params.get(name)
    return None if value is None else checked_uid(name, str(value))


def checked_uid(name: str, value: str) -> str:
    """Return *value*; raises HubError(incorrect), naming *name*, when it is no UID."""
    if len(value) > 64 or _UID.fullmatch(value) is None:
        raise HubError(
            Category.INCORRECT, "A UID in the address is malformed.", where=name, remedy="Send digits and dots."
        )
    return value


__all__ = ["FAILURE_REASONS", "KEPT_BESIDE", "WRONG_STUDY", "Handler", "checked_uid", "guarded", "uid"]
