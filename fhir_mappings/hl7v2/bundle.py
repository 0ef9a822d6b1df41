"""A translation as one FHIR transaction Bundle (https://hl7.org/fhir/R4/bundle.html#transaction).

This is what ``hub convert`` shows and what the golden files hold: the resources as they would be stored if nothing had
been stored before.
"""

from __future__ import annotations

import base64
from typing import Any

from fhir_mappings.hl7v2.base import Attachment, Merge, Translation, Upsert
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.status import apply

Json = dict[str, Any]


def to_bundle(translation: Translation, ctx: MappingContext) -> Json:
    """Return the Bundle of *translation*: one PUT for each resource, in the order the message states them."""
    resources: dict[str, Json] = {}
    for change in translation.changes:
        match change:
            case Upsert(update_only=True) if change.reference not in resources:
                continue
            case Upsert():
                applied = apply(
                    resources.get(change.reference),
                    change,
                    asserted_at=translation.asserted_at,
                    stored_asserted_at=translation.asserted_at,
                )
                resources[change.reference] = applied.resource
            case Merge():
                link(resources, change)
            case Attachment():
                resources[f"Binary/{change.binary_id}"] = binary(change)
            case _:
                # A snapshot retires what is stored; here nothing is.
                continue
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": f"{ctx.base}/{reference}",
                "resource": resource,
                "request": {"method": "PUT", "url": reference},
            }
            for reference, resource in resources.items()
        ],
    }


def binary(attachment: Attachment) -> Json:
    """Return the Binary of *attachment* with its bytes inside."""
    return {
        "resourceType": "Binary",
        "id": attachment.binary_id,
        "contentType": attachment.content_type,
        "securityContext": {"reference": attachment.context},
        "data": base64.b64encode(attachment.data).decode(),
    }


def link(resources: dict[str, Json], merge: Merge) -> None:
    """Link the two Patients of *merge* in *resources* both ways; a second time changes nothing."""
    survivor, dead = f"Patient/{merge.survivor_id}", f"Patient/{merge.dead_id}"
    for reference, other, kind in ((survivor, dead, "replaces"), (dead, survivor, "replaced-by")):
        patient = resources.get(reference)
        if patient is None:
            continue
        entry = {"other": {"reference": other}, "type": kind}
        links = patient.setdefault("link", [])
        if entry not in links:
            links.append(entry)
    if dead in resources:
        resources[dead]["active"] = False
