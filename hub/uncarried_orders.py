"""Cancellations of orders that no workflow carries (HL7 v2 chapter 4, ORC-1 ``CA``; table 0119).

A request to cancel changes nothing until the side that does the work has answered it, and where a Task carries the order its
table sees to that. An examination that a hospital orders from itself has no Task and nobody who would answer: its word is
the last one, and without it the modality worklist would go on listing what was called off. What has been begun is not
undone by a request: an order that a performed step, a study or a report is based on stays as it is.
"""

from __future__ import annotations

from dataclasses import replace

from fhir_mappings.hl7v2.base import Translation, Upsert
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED, Scope
from hub.ports import Tx

#: What is done by an order, and its search parameter for the order.
_DONE_BY = (("Task", "focus"), ("Procedure", "based-on"), ("ImagingStudy", "basedon"), ("DiagnosticReport", "based-on"))
_OPEN = frozenset({"active", "on-hold", "draft"})


def withdrawn(tx: Tx, translation: Translation, scope: Scope) -> Translation:
    """Return *translation* with the orders revoked that it cancels, that nobody else has to do with, and that are not begun.

    *scope* is the reach of the sender, whose institution owns the orders that it may cancel.
    """
    named = {
        one
        for event in translation.workflow_events
        if event.kind == "order.cancel"
        for one in event.focus
        if one.startswith("ServiceRequest/")
    }
    if not named:
        return translation
    changes = tuple(
        replace(one, resource={**one.resource, "status": "revoked"})
        if isinstance(one, Upsert)
        and one.reference in named
        and "status" not in one.resource
        and _is_the_senders(tx, one.resource["id"], scope)
        else one
        for one in translation.changes
    )
    return replace(translation, changes=changes)


def _is_the_senders(tx: Tx, id_: str, scope: Scope) -> bool:
    """Return whether the order is known and open, and nothing has been done by it."""
    stored = tx.records.get("ServiceRequest", id_, scope)
    if stored is None or stored.deleted or loads(stored.body).get("status") not in _OPEN:
        return False
    return not any(
        not one.deleted and loads(one.body).get("status") != "entered-in-error"
        for kind, parameter in _DONE_BY
        for one in tx.records.referring(kind, parameter, f"ServiceRequest/{id_}", UNRESTRICTED)
    )
