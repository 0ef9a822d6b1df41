"""Bookings as the SIU event that says what became of them: S12, S13, S14, S15, S17 and S26 (HL7 v2 chapter 10.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub.access import Scope
from hub.ports import Stored, Tx
from hub.workflows.task import plain, reference_in

Json = Mapping[str, Any]

#: Appointment.status of what is agreed on; what is only proposed or waited for is nobody's booking yet.
_STANDS = frozenset({"booked", "checked-in", "arrived", "fulfilled"})
_ENDED = {"cancelled": "S15", "entered-in-error": "S17", "noshow": "S26"}
_WHEN = ("start", "end", "minutesDuration")


def booking_event(body: Json, known: Json | None) -> str | None:
    """Return the event of *body*, of which the reader has *known*; ``None`` when it is no news.

    A booking that ended before anybody heard of it is not told at all, and one that stands again is a new one.
    """
    status = str(body.get("status", ""))
    stood = known is not None and known.get("status") in _STANDS
    if status in _ENDED:
        return f"SIU^{_ENDED[status]}" if stood else None
    if status not in _STANDS:
        return None
    if known is None or not stood:
        return "SIU^S12"
    moved = any(known.get(element) != body.get(element) for element in _WHEN)
    return "SIU^S13" if moved else "SIU^S14"


def booked_patient(tx: Tx, body: Json, member: str) -> Stored | None:
    """Return the patient of the booking as *member* may see it: the record named there, or the one of its own that a link
    says is the same person for certain; ``None`` for neither.
    """
    scope = Scope(institution=member)
    for one in body.get("participant", ()):
        kind, _, id_ = (plain(reference_in(one.get("actor"))) or "").partition("/")
        if kind != "Patient":
            continue
        found = tx.records.get("Patient", id_, scope)
        if found is None:
            persons = tx.identity.persons(member, [id_]).get(id_, ())
            own = persons[0].own if len(persons) == 1 else ()
            found = tx.records.get("Patient", own[0], scope) if own else None
        if found is not None and not found.deleted:
            return found
    return None
