"""NTE: notes (HL7 v2 chapter 2.14.10) as FHIR Annotation. v2-to-FHIR: NTE[ServiceRequest]."""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.tokenizer import Segment


def notes(segments: list[Segment]) -> list[dict[str, Any]]:
    """Return one Annotation for the notes in a row: their NTE-3 repetitions are lines of one text."""
    lines = [repetition.text() for segment in segments for repetition in segment.field(3).repetitions]
    text = "\n".join(lines).strip("\n")
    return [{"text": text}] if text.strip() else []
