"""Saying which patient of another institution one's own is: ``Patient/{id}/$link`` and ``$unlink``.

Parameters (https://hl7.org/fhir/R4/parameters.html): ``institution`` (its code) and ``number`` (the PatientID that it gave),
each once. The bodies are not journalled: they name a patient of another institution's. The answer is the same whether or
not there is such a patient there; :mod:`hub.identity` says when a link comes of it.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import FHIR_JSON, echo_headers
from adapters.fhir.handlers import FhirHandlers
from fhir_mappings.definitions.check import check
from fhir_mappings.json import dumps
from hub.answer import Answer
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.outcome import findings_error

_KNOWN = ("institution", "number")
#: PatientID is of VR LO (PS3.5 table 6.2-1).
_MAX_NUMBER = 64


class LinkHandlers(FhirHandlers):
    """The operations on links between institutions' patients."""

    async def link(self, request: Request) -> Response:
        """POST /fhir/Patient/{id}/$link"""
        return await self._state(request, same=True)

    async def unlink(self, request: Request) -> Response:
        """POST /fhir/Patient/{id}/$unlink"""
        return await self._state(request, same=False)

    async def _state(self, request: Request, *, same: bool) -> Response:
        id_, raw = request.path_params["id"], await self._json(request)

        def work(envelope: Envelope) -> Answer:
            institution, number = read(self._resources.writer.decode(raw))
            self._services.identity.state(envelope.actor, id_, institution, number, same=same)
            said = {"name": "outcome", "valueCode": "stated" if same else "withdrawn"}
            return Answer(status=200, body=dumps({"resourceType": "Parameters", "parameter": [said]}))

        answer = await self._run(request, work)
        headers = {**echo_headers(request), "Cache-Control": "no-store"}
        return Response(answer.body, status_code=answer.status, headers=headers, media_type=FHIR_JSON)


def read(value: Any) -> tuple[str, str]:
    """Return institution and number of the Parameters *value*.

    Raises:
        HubError: incorrect, naming the parameter.
    """
    findings = check(value, resource_type="Parameters")
    if findings:
        raise findings_error(findings)
    found: dict[str, str] = {}
    for one in value.get("parameter", ()):
        name = one["name"]
        text = next((one[kind] for kind in ("valueString", "valueCode", "valueId") if kind in one), None)
        if name not in _KNOWN or name in found or text is None:
            raise _wrong(name[:64])
        found[name] = str(text).strip()
    for name in _KNOWN:
        if not found.get(name) or len(found[name]) > _MAX_NUMBER:
            raise _wrong(name)
    return found["institution"], found["number"]


def _wrong(where: str) -> HubError:
    return HubError(
        Category.INCORRECT,
        "参数未知、缺失或重复 / A parameter is unknown, missing, given twice or too long.",
        where=where,
        remedy="Send institution (its code) and number (the PatientID that it gave), both valueString.",
        status=422,
    )
