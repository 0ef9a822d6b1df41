"""What the FHIR door really does, as a CapabilityStatement (https://hl7.org/fhir/R4/capabilitystatement.html).

Everything is derived from what works: types from those that can be stored, search parameters from those the index
knows, operations from the list the door dispatches on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from fhir_mappings.definitions.search_parameters import search_parameters
from fhir_mappings.definitions.structures import resource_types
from hub import __version__
from hub.writable import NOT_STORED, NOT_WRITABLE

OPERATIONS = {
    ("Patient", "everything"): "http://hl7.org/fhir/OperationDefinition/Patient-everything",
    ("Patient", "link"): "https://yixiehub.example/fhir/OperationDefinition/Patient-link",
    ("Patient", "unlink"): "https://yixiehub.example/fhir/OperationDefinition/Patient-unlink",
    ("ImagingStudy", "share"): "https://yixiehub.example/fhir/OperationDefinition/ImagingStudy-share",
    ("ImagingStudy", "shares"): "https://yixiehub.example/fhir/OperationDefinition/ImagingStudy-shares",
    ("ImagingStudy", "revoke-share"): "https://yixiehub.example/fhir/OperationDefinition/ImagingStudy-revoke-share",
    ("Task", "transition"): "https://yixiehub.example/fhir/OperationDefinition/Task-transition",
}
VALIDATE = "http://hl7.org/fhir/OperationDefinition/Resource-validate"
#: Search parameters of the audit trail, which is no ordinary record.
AUDIT_PARAMETERS = ("action", "date", "outcome", "patient", "subtype", "type")
_READ = ("read", "vread", "search-type", "history-instance", "history-type")
_WRITE = ("create", "update", "patch", "delete")


def types() -> list[str]:
    """Return the resource types that the door serves, by name."""
    return sorted(resource_types() - (NOT_WRITABLE - {"AuditEvent"}) - NOT_STORED)


@cache
def _includes() -> dict[str, tuple[list[str], list[str]]]:
    """Return (``_include`` values, ``_revinclude`` values) of each type."""
    found: dict[str, tuple[list[str], list[str]]] = {type_: ([], []) for type_ in types()}
    for type_ in types():
        for code, parameter in search_parameters(type_).items():
            if parameter.type != "reference":
                continue
            found[type_][0].append(f"{type_}:{code}")
            for target in parameter.targets:
                if target in found:
                    found[target][1].append(f"{type_}:{code}")
    return found


def _resource(type_: str) -> dict[str, Any]:
    operations = [{"name": name, "definition": url} for (owner, name), url in OPERATIONS.items() if owner == type_]
    parameters = search_parameters(type_)
    if type_ == "AuditEvent":
        return {
            "type": type_,
            "interaction": [{"code": "read"}, {"code": "search-type"}],
            "versioning": "no-version",
            "searchParam": [
                {"name": code, "type": parameters[code].type, "definition": parameters[code].definition}
                for code in AUDIT_PARAMETERS
            ],
        }
    includes, reverse = _includes()[type_]
    found: dict[str, Any] = {
        "type": type_,
        "interaction": [{"code": code} for code in (*_READ, *_WRITE)],
        "versioning": "versioned-update",
        "readHistory": True,
        "updateCreate": True,
        "conditionalCreate": True,
        "conditionalRead": "not-match",
        "conditionalUpdate": True,
        "conditionalDelete": "single",
        "referencePolicy": ["literal", "logical", "enforced", "local"],
        "searchInclude": includes,
        "searchRevInclude": reverse,
        "searchParam": [
            {"name": code, "definition": one.definition, "type": one.type} for code, one in parameters.items()
        ],
        "operation": [*operations, {"name": "validate", "definition": VALIDATE}],
    }
    return {name: value for name, value in found.items() if value != []}


def capability(base: str, date: str) -> dict[str, Any]:
    """Return the statement of the server at *base*."""
    oauth = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
    root = base.removesuffix("/fhir")
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": date,
        "kind": "instance",
        "software": {"name": "Yixie Hub 医协枢纽", "version": __version__},
        "implementation": {"description": "Gateway of a medical consortium 医联体集成枢纽", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "patchFormat": ["application/json-patch+json"],
        "rest": [
            {
                "mode": "server",
                "security": {
                    "extension": [{"url": oauth, "extension": [{"url": "token", "valueUri": f"{root}/oauth/token"}]}],
                    "service": [
                        {
                            "coding": [
                                {
                                    "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
                                    "code": "OAuth",
                                }
                            ]
                        }
                    ],
                    "description": "Bearer token from the token endpoint (client credentials) or the operator.",
                },
                "resource": [_resource(type_) for type_ in types()],
                "interaction": [{"code": "transaction"}, {"code": "batch"}, {"code": "history-system"}],
            }
        ],
    }
