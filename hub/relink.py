"""A partner's answer meets the request it answers.

A laboratory's ORU^R01 names the asker's order number (ORC-2) and its own patient number. Taken alone it would make a
request and a patient of the laboratory's; the hub knows the request already, so the report is tied to it and to the
asker's patient. The laboratory's own numbers stay in the report's identifiers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fhir_mappings.hl7v2.base import Attachment, Change, Snapshot, Translation, Upsert, WorkflowEvent
from fhir_mappings.json import loads
from hub import commands, workflows
from hub.access import UNRESTRICTED
from hub.ports import Stored, Tx
from hub.workflows.task import plain, reference_in


def _tasks_on(tx: Tx, request: str, sender: str) -> list[Stored]:
    return [
        stored
        for stored in tx.records.referring("Task", "focus", request, UNRESTRICTED)
        if sender in workflows.parties_of(loads(stored.body)).values()
    ]


def tasks_of(tx: Tx, event: WorkflowEvent, sender: str) -> list[Stored]:
    """Return the Tasks that *event* of *sender* is about: sender takes part, and the request or its number is named."""
    found: dict[str, Stored] = {}
    for request in (one for one in event.focus if one.startswith(("ServiceRequest/", "Appointment/"))):
        found.update({one.id: one for one in _tasks_on(tx, request, sender)})
    for number in (event.placer_number, event.filler_number):
        if number and not found:
            for request_row in tx.records.by_identifier("ServiceRequest", None, number, UNRESTRICTED):
                found.update({one.id: one for one in _tasks_on(tx, f"ServiceRequest/{request_row.id}", sender)})
    return list(found.values())


def relinked(tx: Tx, translation: Translation, sender: str) -> Translation:
    """Return *translation* with answers to another institution's request tied to that request and its patient."""
    renames: dict[str, str] = {}
    for event in translation.workflow_events:
        own = next((one for one in event.focus if one.startswith("ServiceRequest/")), None)
        booking = event.kind.startswith("appointment.")
        if not booking and not event.kind.startswith(("report.", "referral.accepted", "referral.rejected")):
            continue
        for stored in tasks_of(tx, replace(event, focus=()), sender):
            if stored.owner == sender:
                continue
            task = loads(stored.body)
            request, patient = plain(reference_in(task.get("focus"))), plain(reference_in(task.get("for")))
            if booking:
                # It fulfils the other side's request, for the sender's own patient and in the sender's own diary.
                if request is not None:
                    renames.update(dict.fromkeys(_based_on(translation, event), request))
                continue
            if own is not None and request is not None:
                renames[own] = request
            if translation.patient_id and patient is not None:
                renames[f"Patient/{translation.patient_id}"] = patient
    if not renames:
        return translation
    patient_to = renames.get(f"Patient/{translation.patient_id}")
    return replace(
        translation,
        # The number is the other side's; an order that the sender has under the same one is another.
        endings=(),
        changes=tuple(
            _renamed_change(one, renames)
            for one in translation.changes
            if not (isinstance(one, Upsert) and one.reference in renames)
        ),
        patient_id=patient_to.removeprefix("Patient/") if patient_to else translation.patient_id,
        workflow_events=tuple(
            replace(event, focus=tuple(renames.get(one, one) for one in event.focus))
            for event in translation.workflow_events
        ),
    )


def _based_on(translation: Translation, event: WorkflowEvent) -> list[str]:
    """Return what the resources that *event* is about are based on, as their message names it."""
    return [
        reference
        for change in translation.changes
        if isinstance(change, Upsert) and change.reference in event.focus
        for one in change.resource.get("basedOn", ())
        if (reference := plain(reference_in(one))) is not None
    ]


def left_to_workflow(tx: Tx, translation: Translation, sender: str) -> Translation:
    """Return *translation* without the status that a cancellation or a report gives a request whose work a table rules.

    Whether that work stops is for its table to say, which may have to ask the other side first; done work stays done.
    """
    ruled: set[str] = set()
    for event in translation.workflow_events:
        if event.kind not in commands.CANCELLATIONS and not event.kind.startswith("report."):
            continue
        for stored in tasks_of(tx, event, sender):
            task = loads(stored.body)
            workflow = workflows.workflow_for(task)
            if workflow is not None and (commands.goes_on(workflow, task) or task.get("status") == "completed"):
                ruled.add(plain(reference_in(task.get("focus"))) or "")
    if not ruled:
        return translation
    return replace(
        translation,
        endings=(),
        changes=tuple(
            replace(one, resource={name: value for name, value in one.resource.items() if name != "status"})
            if isinstance(one, Upsert) and one.reference in ruled
            else one
            for one in translation.changes
        ),
    )


def _renamed_change(change: Change, renames: Mapping[str, str]) -> Change:
    match change:
        case Upsert():
            return replace(change, resource=_renamed(change.resource, renames))
        case Snapshot(subject_id=subject):
            target = renames.get(f"Patient/{subject}")
            return replace(change, subject_id=target.removeprefix("Patient/")) if target else change
        case Attachment(context=context):
            return replace(change, context=renames.get(context, context))
        case _:
            return change


def _renamed(value: Any, renames: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: renames.get(item, item) if key == "reference" and isinstance(item, str) else _renamed(item, renames)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_renamed(one, renames) for one in value]
    return value
