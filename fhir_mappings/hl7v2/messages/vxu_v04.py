"""VXU^V04: vaccinations (HL7 v2 chapter 4A.7) as FHIR Immunization.

v2-to-FHIR: VXU_V04, RXA[Immunization], RXR[Immunization], ORC[Immunization]. Its message map leaves the OBX behind RXA to
the realm: those that Immunization has an element for go there, by their LOINC codes, all others are Observations that are
part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place
from fhir_mappings.hl7v2.messages.order_groups import Observed
from fhir_mappings.hl7v2.segments import convert, nk1, nte, obx, orc, pid, pv1, rxa, rxr
from fhir_mappings.hl7v2.tokenizer import Segment

Json = dict[str, Any]

_MAPPED = frozenset(
    {"MSH", "SFT", "PID", "PD1", "NK1", "PV1", "PV2", "IN1", "IN2", "ORC", "TQ1", "TQ2", "RXA", "RXR", "OBX", "NTE"}
)
_DOSE_NUMBER = frozenset({"30973-2", "30981-5"})
_CONCEPTS = {"64994-7": "programEligibility", "30963-3": "fundingSource"}
#: RXA-9: from the record itself (NIP001 ``00``), or told by somebody (``01`` and on).
_NEW_RECORD = "00"


@dataclass(slots=True)
class Dose:
    """One RXA with its ORC before it and what stands behind it."""

    rxa: Segment
    orc: Segment | None
    routes: list[Segment] = field(default_factory=list)
    observations: list[Observed] = field(default_factory=list)
    notes: list[Segment] = field(default_factory=list)


def _doses(assembly: Assembly) -> list[Dose]:
    made: list[Dose] = []
    pending: Segment | None = None
    for segment in assembly.message.segments:
        match segment.name:
            case "ORC":
                pending = segment
            case "RXA":
                made.append(Dose(rxa=segment, orc=pending))
                pending = None
            case "RXR" if made:
                made[-1].routes.append(segment)
            case "OBX" if made and pending is None:
                made[-1].observations.append(Observed(segment))
            case "OBX":
                # OBX before the first order are about the person and not about a dose.
                assembly.skip(segment)
            case "NTE" if made:
                last = made[-1]
                (last.observations[-1].notes if last.observations else last.notes).append(segment)
    return made


def translate(assembly: Assembly, _trigger: str) -> None:
    """Add the vaccinations of the message.

    Raises:
        MalformedError: PID or RXA is missing (100), or RXA-3 or RXA-5 is not valued (101).
    """
    pid.add_patient(assembly.require_one("PID"), assembly)
    assembly.require("RXA")
    nk1.add_related_persons(assembly.message.all("NK1"), assembly)
    encounter = pv1.mention_encounter(assembly)
    for dose in _doses(assembly):
        _immunization(dose, encounter, assembly)
    for segment in assembly.message.segments:
        if segment.name not in _MAPPED:
            assembly.skip(segment)


def _immunization(dose: Dose, encounter: str | None, assembly: Assembly) -> None:
    head = dose.rxa
    code = convert.concept(head.field(5), Place(assembly, head, 5))
    if code is None:
        raise assembly.missing(head, 5, "Say in RXA-5 which vaccine it is.")
    when = convert.moment(head.field(3), Place(assembly, head, 3))
    if not when:
        raise assembly.missing(head, 3, "Say in RXA-3 when it was given.")
    authority, number = rxa.key(head, dose.orc, code, assembly)
    identity = assembly.ctx.id("Immunization", authority, number)
    resource: Json = {
        "resourceType": "Immunization",
        "id": identity,
        "status": rxa.status(head, assembly),
        "vaccineCode": code,
        "patient": pid.patient_reference(assembly),
        "occurrenceDateTime": when,
    }
    if dose.orc is not None:
        identifiers = [one for one in orc.identifiers(orc.numbers(dose.orc, None), assembly) if one["value"] != "9999"]
        if identifiers:
            resource["identifier"] = identifiers
    reasons = rxa.reasons(head, assembly)
    if "statusReason" in reasons:
        reasons["statusReason"] = reasons["statusReason"][0]
    resource.update(reasons)
    resource.update(_origin(head))
    recorded = convert.moment(head.field(22), Place(assembly, head, 22)) if head.get(21).strip() in {"A", ""} else None
    if not recorded and dose.orc is not None:
        recorded = convert.moment(dose.orc.field(9), Place(assembly, dose.orc, 9))
    for name, value in (
        ("encounter", {"reference": encounter} if encounter else None),
        ("recorded", recorded),
        ("location", rxa.location(head, assembly)),
        ("manufacturer", _manufacturer(head, assembly)),
        ("lotNumber", head.get(15).strip()),
        ("expirationDate", convert.date(head.field(16), Place(assembly, head, 16))),
        ("doseQuantity", rxa.amount(head, assembly)),
        ("performer", rxa.performers(head, dose.orc, assembly)),
    ):
        if value:
            resource[name] = value
    route = rxr.route(dose.routes, assembly)
    resource.update({name: route[name] for name in ("route", "site") if name in route})
    remarks = [*({"text": text} for text in rxa.note_texts(head)), *nte.notes(dose.notes)]
    if remarks:
        resource["note"] = remarks
    _read_observations(dose, resource, (authority, number), encounter, assembly)
    assembly.upsert(resource, guard="demographics")


def _origin(head: Segment) -> Json:
    code = head.get(9).strip()
    if code == _NEW_RECORD:
        return {"primarySource": True}
    if not (code.isascii() and code.isdigit()):
        return {}
    text = head.get(9, 2).strip()
    system = "http://hl7.org/fhir/us/core/CodeSystem/nip001" if head.get(9, 3).strip() == "NIP001" else ""
    coding = {**({"system": system} if system else {}), "code": code}
    return {"primarySource": False, "reportOrigin": {"coding": [coding], **({"text": text} if text else {})}}


def _manufacturer(head: Segment, assembly: Assembly) -> Json | None:
    code, text = head.get(17).strip(), head.get(17, 2).strip()
    if not (code or text):
        return None
    made: Json = {"type": "Organization", "display": text or code}
    if code and text:
        system = assembly.ctx.code_system(head.get(17, 3))
        made["identifier"] = {"system": system, "value": code}
    return made


def _read_observations(
    dose: Dose, resource: Json, key: tuple[str, str], encounter: str | None, assembly: Assembly
) -> None:
    results = obx.Results(
        key=(key[0], f"{key[1]}|vaccination"),
        service="vaccination",
        status_default="final",
        effective={"effectiveDateTime": resource["occurrenceDateTime"]},
        encounter=encounter,
    )
    first = len(assembly.changes)
    for observed in dose.observations:
        segment = observed.segment
        code = obx.observation_code(segment)
        text = segment.field(5).text().strip()
        concept = convert.concept(segment.field(5), Place(assembly, segment, 5))
        if code in _DOSE_NUMBER and text.isascii() and text.isdigit() and 0 < len(text) < 4 and int(text) > 0:
            resource["protocolApplied"] = [{"doseNumberPositiveInt": int(text)}]
        elif code in _CONCEPTS and concept and segment.get(2).strip().upper() in {"CE", "CWE", "IS"}:
            single = _CONCEPTS[code] == "fundingSource"
            resource[_CONCEPTS[code]] = concept if single else [concept]
        elif segment.get(2).strip().upper() in {"ED", "RP"}:
            assembly.skip(segment)
        else:
            obx.add_observation(segment, [], observed.notes, results, assembly)
    for change in assembly.changes[first:]:
        made = getattr(change, "resource", {})
        if made.get("resourceType") == "Observation":
            made["partOf"] = [{"reference": f"Immunization/{resource['id']}"}]
