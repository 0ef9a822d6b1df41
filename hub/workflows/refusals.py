"""Why a Task or a move of it is refused, as errors with the events that are allowed instead.

Naming a resource in a Task opens it to the other party, so a sender may name only what it owns.
https://hl7.org/fhir/R4/operationoutcome.html
"""

from __future__ import annotations

from hub.access import DIRECTORY_TYPES
from hub.errors import Category, HubError, Issue
from hub.workflows.base import Actor, Instance, Resource
from hub.workflows.standing import parties_of
from hub.workflows.task import plain, reference_in


def refused(
    category: Category, message: str, allowed: tuple[str, ...], problems: tuple[str, ...] = (), where: str = "event"
) -> HubError:
    """Return the error for a move that does not hold, with the events that are allowed instead."""
    listed = ", ".join(allowed) or "none"
    return HubError(
        category,
        message,
        where=where,
        remedy=f"Allowed events: {listed}.",
        issues=[
            *(Issue(severity="error", code="business-rule", message=p, where=where) for p in problems or (message,)),
            Issue(severity="information", code="informational", message=f"Allowed events: {listed}.", where="event"),
        ],
        issue_code="business-rule",
        status=409 if category is Category.CONFLICT else 422,
    )


def refusal(message: str, *, where: str, remedy: str = "") -> HubError:
    """Return the error for a Task that breaks a rule which no event can mend."""
    return HubError(Category.INCORRECT, message, where=where, remedy=remedy, issue_code="business-rule", status=422)


def refuse_foreign(
    instance: Instance, actor: Actor, element: str, entries: tuple[Resource, ...], present: tuple[Resource, ...]
) -> None:
    """Refuse entries that name what the sender does not own: naming a resource opens it to the other party."""
    parties = instance.parties or parties_of(instance.task)
    for entry in entries:
        if entry in present:
            continue
        if element == "output" and parties.get("owner") != actor.institution:
            raise refusal("Only the institution that does the work adds to Task.output.", where="Task.output")
        reference = reference_in(entry.get("valueReference"))
        if not reference or reference.startswith("#"):
            continue
        local = plain(reference)
        if local is None:
            raise refusal(
                f"Task.{element} must refer to resources of this hub as Type/id.",
                where=f"Task.{element}.valueReference",
                remedy="Store the resource here first, or give its identifier alone.",
            )
        if local.partition("/")[0] in DIRECTORY_TYPES:
            continue
        held = instance.resources.get(local)
        if held is None or held.institution != actor.institution:
            raise refusal(
                f"{local} in Task.{element} is not a resource of the sender's institution.",
                where=f"Task.{element}.valueReference",
                remedy="Refer to resources that your own institution has stored.",
            )


def refuse_foreign_subject(task: Resource, instance: Instance, institution: str) -> None:
    """Refuse a Task whose focus or patient is not of *institution*, which asks for the work."""
    for element in ("focus", "for"):
        local = plain(reference_in(task.get(element)))
        held = instance.resources.get(local) if local else None
        if held is None or held.institution != institution:
            raise refusal(
                f"Task.{element} must refer to a resource of the requester's institution.",
                where=f"Task.{element}",
                remedy="Store the resource here first and refer to it as Type/id.",
            )
