"""What belongs to one piece of work: the resources, people and bytes that a message about it is made of."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fhir_mappings.json import loads
from hub.access import UNRESTRICTED, Scope
from hub.ports import ObjectStore, Tx
from hub.workflows.base import BASE
from hub.workflows.task import plain, reference_in

Json = dict[str, Any]

#: Extension of Binary.data that names the stored object.
OBJECT_DIGEST = f"{BASE}/StructureDefinition/object-digest"
#: A message larger than this is not built; 16 MiB is the usual cap of MLLP receivers.
MAX_ATTACHMENT_BYTES = 12 << 20
#: What a request, report or document may refer to and still be part of the same piece of work.
PART_OF_WORK = frozenset(
    {
        "Binary",
        "Condition",
        "DiagnosticReport",
        "DocumentReference",
        "Endpoint",
        "ImagingStudy",
        "Location",
        "Media",
        "Observation",
        "Organization",
        "Patient",
        "Practitioner",
        "PractitionerRole",
        "ServiceRequest",
        "Specimen",
    }
)
#: What is part of the work but leads no further.
LEAVES = frozenset({"Patient", "Practitioner", "PractitionerRole", "Organization", "Endpoint", "Location", "Task"})


def references(value: Any) -> set[str]:
    """Return ``Type/id`` of every literal reference inside *value*."""
    found: set[str] = set()
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            reference = one.get("reference")
            if isinstance(reference, str) and (target := plain(reference)):
                found.add(target)
            stack.extend(one.values())
        elif isinstance(one, list):
            stack.extend(one)
    return found


def followed(resource: Json) -> Iterator[str]:
    """Yield what *resource* refers to that belongs to the same piece of work."""
    if resource["resourceType"] in LEAVES - {"Task"}:
        return
    for one in references(resource):
        if one.partition("/")[0] in PART_OF_WORK:
            yield one


def get(tx: Tx, reference: str | None) -> Json | None:
    """Return the current resource that *reference* names, whoever owns it; ``None`` when there is none."""
    if not reference:
        return None
    kind, _, id_ = reference.partition("/")
    stored = tx.records.get(kind, id_, UNRESTRICTED)
    return None if stored is None or stored.deleted else loads(stored.body)


def all_of(tx: Tx, references: Sequence[Mapping[str, Any]], scope: Scope = UNRESTRICTED) -> list[Json]:
    """Return the current resources that *references* name, in their order; what is gone or out of *scope* is left out."""
    wanted = [one for one in (plain(reference_in(item)) for item in references) if one is not None]
    pairs = [(kind, id_) for kind, _, id_ in (one.partition("/") for one in wanted)]
    found = tx.records.get_many(pairs, scope)
    return [loads(found[pair].body) for pair in pairs if pair in found and not found[pair].deleted]


def text_of(concept: Any) -> str:
    """Return the words of a CodeableConcept: its text, else the first display."""
    if not isinstance(concept, dict):
        return ""
    shown = [str(coding.get("display", "")) for coding in concept.get("coding", ())]
    return str(concept.get("text", "")) or next((one for one in shown if one), "")


def people_of(tx: Tx, resource: Json) -> dict[str, Json]:
    """Return the Practitioners that *resource* names, keyed by the reference that names them."""
    wanted: set[str] = set()
    for element in ("requester", "performer", "resultsInterpreter", "author", "authenticator"):
        value = resource.get(element, ())
        for one in value if isinstance(value, list) else (value,):
            reference = plain(reference_in(one))
            if reference is not None:
                wanted.add(reference)
    found: dict[str, Json] = {}
    for reference in wanted:
        person = get(tx, reference)
        if person is not None and person["resourceType"] == "PractitionerRole":
            identifiers = person.get("identifier", [])
            whole = get(tx, plain(reference_in(person.get("practitioner"))))
            person = {**(whole or {}), "identifier": identifiers} if whole is not None else None
        if person is not None:
            found[reference] = person
    return found


def bytes_of(tx: Tx, objects: ObjectStore, form: Mapping[str, Any], *, owner: str = "") -> bytes | None:
    """Return the bytes of the attachment *form*, from its own data or from the Binary that it names; ``None`` for none.

    With *owner*, only a Binary of that institution: an attachment goes with the document of the same institution.
    """
    if "data" in form:
        return base64.b64decode(form["data"])
    reference = plain(str(form.get("url", "")))
    binary = get(tx, reference)
    if binary is None or (owner and not _owns(tx, owner, reference)):
        return None
    if "data" in binary:
        return base64.b64decode(binary["data"])
    for extension in binary.get("_data", {}).get("extension", ()):
        if extension.get("url") == OBJECT_DIGEST:
            return objects.read(str(extension["valueString"]))
    return None


def _owns(tx: Tx, owner: str, reference: str | None) -> bool:
    kind, _, id_ = (reference or "").partition("/")
    stored = tx.records.get(kind, id_, UNRESTRICTED)
    return stored is not None and stored.owner == owner
