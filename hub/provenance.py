"""The Provenance of what an HL7 v2 message or a clinical document changed: who said it, and where its bytes are kept.

https://hl7.org/fhir/R4/provenance.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhir_mappings.identifiers import resource_id
from hub.clock import instant
from hub.members import MEMBER_SYSTEM

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Who says it, and where it is written down.

    Attributes:
        owner: institution that owns what the message makes.
        base: canonical base of the hub's own systems and extensions.
        journal_seq: number of the message in the journal.
        repairs: what was mended on the way in, for the Provenance; without patient data.
    """

    owner: str
    base: str
    journal_seq: int
    correlation_id: str
    now: datetime
    repairs: tuple[str, ...] = ()


def provenance(changed: Sequence[str], context: Context, event: str) -> Json:
    """Return the Provenance of one message: what it changed, whose it was, and the journal entry that holds its bytes.

    https://hl7.org/fhir/R4/provenance.html; v2-to-FHIR: MSH[Provenance-Source, Provenance-Transformation].
    """
    base = context.base
    coding = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
    made: Json = {
        "resourceType": "Provenance",
        "id": resource_id(context.owner, "journal", "Provenance", str(context.journal_seq)),
        "target": [{"reference": reference} for reference in changed],
        "recorded": instant(context.now),
        "activity": _activity(event),
        "agent": [
            {
                "type": {"coding": [{"system": coding, "code": "author"}]},
                "who": {
                    "type": "Organization",
                    "identifier": {"system": MEMBER_SYSTEM, "value": context.owner},
                },
            },
            {
                "type": {"coding": [{"system": coding, "code": "assembler"}]},
                "who": {"display": "医协枢纽 / Yixie Hub"},
            },
        ],
        "entity": [
            {
                "role": "source",
                "what": {
                    "identifier": {"system": f"{base}/NamingSystem/journal", "value": str(context.journal_seq)},
                    "display": f"HL7 {event}" if event.startswith("CDA") else f"HL7 v2 {event}",
                },
            },
            {
                "role": "source",
                "what": {"identifier": {"system": f"{base}/NamingSystem/correlation", "value": context.correlation_id}},
            },
        ],
    }
    if context.repairs:
        made["extension"] = [
            {"url": f"{base}/StructureDefinition/repair", "valueString": text} for text in context.repairs
        ]
    return made


def _activity(event: str) -> Json:
    if event.startswith("CDA"):
        # A document is no event; what it is, its type says.
        return {"text": event}
    return {
        "coding": [
            {
                "system": "http://terminology.hl7.org/CodeSystem/v2-0003",
                "code": event.partition("^")[2] or event,
            }
        ],
        "text": event,
    }
