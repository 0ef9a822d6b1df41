"""OBR: what was asked for and done (HL7 v2 chapter 4.5.3, 7.4.1) as FHIR ServiceRequest and DiagnosticReport.

v2-to-FHIR: OBR[ServiceRequest], OBR[DiagnosticReport], OBR[Specimen].
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.assembly import Assembly, Place, Row, where
from fhir_mappings.hl7v2.segments import convert, orc
from fhir_mappings.hl7v2.tokenizer import Field, Segment

_FUNCTION = "http://hl7.org/fhir/StructureDefinition/event-performerFunction"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"


def _relevant(content: Field, _place: Place) -> dict[str, Any] | None:
    """OBR-13: the v2-to-FHIR row wants an R5 extension; Chinese orders write the working diagnosis here, which the
    reader of an image must see, so it becomes a reason."""
    text = content.repetitions[0].component(1).strip()
    return {"text": text} if text else None


def _occurrence(content: Field, place: Place) -> dict[str, Any] | None:
    moment = convert.moment(content, place)
    return {"occurrenceDateTime": moment} if moment else None


def _parent(content: Field, place: Place) -> list[dict[str, Any]]:
    """OBR-29: the order that this one came of, by the placer's or the filler's number; whether it is here is not known."""
    made = []
    for component, kind, code in ((1, "placer-order", "PLAC"), (2, "filler-order", "FILL")):
        value, namespace = content.component(component, 1).strip(), content.component(component, 2).strip()
        if value:
            number = convert.order_identifier(place.ctx, kind, code, value, namespace)
            made.append({"type": "ServiceRequest", "identifier": number})
    return made


def service_section(content: Field, place: Place) -> list[dict[str, Any]]:
    """Return ``category`` from OBR-24 (table 0074)."""
    mapped = place.mapped("diagnostic_service", convert.code_of(content))
    return [{"coding": [mapped.coding()]}] if mapped else []


REQUEST_ROWS: tuple[Row, ...] = (
    Row(4, "code", convert.concept),
    Row(6, "", _occurrence, "occurrence[x]"),
    Row(36, "", _occurrence, "occurrence[x]"),
    Row(13, "reasonCode*", _relevant),
    Row(31, "reasonCode*", convert.concepts),
    Row(24, "category*", service_section),
    Row(46, "orderDetail*", convert.concepts),
    Row(47, "orderDetail*", convert.concepts),
    Row(29, "basedOn*", _parent),
    Row(53, "identifier*", orc.alternate_number, "-"),
    Row(17, "extension*", orc.callback, "extension:servicerequest-order-callback-phone-number"),
)


REPORT_ROWS: tuple[Row, ...] = (
    Row(4, "code", convert.concept),
    Row(22, "issued", convert.instant),
    Row(24, "category*", service_section),
    Row(32, "resultsInterpreter*", convert.ndl_practitioners),
)


def effective(obr: Segment, assembly: Assembly) -> dict[str, Any]:
    """Return effective[x] of the report: OBR-7, with OBR-8 a period."""
    start = convert.moment(obr.field(7), Place(assembly, obr, 7))
    end = convert.moment(obr.field(8), Place(assembly, obr, 8))
    if start and end:
        return {"effectivePeriod": {"start": start, "end": end}}
    if start:
        return {"effectiveDateTime": start}
    return {}


def performers(obr: Segment, assembly: Assembly) -> list[dict[str, Any]]:
    """Return the performers of a report with their function.

    v2-to-FHIR has no row for OBR-33; it is who wrote the report that OBR-32 stands for, as Chinese systems use it.
    """
    made: list[dict[str, Any]] = []
    for number, code, display in (
        (33, "AUT", "author (originator)"),
        (34, "SPRF", "secondary performer"),
        (35, "TRANS", "Transcriber"),
    ):
        content = obr.field(number)
        if content.is_absent or content.is_null:
            continue
        for reference in convert.ndl_practitioners(content, Place(assembly, obr, number)):
            function = {"coding": [{"system": _PARTICIPATION, "code": code, "display": display}]}
            made.append({"extension": [{"url": _FUNCTION, "valueCodeableConcept": function}], **reference})
    return made


def report_status(obr: Segment, observation_statuses: list[str], assembly: Assembly) -> str:
    """Return the DiagnosticReport status: OBR-25, else what the results add up to, else ``unknown``.

    Raises:
        MalformedError: code 204, OBR-25 says that the order or the patient is not on record (Y, Z).
    """
    code = obr.get(25).strip().upper()
    if code in {"Y", "Z"}:
        raise MalformedError(
            "OBR-25 says that there is no such order or patient, so there is no result to file.",
            where=where(obr, 25),
            remedy="Answer the query by an acknowledgement, not by a result.",
            code=204,
        )
    if code:
        mapped = Place(assembly, obr, 25).mapped("report_status", code)
        if mapped:
            return mapped.target
    counted = [status for status in observation_statuses if status not in {"cancelled", "entered-in-error"}]
    if not counted:
        return "unknown"
    for status, members in (
        ("corrected", {"corrected"}),
        ("amended", {"amended"}),
        ("registered", {"registered"}),
        ("preliminary", {"preliminary"}),
    ):
        if status in {"corrected", "amended"} and any(item in members for item in counted):
            if all(item in {"final", "corrected", "amended"} for item in counted):
                return status
        elif all(item in members for item in counted):
            return status
    return "final" if all(item == "final" for item in counted) else "partial"


def study_identifiers(
    obr: Segment | None, assembly: Assembly, *, ipc: Segment | None = None, zds: Segment | None = None
) -> list[dict[str, Any]]:
    """Return accession number (ACSN) and Study Instance UID of an imaging order.

    The v2-to-FHIR maps are silent here. IPC-1 and IPC-3 name both since v2.5.1; before that OBR-18 is the accession
    number (IHE Radiology, Scheduled Workflow) and the Z-segment ZDS-1 the study. *ipc* and *zds* are those of the order;
    where it has none and the message has one for all its orders, that one counts.
    """
    made: list[dict[str, Any]] = []
    ipc, zds = ipc or _only("IPC", assembly), zds or _only("ZDS", assembly)
    accession = (ipc.get(1).strip() if ipc is not None else "") or (obr.get(18).strip() if obr is not None else "")
    if accession:
        made.append(convert.order_identifier(assembly.ctx, "accession", "ACSN", accession))
    study = (ipc.get(3).strip() if ipc is not None else "") or (zds.get(1).strip() if zds is not None else "")
    if study:
        made.append({"system": "urn:dicom:uid", "value": f"urn:oid:{study}"})
    return made


def _only(name: str, assembly: Assembly) -> Segment | None:
    found = assembly.message.all(name)
    # Of several, each belongs to its own order; the first one's study would be said of all.
    return found[0] if len({(one.get(1), one.get(3)) for one in found}) == 1 else None
