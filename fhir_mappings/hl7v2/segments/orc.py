"""ORC: the order around a request or a result (HL7 v2 chapter 4.5.1). v2-to-FHIR: ORC[ServiceRequest]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fhir_mappings import codes
from fhir_mappings.hl7v2.assembly import Assembly, Place, Row
from fhir_mappings.hl7v2.segments import convert
from fhir_mappings.hl7v2.tokenizer import Field, Segment

_FHIR = "http://hl7.org/fhir/StructureDefinition"
_V2_0177 = "http://terminology.hl7.org/CodeSystem/v2-0177"
_CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
#: Table 0177 where FHIR has the same degree; the other codes of the table name a reason and no degree.
_DEGREES = {"V": "very restricted", "R": "restricted", "N": "normal"}


def _confidentiality(content: Field, _place: Place) -> list[dict[str, Any]]:
    """ORC-28: the degree as readers of FHIR look for it, any other code as table 0177 has it."""
    made = []
    for repetition in content.repetitions:
        code = repetition.component(1).strip().upper()
        # U is "usual control" in table 0177 and "unrestricted" in FHIR, which would say more than the sender did.
        code = "N" if code == "U" else code
        if code in _DEGREES:
            made.append({"system": _CONFIDENTIALITY, "code": code, "display": _DEGREES[code]})
        elif code:
            made.append({"system": _V2_0177, "code": code})
    return made


def _status_reason(content: Field, place: Place) -> dict[str, Any] | None:
    concept = convert.concept(content, place)
    return {"url": f"{_FHIR}/request-statusReason", "valueCodeableConcept": concept} if concept else None


def callback(content: Field, place: Place) -> list[dict[str, Any]]:
    """Return the extension with the number to call about the order (ORC-14, OBR-17)."""
    url = f"{_FHIR}/servicerequest-order-callback-phone-number"
    return [{"url": url, "valueContactPoint": one} for one in convert.telecoms(content, place)[:1]]


def alternate_number(content: Field, place: Place) -> dict[str, Any] | None:
    """Return the second number that the placer has for the order (ORC-33, OBR-53) as an Identifier."""
    value = convert.code_of(content)
    return convert.order_identifier(place.ctx, "placer-order-alternate", "PLAC", value) if value else None


def _filler_group(content: Field, place: Place) -> dict[str, Any] | None:
    value, namespace = convert.code_of(content), content.component(2).strip()
    return convert.order_identifier(place.ctx, "filler-group", "FGN", value, namespace) if value else None


#: What ORC says of a ServiceRequest beside its numbers, status, times and people.
REQUEST_ROWS: tuple[Row, ...] = (
    Row(33, "identifier*", alternate_number, "-"),
    Row(38, "identifier*", _filler_group, "-"),
    Row(28, "meta.security*", _confidentiality, "meta.security"),
    Row(16, "extension*", _status_reason, "extension:request-statusReason"),
    Row(14, "extension*", callback, "extension:servicerequest-order-callback-phone-number"),
    Row(29, "locationCode*", convert.concepts),
)

#: ORC-1 to the workflow event it means; a control code that only numbers or echoes an order means none.
CONTROL_EVENTS = {
    "NW": "order.new",
    "CA": "order.cancel",
    "DC": "order.cancel",
    "CR": "order.cancelled",
    "DR": "order.cancelled",
    "OC": "order.cancelled",
    "OD": "order.cancelled",
    "XO": "order.modified",
    "XX": "order.modified",
    "XR": "order.modified",
    "RP": "order.modified",
    "RO": "order.modified",
    "RU": "order.modified",
    "HD": "order.hold",
    "RL": "order.release",
    "OK": "order.accepted",
    "UA": "order.rejected",
    "UC": "order.cancel-refused",
    "UD": "order.cancel-refused",
    "UX": "order.modify-refused",
    "UM": "order.modify-refused",
    "UH": "order.hold-refused",
    "UR": "order.release-refused",
    "RR": "order.received",
    "SC": "order.status",
    "OH": "order.on-hold",
    "DE": "order.failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderNumbers:
    """The numbers of one order: ORC-2/3 first, else OBR-2/3 (v2-to-FHIR takes the ORC where both are valued)."""

    placer: str
    filler: str
    group: str
    placer_namespace: str
    filler_namespace: str

    @property
    def key(self) -> tuple[str, str] | None:
        """(authority, number) that names the ServiceRequest."""
        if self.placer:
            return "placer-order", self.placer
        if self.filler:
            return "filler-order", self.filler
        return None

    def repeated_key(self, service: str) -> tuple[str, str] | None:
        """(authority, number) of an order for *service* (OBR-4) that is not the first one sent under this number."""
        return None if self.key is None else (self.key[0], f"{self.key[1]}|{service}")

    @property
    def filler_key(self) -> tuple[str, str] | None:
        """(authority, number) that names the report: the number of the side that made it, else the other."""
        if self.filler:
            return "filler-order", self.filler
        return self.key


def numbers(orc: Segment | None, obr: Segment | None) -> OrderNumbers:
    """Return the order numbers of an ORC/OBR pair."""

    def value(number: int) -> tuple[str, str]:
        for segment in (orc, obr):
            if segment is not None and segment.get(number).strip():
                return segment.get(number).strip(), segment.get(number, 2).strip()
        return "", ""

    placer, placer_namespace = value(2)
    filler, filler_namespace = value(3)
    return OrderNumbers(
        placer=placer,
        filler=filler,
        group=orc.get(4).strip() if orc is not None else "",
        placer_namespace=placer_namespace,
        filler_namespace=filler_namespace,
    )


def identifiers(found: OrderNumbers, assembly: Assembly) -> list[dict[str, Any]]:
    """Return the placer (PLAC) and filler (FILL) identifiers of an order."""
    made = []
    if found.placer:
        made.append(
            convert.order_identifier(assembly.ctx, "placer-order", "PLAC", found.placer, found.placer_namespace)
        )
    if found.filler:
        made.append(
            convert.order_identifier(assembly.ctx, "filler-order", "FILL", found.filler, found.filler_namespace)
        )
    return made


def request_status(orc: Segment, assembly: Assembly) -> str | None:
    """Return the ServiceRequest status: ORC-5 where it is valued, else ORC-1; ``None`` when neither says one.

    The v2-to-FHIR OrderControlCode map has no row for SC, RE, UA, SN, NA and their like: they number, echo or answer an
    order and do not change it. Its row for CA is left out: a request to cancel changes nothing until it is answered. DC
    and HD are the placer's own word that its order ends or waits; where a workflow carries the order, the hub leaves a
    cancellation to it.
    """
    order_status = orc.get(5).strip()
    if order_status:
        mapped = Place(assembly, orc, 5).mapped("order_status", order_status)
        if mapped:
            return mapped.target
    control = codes.lookup("order_control", orc.get(1).strip())
    return control.target if control else None


#: What ends a prescription that is being carried out; every other revocation withdraws one before that.
_STOPS = frozenset({"DC", "DR", "OD", "DF", "RP"})


def medication_status(orc: Segment, assembly: Assembly) -> str | None:
    """Return the MedicationRequest status: that of a request, where revoked is ``stopped`` or ``cancelled``.

    No workflow carries prescriptions, so that the prescriber's CA waits for nobody and cancels, as Microsoft's converter
    has it.
    """
    status = request_status(orc, assembly)
    control = orc.get(1).strip().upper()
    if status is None and control in {"CA", "RP", "RU"}:
        # RP and RU name the prescription that another one takes the place of.
        return "cancelled" if control == "CA" else "stopped"
    if status != "revoked":
        return status
    words = {control, orc.get(5).strip().upper()}
    return "stopped" if words & _STOPS else "cancelled"


def priority(
    orc: Segment | None, obr: Segment | None, assembly: Assembly, timings: list[Segment] | None = None
) -> str | None:
    """Return the request priority: TQ1-9 of the order's own *timings*, ORC-7.6, OBR-5, OBR-27.6, in that order."""
    timing = next((one for one in timings or () if one.get(9).strip()), None)
    for segment, number, component in ((timing, 9, 1), (orc, 7, 6), (obr, 5, 1), (obr, 27, 6)):
        if segment is None:
            continue
        value = segment.get(number, component).strip()
        if value:
            mapped = Place(assembly, segment, number).mapped("priority", value)
            if mapped:
                return mapped.target
    return None
