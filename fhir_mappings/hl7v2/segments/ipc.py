"""IPC: imaging procedure control (HL7 v2 chapter 4.5.6) as parts of FHIR ServiceRequest. v2-to-FHIR has no map for it.

IHE Radiology (RAD-4, Procedure Scheduled by OMI) fills it with what a Modality Worklist needs: PS3.3 C.4.10 and C.4.11.
"""

from __future__ import annotations

import re
from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place
from fhir_mappings.hl7v2.segments import convert
from fhir_mappings.hl7v2.tokenizer import Segment

_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_MODALITY = re.compile(r"[A-Z][A-Z0-9_]{1,15}")


def details(segments: list[Segment], assembly: Assembly) -> list[dict[str, Any]]:
    """Return ``orderDetail``: modality (IPC-5) and protocol (IPC-6) of each scheduled step, each said once."""
    made: list[dict[str, Any]] = []
    for segment in segments:
        modality = convert.concept(segment.field(5), Place(assembly, segment, 5))
        if modality is not None:
            _as_dicom(modality, segment)
        protocol = convert.concepts(segment.field(6), Place(assembly, segment, 6))
        made += [one for one in (modality, *protocol) if one is not None and one not in made]
    return made


def _as_dicom(modality: dict[str, Any], segment: Segment) -> None:
    # IPC-5 holds a DICOM defined term (PS3.3 C.7.3.1.1.1), also where nobody names the code system.
    code = segment.get(5).strip()
    if not segment.get(5, 3).strip() and _MODALITY.fullmatch(code) and modality.get("coding"):
        modality["coding"][0]["system"] = _DCM


def numbers(segments: list[Segment], assembly: Assembly) -> list[dict[str, Any]]:
    """Return Identifiers of the requested procedures (IPC-2) and scheduled steps (IPC-4), each said once.

    Where an order has several steps, each number of a step says of which modality (IPC-5) that is.
    """
    made: list[dict[str, Any]] = []
    several = len({segment.get(4).strip() for segment in segments}) > 1
    for segment in segments:
        for field, kind, text in (
            (2, "requested-procedure", "Requested Procedure ID"),
            (4, "scheduled-step", "Scheduled Procedure Step ID"),
        ):
            value, modality = segment.get(field).strip(), segment.get(5).strip()
            if not value:
                continue
            one: dict[str, Any] = {
                "type": {"text": text},
                "system": assembly.ctx.system(kind, segment.get(field, 2)),
                "value": value,
            }
            if several and kind == "scheduled-step" and _MODALITY.fullmatch(modality):
                url = f"{assembly.ctx.base}/StructureDefinition/scheduled-modality"
                one = {"extension": [{"url": url, "valueString": modality}], **one}
            if one not in made:
                made.append(one)
    return made


def stations(segments: list[Segment], assembly: Assembly) -> list[dict[str, Any]]:
    """Return extensions with the AE titles (IPC-9) and names (IPC-7) of the scheduled stations."""
    base = f"{assembly.ctx.base}/StructureDefinition"
    made: list[dict[str, Any]] = []
    for segment in segments:
        for url, texts in (
            (f"{base}/scheduled-station-ae-title", [item.text().strip() for item in segment.field(9).repetitions]),
            (f"{base}/scheduled-station-name", [segment.get(7, 2).strip() or segment.get(7).strip()]),
        ):
            for text in texts:
                extension = {"url": url, "valueString": text}
                if text and extension not in made:
                    made.append(extension)
    return made


def location(segments: list[Segment], assembly: Assembly) -> list[dict[str, Any]]:
    """Return ``locationCode`` from IPC-8, each place said once."""
    made: list[dict[str, Any]] = []
    for segment in segments:
        found = convert.concept(segment.field(8), Place(assembly, segment, 8))
        if found is not None and found not in made:
            made.append(found)
    return made
