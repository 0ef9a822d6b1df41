"""What the tests of outgoing messages send: one patient, request, report, referral, booking and document, and to whom."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from fhir_mappings.hl7v2.dialects import HIS_CN, STANDARD
from fhir_mappings.hl7v2.outbound.adt import adt_a08, adt_a40
from fhir_mappings.hl7v2.outbound.mdm_t02 import DocumentPart, mdm_t02
from fhir_mappings.hl7v2.outbound.order_forms import OrderedStudy
from fhir_mappings.hl7v2.outbound.orm_o01 import orm_o01
from fhir_mappings.hl7v2.outbound.orr_o02 import orr_o02
from fhir_mappings.hl7v2.outbound.oru_r01 import OutboundAttachment, oru_r01
from fhir_mappings.hl7v2.outbound.referral import ref_i12, rri_i12
from fhir_mappings.hl7v2.outbound.siu_s12 import siu_s12
from fhir_mappings.hl7v2.outbound.target import OutboundTarget

NOW = datetime(2025, 6, 11, 2, 15, 30, tzinfo=UTC)
BASE = "https://yixiehub.example/fhir"
KN = OutboundTarget(institution="KN", application="HIS", facility="KNYY", dialect=HIS_CN)
KN_251 = replace(KN, dialect=replace(STANDARD, version_out="2.5.1"))


def identifier(owner: str, kind: str, value: str, code: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"system": f"{BASE}/NamingSystem/{owner}/{kind}", "value": value}
    return {"type": {"coding": [{"code": code}]}, **made} if code else made


def loinc(code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": "http://loinc.org", "code": code, "display": display}], "text": display}


PATIENT = {
    "resourceType": "Patient",
    "id": "p",
    "identifier": [
        identifier("YL", "patient-id", "600777"),
        identifier("KN", "patient-id", "0000010086"),
        {"system": "urn:oid:2.16.156.10011.1.3", "value": "990001197602290170"},
    ],
    "name": [{"text": "郑伟"}],
    "gender": "male",
    "birthDate": "1976-02-29",
    "telecom": [{"system": "phone", "value": "12000000002"}],
}
REQUEST = {
    "resourceType": "ServiceRequest",
    "id": "r",
    "identifier": [identifier("KN", "placer-order", "KN20250611001", "PLAC")],
    "code": {
        "coding": [{"system": f"{BASE}/CodeSystem/KN/local", "code": "CT0101", "display": "胸部CT平扫"}],
        "text": "胸部CT平扫",
    },
    "priority": "urgent",
    "authoredOn": "2025-06-11T08:30:00+08:00",
    "requester": {"reference": "Practitioner/liu", "display": "刘敏"},
    "reasonCode": [{"text": "咳嗽待查"}],
    "note": [{"text": "第一行\n第二行"}],
}
PRACTITIONERS = {
    f"Practitioner/{key}": {"identifier": [identifier(owner, "practitioner", code)], "name": [{"text": name}]}
    for key, owner, code, name in (
        ("liu", "KN", "0231", "刘敏"),
        ("han", "YL", "C002", "韩磊"),
        ("song", "YL", "C015", "宋洁"),
    )
}
REPORT = {
    "resourceType": "DiagnosticReport",
    "id": "d",
    "identifier": [identifier("YL", "filler-order", "YXTRAD202506110001", "FILL")],
    "status": "final",
    "code": {"text": "胸部CT"},
    "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "CT"}]}],
    "effectiveDateTime": "2025-06-11T00:55:00Z",
    "issued": "2025-06-11T10:15:00+08:00",
    "resultsInterpreter": [{"reference": "Practitioner/han"}],
    "performer": [{"reference": "Practitioner/song"}, {"reference": "Practitioner/han"}],
    "conclusion": "右肺上叶磨玻璃结节，建议3个月复查。",
}
FINDINGS = {
    "resourceType": "Observation",
    "status": "final",
    "code": loinc("18782-3", "影像所见"),
    "valueString": "右肺上叶见一约8mm磨玻璃结节，边界清。",
}
POTASSIUM = {
    "resourceType": "Observation",
    "status": "final",
    "code": loinc("2823-3", "钾"),
    "valueQuantity": {"value": Decimal("6.90"), "unit": "mmol/L"},
    "interpretation": [{"coding": [{"code": "HH"}]}],
    "referenceRange": [{"text": "3.50-5.30"}],
}
PDF = OutboundAttachment(title="报告", content_type="application/pdf", data=b"%PDF-1.4\n")
REFERRAL = {
    "resourceType": "ServiceRequest",
    "id": "ref",
    "identifier": [identifier("KN", "referral", "KNREF20250612001", "PLAC")],
    "category": [{"coding": [{"system": "http://snomed.info/sct", "code": "3457005"}]}],
    "reasonCode": [{"text": "限于设备"}],
    "requester": {"type": "Practitioner", "identifier": {"value": "0231"}, "display": "刘敏"},
    "performer": [
        {"type": "Practitioner", "identifier": {"value": "C101"}, "display": "冯国强"},
        {"type": "Organization", "identifier": {"value": "YL"}, "display": "云岭示范市中心医院（测试）"},
    ],
    "note": [{"text": "拟上转行PCI"}],
}
CONDITION = {
    "code": {
        "coding": [{"system": "urn:oid:2.16.156.10011.2.3.3.11", "code": "R05", "display": "咳嗽"}],
        "text": "咳嗽",
    }
}
APPOINTMENT = {
    "id": "a",
    "status": "booked",
    "start": "2025-06-20T09:00:00+08:00",
    "end": "2025-06-20T09:30:00+08:00",
    "minutesDuration": 30,
    "serviceType": [{"text": "骨科门诊"}],
    "participant": [
        {"actor": {"reference": "Practitioner/liu"}},
        {"actor": {"reference": "Location/x", "display": "门诊楼201"}},
    ],
}


def report(target: OutboundTarget, **changes: Any) -> str:
    options: dict[str, Any] = {
        "patient": PATIENT,
        "observations": [FINDINGS, POTASSIUM],
        "request": REQUEST,
        "practitioners": PRACTITIONERS,
        "attachments": [PDF],
        **changes,
    }
    return oru_r01(options.pop("report", REPORT), target=target, control_id="YX1", now=NOW, **options)


def order(target: OutboundTarget, request: Any = REQUEST, **changes: Any) -> str:
    options: dict[str, Any] = {
        "patient": PATIENT,
        "conditions": [CONDITION],
        "practitioners": PRACTITIONERS,
        **changes,
    }
    return orm_o01(request, target=target, control_id="YX2", now=NOW, **options)


STUDY = OrderedStudy(uid="1.2.826.0.1.3680043.9.1", accession="ACC0001", modality="CT")


def order_answer(target: OutboundTarget, request: Any = REQUEST, **changes: Any) -> str:
    options: dict[str, Any] = {
        "patient": PATIENT,
        "answer": "UA",
        "reason": "设备检修",
        "asked_by": "ORM^O01",
        "original_control_id": "KN20250611001",
        "original_version": target.dialect.version_out,
        **changes,
    }
    return orr_o02(request, target=target, control_id="YX9", now=NOW, **options)


def referral(target: OutboundTarget, request: Any = REFERRAL, **changes: Any) -> str:
    options: dict[str, Any] = {"patient": PATIENT, "conditions": [CONDITION], "sender": "KN", **changes}
    return ref_i12(request, target=target, control_id="YX3", now=NOW, **options)


def answer(target: OutboundTarget, request: Any = REFERRAL, **changes: Any) -> str:
    options: dict[str, Any] = {
        "patient": PATIENT,
        "answer": "R",
        "reason": "无床",
        "original_control_id": "KN20250612REF01",
        "sender": "KN",
        **changes,
    }
    return rri_i12(request, target=target, control_id="YX4", now=NOW, **options)


def booking(target: OutboundTarget, appointment: Any = APPOINTMENT, **changes: Any) -> str:
    options: dict[str, Any] = {"patient": PATIENT, "practitioners": PRACTITIONERS, **changes}
    return siu_s12(appointment, target=target, control_id="YX5", now=NOW, **options)


DOCUMENT = {
    "resourceType": "DocumentReference",
    "id": "doc",
    "masterIdentifier": {"system": f"{BASE}/NamingSystem/YL/document", "value": "CYXJ0001"},
    "status": "current",
    "docStatus": "final",
    "type": {"coding": [{"system": f"{BASE}/CodeSystem/YL/local", "code": "C0053", "display": "出院小结"}]},
    "date": "2025-06-20T10:00:00+08:00",
    "author": [{"reference": "Practitioner/song"}],
    "authenticator": {"reference": "Practitioner/han"},
}
DEAD = {
    "resourceType": "Patient",
    "id": "dead",
    "identifier": [identifier("YL", "patient-id", "600999")],
    "name": [{"text": "郑伟"}],
}


def demographics(target: OutboundTarget, patient: Any = PATIENT, **changes: Any) -> str:
    return adt_a08(patient, target=target, control_id="YX6", now=NOW, **changes)


def merge(target: OutboundTarget, survivor: Any = PATIENT, dead: Any = DEAD) -> str:
    return adt_a40(survivor, dead, target=target, control_id="YX7", now=NOW)


def document(target: OutboundTarget, body: Any = DOCUMENT, **changes: Any) -> str:
    options: dict[str, Any] = {
        "patient": PATIENT,
        "practitioners": PRACTITIONERS,
        "parts": [
            DocumentPart(title="出院小结", content_type="application/pdf", data=b"%PDF-1.4\n"),
            DocumentPart(title="", content_type="text/plain", data="第一行\n第二行".encode()),
        ],
        **changes,
    }
    return mdm_t02(body, target=target, control_id="YX8", now=NOW, **options)
