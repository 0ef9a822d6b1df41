"""The Parameters of ``Task/$transition`` (https://hl7.org/fhir/R4/parameters.html).

``event`` (code), ``reason`` (CodeableConcept or text), ``note`` (text), ``assignee`` (Reference), ``expectedAt``
(dateTime), and any number of ``input`` and ``output``: a Reference, or the parts ``type`` and ``value``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhir_mappings.definitions.check import check
from hub import references
from hub.errors import Category, HubError
from hub.outcome import findings_error

Json = dict[str, Any]

_KNOWN = ("event", "reason", "note", "assignee", "expectedAt", "input", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One event as a client asks for it."""

    event: str
    reason: Json | None = None
    note: str = ""
    assignee: str | None = None
    expected_at: datetime | None = None
    inputs: tuple[Json, ...] = ()
    outputs: tuple[Json, ...] = ()

    def references(self) -> dict[tuple[str, str, str], str]:
        """Return every resource that inputs and outputs refer to, with its place."""
        return references.targets(
            {"resourceType": "Parameters", "input": list(self.inputs), "output": list(self.outputs)}
        )


def read_transition(value: Any, bases: Sequence[str]) -> Asked:
    """Return the event that the Parameters *value* ask for.

    Raises:
        HubError: incorrect, naming the parameter.
    """
    findings = check(value, resource_type="Parameters")
    if findings:
        raise findings_error(findings)
    references.make_relative(value, bases)
    given: dict[str, list[Json]] = {}
    for one in value.get("parameter", ()):
        given.setdefault(one["name"], []).append(one)
    for name, many in given.items():
        if name not in _KNOWN:
            raise _wrong("An unknown parameter.", "Parameters.parameter", f"Supported: {', '.join(_KNOWN)}.")
        if len(many) > 1 and name not in {"input", "output"}:
            raise _wrong("It may be given once.", name)
    event = _text(given, "event")
    if not event:
        raise _wrong("The event is missing.", "event", "Send a parameter named event with valueCode.")
    reason = given.get("reason", [{}])[0]
    concept = reason.get("valueCodeableConcept")
    if concept is None and "valueCoding" in reason:
        concept = {"coding": [reason["valueCoding"]]}
    if concept is None and (said := _text(given, "reason")):
        concept = {"text": said}
    return Asked(
        event=event,
        reason=concept,
        note=_text(given, "note"),
        assignee=given["assignee"][0].get("valueReference", {}).get("reference") if "assignee" in given else None,
        expected_at=_moment(given),
        inputs=tuple(_item(one, "input") for one in given.get("input", ())),
        outputs=tuple(_item(one, "output") for one in given.get("output", ())),
    )


def _text(given: Mapping[str, list[Json]], name: str) -> str:
    for one in given.get(name, ()):
        for kind in ("valueCode", "valueString", "valueMarkdown"):
            if kind in one:
                return str(one[kind])
    return ""


def _moment(given: Mapping[str, list[Json]]) -> datetime | None:
    for one in given.get("expectedAt", ()):
        text = one.get("valueDateTime") or one.get("valueInstant") or ""
        try:
            moment = datetime.fromisoformat(str(text))
        except ValueError as error:
            raise _wrong("Expected a dateTime with a time zone.", "expectedAt") from error
        if moment.tzinfo is None:
            raise _wrong("Expected a dateTime with a time zone.", "expectedAt")
        return moment
    return None


def _item(one: Json, name: str) -> Json:
    """Return a Task.input or Task.output entry."""
    parts = {part["name"]: part for part in one.get("part", ())}
    holder = parts.get("value", one)
    values = {key: value for key, value in holder.items() if key.startswith("value")}
    if len(values) != 1:
        raise _wrong("Expected one value, or the parts type and value.", name)
    concept = parts.get("type", {}).get("valueCodeableConcept")
    if concept is None:
        said = parts.get("type", {}).get("valueString")
        reference = holder.get("valueReference", {}).get("reference", "")
        concept = {"text": str(said or reference.partition("/")[0] or name)}
    return {"type": concept, **values}


def _wrong(message: str, where: str, remedy: str = "") -> HubError:
    return HubError(Category.INCORRECT, message, where=where, remedy=remedy, status=422)
