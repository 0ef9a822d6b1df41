"""C-STORE as SCP: straight from the wire to the spool (PS3.7 section 9.1.1; PS3.4 annex B).

The object kept is a Part 10 file: a File Meta Information of ours, which holds nothing that differs between two sendings
of the same object, and the data set exactly as the peer encoded it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import structlog

from adapters.dimse import command as dimse
from adapters.dimse import metrics, status
from adapters.dimse.exchange import Exchange, Message
from adapters.dimse.upper_layer import ProtocolError
from fhir_mappings.dicom.header import read_header
from fhir_mappings.dicom.implementation import IMPLEMENTATION_CLASS_UID
from fhir_mappings.dicom.scanner import valid_uid
from hub.errors import Category, HubError
from hub.ports import Spool

_log = structlog.get_logger("adapters.dimse")


@dataclass(slots=True)
class _Refused:
    """Why the data set now arriving will not be kept."""

    code: int
    comment: str = ""


class Store:
    """Takes the instances of one association."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._charset: str | None = exchange.endpoint.settings.get("charset-in") or None
        self._studies: set[str] = set()
        self.stored = 0
        self.refused = 0

    def handle(self, message: Message) -> None:
        """Receive one object and answer; success means that it would survive a power cut."""
        exchange, context = self._exchange, message.context
        if message.kind != dimse.C_STORE_RQ or not message.has_data:
            exchange.unknown(message)
            return
        sop_class = dimse.uid(message.command, dimse.AFFECTED_SOP_CLASS_UID)
        sop_instance = dimse.uid(message.command, dimse.AFFECTED_SOP_INSTANCE_UID)
        message_id = message.id
        refused: _Refused | None = None
        if sop_class != context.abstract_syntax:
            refused = _Refused(status.SOP_CLASS_NOT_SUPPORTED, "SOP Class UID is not that of the presentation context.")
        elif not valid_uid(sop_instance) or not valid_uid(sop_class):
            refused = _Refused(status.CANNOT_UNDERSTAND, "Affected SOP Instance UID is not a UID.")
        if refused is not None:
            exchange.pass_over(message)
        else:
            try:
                with exchange.services.objects.spool(max_bytes=exchange.settings.max_object_bytes) as spool:
                    refused = self._receive(
                        message.context_id, spool, file_meta(sop_class, sop_instance, context.transfer_syntax)
                    )
                    if refused is None:
                        refused = self._keep(spool)
            except HubError as error:
                # Only opening the spool raises here: the data set is still on its way.
                refused = self._refusal(error)
                exchange.pass_over(message)
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
            self.stored += 1
        else:
            self.refused += 1
            if refused.comment:
                answer[dimse.ERROR_COMMENT] = refused.comment
            _log.warning(
                "instance_refused",
                peer=exchange.peer,
                correlation_id=exchange.correlation_id,
                status=f"{code:04X}",
                why=refused.comment,
            )
        metrics.instances.labels(f"{code:04X}").inc()
        exchange.layer.send(dimse.pdu(message.context_id, answer))

    def ended(self) -> None:
        """Start the quiet time of the studies that this association brought; never raises."""
        if not self._studies:
            return
        exchange = self._exchange
        try:
            exchange.services.imaging.association_ended(exchange.envelope("C-STORE"), self._studies)
        except Exception as error:  # noqa: BLE001 - the objects are stored; the study's own timer completes it later
            _log.error(
                "association_end_not_recorded",
                peer=exchange.peer,
                correlation_id=exchange.correlation_id,
                error=type(error).__name__,
            )

    def _receive(self, context_id: int, spool: Spool, meta: bytes) -> _Refused | None:
        """Write the data set to *spool* as it comes; after trouble the rest is read and dropped, so that we can answer."""
        refused: _Refused | None = None
        received = 0
        try:
            spool.write(meta)
        except HubError as error:
            refused = self._refusal(error)
        while True:
            control, data = self._exchange.fragment(context_id)
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
        try:
            with spool.open() as stream:
                header = read_header(stream, charset_override=self._charset)
            self._exchange.services.imaging.receive(self._exchange.envelope("C-STORE"), spool, header)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, this object was not stored, and the peer is told
            if getattr(error, "where", "") in {"(0002,0002)", "(0002,0003)"}:
                return _Refused(status.DATA_SET_MISMATCH, "The data set holds other UIDs than the command.")
            return self._refusal(error)
        self._studies.add(header.StudyInstanceUID)
        return None

    def _refusal(self, error: Exception) -> _Refused:
        code, comment = self._exchange.refusal(error)
        if code == status.PROCESSING_FAILURE:
            _log.error(
                "store_fault",
                peer=self._exchange.peer,
                correlation_id=self._exchange.correlation_id,
                error=type(error).__name__,
            )
        return _Refused(code, comment)


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
    tail += _element(0x00020012, b"UI", _uid(IMPLEMENTATION_CLASS_UID))
    return head, tail


def file_meta(sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    """Return preamble and File Meta Information (PS3.10 section 7.1).

    No AE title, no version and no date: the digest of the whole file decides what is a duplicate.
    """
    head, tail = _meta_around(sop_class, transfer_syntax)
    meta = head + _element(0x00020003, b"UI", _uid(sop_instance)) + tail
    return b"\0" * 128 + b"DICM" + _element(0x00020000, b"UL", struct.pack("<I", len(meta))) + meta
