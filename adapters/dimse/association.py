"""One association as acceptor: who is it, what may it do, and which service gets each message (PS3.7; PS3.8 section 7)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from adapters.dimse import catalogue, metrics, negotiation
from adapters.dimse import command as dimse
from adapters.dimse.exchange import Exchange, Message
from adapters.dimse.upper_layer import (
    ASSOCIATE_RQ,
    RELEASE_RP_PDU,
    UNEXPECTED_PDU,
    ConnectionEnd,
    ProtocolError,
    UpperLayer,
)
from hub.actor import Actor
from hub.certificates import OPEN_LINE, Line, why_not
from hub.config import Settings
from hub.envelope import new_correlation_id
from hub.errors import HubError
from hub.ports import MemberEndpoint

if TYPE_CHECKING:
    from hub.boot import Services

_log = structlog.get_logger("adapters.dimse")


class Association:
    """Serves one connection from its first byte to its last.

    Args:
        admit: called with the calling AE title before it is accepted; returns whether that AE may have one more
            association. The caller gives the place back when :meth:`run` returns.
        line: how the peer came in, and what certificate it showed.
    """

    def __init__(
        self,
        services: Services,
        layer: UpperLayer,
        peer: tuple[str, int],
        *,
        admit: Callable[[str], bool],
        line: Line = OPEN_LINE,
    ) -> None:
        self._services = services
        self._settings: Settings = services.settings
        self._layer = layer
        self._peer_ip, port = peer
        self._peer = f"[{self._peer_ip}]:{port}" if ":" in self._peer_ip else f"{self._peer_ip}:{port}"
        self._admit = admit
        self._line = line
        self._correlation_id = new_correlation_id()
        self._exchange: Exchange | None = None
        self._serving: dict[str, catalogue.Service] = {}
        self._idle = True
        # Not a flag of this object: what the services ask must not lead back to it, or only the collector could free it.
        self._stopping = threading.Event()
        self.calling_ae = ""

    @property
    def fatal(self) -> HubError | None:
        """Set when the disk failed and the node must not take data any more."""
        return self._exchange.fatal if self._exchange is not None else None

    def run(self) -> None:
        """Serve until the peer releases, aborts or breaks a rule; never raises."""
        log = _log.bind(peer=self._peer, correlation_id=self._correlation_id)
        outcome = "fault"
        try:
            outcome = self._negotiate() or self._serve()
        except ConnectionEnd as end:
            outcome = end.why
            self._layer.close() if end.why.startswith(("closed", "reset", "aborted")) else self._layer.abort(reason=0)
        except ProtocolError as error:
            outcome = error.why
            self._layer.abort(reason=error.reason)
        except HubError as error:
            outcome = error.category.value
            log.warning("association_failed", error=error.message, category=error.category.value)
            self._layer.abort(reason=0)
        except Exception as error:  # noqa: BLE001 - one peer's trouble must not end the door
            # The text of an unforeseen error may quote patient data, so only its kind is logged.
            log.error("association_fault", error=type(error).__name__)  # noqa: TRY400 - as above
            self._layer.abort(reason=0)
        finally:
            self._layer.close()
            for service in self._serving.values():
                service.ended()
            metrics.associations.labels(outcome).inc()
            tally = self._serving.get("store")
            log.info(
                "association_ended",
                outcome=outcome,
                calling_ae=self.calling_ae,
                services=sorted(self._serving),
                stored=getattr(tally, "stored", 0),
                refused=getattr(tally, "refused", 0),
            )

    def stop(self) -> None:
        """Let the message in hand be answered, then end."""
        self._stopping.set()
        if self._idle:
            self._layer.interrupt()

    def _negotiate(self) -> str:
        """Return the empty string when the association stands, else how it ended."""
        kind, view = self._layer.read(
            wait_s=self._settings.association_request_s, max_bytes=negotiation.MAX_REQUEST_BYTES
        )
        if kind != ASSOCIATE_RQ:
            raise ProtocolError("no-association-request", UNEXPECTED_PDU)
        body = bytes(view)
        request = negotiation.read_request(body)
        refusal = negotiation.why_not(body, request, ae_title=self._settings.ae_title)
        endpoint: MemberEndpoint | None = None
        untrusted = ""
        if refusal is None:
            try:
                directory = self._services.directory
                endpoint = directory.dicom_member(request.calling_ae, self._peer_ip)
                untrusted = why_not(endpoint, self._line, directory.all_endpoints()) if endpoint is not None else ""
            except HubError as error:
                _log.warning("directory_unavailable", peer=self._peer, error=error.message)
                refusal = negotiation.TEMPORARY_CONGESTION
            else:
                if endpoint is None or not endpoint.active:
                    refusal = negotiation.CALLING_AE_UNKNOWN
                elif untrusted:
                    # The peer is told no more than a stranger is.
                    refusal = negotiation.CALLING_AE_UNKNOWN
                elif not self._admit(request.calling_ae):
                    refusal = negotiation.LOCAL_LIMIT_EXCEEDED
                else:
                    self.calling_ae = request.calling_ae
                    self._services.presented_certificates.note(endpoint.id, self._line)
        if refusal is not None or endpoint is None:
            refusal = refusal or negotiation.CALLING_AE_UNKNOWN
            _log.warning(
                "association_refused",
                peer=self._peer,
                calling_ae=request.calling_ae,
                called_ae=request.called_ae,
                why=untrusted,
                reject="-".join(map(str, refusal)),
            )
            self._layer.finish(negotiation.reject(refusal))
            return "rejected-" + "-".join(map(str, refusal))
        accepted = negotiation.accept(
            request,
            offered_pdu_bytes=min(negotiation.OFFERED_PDU_BYTES, self._settings.max_pdu_bytes),
            rights=catalogue.rights_of(endpoint.settings),
        )
        self._exchange = Exchange(
            services=self._services,
            layer=self._layer,
            endpoint=endpoint,
            actor=Actor(
                institution=endpoint.member,
                client=request.calling_ae,
                address=self._peer_ip,
                roles=frozenset({"system"}),
            ),
            calling_ae=request.calling_ae,
            peer=self._peer,
            contexts=accepted.contexts,
            max_pdu_bytes=request.max_pdu_bytes,
            extended=accepted.extended,
            correlation_id=self._correlation_id,
            stopping=self._stopping.is_set,
        )
        self._layer.send(accepted.pdu)
        return ""

    def _serve(self) -> str:
        assert self._exchange is not None
        while True:
            # First idle, then the look at the flag: stop() does it the other way round, so one of us sees the other.
            self._idle = True
            if self._stopping.is_set():
                self._layer.abort(reason=0)
                return "stopped"
            found = self._layer.read_pdv(wait_s=self._settings.association_idle_s)
            self._idle = False
            if found is None:
                self._layer.finish(RELEASE_RP_PDU)
                return "released"
            self._message(self._exchange, self._exchange.message(found))
            if self.fatal is not None:
                self._layer.abort(reason=0)
                return "disk-failed"

    def _message(self, exchange: Exchange, message: Message) -> None:
        if message.kind == dimse.C_CANCEL_RQ:
            # It came after the last answer to what it cancels.
            exchange.pass_over(message)
            return
        if message.kind & 0x8000:
            raise ProtocolError("response-without-request")
        offer = catalogue.offer_for(message.context.abstract_syntax)
        assert offer is not None, "a context is only accepted where there is an offer"
        service = self._serving.get(offer.right)
        if service is None:
            service = self._serving[offer.right] = catalogue.start(offer, exchange)
        service.handle(message)
        exchange.done(message)
