"""CX, EI and HD as FHIR Identifier: HL7 v2 chapter 2A, v2-to-FHIR maps CX[Identifier], EI[Identifier], HD[uri].

Every function returns ``None`` where the value is absent; nothing here fails on what a sender wrote.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.quantities import dtm_date
from fhir_mappings.hl7v2.tokenizer import Repetition
from fhir_mappings.identifiers import (
    HEALTH_CARD,
    INSURANCE_CARD,
    RESIDENT_ID,
    canonical_system,
    check_resident_id,
    is_uuid,
)

Json = dict[str, Any]

_V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")

#: Kind of number -> (code of table 0203, Chinese name).
_KINDS: dict[str, tuple[str, str]] = {
    "patient-id": ("PI", "患者编号"),
    "inpatient-no": ("", "住院号"),
    "outpatient-no": ("", "门诊号"),
    "master-patient-id": ("", "主索引号"),
    "visit": ("VN", "就诊号"),
    "account": ("AN", "账户号"),
    "resident-id": ("NI", "居民身份证"),
    "health-card": ("HC", "健康卡"),
    "insurance-card": ("", "社保卡"),
    "passport": ("PPN", "护照"),
    "driving-licence": ("DL", "驾驶证"),
    "birth-certificate": ("BCT", "出生医学证明"),
    "placer-order": ("PLAC", "申请单号"),
    "filler-order": ("FILL", "执行单号"),
    "accession": ("ACSN", "检查号"),
    "practitioner": ("EI", "工号"),
}
#: Numbers that mean the same in every hospital.
_NATIONAL = {"resident-id": RESIDENT_ID, "health-card": HEALTH_CARD, "insurance-card": INSURANCE_CARD}
_KIND_OF_SYSTEM = {system: kind for kind, system in _NATIONAL.items()}


def hd_system(namespace: str, universal: str, universal_type: str, kind: str, ctx: MappingContext) -> str:
    """Return the identifier system that an HD means for numbers of *kind*; a universal id wins over a local name."""
    universal = universal.strip()
    if universal:
        if _OID.fullmatch(universal):
            return canonical_system(universal)
        if is_uuid(universal):
            return f"urn:uuid:{universal.lower()}"
        if universal.startswith(("http://", "https://", "urn:")):
            return canonical_system(universal)
        # A universal id of an unknown kind (DNS, a local word) is only as good as the institution that wrote it.
        return ctx.system(kind, f"{universal_type.strip().lower() or 'id'}:{universal}")
    return ctx.system(kind, namespace)


def cx_kind(repetition: Repetition, ctx: MappingContext) -> str:
    """Return the kind of number of a CX by the dialect's table; an unknown type is a kind of its own."""
    system = canonical_system(repetition.component(4, 2))
    if system in _KIND_OF_SYSTEM:
        return _KIND_OF_SYSTEM[system]
    written = repetition.component(5).strip()
    if not written:
        return ctx.dialect.default_cx_kind
    return ctx.dialect.cx_types.get(written) or quote(written.lower(), safe="")


def cx_key(repetition: Repetition, ctx: MappingContext) -> tuple[str, str, str] | None:
    """Return (kind, authority, value) of a CX for making ids, or ``None`` without a value.

    The authority of the sender's own numbers is the kind itself, so that the DICOM door finds the same patient.
    """
    value = repetition.component(1).strip()
    if not value or repetition.is_null:
        return None
    kind = cx_kind(repetition, ctx)
    namespace, universal = repetition.component(4), repetition.component(4, 2)
    if not universal and ctx.owner(namespace) == ctx.institution:
        return kind, kind, value
    return kind, hd_system(namespace, universal, repetition.component(4, 3), kind, ctx), value


def cx_identifier(repetition: Repetition, ctx: MappingContext, *, kind: str | None = None) -> Json | None:
    """Return the Identifier of a CX; *kind* says what the number is where the field fixes it (PV1-19 is a visit)."""
    value = repetition.component(1).strip()
    if not value or repetition.is_null:
        return None
    written = repetition.component(5).strip()
    kind = kind or cx_kind(repetition, ctx)
    if kind == "resident-id":
        return national_id_identifier(value, ctx)
    identifier: Json = {}
    concept = kind_concept(kind, written)
    if concept:
        identifier["type"] = concept
    identifier["system"] = _NATIONAL.get(kind) or hd_system(
        repetition.component(4), repetition.component(4, 2), repetition.component(4, 3), kind, ctx
    )
    identifier["value"] = value
    start, end = (dtm_date(repetition.component(number), ctx) for number in (7, 8))
    if start or end:
        identifier["period"] = {**({"start": start} if start else {}), **({"end": end} if end else {})}
    return identifier


def national_id_identifier(value: str, ctx: MappingContext, *, sex: str | None = None) -> Json | None:
    """Return the Identifier of a resident identity number; its check is recorded, a wrong one is kept."""
    if not value.strip():
        return None
    checked = check_resident_id(value, sex=sex)
    extensions: list[Json] = [
        {"url": f"{ctx.base}/StructureDefinition/identifier-validation", "valueCode": checked.status}
    ]
    if checked.value != value.strip():
        extensions.append({"url": f"{ctx.base}/StructureDefinition/identifier-as-sent", "valueString": value.strip()})
    return {
        "extension": extensions,
        "type": kind_concept("resident-id", ""),
        "system": RESIDENT_ID,
        "value": checked.value,
    }


def patient_number_identifier(repetition: Repetition, ctx: MappingContext) -> Json | None:
    """Return the Identifier of PID-2: the hospital's own patient number whatever its CX type says."""
    value = repetition.component(1).strip()
    if not value or repetition.is_null:
        return None
    return {"type": kind_concept("patient-id", ""), "system": ctx.system("patient-id"), "value": value}


def visit_identifier(repetition: Repetition, ctx: MappingContext) -> Json:
    """Return the Identifier of a visit number (PV1-19) that is valued; its type is VN whatever its CX type says."""
    system = hd_system(repetition.component(4), repetition.component(4, 2), repetition.component(4, 3), "visit", ctx)
    return {"type": kind_concept("visit", ""), "system": system, "value": repetition.component(1).strip()}


def ei_identifier(repetition: Repetition, ctx: MappingContext, kind: str) -> Json | None:
    """Return the Identifier of an EI of *kind* (``placer-order``, ``filler-order``, ``accession``, ``visit``, ...)."""
    value = repetition.component(1).strip()
    if not value or repetition.is_null:
        return None
    system = hd_system(repetition.component(2), repetition.component(3), repetition.component(4), kind, ctx)
    concept = kind_concept(kind, "")
    return {**({"type": concept} if concept else {}), "system": system, "value": value}


def kind_concept(kind: str, written: str) -> Json:
    code, text = _KINDS.get(kind, ("", ""))
    concept: Json = {"coding": [{"system": _V2_0203, "code": code}]} if code else {}
    if text or written:
        concept["text"] = text or written
    return concept
