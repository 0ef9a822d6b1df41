"""When a result ends the order that it answers (HL7 v2 table 0119, RE: the order stays as it is until its final report)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def finished_by(stored: Mapping[str, Any], stand_in: Mapping[str, Any]) -> bool:
    """Return whether *stand_in*, the order as its final report tells it, ends the open order *stored*.

    Some systems send several services under one number, so the report has to be about the service that *stored* asks for.
    """
    return (
        stored["resourceType"] == "ServiceRequest"
        and stand_in.get("status") == "completed"
        and stored.get("status") in {"active", "on-hold"}
        and bool(_services(stored) & _services(stand_in))
    )


def _services(request: Mapping[str, Any]) -> set[str]:
    """Return the codes of what *request* asks for, its text where it has none."""
    concept = request.get("code", {})
    codes = {str(coding["code"]) for coding in concept.get("coding", ()) if "code" in coding}
    return codes or ({str(concept["text"])} if "text" in concept else set())
