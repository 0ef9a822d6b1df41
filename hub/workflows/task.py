"""Reading and writing the elements of a FHIR R4 Task that the engine works on (https://hl7.org/fhir/R4/task.html).

Who the parties are and who wrote is kept in extensions of the Task itself, so that a Task alone tells all a judge
needs. Those extensions are the hub's; an update that changes them is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from hub.workflows.base import BASE, WORKFLOW_SYSTEM, Resource

PARTY = f"{BASE}/StructureDefinition/task-party"
MARK = f"{BASE}/StructureDefinition/task-mark"
EXPECTED_AT = f"{BASE}/StructureDefinition/task-expected-at"
ADVICE = f"{BASE}/StructureDefinition/task-advice"
OWN_EXTENSIONS = frozenset({PARTY, MARK, EXPECTED_AT, ADVICE})

_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_LOCAL = re.compile(r"([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")


def plain(reference: str) -> str | None:
    """Return ``Type/id`` of a relative reference without its version, or ``None`` for any other form."""
    found = _LOCAL.fullmatch(reference)
    return found[1] if found else None


def reference_in(element: Any) -> str:
    """Return ``reference`` of a FHIR Reference, or ``""``."""
    value = element.get("reference") if isinstance(element, dict) else None
    return value if isinstance(value, str) else ""


def referred(task: Resource, element: str) -> Iterator[str]:
    """Yield ``Type/id`` of every ``valueReference`` in Task.input or Task.output, in order."""
    for entry in task.get(element) or ():
        found = plain(reference_in(entry.get("valueReference")))
        if found:
            yield found


def newest(task: Resource, element: str, *types: str) -> str:
    """Return the last ``Type/id`` of one of *types* in Task.input or Task.output, or ``""``."""
    found = ""
    for reference in referred(task, element):
        if reference.partition("/")[0] in types:
            found = reference
    return found


def authors(report: Resource) -> tuple[str, ...]:
    """Return the references in DiagnosticReport.performer whose function is author (v3-ParticipationType ``AUT``, OBR-33)."""
    return tuple(
        reference_in(one)
        for one in report.get("performer") or ()
        if reference_in(one)
        and any(
            code_in(item.get("valueCodeableConcept"), _PARTICIPATION) == "AUT" for item in one.get("extension") or ()
        )
    )


def workflow_code(task: Resource) -> str:
    """Return the code of Task.code in our ``workflow`` CodeSystem, or ``""``."""
    return code_in(task.get("code"), WORKFLOW_SYSTEM)


def code_in(concept: Any, system: str) -> str:
    """Return the code of *system* in a CodeableConcept, or ``""``."""
    if isinstance(concept, dict):
        for coding in concept.get("coding") or ():
            if coding.get("system") == system:
                return str(coding.get("code", ""))
    return ""


def marks(task: Resource) -> frozenset[str]:
    """Return the flags that the Task carries."""
    return frozenset(e["valueCode"] for e in task.get("extension") or () if e.get("url") == MARK)


def recorded(task: Resource, role: str) -> tuple[str, str]:
    """Return institution and reference recorded in the Task for *role*, or two empty strings."""
    for extension in task.get("extension") or ():
        if extension.get("url") == PARTY:
            parts = {part["url"]: part for part in extension.get("extension") or ()}
            if parts.get("role", {}).get("valueCode") == role:
                return (
                    str(parts.get("institution", {}).get("valueCode", "")),
                    reference_in(parts.get("who", {}).get("valueReference")),
                )
    return "", ""


def record(task: dict[str, Any], role: str, institution: str, who: str) -> None:
    """Record who holds *role*, in place of whoever did; an empty *institution* forgets the role."""
    kept = [
        extension
        for extension in task.get("extension") or ()
        if not (
            extension.get("url") == PARTY
            and any(p.get("url") == "role" and p.get("valueCode") == role for p in extension.get("extension") or ())
        )
    ]
    if institution:
        parts: list[dict[str, Any]] = [
            {"url": "role", "valueCode": role},
            {"url": "institution", "valueCode": institution},
        ]
        if who:
            parts.append({"url": "who", "valueReference": {"reference": who}})
        kept.append({"url": PARTY, "extension": parts})
    _put(task, "extension", kept)


def set_marks(task: dict[str, Any], add: tuple[str, ...], remove: tuple[str, ...]) -> None:
    """Add and remove flags; a flag is carried once."""
    now = marks(task)
    kept = [e for e in task.get("extension") or () if not (e.get("url") == MARK and e.get("valueCode") in remove)]
    kept += [{"url": MARK, "valueCode": mark} for mark in add if mark not in now or mark in remove]
    _put(task, "extension", kept)


def expected_at(task: Resource) -> datetime | None:
    """Return when patient or specimen is expected, as an event promised, or ``None``."""
    for extension in task.get("extension") or ():
        if extension.get("url") == EXPECTED_AT:
            return moment(extension.get("valueDateTime"))
    return None


def set_expected_at(task: dict[str, Any], at: datetime) -> None:
    """Record when patient or specimen is expected."""
    kept = [e for e in task.get("extension") or () if e.get("url") != EXPECTED_AT]
    _put(task, "extension", [*kept, {"url": EXPECTED_AT, "valueDateTime": instant(at)}])


def advice(task: Resource) -> tuple[tuple[str, str], ...]:
    """Return code and text of what the checks before sending found wanting without stopping the request."""
    found = []
    for extension in task.get("extension") or ():
        if extension.get("url") == ADVICE:
            parts = {part.get("url"): part for part in extension.get("extension") or ()}
            found.append((str(parts.get("code", {}).get("valueCode")), str(parts.get("text", {}).get("valueString"))))
    return tuple(found)


def set_advice(task: dict[str, Any], found: Iterable[tuple[str, str]]) -> None:
    """Write the advice into the Task, in place of what stood there: so both parties read it, by whatever door."""
    kept = [e for e in task.get("extension") or () if e.get("url") != ADVICE]
    kept += [
        {"url": ADVICE, "extension": [{"url": "code", "valueCode": code}, {"url": "text", "valueString": text}]}
        for code, text in found
    ]
    _put(task, "extension", kept)


def moment(value: Any) -> datetime | None:
    """Return a FHIR dateTime that has a time and a zone as a datetime; ``None`` for partial dates and anything else."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo else None


def instant(at: datetime) -> str:
    """Return *at* as a FHIR instant; ValueError for a datetime without a zone."""
    if at.tzinfo is None:
        raise ValueError("A FHIR instant needs a time zone")
    return at.isoformat(timespec="seconds" if at.microsecond == 0 else "milliseconds")


def add_entries(task: dict[str, Any], element: str, entries: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """Append to Task.input or Task.output what is not there yet; return what was added."""
    present = list(task.get(element) or ())
    known = len(present)
    for entry in entries:
        if entry not in present:
            present.append(dict(entry))
    if len(present) > known:
        task[element] = present
    return tuple(present[known:])


def _put(task: dict[str, Any], element: str, values: list[Any]) -> None:
    if values:
        task[element] = values
    else:
        task.pop(element, None)
