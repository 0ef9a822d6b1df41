"""Makes ``consortium.json``: the fictional members, their endpoints and their people, as FHIR R4 directory resources.

Run ``python sample_data/members/make.py`` after a change. Region 9900 does not exist in GB/T 2260, and 12x telephone
numbers are not issued, so nothing here can be taken for real. Credit codes and identity numbers have right check digits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BASE = "https://yixiehub.example/fhir"
Json = dict[str, Any]

# code, id, name, kind, unified social credit code, entitlements
MEMBERS = (
    ("YL", "yl", "云岭示范市中心医院（测试）", "center", "12990001TEAT00015E", "imaging-read referral consultation"),
    ("KN", "kn", "云岭示范县康宁医院（测试）", "member", "52990002TEAT00023K", "referral"),
    ("QH", "qh", "青禾骨科医院（测试）", "member", "91990003TEAT00031U", "referral"),
    ("QM", "qm", "启明医学检验实验室（测试）", "third-party", "91990004TEAT0004X2", "lab"),
    ("YJ", "yj", "远景影像诊断中心（测试）", "third-party", "91990005TEAT00058G", "imaging-read"),
    ("BH", "bh", "百合医药供应链（测试）", "supplier", "91990007TEAT00082X", "supply"),
    ("YY", "yy", "医协云运营公司（测试）", "operator", "91990006TEAT00074L", ""),
    ("XH", "xh", "协会（测试租户）", "association", "51990000TEAT000667", ""),
)
# member, connectionType, address, settings
ENDPOINTS = (
    ("YL", "dicom", "dicom://YL_CENTER@127.0.0.1:11212", {}),
    ("YL", "hl7v2-mllp", "urn:none", {"sending-facility": "YLYY", "dialect": "standard", "charset-out": "UTF-8"}),
    ("KN", "dicom", "dicom://KN_PACS@127.0.0.1:11213", {}),
    (
        "KN",
        "hl7v2-mllp",
        "mllp://127.0.0.1:12575",
        {
            "sending-application": "HIS",
            "sending-facility": "KNYY",
            "dialect": "his-cn",
            "charset-out": "GB18030",
            "msh-18-out": "",
        },
    ),
    ("QH", "dicom", "dicom://QH_PACS@127.0.0.1:11214", {}),
    (
        "QH",
        "hl7v2-mllp",
        "urn:none",
        {"sending-facility": "QHYY", "dialect": "his-cn", "charset-out": "GB18030", "msh-18-out": "GB 18030-2000"},
    ),
    (
        "QM",
        "hl7v2-mllp",
        "urn:none",
        {"sending-facility": "QMJY", "dialect": "his-cn", "charset-out": "UTF-8", "msh-18-out": "UNICODE UTF-8"},
    ),
    ("YJ", "dicom", "dicom://YJ_READ@127.0.0.1:11215", {}),
    ("YJ", "hl7v2-mllp", "urn:none", {"sending-facility": "YJYX", "dialect": "standard", "charset-out": "UTF-8"}),
)
# member, code, id, name, gender, resident identity number, title, hub roles
PEOPLE = (
    ("KN", "0231", "liumin", "刘敏", "female", "990001198604120225", "内科主治医师", "doctor physician"),
    ("KN", "0310", "xiefang", "谢芳", "female", "990001199303030626", "护士", "nurse"),
    ("YL", "C015", "songjie", "宋洁", "female", "990001199101170487", "影像主治医师", "doctor writer"),
    ("YL", "C002", "hanlei", "韩磊", "male", "990001197009250151", "影像科主任", "doctor reviewer writer"),
    ("YL", "C101", "fengguoqiang", "冯国强", "male", "990001196508300374", "心内科主任", "doctor physician desk"),
    ("YL", "C201", "luoyan", "罗燕", "female", "", "会诊调度", "desk"),
    ("QM", "Q011", "liangyu", "梁宇", "male", "", "检验技师", "lab writer"),
    ("QM", "Q003", "jiangli", "蒋丽", "female", "", "检验审核", "lab reviewer"),
    ("YJ", "J001", "fanghai", "方海", "male", "", "影像诊断医师", "doctor writer reviewer"),
    ("YY", "OP01", "yunwei", "运维员（测试）", "male", "", "运维", "operator admin"),
)
# member, id, name, category
SERVICES = (
    ("YL", "yl-imaging-read", "远程影像诊断", "imaging-read"),
    ("YL", "yl-cardiology-referral", "心血管内科上转", "referral"),
    ("KN", "kn-rehabilitation-referral", "康复与慢病下转", "referral"),
    ("QH", "qh-orthopaedic-referral", "骨科转诊", "referral"),
    ("QM", "qm-lab", "第三方检验", "lab"),
    ("YJ", "yj-imaging-read", "夜间急诊阅片", "imaging-read"),
)
# Cooperation agreements: who offers, who joins. A request is sent only between two institutions that have one.
AGREEMENTS = (
    ("YL", "KN"),
    ("YL", "QH"),
    ("QH", "KN"),
    ("QM", "KN"),
    ("QM", "QH"),
    ("QM", "YL"),
    ("YJ", "KN"),
    ("YJ", "YL"),
)


def coding(system: str, code: str, display: str = "") -> Json:
    """Return a CodeableConcept of our own code system."""
    one = {"system": f"{BASE}/CodeSystem/{system}", "code": code}
    return {"coding": [{**one, "display": display} if display else one]}


def setting(url: str, name: str, value: str) -> Json:
    """Return one named setting as an extension."""
    parts: list[Json] = [{"url": "name", "valueString": name}]
    if value:
        parts.append({"url": "value", "valueString": value})
    return {"url": f"{BASE}/StructureDefinition/{url}", "extension": parts}


def resources() -> list[Json]:
    """Return every resource of the directory, in the order of what refers to what."""
    made: list[Json] = []
    ids = {code: id_ for code, id_, *_ in MEMBERS}
    for code, id_, name, kind, credit, entitlements in MEMBERS:
        organization: Json = {
            "resourceType": "Organization",
            "id": id_,
            "identifier": [
                {"system": f"{BASE}/NamingSystem/member", "value": code},
                {"system": "https://www.cods.org.cn", "value": credit},
            ],
            "active": True,
            "type": [coding("member-kind", kind)],
            "name": name,
        }
        if entitlements:
            organization["extension"] = [setting("member-setting", "entitlements", entitlements)]
        made.append(organization)
    for member, connection, address, settings in ENDPOINTS:
        kind = {"dicom": "dicom", "hl7v2-mllp": "mllp"}[connection]
        system = (
            f"{BASE}/CodeSystem/connection-type"
            if connection == "dicom"
            else "http://terminology.hl7.org/CodeSystem/endpoint-connection-type"
        )
        endpoint: Json = {
            "resourceType": "Endpoint",
            "id": f"{ids[member]}-{kind}",
            "identifier": [{"system": f"{BASE}/NamingSystem/endpoint", "value": f"{member}/{kind}"}],
            "status": "active",
            "connectionType": {"system": system, "code": connection},
            "managingOrganization": {"reference": f"Organization/{ids[member]}"},
            "payloadType": [{"text": "DICOM" if kind == "dicom" else "HL7 v2"}],
            "address": address,
        }
        if settings:
            endpoint["extension"] = [setting("endpoint-setting", name, value) for name, value in settings.items()]
        made.append(endpoint)
    for member, code, id_, name, gender, resident, title, roles in PEOPLE:
        practitioner: Json = {
            "resourceType": "Practitioner",
            "id": id_,
            "identifier": [{"system": f"{BASE}/NamingSystem/{member}/practitioner", "value": code}],
            "active": True,
            "name": [{"text": name}],
            "gender": gender,
        }
        if resident:
            practitioner["identifier"].append({"system": "urn:oid:2.16.156.10011.1.3", "value": resident})
        made += [
            practitioner,
            {
                "resourceType": "PractitionerRole",
                "id": f"{ids[member]}-{id_}",
                "identifier": [{"system": f"{BASE}/NamingSystem/{member}/practitioner", "value": code}],
                "active": True,
                "practitioner": {"reference": f"Practitioner/{id_}", "display": name},
                "organization": {"reference": f"Organization/{ids[member]}"},
                "code": [*(coding("role", role) for role in roles.split()), {"text": title}],
            },
        ]
    for member, id_, name, category in SERVICES:
        made.append(
            {
                "resourceType": "HealthcareService",
                "id": id_,
                "active": True,
                "providedBy": {"reference": f"Organization/{ids[member]}"},
                "category": [coding("service", category)],
                "name": name,
            }
        )
    for _member, id_, _name, kind, *_ in MEMBERS:
        if kind in {"center", "member", "third-party"}:
            made.append(
                {
                    "resourceType": "OrganizationAffiliation",
                    "id": f"consortium-{id_}",
                    "active": True,
                    "period": {"start": "2025-01-01"},
                    "organization": {"reference": "Organization/xh"},
                    "participatingOrganization": {"reference": f"Organization/{id_}"},
                    "code": [coding("member-kind", kind)],
                }
            )
    made += [
        {
            "resourceType": "OrganizationAffiliation",
            "id": f"agreement-{ids[offers]}-{ids[joins]}",
            "active": True,
            "period": {"start": "2025-01-01"},
            "organization": {"reference": f"Organization/{ids[offers]}"},
            "participatingOrganization": {"reference": f"Organization/{ids[joins]}"},
            "code": [coding("affiliation", "cooperation", "协作协议")],
        }
        for offers, joins in AGREEMENTS
    ]
    return made


if __name__ == "__main__":
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": one} for one in resources()],
    }
    path = Path(__file__).parent / "consortium.json"
    path.write_text(json.dumps(bundle, ensure_ascii=False, indent=1) + "\n", "utf-8")
