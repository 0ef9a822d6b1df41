"""RSP^K21, K22 and K23: what answers a QBP (HL7 v2.5 chapter 3.3.57 to 3.3.59; QAK 5.5.2, DSC 2.14.4; IHE ITI-9, ITI-21)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from fhir_mappings.hl7v2.ack import AckCode, AckError, copied
from fhir_mappings.hl7v2.builder import FieldValue, Repeat, RepetitionValue
from fhir_mappings.hl7v2.outbound import fields
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.queries.head import begin
from fhir_mappings.hl7v2.queries.qbp import RESPONSES
from fhir_mappings.hl7v2.tokenizer import Message
from fhir_mappings.identifiers import HEALTH_CARD, INSURANCE_CARD, RESIDENT_ID

Json = Mapping[str, Any]
QueryStatus = Literal["OK", "NF", "AE", "AR"]

_NATIONAL = {RESIDENT_ID: "resident-id", HEALTH_CARD: "health-card", INSURANCE_CARD: "insurance-card"}
#: OIDs of the numbers that mean the same everywhere.
OIDS = frozenset(system.removeprefix("urn:oid:") for system in _NATIONAL)
_TYPES = {
    "patient-id": ("IDCard", "PI"),
    "inpatient-no": ("PatientNO", "PatientNO"),
    "outpatient-no": ("Outpatient", "Outpatient"),
    "resident-id": ("IdentifyNO", "NI"),
    "health-card": ("HealthCard", "HC"),
    "insurance-card": ("SSCard", "SS"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cx:
    """A number as an answer gives it out.

    Attributes:
        authority: code of the institution that gave it out; empty for a number that means the same everywhere.
        oid: OID of such a number's domain.
    """

    value: str
    kind: str
    authority: str
    oid: str = ""

    def field(self, target: OutboundTarget) -> RepetitionValue:
        """Return it as CX, always with its domain in CX.4 (ITI-9 wants one for each number)."""
        chinese = target.dialect.cx_types.get("IDCard") == "patient-id"
        domain: list[str] = [self.authority] if self.authority else ["", self.oid, "ISO"]
        return [self.value, "", "", domain, _TYPES[self.kind][0 if chinese else 1]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One patient of an answer; *patient* is ``None`` where only numbers are given out (ITI-9)."""

    numbers: tuple[Cx, ...]
    patient: Json | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What is answered.

    Attributes:
        total: patients found in all; ``remaining`` of them are still to come.
        pointer: where to go on (DSC-1); empty when nothing remains.
    """

    status: QueryStatus
    hits: tuple[Hit, ...] = ()
    total: int = 0
    remaining: int = 0
    pointer: str = ""
    errors: tuple[AckError, ...] = ()


def national_oid(kind: str) -> str:
    """Return the OID of the domain of numbers of *kind*; empty where each institution has its own."""
    return next((system.removeprefix("urn:oid:") for system, one in _NATIONAL.items() if one == kind), "")


def numbers(patient: Json, target: OutboundTarget, *, old: bool = False) -> list[Cx]:
    """Return the numbers in use of *patient*, each with its domain; *old* adds those that are no longer in use."""
    found: list[Cx] = []
    for identifier in patient.get("identifier", []):
        system, value = str(identifier.get("system", "")), str(identifier.get("value", ""))
        if not value or (identifier.get("use") == "old" and not old):
            continue
        if system in _NATIONAL:
            one = Cx(value=value, kind=_NATIONAL[system], authority="", oid=system.removeprefix("urn:oid:"))
        else:
            owner = fields.owner_of(system, target)
            kind = system.rpartition("/")[2]
            # A number of an authority that nobody but the sender knows would go out under the wrong name.
            if owner is None or kind not in _TYPES or not system.endswith(f"/{owner}/{kind}"):
                continue
            one = Cx(value=value, kind=kind, authority=owner)
        if one not in found:
            found.append(one)
    return found


def build(original: Message, response: Response, *, target: OutboundTarget, control_id: str, now: datetime) -> str:
    """Return the answer to *original* as text; *now* is shown as given, so hand it over in the asker's time zone."""
    code: AckCode = response.status if response.status in {"AE", "AR"} else "AA"
    event, structure = RESPONSES.get(original.get("MSH-9.2").strip().upper(), ("K22", "RSP_K21"))
    builder = begin(
        original,
        ["RSP", event, structure],
        code=code,
        errors=response.errors,
        application=target.sending_application,
        facility=target.sending_facility,
        control_id=control_id,
        now=now,
    )
    qpd = original.first("QPD")
    qak: dict[int, FieldValue] = {
        1: qpd.get(2).strip() if qpd is not None else "",
        2: response.status,
        3: copied(qpd.field(1)) if qpd is not None else None,
    }
    if response.status in {"OK", "NF"}:
        qak |= {4: str(response.total), 5: str(len(response.hits)), 6: str(response.remaining)}
    builder.segment("QAK", qak)
    if qpd is not None:
        builder.segment("QPD", {number: copied(qpd.field(number)) for number in range(1, qpd.field_count + 1)})
    for index, hit in enumerate(response.hits):
        builder.segment("PID", _pid(hit, index + 1, target))
    if response.pointer:
        builder.segment("DSC", {1: response.pointer, 2: "I"})
    return builder.to_text()


def _pid(hit: Hit, set_id: int, target: OutboundTarget) -> dict[int, FieldValue]:
    listed: FieldValue = Repeat([one.field(target) for one in hit.numbers]) if hit.numbers else None
    if hit.patient is None:
        # ITI-9 wants a PID-5 that says no name: an empty one, and one of the type S.
        return {1: str(set_id), 3: listed, 5: Repeat(["", ["", "", "", "", "", "", "S"]])}
    made: dict[int, FieldValue] = {**fields.pid(hit.patient, target), 1: str(set_id), 3: listed}
    phones: Sequence[Json] = [one for one in hit.patient.get("telecom", []) if one.get("system") == "phone"]
    if phones:
        made[13] = str(phones[0].get("value", ""))
    if hit.patient.get("deceasedBoolean") or hit.patient.get("deceasedDateTime"):
        made[30] = "Y"
    return made
