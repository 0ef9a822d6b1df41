"""From the asker that a door authenticated to the actor that a workflow judges."""

from __future__ import annotations

from hub import actor as asking
from hub.ports import MemberPractitioner
from hub.workflows.base import Actor


def acting(asker: asking.Actor, person: MemberPractitioner | None) -> Actor:
    """Return who *asker* is in a workflow; *person* is the member's practitioner of that code, if there is one.

    A patient acts for no institution. The hub's own clock and delivery use ``HUB_ACTOR`` instead; nothing that a door
    authenticated ever becomes it.
    """
    if asker.patient is not None:
        return Actor(institution="", roles=frozenset())
    if person is None:
        return Actor(institution=asker.institution, roles=asker.roles)
    return Actor(
        institution=asker.institution,
        practitioner=f"Practitioner/{person.practitioner_id}",
        reference=f"PractitionerRole/{person.role_id}",
        roles=asker.roles,
    )
