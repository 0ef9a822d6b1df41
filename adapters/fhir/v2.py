"""HL7 v2 over HTTP: an ER7 message in the body, its acknowledgement in the answer.

The message goes through the same intake as one from MLLP; the bearer token says whose it must be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, actor_of, echo_headers, peer_of, read_body

if TYPE_CHECKING:
    from hub.boot import Services

_TYPE = "x-application/hl7-v2+er7"


class V2Handler:
    """``POST /hl7``."""

    def __init__(self, services: Services, workers: Workers) -> None:
        self._services = services
        self._workers = workers

    async def receive(self, request: Request) -> Response:
        """Answer with the acknowledgement once everything is durable; 204 when none is due."""
        raw = await read_body(request, self._services, max_bytes=self._services.settings.max_message_bytes)

        def work() -> bytes | None:
            actor = actor_of(request, self._services)
            return self._services.messages.receive(
                raw, peer_of(request), door="hl7-http", institution_hint=actor.institution
            )

        answer = await self._workers.run(work)
        if answer is None:
            return Response(status_code=204, headers=echo_headers(request))
        return Response(answer, media_type=_TYPE, headers=echo_headers(request))
