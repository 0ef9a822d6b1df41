"""A Modality Performed Procedure Step as a FHIR Procedure (PS3.3 C.4.14 to C.4.16; PS3.4 annex F;
https://hl7.org/fhir/R4/procedure.html).

The Procedure says what was done, for whom, when and on which order. The data set of the step travels in an extension, as
DICOM JSON, because what a later N-SET changes and an N-GET returns are DICOM attributes, most of which FHIR has no word for.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fhir_mappings.dicom.imaging_study import DCM, display_name, moment, study_identifier
from fhir_mappings.identifiers import CANONICAL_BASE, naming_system
from fhir_mappings.json import dumps, loads

Json = dict[str, Any]

IN_PROGRESS, COMPLETED, DISCONTINUED = "IN PROGRESS", "COMPLETED", "DISCONTINUED"
STATES = frozenset({IN_PROGRESS, COMPLETED, DISCONTINUED})
STATUS = "00400252"
SCHEDULED_STEPS, PERFORMED_SERIES = "00400270", "00400340"
_FHIR_STATUS = {IN_PROGRESS: "in-progress", COMPLETED: "completed", DISCONTINUED: "stopped"}
#: Referenced Image Sequence and Referenced Non-Image Composite SOP Instance Sequence (PS3.3 table C.4-15).
_REFERENCES = ("00081140", "00400220")
EXTENSION = f"{CANONICAL_BASE}/StructureDefinition/performed-procedure-step"


def first(attributes: Mapping[str, Any], tag: str) -> str:
    """Return the first value of *tag* as text; empty where there is none. Of a name, the ideographic group if any."""
    values = attributes.get(tag, {}).get("Value", ())
    value = values[0] if values else None
    if isinstance(value, dict):
        return str(value.get("Ideographic") or value.get("Alphabetic") or "")
    return "" if value is None else str(value)


def items(attributes: Mapping[str, Any], tag: str) -> Iterator[Json]:
    """Yield the items of the sequence *tag*."""
    for item in attributes.get(tag, {}).get("Value", ()):
        if isinstance(item, dict):
            yield item


def studies(attributes: Mapping[str, Any]) -> list[str]:
    """Return the Study Instance UIDs that the step belongs to, as its scheduled steps name them."""
    found = [first(item, "0020000D") for item in items(attributes, SCHEDULED_STEPS)]
    return list(dict.fromkeys(uid for uid in found if uid))


def accessions(attributes: Mapping[str, Any]) -> list[str]:
    """Return the accession numbers of the orders that the step fulfils."""
    found = [first(item, "00080050").strip() for item in items(attributes, SCHEDULED_STEPS)]
    return list(dict.fromkeys(number for number in found if number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """The numbers by which a performed step names what was scheduled; empty where it does not.

    Attributes:
        accession: of the order, (0008,0050).
        procedure: Requested Procedure ID, (0040,1001), unique in its order.
        step: Scheduled Procedure Step ID, (0040,0009).
    """

    accession: str
    procedure: str
    step: str


def scheduled(attributes: Mapping[str, Any]) -> list[Scheduled]:
    """Return what the step fulfils, as its Scheduled Step Attributes Sequence says (PS3.3 table C.4-13)."""
    return [
        Scheduled(
            accession=first(item, "00080050").strip(),
            procedure=first(item, "00401001").strip(),
            step=first(item, "00400009").strip(),
        )
        for item in items(attributes, SCHEDULED_STEPS)
    ]


def produced(attributes: Mapping[str, Any]) -> frozenset[str]:
    """Return the SOP Instance UIDs that the step says it has made."""
    return frozenset(
        uid
        for series in items(attributes, PERFORMED_SERIES)
        for tag in _REFERENCES
        for item in items(series, tag)
        if (uid := first(item, "00081155"))
    )


def procedure(
    attributes: Mapping[str, Any],
    *,
    id: str,
    SOPInstanceUID: str,
    patient: str,
    institution: str,
    time_zone: str,
    order: str | None = None,
    base: str = CANONICAL_BASE,
) -> Json:
    """Return the Procedure of a performed step.

    Args:
        patient, order: references to the institution's Patient and ServiceRequest.
        time_zone: zone of the modality's clock.
    """
    made: Json = {
        "resourceType": "Procedure",
        "id": id,
        "extension": [{"url": EXTENSION, "valueBase64Binary": base64.b64encode(dumps(dict(attributes))).decode()}],
        "identifier": [
            {"use": "official", **study_identifier(SOPInstanceUID)},
            *(
                {"use": "secondary", "system": naming_system(institution, "study-uid", base=base), "value": uid}
                for uid in studies(attributes)
            ),
        ],
        "status": _FHIR_STATUS[first(attributes, STATUS)],
        "category": {
            "coding": [{"system": "http://snomed.info/sct", "code": "363679005", "display": "Imaging"}],
            "text": "影像检查",
        },
        "code": _code(attributes),
        "subject": {"reference": patient},
    }
    period = {
        end: when
        for end, day, clock in (("start", "00400244", "00400245"), ("end", "00400250", "00400251"))
        if (when := moment(first(attributes, day), first(attributes, clock), time_zone))
    }
    if period:
        made["performedPeriod"] = period
    if order:
        made["basedOn"] = [{"reference": order}]
    performers = {display_name(first(series, "00081050")) for series in items(attributes, PERFORMED_SERIES)} | {
        display_name(first(series, "00081070")) for series in items(attributes, PERFORMED_SERIES)
    }
    made_by = sorted(name for name in performers if name)
    if made_by:
        made["performer"] = [{"actor": {"display": name}} for name in made_by]
    station = first(attributes, "00400242") or first(attributes, "00400241")
    if station:
        made["location"] = {"display": station}
    reason = next(items(attributes, "00400281"), None)
    if reason is not None:
        made["statusReason"] = _concept(reason)
    comment = first(attributes, "00400280")
    if comment:
        made["note"] = [{"text": comment}]
    return made


def attributes_of(resource: Mapping[str, Any]) -> Json:
    """Return the data set that :func:`procedure` put into *resource*; empty where it has none."""
    for extension in resource.get("extension", ()):
        if extension.get("url") == EXTENSION:
            found: Json = loads(base64.b64decode(extension["valueBase64Binary"]))
            return found
    return {}


def instance_uid(resource: Mapping[str, Any]) -> str:
    """Return the SOP Instance UID of the step that *resource* is."""
    for identifier in resource.get("identifier", ()):
        if identifier.get("use") == "official":
            return str(identifier.get("value", "")).removeprefix("urn:oid:")
    return ""


def _code(attributes: Mapping[str, Any]) -> Json:
    coded = next(items(attributes, "00081032"), None)
    text = first(attributes, "00400254") or next(
        (first(item, "00321060") for item in items(attributes, SCHEDULED_STEPS) if first(item, "00321060")), ""
    )
    made = _concept(coded) if coded is not None else {}
    if text:
        made["text"] = text
    modality = first(attributes, "00080060")
    if modality:
        made.setdefault("coding", []).append({"system": DCM, "code": modality})
    return made or {"text": "影像检查"}


def _concept(item: Mapping[str, Any]) -> Json:
    """Return a code sequence item as a CodeableConcept (PS3.3 section 8)."""
    value, scheme, meaning = first(item, "00080100"), first(item, "00080102"), first(item, "00080104")
    made: Json = {}
    if value:
        coding = {"code": value}
        if scheme == "DCM":
            coding["system"] = DCM
        if meaning:
            coding["display"] = meaning
        made["coding"] = [coding]
    if meaning:
        made["text"] = meaning
    return made
