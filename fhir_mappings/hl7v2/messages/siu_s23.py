"""SIU^S23 and S24: times that nobody can book, and their release (HL7 v2 chapter 10.4.12 and 10.4.13) as FHIR Slot.

They are about the diary of a person, a place or a thing, and about no patient. v2-to-FHIR has no map for them. A Slot is
one resource for one span of time, so that the release of the same span finds what was blocked, whatever number it bears.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place
from fhir_mappings.hl7v2.messages import siu_s12
from fhir_mappings.hl7v2.segments import convert, nte
from fhir_mappings.hl7v2.tokenizer import Segment

_STATUS = {"S23": "busy-unavailable", "S24": "free"}
_MAPPED = frozenset({"MSH", "SFT", "SCH", "TQ1", "NTE", "RGS", "AIS", "AIG", "AIL", "AIP"})


def translate(assembly: Assembly, trigger: str) -> None:
    """Add the spans of time of each resource that the message names.

    Raises:
        MalformedError: SCH is missing, or no AIP, AIL, AIG or AIS names whose time it is (100); start or end are not
            valued (101).
    """
    segment = assembly.require("SCH")
    times = siu_s12.times(segment, "booked", assembly)
    if times["start"] == times["end"]:
        raise assembly.missing(segment, 11, "Send the end in SCH-11.5 or TQ1-8, or the duration in SCH-9.")
    owners = [
        (key, actor)
        for item in assembly.message.segments
        if item.name in {"AIP", "AIL", "AIG", "AIS"} and item.get(2).strip().upper() != "D"
        for key, actor in _owners(item, assembly)
    ]
    if not owners:
        assembly.require("AIP")
    texts = nte.notes(assembly.message.all("NTE"))
    reason = segment.get(6, 2).strip() or segment.get(7, 2).strip() or segment.get(6).strip() or segment.get(7).strip()
    comment = "\n".join(part for part in (reason, texts[0]["text"] if texts else "") if part)
    for key, actor in dict(owners).items():
        schedule = assembly.intern(
            {
                "resourceType": "Schedule",
                "id": assembly.ctx.id("Schedule", "schedule", key),
                "active": True,
                "actor": [actor],
            }
        )
        slot: dict[str, Any] = {
            "resourceType": "Slot",
            "id": assembly.ctx.id("Slot", "schedule", f"{key}|{times['start']}|{times['end']}"),
            "schedule": {"reference": schedule},
            "status": _STATUS[trigger],
            "start": times["start"],
            "end": times["end"],
        }
        numbers = [
            convert.order_identifier(assembly.ctx, kind, code, value)
            for number, kind, code in ((1, "placer-appointment", "PLAC"), (2, "filler-appointment", "FILL"))
            if (value := segment.get(number).strip())
        ]
        if numbers:
            slot["identifier"] = numbers
        if comment:
            slot["comment"] = comment
        # Why the time was blocked is no reason for its being free.
        assembly.upsert(slot, cleared=frozenset({"comment"}), guard="demographics")
    for item in assembly.message.segments:
        if item.name not in _MAPPED:
            assembly.skip(item)


def _owners(item: Segment, assembly: Assembly) -> list[tuple[str, dict[str, Any]]]:
    if item.name != "AIS":
        found = siu_s12.actors(item, assembly)
    else:
        # A service without a resource has a diary of its own.
        concept = convert.concept(item.field(3), Place(assembly, item, 3)) or {}
        text = concept.get("text") or convert.code_of(item.field(3))
        found = [{"display": text}] if text else []
    return [(f"{item.name}|{one.get('reference') or one.get('display', '')}", one) for one in found]
