"""HL7 v2 over HTTP: a message in the body, its acknowledgement in the answer, in the same form.

A body is ER7, ER7 or v2-XML in a SOAP 1.1 or 1.2 envelope or in plain XML (:mod:`fhir_mappings.hl7v2.wrapping`), or a row in
JSON (:mod:`fhir_mappings.hl7v2.row`). Which of them it is, its first character says: what clients write into Content-Type
is often a default of their toolkit. The message goes through the same intake as one from MLLP; the bearer token says whose
it must be.
"""

from __future__ import annotations

import re
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, actor_of, echo_headers, error_response, json_response, peer_of, read_body
from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.wrapping import SOAP_1_2, Wrapped, envelope_of, fault, kind_of, unwrap, wrap
from fhir_mappings.text import codec_for
from hub.errors import Category, HubError
from hub.outcome import as_hub_error, status_of
from hub.quotas import Gate, OverQuotaError
from hub.reconcile import reconcile

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("adapters.fhir.v2")

DOOR = "hl7-http"
_ER7 = "x-application/hl7-v2+er7"
_CHARSET = re.compile(r"""charset\s*=\s*"?([A-Za-z0-9._\-]{1,40})""", re.IGNORECASE)


class V2Handler:
    """``POST /hl7``, ``GET /hl7/reconcile``."""

    def __init__(self, services: Services, workers: Workers) -> None:
        self._services = services
        self._workers = workers
        self._gate = Gate(services)

    async def receive(self, request: Request) -> Response:
        """Answer with the acknowledgement once everything is durable; 204 when none is due.

        A member beyond its quota is answered 429 with Retry-After: ER7 by AE 207 or CE, SOAP by a Fault.
        """
        raw = await read_body(request, self._services, max_bytes=self._services.settings.max_message_bytes)
        soap = envelope_of(raw) if kind_of(raw) == "xml" else ""
        try:
            wrapped, wrong, answer = await self._workers.run(lambda: self._taken(request, raw))
        except OverQuotaError as over:
            if soap:
                return _soap_trouble(over, soap, request)
            return await self._workers.run(partial(self._held_back, request, raw, over))
        except Exception as error:
            if not soap:
                raise
            return _soap_trouble(error, soap, request)
        if wrong is not None:
            if not soap:
                raise HubError(Category.INCORRECT, wrong.message, where=wrong.where, remedy=wrong.remedy) from wrong
            reason = " ".join(filter(None, (wrong.message, wrong.remedy)))
            return _soap(fault(reason, soap=soap), soap, request, status=400 if soap == SOAP_1_2 else 500)
        if answer is None:
            return Response(status_code=204, headers=echo_headers(request))
        if wrapped is None:
            return Response(answer, media_type=_ER7, headers=echo_headers(request))
        if wrapped.kind == "json":
            return _row_answer(answer, wrapped, request)
        return _soap(wrap(answer, wrapped), wrapped.soap, request, charset=wrapped.charset)

    async def reconcile(self, request: Request) -> Response:
        """Answer ``GET /hl7/reconcile?date=YYYY-MM-DD`` with what was announced and what is here, both ways."""
        found = await self._workers.run(lambda: self._reconciled(request))
        return json_response(found, request)

    def _reconciled(self, request: Request) -> dict[str, Any]:
        # Who asks is looked at first: a stranger learns nothing from what is wrong with the question.
        actor = actor_of(request, self._services)
        given = request.query_params
        try:
            day = date.fromisoformat(given.get("date", ""))
        except ValueError as error:
            raise HubError(
                Category.INCORRECT, "The day is missing or is none.", where="date", remedy="Give date=2025-06-12."
            ) from error
        if set(given) != {"date"}:
            raise HubError(Category.INCORRECT, "Only date is known here.", where="query", remedy="Leave the rest out.")
        return reconcile(self._services, actor, day)

    def _taken(self, request: Request, raw: bytes) -> tuple[Wrapped | None, MappingError | None, bytes | None]:
        actor = actor_of(request, self._services)
        self._gate.check(actor.institution, raw)
        wrapped: Wrapped | None = None
        wrong: MappingError | None = None
        try:
            wrapped = unwrap(raw) if kind_of(raw) else None
        except MappingError as error:
            wrong = error
        _compare_charset(request, raw, wrapped)
        # What cannot be unwrapped is kept and audited too; only its answer says more than an acknowledgement could.
        answer = self._services.messages.receive(raw, peer_of(request), door=DOOR, institution_hint=actor.institution)
        return wrapped, wrong, answer

    def _held_back(self, request: Request, raw: bytes, over: OverQuotaError) -> Response:
        response = error_response(over, request)
        if kind_of(raw):
            return response
        answer = self._services.messages.refuse_unkept(raw, peer_of(request), str(over))
        if answer is None:
            return response
        headers = {**echo_headers(request), "Retry-After": response.headers["retry-after"]}
        return Response(answer, status_code=response.status_code, media_type=_ER7, headers=headers)


def _compare_charset(request: Request, raw: bytes, wrapped: Wrapped | None) -> None:
    """Tell the log of a Content-Type that names another character set than the bytes are in; the bytes decide."""
    named = _CHARSET.search(request.headers.get("content-type", ""))
    if named is None or raw.isascii():
        return
    label = named.group(1)
    found = wrapped.charset if wrapped is not None else decode_message(raw).charset
    if codec_for(label) != found:
        log.warning("content_type_mislabelled", declared=label, found=found, peer=peer_of(request))


def _soap(document: bytes, soap: str, request: Request, *, status: int = 200, charset: str = "utf-8") -> Response:
    media = "application/soap+xml" if soap == SOAP_1_2 else "text/xml" if soap else "application/xml"
    label = {"gb18030": "GB18030"}.get(charset, charset)
    headers = {**echo_headers(request), "Content-Type": f"{media}; charset={label}"}
    return Response(document, status_code=status, headers=headers)


def _soap_trouble(error: Exception, soap: str, request: Request) -> Response:
    """Return a Fault with the status that any other client would get, so that 401 and 503 stay what they are."""
    known = as_hub_error(error)
    plain = error_response(error, request)
    document = fault(str(known), soap=soap, sender=status_of(known) < 500)
    answer = _soap(document, soap, request, status=plain.status_code)
    for name in ("www-authenticate", "retry-after"):
        if name in plain.headers:
            answer.headers[name] = plain.headers[name]
    return answer


def _row_answer(answer: bytes, wrapped: Wrapped, request: Request) -> Response:
    ack = parse(answer.decode(wrapped.charset))
    code = ack.get("MSA-1")
    taken = code in {"AA", "CA"}
    told = ack.first("ERR")
    body = {
        "success": taken,
        "code": code,
        "messageId": ack.get("MSA-2"),
        "missing": list(wrapped.missing),
        "message": "" if taken else (told.get(8) or told.get(7) if told is not None else ack.get("MSA-3")),
    }
    return json_response(body, request, status=200 if taken else 422)
