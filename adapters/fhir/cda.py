"""``POST /cda``: one clinical document (HL7 CDA R2) in the body, its DocumentReference in the answer.

The bearer token says whose document it is. What character set it is in, its bytes say; a Content-Type is not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import FHIR_JSON, Workers, actor_of, correlation_id, echo_headers, peer_of, read_body
from hub.documents import Taken
from hub.quotas import Gate

if TYPE_CHECKING:
    from hub.boot import Services


class CdaHandler:
    """The intake of clinical documents by HTTP."""

    def __init__(self, services: Services, workers: Workers) -> None:
        self._services = services
        self._workers = workers
        self._gate = Gate(services)

    async def receive(self, request: Request) -> Response:
        """Answer 201 with the DocumentReference once everything is durable, 200 where it was here already.

        A member beyond its quota is answered 429 with Retry-After.
        """
        raw = await read_body(request, self._services, max_bytes=self._services.settings.max_message_bytes)

        def work() -> Taken:
            actor = actor_of(request, self._services)
            self._gate.check(actor.institution, raw, messages=1)
            return self._services.documents.receive(
                raw, actor, peer_of(request), correlation_id=correlation_id(request)
            )

        taken = await self._workers.run(work)
        headers = {
            **echo_headers(request),
            "Location": f"/fhir/DocumentReference/{taken.document.id}/_history/{taken.document.version}",
            "Cache-Control": "no-store",
        }
        status = 201 if taken.created else 200
        return Response(taken.document.body, status_code=status, headers=headers, media_type=FHIR_JSON)
