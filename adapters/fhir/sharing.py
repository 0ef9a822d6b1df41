"""Making, listing and ending share links: ``ImagingStudy/{id}/$share``, ``$shares`` and ``$revoke-share``.

The bodies are not journalled: the answer to ``$share`` holds what nobody but the asker may have.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import FHIR_JSON, echo_headers
from adapters.fhir.handlers import FhirHandlers
from fhir_mappings.json import dumps
from hub import share_parameters
from hub.answer import Answer
from hub.envelope import Envelope


class ShareHandlers(FhirHandlers):
    """The operations on links to a study."""

    async def share(self, request: Request) -> Response:
        """POST /fhir/ImagingStudy/{id}/$share"""
        id_, raw = request.path_params["id"], await self._json(request)

        def work(envelope: Envelope) -> Answer:
            asked = share_parameters.read_share(self._resources.writer.decode(raw))
            correlation_id = envelope.correlation_id
            new = self._services.sharing.make(envelope.actor, id_, correlation_id=correlation_id, **asked)
            return Answer(status=200, body=dumps(share_parameters.made(new)))

        return _private(request, await self._run(request, work))

    async def shares(self, request: Request) -> Response:
        """GET /fhir/ImagingStudy/{id}/$shares"""
        id_ = request.path_params["id"]

        def work(envelope: Envelope) -> Answer:
            found = self._services.sharing.of_study(envelope.actor, id_)
            return Answer(status=200, body=dumps(share_parameters.listed(found, self._services.clock())))

        return _private(request, await self._run(request, work))

    async def revoke(self, request: Request) -> Response:
        """POST /fhir/ImagingStudy/{id}/$revoke-share"""
        id_, raw = request.path_params["id"], await self._json(request)

        def work(envelope: Envelope) -> Answer:
            share = share_parameters.read_revoke(self._resources.writer.decode(raw))
            ended = self._services.sharing.revoke(envelope.actor, id_, share, correlation_id=envelope.correlation_id)
            return Answer(status=200, body=dumps(share_parameters.ended(ended, self._services.clock())))

        return _private(request, await self._run(request, work))


def _private(request: Request, answer: Answer) -> Response:
    headers = {**echo_headers(request), "Cache-Control": "no-store"}
    return Response(answer.body, status_code=answer.status, headers=headers, media_type=FHIR_JSON)
