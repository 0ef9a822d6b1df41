"""Commands about prescriptions judged against what is stored (HL7 v2 table 0119): cancel, discontinue, hold, release, change.

No workflow carries prescriptions, so that what a prescriber commands is done at once, or cannot be. A cancellation says that
nothing was to be given, which is no longer true of a prescription that has been dispensed or given; discontinuing one stops what
is left of it. A command names the prescription by the numbers of its own sender, and never reaches another institution's.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fhir_mappings.hl7v2.base import Issue, Translation, Upsert, WorkflowEvent
from fhir_mappings.json import loads
from hub.access import Scope
from hub.errors import Category, HubError
from hub.ports import Stored, Tx
from hub.workflows.base import BASE

#: Prefix of the kind of a workflow event that is the ORC-1 of a prescription.
PREFIX = "prescription."
#: Commands that need a prescription that is known; a change of an unknown one is the first that is heard of it.
_OF_KNOWN = frozenset({"CA", "DC", "HD", "RL"})
_OF_OPEN = _OF_KNOWN | {"XO", "RP"}
#: What a command asks for -> the states in which that stands already.
_FULFILLED: Mapping[str, frozenset[str]] = {
    "CA": frozenset({"cancelled", "entered-in-error"}),
    "DC": frozenset({"stopped", "cancelled", "entered-in-error"}),
}
#: Kinds of workflow events that an order number alone can state -> ORC-1, and the MedicationRequest.status of each command.
_BARE: Mapping[str, str] = {"order.cancel": "CA", "order.hold": "HD", "order.release": "RL"}
_STATES: Mapping[str, str] = {"CA": "cancelled", "DC": "stopped", "HD": "on-hold", "RL": "active"}
_ENDED = frozenset({"cancelled", "stopped", "completed", "entered-in-error"})
#: States of a dispense or an administration that took no medicine to the patient.
_NOTHING_GIVEN = frozenset({"cancelled", "declined", "entered-in-error", "not-done", "preparation"})
_GIVEN = (
    ("MedicationDispense", "prescription", "已发药", "dispensed"),
    ("MedicationAdministration", "request", "已给药", "given"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One order of a message about prescriptions, in the order of the message.

    Attributes:
        control: ORC-1.
        reference: the MedicationRequest that it is about.
        numbers: ORC-2 and ORC-3 of the message, without namespaces.
        error: why the command is not carried out; ``None`` where it is.
    """

    control: str
    reference: str
    numbers: tuple[str, str] = ("", "")
    error: HubError | None = None

    @property
    def must_be_heard(self) -> bool:
        """Whether its sender would treat by it in error: it holds for stopped what the patient has got."""
        return self.error is not None and self.error.category is Category.CONFLICT and self.control in {"CA", "DC"}


def judged(tx: Tx, translation: Translation, scope: Scope) -> tuple[Translation, tuple[Judged, ...]]:
    """Return *translation* as far as it is carried out, and what becomes of each prescription that it speaks of.

    *scope* is the reach of the sender, whose institution owns the prescriptions that it may command.
    """
    translation = _meant(tx, translation, scope)
    events = [one for one in translation.workflow_events if one.kind.startswith(PREFIX)]
    if not events:
        return translation, ()
    verdicts: list[Judged] = []
    renames: dict[str, str] = {}
    made: set[str] = set()
    for event in events:
        control, reference = event.kind.removeprefix(PREFIX), event.focus[0]
        stored = _stored(tx, event, scope)
        if stored is not None and f"MedicationRequest/{stored.id}" != reference:
            renames[reference] = stored.id
            reference = f"MedicationRequest/{stored.id}"
        error = None if event.focus[0] in made else _trouble(tx, control, stored, scope)
        if control not in _OF_KNOWN:
            made.add(event.focus[0])
        numbers = (event.placer_number, event.filler_number)
        verdicts.append(Judged(control=control, reference=reference, numbers=numbers, error=error))
    dropped = {one.focus[0] for one, verdict in zip(events, verdicts, strict=True) if verdict.error is not None}
    # A message may name one prescription twice; what is carried out of it stands.
    dropped -= {one.focus[0] for one, verdict in zip(events, verdicts, strict=True) if verdict.error is None}
    changes = tuple(
        _renamed(change, renames) if isinstance(change, Upsert) and change.reference in renames else change
        for change in translation.changes
        if not (isinstance(change, Upsert) and change.reference in dropped)
    )
    issues = tuple(
        Issue(severity="warning", code="business-rule", message=one.error.message, where=one.error.where)
        for one in verdicts
        if one.error is not None
    )
    return replace(translation, changes=changes, issues=(*translation.issues, *issues)), tuple(verdicts)


def _meant(tx: Tx, translation: Translation, scope: Scope) -> Translation:
    """Return *translation* with commands by an order number alone (ORM^O01 without OBR and RXO) tied to a prescription.

    What kind of order a number is of, such a message does not say. It is a prescription's where the sender has one of that
    number and no service.
    """
    changes, events = list(translation.changes), list(translation.workflow_events)
    # A message may hold thousands of orders, and one of them more than once.
    stated: defaultdict[str, deque[tuple[int, Upsert]]] = defaultdict(deque)
    for at, one in enumerate(changes):
        if isinstance(one, Upsert) and one.resource["resourceType"] == "ServiceRequest":
            stated[one.reference].append((at, one))
    for place, event in enumerate(events):
        found = next((stated[one] for one in event.focus if stated.get(one)), None)
        if event.kind not in _BARE or not found:
            continue
        at, change = found[0]
        named = "code" in change.resource or tx.records.get("ServiceRequest", change.resource["id"], scope) is not None
        stored = None if named else _numbered(tx, event, scope)
        if stored is None:
            continue
        revoked = change.resource.get("status") == "revoked"
        control = "DC" if event.kind == "order.cancel" and revoked else _BARE[event.kind]
        command = {"resourceType": "MedicationRequest", "id": stored.id, "status": _STATES[control]}
        found.popleft()
        changes[at] = replace(change, resource=command, update_only=True, defaults={})
        events[place] = replace(event, kind=f"{PREFIX}{control}", focus=(f"MedicationRequest/{stored.id}",))
    return replace(translation, changes=tuple(changes), workflow_events=tuple(events))


def after(verdicts: Sequence[Judged], superseded: Sequence[str]) -> tuple[Judged, ...]:
    """Return *verdicts* once the message is applied: a command that came too late was not carried out."""
    late = set(superseded)
    return tuple(
        replace(one, error=_late()) if one.error is None and one.control in _OF_OPEN and one.reference in late else one
        for one in verdicts
    )


def _renamed(change: Upsert, renames: Mapping[str, str]) -> Upsert:
    return replace(change, resource={**change.resource, "id": renames[change.reference]})


def _stored(tx: Tx, event: WorkflowEvent, scope: Scope) -> Stored | None:
    """Return the prescription of the sender's institution that *event* names, by its own number or by the filler's."""
    own = tx.records.get("MedicationRequest", event.focus[0].partition("/")[2], scope)
    if own is not None:
        return own if own.owner == scope.institution and not own.deleted else None
    return _numbered(tx, event, scope)


def _numbered(tx: Tx, event: WorkflowEvent, scope: Scope) -> Stored | None:
    """Return the one prescription of the sender's institution that has the placer's number of *event*, else the filler's."""
    for kind, number in (("placer-order", event.placer_number), ("filler-order", event.filler_number)):
        if not number:
            continue
        # The namespace of a number (ORC-3.2) is part of its system, and senders leave it out as often as not.
        found = [
            one
            for one in tx.records.by_identifier("MedicationRequest", None, number, scope, owner=scope.institution)
            if _has_number(loads(one.body), f"{BASE}/NamingSystem/{scope.institution}/", kind, number)
        ]
        if len(found) == 1:
            return found[0]
    return None


def _has_number(prescription: Mapping[str, Any], owner: str, kind: str, number: str) -> bool:
    for one in prescription.get("identifier", ()):
        system = str(one.get("system", ""))
        if one.get("value") == number and system.startswith(owner) and system.endswith(f"/{kind}"):
            return True
    return False


def _trouble(tx: Tx, control: str, stored: Stored | None, scope: Scope) -> HubError | None:
    """Return why *control* cannot be carried out on *stored*; ``None`` where it can, or stands already."""
    if stored is None:
        if control not in _OF_KNOWN:
            return None
        return HubError(
            Category.NOT_FOUND,
            "无此处方 / There is no prescription of this number from this sender.",
            where="ORC-2",
            remedy="Send the numbers under which the prescription was placed.",
            code=204,
        )
    status = str(loads(stored.body).get("status", ""))
    if control not in _OF_OPEN or status in _FULFILLED.get(control, frozenset()):
        return None
    if status in _ENDED:
        return _conflict(f"处方状态已为 {status} / The prescription is {status} already.")
    if control == "CA":
        for kind, parameter, words, word in _GIVEN:
            for one in tx.records.referring(kind, parameter, f"MedicationRequest/{stored.id}", scope):
                if not one.deleted and loads(one.body).get("status") not in _NOTHING_GIVEN:
                    return _conflict(
                        f"{words}，不能撤销 / The medicine has been {word} and the prescription cannot be cancelled."
                    )
    return None


def _conflict(message: str) -> HubError:
    return HubError(
        Category.CONFLICT,
        message,
        where="ORC-1",
        remedy="Discontinue (DC) what is left of a prescription that was begun.",
        code=206,
    )


def _late() -> HubError:
    return HubError(
        Category.CONFLICT,
        "该处方已有更新的信息 / What is stored of the prescription is of a later moment.",
        where="MSH-7",
        remedy="Send the command again with the moment at which it was given.",
        code=206,
    )
