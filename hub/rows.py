"""Resources while an HL7 v2 message is applied to them, and what their links and tags say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhir_mappings.json import loads
from hub.ports import Stored

Json = dict[str, Any]


@dataclass(slots=True)
class Row:
    """One resource while the message is being applied."""

    resource: Json | None
    asserted_at: datetime | None
    stored: bool
    #: Institution that owns what is stored; ``None`` where nothing is.
    owner: str | None = None
    #: Content differs from what is stored.
    dirty: bool = False
    #: Only the moment it speaks of has moved on.
    confirmed: bool = False


def row_of(stored: Stored | None) -> Row:
    """Return what is stored as a row to work on; an empty one where nothing is, or no longer is."""
    if stored is None or stored.deleted:
        return Row(resource=None, asserted_at=None, stored=False)
    resource: Json = loads(stored.body)
    # The stamps are the store's; compared with what a message says they would always differ.
    meta = {key: value for key, value in resource.get("meta", {}).items() if key not in {"versionId", "lastUpdated"}}
    if meta:
        resource["meta"] = meta
    else:
        resource.pop("meta", None)
    return Row(resource=resource, asserted_at=stored.asserted_at, stored=True, owner=stored.owner)


def replaced_by(patient: Mapping[str, Any] | None) -> str | None:
    """Return the id of the Patient that replaces this one, or ``None``."""
    for link in (patient or {}).get("link", []):
        if link.get("type") == "replaced-by":
            return str(link.get("other", {}).get("reference", "")).removeprefix("Patient/") or None
    return None


def redirected(value: Any, redirects: Mapping[str, str]) -> Any:
    """Return *value* with references to dead patients led to their survivors; the same object when there are none."""
    if isinstance(value, dict):
        made = {key: redirected(item, redirects) for key, item in value.items()}
        reference = value.get("reference")
        if isinstance(reference, str) and reference.startswith("Patient/"):
            id_ = reference.removeprefix("Patient/")
            made["reference"] = f"Patient/{redirects.get(id_, id_)}"
        return made if any(made[key] is not value[key] for key in value) and made != value else value
    if isinstance(value, list):
        items = [redirected(item, redirects) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def readdressed(value: Any, references: Mapping[str, str]) -> Any:
    """Return *value* with the references that are keys of *references* changed; the same object when there are none."""
    if isinstance(value, dict):
        made = {key: readdressed(item, references) for key, item in value.items()}
        reference = value.get("reference")
        if isinstance(reference, str) and reference in references:
            made["reference"] = references[reference]
        return made if any(made[key] is not value[key] for key in value) else value
    if isinstance(value, list):
        items = [readdressed(item, references) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def number_of(identifier: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what tells one identifier from another."""
    return identifier.get("system"), identifier.get("value")


def visit_of(resource: Mapping[str, Any] | None) -> str:
    """Return the reference of the Encounter that a resource belongs to, or ``""``."""
    return str((resource or {}).get("encounter", {}).get("reference", ""))


def is_listed(resource: Mapping[str, Any] | None, source_key: str) -> bool:
    """Return whether a resource came from the list *source_key* of a message."""
    tags = (resource or {}).get("meta", {}).get("tag", [])
    return any(tag.get("code") == source_key and str(tag.get("system", "")).endswith("/v2-segment") for tag in tags)
