"""Patient as ADT^A08 and A31 (who the patient is has changed) and ADT^A40 (two numbers are one patient).

HL7 v2 chapters 3.3.8, 3.3.31 and 3.3.40. These tell a partner of a record that it has from another institution, so the
numbers are that institution's, each with its owner in CX.4, beside the receiver's own where it is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from fhir_mappings.hl7v2.builder import FieldValue, MessageBuilder, Repeat
from fhir_mappings.hl7v2.outbound import fields
from fhir_mappings.hl7v2.outbound.target import OutboundTarget, start

Json = Mapping[str, Any]

_STRUCTURES = {"A08": "ADT_A01", "A31": "ADT_A05"}


def adt_a08(
    patient: Json,
    *,
    target: OutboundTarget,
    control_id: str,
    now: datetime,
    event: Literal["A08", "A31"] = "A08",
) -> str:
    """Return as text who the patient is now. There is no visit: PV1-2 is N, not applicable (table 0004)."""
    builder = start(target, f"ADT^{event}^{_STRUCTURES[event]}", control_id=control_id, now=now)
    evn(builder, event, now, target)
    builder.segment("PID", demographics(patient, target))
    no_visit(builder)
    return builder.to_text()


def adt_a40(survivor: Json, dead: Json, *, target: OutboundTarget, control_id: str, now: datetime) -> str:
    """Return as text that the numbers of *dead* belong to *survivor* from now on (PID and MRG)."""
    builder = start(target, "ADT^A40^ADT_A39", control_id=control_id, now=now)
    evn(builder, "A40", now, target)
    builder.segment("PID", demographics(survivor, target))
    # A record that was never sent but merged has its numbers marked old from the start; they are the ones that count.
    gone: dict[int, FieldValue] = {
        1: Repeat(fields.numbers(dead, target, every=True, old=True, national=False)),
        7: fields.name(dead.get("name", []), target),
    }
    builder.segment("MRG", gone)
    return builder.to_text()


def demographics(patient: Json, target: OutboundTarget) -> dict[int, FieldValue]:
    """Return PID with every number and, of a patient who has died, PID-29 and PID-30."""
    segment = fields.pid(patient, target, every=True)
    died = patient.get("deceasedDateTime")
    if died:
        segment[29] = fields.time(str(died), target)
    if died or patient.get("deceasedBoolean"):
        segment[30] = "Y"
    return segment


def evn(builder: MessageBuilder, event: str, now: datetime, target: OutboundTarget) -> None:
    """Append EVN; EVN-1 is required until v2.3 and kept since, because many readers look there."""
    builder.segment("EVN", {1: event, 2: fields.time(now.isoformat(), target)})


def no_visit(builder: MessageBuilder) -> None:
    """Append a PV1 that says that there is no visit to tell of, where the structure wants one."""
    builder.segment("PV1", {1: "1", 2: "N"})
