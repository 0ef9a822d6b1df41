"""What may be written by FHIR, and by whom: types, roles, ids, and one entry for each resource.

https://hl7.org/fhir/R4/http.html. :mod:`hub.writing` asks before and inside the transaction; what the institution that
owns a record allows is asked there, where the record is at hand.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from hub.access import DIRECTORY_TYPES, scope_of
from hub.actor import Actor
from hub.directory import DIRECTORY_OWNER
from hub.errors import Category, HubError
from hub.interaction import Change, Json, Key, Pairs
from hub.translate import OBJECT_DIGEST

#: Types that are messages or answers of a server, not records; nothing is stored under them.
NOT_STORED = frozenset({"Parameters", "OperationOutcome", "CapabilityStatement"})
#: The audit trail is written by the hub alone; a Subscription would promise notices that are not sent yet.
NOT_WRITABLE = NOT_STORED | {"AuditEvent", "Subscription"}
#: Directory resources that a member keeps itself; all members read them.
MEMBERS_OWN = frozenset({"ConceptMap", "Schedule", "Slot"})
#: Directory types that the doors' own tables are made of.
DISTILLED = frozenset({"Organization", "Endpoint", "Practitioner", "PractitionerRole"})
_READ_ONLY = frozenset({"patient", "auditor"})


def refuse_role(actor: Actor, type: str) -> None:
    """Raise forbidden when *actor* may write no resource of *type*."""
    if type in NOT_WRITABLE:
        raise HubError(
            Category.UNSUPPORTED,
            f"{type} cannot be written here.",
            where=type,
            status=405,
            issue_code="not-supported",
        )
    if actor.patient is not None or not actor.roles - _READ_ONLY:
        raise HubError(Category.FORBIDDEN, "This role only reads.", where=type)
    if type in DIRECTORY_TYPES - MEMBERS_OWN and actor.institution != DIRECTORY_OWNER:
        raise HubError(
            Category.FORBIDDEN,
            "The directory is kept by the operator.",
            where=type,
            remedy="Ask the operator to import the change.",
        )
    if scope_of(actor).directory_only and type not in DIRECTORY_TYPES | {"Task", "Communication"}:
        raise HubError(Category.FORBIDDEN, "The operator keeps no patient data.", where=type)


def refuse_id(change: Change) -> None:
    """Raise incorrect (422) for an id that only the hub gives."""
    # Ids of version 5 are made from business keys, so whoever takes one could keep another hospital's resource out.
    if change.condition is None and change.patch is None and change.id is not None and change.id[14:15] == "5":
        try:
            version = uuid.UUID(change.id).version
        except ValueError:
            return
        if version == 5:
            raise HubError(
                Category.INCORRECT,
                "Ids that are UUIDs of version 5 are given by the hub.",
                where=change.label or f"{change.type}.id",
                remedy="Let the hub choose the id (POST), or use another kind of id.",
                status=422,
                issue_code="business-rule",
            )


def refuse_twice(changes: Sequence[Change]) -> None:
    """Raise incorrect where two of *changes* are about one resource."""
    seen: dict[Key, str] = {}
    urls: dict[str, str] = {}
    pending: dict[tuple[str, Pairs], str] = {}
    for change in changes:
        clash = ""
        if change.id is not None:
            clash = seen.setdefault(change.key, change.label)
        if change.full_url and clash in {"", change.label}:
            clash = urls.setdefault(change.full_url, change.label)
        if change.condition is not None and clash in {"", change.label}:
            clash = pending.setdefault((change.type, tuple(sorted(change.condition))), change.label)
        if clash not in {"", change.label}:
            raise HubError(
                Category.INCORRECT,
                f"{clash} and {change.label} are about the same resource.",
                where=change.label,
                remedy="Send one entry for each resource.",
                issue_code="duplicate",
            )


def refuse_object(resource: Json, label: str) -> None:
    """Raise incorrect (422) where *resource* says where stored bytes are."""
    # Only the hub says where stored bytes are; a sender who could, would read other institutions' objects.
    stack: list[Any] = [resource]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            if str(value.get("url", "")).endswith(f"/{OBJECT_DIGEST}"):
                raise HubError(
                    Category.INCORRECT,
                    "The extension that names a stored object is the hub's own.",
                    where=label or str(resource["resourceType"]),
                    remedy="Send the bytes in Binary.data.",
                    status=422,
                    issue_code="business-rule",
                )
            stack.extend(value.values())
