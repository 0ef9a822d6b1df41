"""The FHIR door: R4 4.0.1 under ``/fhir``, HL7 v2 over HTTP under ``/hl7``, and clinical documents under ``/cda``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Route

from adapters._http import Handler, Workers, guarded
from adapters.fhir.cda import CdaHandler
from adapters.fhir.handlers import FhirHandlers
from adapters.fhir.linking import LinkHandlers
from adapters.fhir.oauth import OAuthHandlers
from adapters.fhir.sharing import ShareHandlers
from adapters.fhir.v2 import V2Handler

if TYPE_CHECKING:
    from hub.boot import Services


def routes(services: Services) -> list[BaseRoute]:
    """Return the routes of the door, for the application that serves HTTP."""
    workers = Workers()
    fhir, oauth, v2 = FhirHandlers(services, workers), OAuthHandlers(services, workers), V2Handler(services, workers)
    sharing, linking = ShareHandlers(services, workers), LinkHandlers(services, workers)
    found: list[tuple[str, str, Handler]] = [
        ("GET", "/fhir/metadata", fhir.metadata),
        ("GET", "/fhir/.well-known/smart-configuration", oauth.smart_configuration),
        ("GET", "/.well-known/smart-configuration", oauth.smart_configuration),
        ("POST", "/oauth/token", oauth.token),
        ("POST", "/cda", CdaHandler(services, workers).receive),
        ("POST", "/hl7", v2.receive),
        ("GET", "/hl7/reconcile", v2.reconcile),
        ("POST", "/fhir", fhir.bundle),
        ("POST", "/fhir/", fhir.bundle),
        ("GET", "/fhir/_history", fhir.history),
        ("POST", "/fhir/$validate", fhir.validate),
        ("GET", "/fhir/Patient/{id}/$everything", fhir.everything),
        ("POST", "/fhir/Patient/{id}/$link", linking.link),
        ("POST", "/fhir/Patient/{id}/$unlink", linking.unlink),
        ("POST", "/fhir/Task/{id}/$transition", fhir.transition),
        ("POST", "/fhir/ImagingStudy/{id}/$share", sharing.share),
        ("GET", "/fhir/ImagingStudy/{id}/$shares", sharing.shares),
        ("POST", "/fhir/ImagingStudy/{id}/$revoke-share", sharing.revoke),
        ("POST", "/fhir/{type}/$validate", fhir.validate),
        ("POST", "/fhir/{type}/_search", fhir.search),
        ("GET", "/fhir/{type}/_history", fhir.history),
        ("GET", "/fhir/{type}/{id}/_history", fhir.history),
        ("GET", "/fhir/{type}/{id}/_history/{version}", fhir.vread),
        ("GET", "/fhir/{type}", fhir.search),
        ("POST", "/fhir/{type}", fhir.create),
        ("PUT", "/fhir/{type}", fhir.conditional_update),
        ("PATCH", "/fhir/{type}", fhir.patch),
        ("DELETE", "/fhir/{type}", fhir.delete),
        ("GET", "/fhir/{type}/{id}", fhir.read),
        ("PUT", "/fhir/{type}/{id}", fhir.update),
        ("PATCH", "/fhir/{type}/{id}", fhir.patch),
        ("DELETE", "/fhir/{type}/{id}", fhir.delete),
    ]
    return [Route(path, guarded(handler), methods=[method]) for method, path, handler in found]
