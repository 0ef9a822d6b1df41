"""What an asker may see: one scope, inside every query at every door.

A scope is data; :mod:`storage.sql.access` compiles it into one SQL predicate that each statement over records,
studies and history carries. Outside the scope means absent: the answer is the same as for what does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hub.actor import Actor

#: Directory resources that every member may read; they hold no patient data.
DIRECTORY_TYPES = frozenset(
    {
        "ConceptMap",
        "Organization",
        "Endpoint",
        "OrganizationAffiliation",
        "Practitioner",
        "PractitionerRole",
        "HealthcareService",
        "Location",
        "Schedule",
        "Slot",
    }
)


#: https://terminology.hl7.org/CodeSystem/v3-Confidentiality, and its codes for what is more than ordinarily confidential.
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
_RESTRICTED = frozenset({"R", "V"})


def is_restricted(resource: Mapping[str, Any]) -> bool:
    """Return whether *resource* is labelled restricted (R) or very restricted (V).

    PV2-22, ORC-28 and the label of a document say so (https://hl7.org/fhir/R4/security-labels.html). A grant for a
    patient's whole record does not reach what is labelled so; a Task that names it does.
    """
    labels = list(resource.get("meta", {}).get("security", ()))
    if resource.get("resourceType") == "DocumentReference":
        labels += [coding for one in resource.get("securityLabel", ()) for coding in one.get("coding", ())]
    return any(one.get("system") == CONFIDENTIALITY and one.get("code") in _RESTRICTED for one in labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The reach of one asker.

    Attributes:
        institution: own data of this institution, and what open grants give it.
        everything: the hub itself (timers, translation, integrity checks); never set from a request.
        patient: only this Patient's compartment, for a patient's own access.
        directory_only: sees directory resources and operator work items, no patient data (the operator).
        share: only the studies of this link, while it is open; no record at all, so ``directory_only`` is set too.
    """

    institution: str
    everything: bool = False
    patient: str | None = None
    directory_only: bool = False
    share: str | None = None

    def __post_init__(self) -> None:
        assert self.share is None or self.directory_only, "A link reaches no records."


#: For the hub's own work; a door never passes this.
UNRESTRICTED = Scope(institution="YY", everything=True)


#: Roles whose work needs no patient data, and those that bring it back when one person has both.
_WITHOUT_PATIENTS = frozenset({"operator", "researcher"})
_WITH_PATIENTS = frozenset({"doctor", "physician", "nurse", "writer", "reviewer", "lab", "system"})


def scope_of(actor: Actor) -> Scope:
    """Return the reach of *actor*: own institution plus open grants, or less."""
    if actor.share is not None:
        return Scope(institution=actor.institution, directory_only=True, share=actor.share)
    if actor.patient is not None:
        return Scope(institution=actor.institution, patient=actor.patient)
    if actor.roles & _WITHOUT_PATIENTS and not actor.roles & _WITH_PATIENTS:
        return Scope(institution=actor.institution, directory_only=True)
    return Scope(institution=actor.institution)
