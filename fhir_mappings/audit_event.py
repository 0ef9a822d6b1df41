"""AuditEvent: who touched whose data, when, how (https://hl7.org/fhir/R4/auditevent.html, IHE BALP patterns)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_TYPE = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_BASE = "https://yixiehub.example/fhir"

#: AuditEvent.type by what the hub was asked through.
_TYPES: dict[str, tuple[str, str, str]] = {
    "rest": (_TYPE, "rest", "RESTful Operation"),
    "dicom": (_DICOM, "110104", "DICOM Instances Transferred"),
    "dicom-query": (_DICOM, "110112", "Query"),
    "hl7v2": (_DICOM, "110110", "Patient Record"),
    "login": (_DICOM, "110114", "User Authentication"),
    "admin": (_DICOM, "110100", "Application Activity"),
    "workflow": (_DICOM, "110109", "Order Record"),
    "delivery": (_DICOM, "110106", "Export"),
}


def audit_event(
    *,
    id: str,
    recorded: str,
    type: str,
    subtype: str,
    action: str,
    outcome: str,
    institution: str,
    practitioner: str | None,
    client: str,
    address: str,
    roles: Sequence[str],
    patients: Sequence[tuple[str, str]],
    entities: Sequence[str],
    query: str,
    count: int | None,
    correlation_id: str,
    detail: str,
) -> dict[str, Any]:
    """Return the AuditEvent of one access; patients appear by reference only, never by name."""
    system, code, display = _TYPES.get(type, _TYPES["admin"])
    agent: dict[str, Any] = {
        "who": {
            "identifier": {"system": f"{_BASE}/NamingSystem/{institution}/practitioner", "value": practitioner}
            if practitioner
            else {"system": f"{_BASE}/NamingSystem/client", "value": client or institution}
        },
        "altId": client or institution,
        "requestor": True,
    }
    if roles:
        agent["role"] = [{"coding": [{"system": f"{_BASE}/CodeSystem/role", "code": role}]} for role in sorted(roles)]
    if address:
        agent["network"] = {"address": address, "type": "2"}
    organisation = {
        "who": {"identifier": {"system": f"{_BASE}/NamingSystem/member", "value": institution}},
        "requestor": False,
    }
    entity: list[dict[str, Any]] = [
        {
            "what": {
                "reference": f"Patient/{patient}",
                "identifier": {"system": f"{_BASE}/NamingSystem/member", "value": owner},
            },
            "type": {"system": "http://terminology.hl7.org/CodeSystem/audit-entity-type", "code": "1"},
            "role": {"system": "http://terminology.hl7.org/CodeSystem/object-role", "code": "1"},
        }
        for owner, patient in patients
    ]
    for one in entities:
        what = {"reference": one} if "/" in one else {"identifier": {"system": "urn:dicom:uid", "value": one}}
        entity.append(
            {"what": what, "type": {"system": "http://terminology.hl7.org/CodeSystem/audit-entity-type", "code": "2"}}
        )
    if query:
        entity.append(
            {
                "description": query,
                "role": {
                    "system": "http://terminology.hl7.org/CodeSystem/object-role",
                    "code": "24",
                    "display": "Query",
                },
            }
        )
    details = [("correlation-id", correlation_id), ("count", "" if count is None else str(count)), ("detail", detail)]
    shown = [{"type": name, "valueString": value} for name, value in details if value]
    if shown:
        entity.append({"detail": shown})
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": id,
        "type": {"system": system, "code": code, "display": display},
        "subtype": [{"system": f"{_BASE}/CodeSystem/interaction", "code": subtype}],
        "action": action,
        "recorded": recorded,
        "outcome": outcome,
        "agent": [agent, organisation],
        "source": {"observer": {"display": "Yixie Hub"}},
    }
    if entity:
        event["entity"] = entity
    return event
