"""One association as acceptor: C-ECHO, and C-STORE straight from the wire to the spool (PS3.7 sections 9.1.1, 9.1.5; PS3.4 annex B).

The object kept is a Part 10 file: a File Meta Information of ours, which holds nothing that differs between two sendings
of the same object, and the data set exactly as the peer encoded it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import structlog

from adapters.dimse import command as dimse
from adapters.dimse import metrics, negotiation, status
from adapters.dimse.upper_layer import (
    ASSOCIATE_RQ,
    RELEASE_RP_PDU,
    UNEXPECTED_PDU,
    ConnectionEnd,
    ProtocolError,
    UpperLayer,
)
from fhir_mappings.dicom.header import read_header
from fhir_mappings.dicom.scanner import valid_uid
from hub.actor import Actor
from hub.config import Settings
from hub.envelope import Envelope, new_correlation_id
from hub.errors import Category, HubError
from hub.ports import MemberEndpoint, Spool

if TYPE_CHECKING:
    from hub.boot import Services

_log = structlog.get_logger("adapters.dimse")


@dataclass(slots=True)
class _Refused:
    """Why the data set now arriving will not be kept."""

    code: int
    comment: str = ""
    fatal: HubError | None = None


@dataclass(slots=True)
class _Tally:
    stored: int = 0
    refused: int = 0
    studies: set[str] = field(default_factory=set)


class Association:
    """Serves one connection from its first byte to its last.

    Args:
        admit: called with the calling AE title before it is accepted; returns whether that AE may have one more
            association. The caller gives the place back when :meth:`run` returns.
    """

    def __init__(
        self, services: Services, layer: UpperLayer, peer: tuple[str, int], *, admit: Callable[[str], bool]
    ) -> None:
        self._services = services
        self._settings: Settings = services.settings
        self._layer = layer
        self._peer_ip, port = peer
        self._peer = f"[{self._peer_ip}]:{port}" if ":" in self._peer_ip else f"{self._peer_ip}:{port}"
        self._admit = admit
        self._contexts: Mapping[int, negotiation.Context] = {}
        self._actor: Actor | None = None
        self._charset: str | None = None
        self._correlation_id = new_correlation_id()
        self._tally = _Tally()
        self._idle = True
        self._stopping = False
        self.calling_ae = ""
        #: Set when the disk failed and the node must not take data any more.
        self.fatal: HubError | None = None

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
            self._ended()
            metrics.associations.labels(outcome).inc()
            log.info(
                "association_ended",
                outcome=outcome,
                calling_ae=self.calling_ae,
                stored=self._tally.stored,
                refused=self._tally.refused,
            )

    def stop(self) -> None:
        """Let the message in hand be answered, then end."""
        self._stopping = True
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
        if refusal is None:
            try:
                endpoint = self._services.directory.dicom_member(request.calling_ae, self._peer_ip)
            except HubError as error:
                _log.warning("directory_unavailable", peer=self._peer, error=error.message)
                refusal = negotiation.TEMPORARY_CONGESTION
            else:
                if endpoint is None or not endpoint.active:
                    refusal = negotiation.CALLING_AE_UNKNOWN
                elif not self._admit(request.calling_ae):
                    refusal = negotiation.LOCAL_LIMIT_EXCEEDED
                else:
                    self.calling_ae = request.calling_ae
        if refusal is not None or endpoint is None:
            refusal = refusal or negotiation.CALLING_AE_UNKNOWN
            _log.warning(
                "association_refused",
                peer=self._peer,
                calling_ae=request.calling_ae,
                called_ae=request.called_ae,
                reject="-".join(map(str, refusal)),
            )
            self._layer.finish(negotiation.reject(refusal))
            return "rejected-" + "-".join(map(str, refusal))
        self._actor = Actor(
            institution=endpoint.member, client=request.calling_ae, address=self._peer_ip, roles=frozenset({"system"})
        )
        self._charset = endpoint.settings.get("charset-in") or None
        offered = min(negotiation.OFFERED_PDU_BYTES, self._settings.max_pdu_bytes)
        answer, self._contexts = negotiation.accept(request, offered_pdu_bytes=offered)
        self._layer.send(answer)
        return ""

    def _serve(self) -> str:
        while True:
            # First idle, then the look at the flag: stop() does it the other way round, so one of us sees the other.
            self._idle = True
            if self._stopping:
                self._layer.abort(reason=0)
                return "stopped"
            found = self._layer.read_pdv(wait_s=self._settings.association_idle_s)
            self._idle = False
            if found is None:
                self._layer.finish(RELEASE_RP_PDU)
                return "released"
            context_id, message = self._command(found)
            self._message(context_id, message)
            if self.fatal is not None:
                self._layer.abort(reason=0)
                return "disk-failed"

    def _command(self, found: tuple[int, int, memoryview]) -> tuple[int, dimse.Command]:
        context_id, control, data = found
        if context_id not in self._contexts:
            raise ProtocolError("context-not-accepted")
        command = bytearray()
        while True:
            if not dimse.is_command(control):
                raise ProtocolError("data-without-command")
            command += data
            if len(command) > dimse.MAX_BYTES:
                raise ProtocolError("command-too-long")
            if dimse.is_last(control):
                return context_id, dimse.decode(command)
            control, data = self._fragment(context_id)

    def _fragment(self, context_id: int) -> tuple[int, memoryview]:
        found = self._layer.read_pdv(wait_s=self._settings.pdu_deadline_s)
        if found is None:
            raise ProtocolError("release-inside-message")
        if found[0] != context_id:
            raise ProtocolError("context-changed-inside-message")
        return found[1], found[2]

    def _message(self, context_id: int, message: dimse.Command) -> None:
        kind = dimse.number(message, dimse.COMMAND_FIELD)
        context = self._contexts[context_id]
        has_data = dimse.number(message, dimse.COMMAND_DATA_SET_TYPE) != dimse.NO_DATA_SET
        if kind == dimse.C_STORE_RQ and has_data:
            self._store(context_id, context, message)
            return
        if has_data:
            self._pass_over(context_id)
        if kind == dimse.C_CANCEL_RQ:
            return
        if kind & 0x8000:
            raise ProtocolError("response-without-request")
        answer: dict[int, int | str] = {
            dimse.COMMAND_FIELD: kind | 0x8000,
            dimse.MESSAGE_ID_RESPONDED_TO: dimse.number(message, dimse.MESSAGE_ID),
            dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET,
            dimse.STATUS: status.SUCCESS,
        }
        sop_class = dimse.uid(message, dimse.AFFECTED_SOP_CLASS_UID) or dimse.uid(
            message, dimse.REQUESTED_SOP_CLASS_UID
        )
        if sop_class:
            answer[dimse.AFFECTED_SOP_CLASS_UID] = sop_class
        if kind != dimse.C_ECHO_RQ:
            answer[dimse.STATUS] = status.UNRECOGNIZED_OPERATION
        self._layer.send(dimse.pdu(context_id, answer))

    def _pass_over(self, context_id: int) -> None:
        while True:
            control, _ = self._fragment(context_id)
            if dimse.is_command(control):
                raise ProtocolError("command-inside-data")
            if dimse.is_last(control):
                return

    def _store(self, context_id: int, context: negotiation.Context, message: dimse.Command) -> None:
        sop_class = dimse.uid(message, dimse.AFFECTED_SOP_CLASS_UID)
        sop_instance = dimse.uid(message, dimse.AFFECTED_SOP_INSTANCE_UID)
        message_id = dimse.number(message, dimse.MESSAGE_ID)
        refused: _Refused | None = None
        if sop_class != context.abstract_syntax:
            refused = _Refused(status.SOP_CLASS_NOT_SUPPORTED, "SOP Class UID is not that of the presentation context.")
        elif not valid_uid(sop_instance) or not valid_uid(sop_class):
            refused = _Refused(status.CANNOT_UNDERSTAND, "Affected SOP Instance UID is not a UID.")
        if refused is not None:
            self._pass_over(context_id)
        else:
            try:
                with self._services.objects.spool(max_bytes=self._settings.max_object_bytes) as spool:
                    refused = self._receive(
                        context_id, spool, file_meta(sop_class, sop_instance, context.transfer_syntax)
                    )
                    if refused is None:
                        refused = self._keep(spool)
            except HubError as error:
                # Only opening the spool raises here: the data set is still on its way.
                refused = self._refusal(error)
                self._pass_over(context_id)
        code = status.SUCCESS if refused is None else refused.code
        answer: dict[int, int | str] = {
            dimse.AFFECTED_SOP_CLASS_UID: sop_class,
            dimse.COMMAND_FIELD: dimse.C_STORE_RSP,
            dimse.MESSAGE_ID_RESPONDED_TO: message_id,
            dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET,
            dimse.STATUS: code,
            dimse.AFFECTED_SOP_INSTANCE_UID: sop_instance,
        }
        if refused is None:
            self._tally.stored += 1
        else:
            self._tally.refused += 1
            if refused.comment:
                answer[dimse.ERROR_COMMENT] = refused.comment
            _log.warning(
                "instance_refused",
                peer=self._peer,
                correlation_id=self._correlation_id,
                status=f"{code:04X}",
                why=refused.comment,
            )
        metrics.instances.labels(f"{code:04X}").inc()
        self._layer.send(dimse.pdu(context_id, answer))

    def _receive(self, context_id: int, spool: Spool, meta: bytes) -> _Refused | None:
        """Write the data set to *spool* as it comes; after trouble the rest is read and dropped, so that we can answer."""
        refused: _Refused | None = None
        received = 0
        try:
            spool.write(meta)
        except HubError as error:
            refused = self._refusal(error)
        while True:
            control, data = self._fragment(context_id)
            if dimse.is_command(control):
                raise ProtocolError("command-inside-data")
            received += len(data)
            if refused is None:
                try:
                    spool.write(data)
                except HubError as error:
                    if error.category is Category.INCORRECT:
                        # Beyond the cap nobody knows how much would follow.
                        raise ProtocolError("object-too-large", 0) from error
                    refused = self._refusal(error)
            if dimse.is_last(control):
                metrics.received_bytes.inc(received)
                return refused

    def _keep(self, spool: Spool) -> _Refused | None:
        """Check and hand over what is in *spool*; on return ``None`` it would survive a power cut."""
        assert self._actor is not None
        try:
            with spool.open() as stream:
                header = read_header(stream, charset_override=self._charset)
            self._services.imaging.receive(self._envelope(), spool, header)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, this object was not stored, and the peer is told
            if getattr(error, "where", "") in {"(0002,0002)", "(0002,0003)"}:
                return _Refused(status.DATA_SET_MISMATCH, "The data set holds other UIDs than the command.")
            return self._refusal(error)
        self._tally.studies.add(header.StudyInstanceUID)
        return None

    def _refusal(self, error: Exception) -> _Refused:
        code, comment = status.of_error(error)
        if isinstance(error, HubError) and error.fatal:
            self.fatal = error
        if code == status.PROCESSING_FAILURE:
            _log.error("store_fault", peer=self._peer, correlation_id=self._correlation_id, error=type(error).__name__)
        return _Refused(code, comment)

    def _envelope(self) -> Envelope:
        assert self._actor is not None
        return Envelope(
            door="dimse",
            actor=self._actor,
            peer=self._peer,
            kind="C-STORE",
            correlation_id=self._correlation_id,
            received_at=self._services.clock(),
        )

    def _ended(self) -> None:
        if not self._tally.studies:
            return
        try:
            self._services.imaging.association_ended(self._envelope(), self._tally.studies)
        except Exception as error:  # noqa: BLE001 - the objects are stored; the study's own timer completes it later
            _log.error(
                "association_end_not_recorded",
                peer=self._peer,
                correlation_id=self._correlation_id,
                error=type(error).__name__,
            )


def _element(tag: int, vr: bytes, value: bytes, *, long: bool = False) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    return head + (struct.pack("<xxI", len(value)) if long else struct.pack("<H", len(value))) + value


def _uid(value: str) -> bytes:
    raw = value.encode("ascii")
    return raw + b"\0" * (len(raw) % 2)


@lru_cache(maxsize=512)
def _meta_around(sop_class: str, transfer_syntax: str) -> tuple[bytes, bytes]:
    head = _element(0x00020001, b"OB", b"\0\1", long=True) + _element(0x00020002, b"UI", _uid(sop_class))
    tail = _element(0x00020010, b"UI", _uid(transfer_syntax))
    tail += _element(0x00020012, b"UI", _uid(negotiation.IMPLEMENTATION_CLASS_UID))
    return head, tail


def file_meta(sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    """Return preamble and File Meta Information (PS3.10 section 7.1).

    No AE title, no version and no date: the digest of the whole file decides what is a duplicate.
    """
    head, tail = _meta_around(sop_class, transfer_syntax)
    meta = head + _element(0x00020003, b"UI", _uid(sop_instance)) + tail
    return b"\0" * 128 + b"DICM" + _element(0x00020000, b"UL", struct.pack("<I", len(meta))) + meta
