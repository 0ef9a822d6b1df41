"""What became of prescriptions and of what was done on them, to who sent them: ORP^O10, RRE^O12, RRD^O14, RRA^O18 (HL7 v2
chapters 4.13.4, 4.13.6, 4.13.9 and 4.13.13), and ORR^O02 to an ORM^O01 with RXO.

One answer holds every order of the message, each with its own numbers and its own word of table 0119. Before v2.4 the pharmacy
messages were all of the event O01, and their answers of O02.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fhir_mappings.hl7v2.ack import AckError, copied, err
from fhir_mappings.hl7v2.builder import FieldValue
from fhir_mappings.hl7v2.outbound import fields
from fhir_mappings.hl7v2.outbound.target import OutboundTarget, start
from fhir_mappings.hl7v2.tokenizer import Segment

Json = Mapping[str, Any]

#: MSH-9 of a pharmacy message -> that of the answer to it.
ANSWERS: Mapping[str, str] = {
    "OMP^O09": "ORP^O10",
    "RDE^O11": "RRE^O12",
    "RDE^O25": "RRE^O26",
    "RDE^O01": "RRE^O02",
    "RDS^O13": "RRD^O14",
    "RDS^O01": "RRD^O02",
    "RAS^O17": "RRA^O18",
    "RAS^O01": "RRA^O02",
    "ORM^O01": "ORR^O02",
}
#: The structure of an answer whose event has none of its own (table 0354).
_STRUCTURES: Mapping[str, str] = {"RRE^O26": "RRE_O12"}
#: ORC-1 of a command -> what says that it was carried out, and what that it was not (table 0119).
CONTROLS: Mapping[str, tuple[str, str]] = {
    "NW": ("OK", "UA"),
    "RO": ("OK", "UA"),
    "CA": ("CR", "UC"),
    "DC": ("DR", "UD"),
    "HD": ("HR", "UH"),
    "RL": ("OR", "UR"),
    "XO": ("XR", "UX"),
    "RP": ("RQ", "UM"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredOrder:
    """One order of the message that is answered.

    Attributes:
        orc: its ORC, whose numbers (ORC-2 to ORC-4) are given back as they came.
        error: why it was not carried out; ``None`` where it was.
    """

    orc: Segment
    error: AckError | None = None

    @property
    def control(self) -> str:
        """ORC-1 of the answer; what commands nothing (a dispense, a notice of the filler) is taken: OK, or UA."""
        done, unable = CONTROLS.get(self.orc.get(1).strip().upper(), ("OK", "UA"))
        return unable if self.error else done


def orp_o10(
    orders: Sequence[AnsweredOrder],
    *,
    asked_by: str,
    original_control_id: str,
    original_version: str,
    patient: Json,
    target: OutboundTarget,
    control_id: str,
    now: datetime,
) -> str:
    """Return the answer to a message of *orders* as text.

    Args:
        asked_by: MSH-9 of the message that is answered, a key of :data:`ANSWERS`.
        original_control_id: MSH-10 of that message, which becomes MSA-2.
        original_version: MSH-12 of that message; the answer is in the same version.
    """
    if re.fullmatch(r"2\.[1-9](\.[0-9])?", original_version):
        target = replace(target, dialect=replace(target.dialect, version_out=original_version))
    event = ANSWERS[asked_by]
    structure = _STRUCTURES.get(event, event.replace("^", "_"))
    builder = start(target, f"{event}^{structure}", control_id=control_id, now=now)
    # MSA-1 is AA in any case: the message was understood, whatever became of its orders.
    builder.segment("MSA", {1: "AA", 2: original_control_id})
    version = target.dialect.version_out
    errors = [one.error for one in orders if one.error is not None]
    # Before v2.5 ERR stands once and repeats its only field, so that the first error speaks for the message.
    for error in errors if target.modern else errors[:1]:
        builder.segment("ERR", err(error, version))
    builder.segment("PID", fields.pid(patient, target))
    # ORC-7 is required in v2.3 and was replaced by TQ1 with v2.5; what was asked is given back.
    given_back = (2, 3, 4) if target.modern else (2, 3, 4, 7)
    for one in orders:
        numbers: dict[int, FieldValue] = {number: copied(one.orc.field(number)) for number in given_back}
        builder.segment(
            "ORC",
            {
                1: one.control,
                **numbers,
                9: fields.time(now.isoformat(), target),
                16: ["", one.error.text] if one.error else None,
            },
        )
    return builder.to_text()
