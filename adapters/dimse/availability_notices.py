"""Takes Instance Availability Notifications as SCP (PS3.4 annex R; PS3.7 section 10.1.5)."""

from __future__ import annotations

import hashlib
import uuid

import structlog

from adapters.dimse import command as dimse
from adapters.dimse import status
from adapters.dimse.exchange import Exchange, Message
from fhir_mappings.dicom import availability
from hub.availability_notices import AvailabilityNotices

_log = structlog.get_logger("adapters.dimse")


class Availability:
    """Keeps the notices of one association."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._notices = AvailabilityNotices(exchange.services)

    def handle(self, message: Message) -> None:
        """Answer one N-CREATE; a success means that the notice is durable."""
        if message.kind != dimse.N_CREATE_RQ:
            self._exchange.unknown(message)
            return
        data = self._exchange.dataset(message, max_bytes=availability.MAX_BYTES)
        # The SCU may leave the choice of the UID to us (PS3.7 section 10.1.5.1.4); the same notice gets the same one.
        chosen = uuid.uuid5(uuid.NAMESPACE_OID, f"{self._exchange.calling_ae}|{hashlib.sha256(data).hexdigest()}")
        uid = dimse.uid(message.command, dimse.AFFECTED_SOP_INSTANCE_UID) or f"2.25.{chosen.int}"
        override = self._exchange.endpoint.settings.get("charset-in") or None
        code, comment = status.SUCCESS, ""
        try:
            notice = availability.read(data, message.context.transfer_syntax, charset_override=override)
            self._notices.take(self._exchange.envelope("IAN N-CREATE"), uid, notice)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, nothing is kept, and the peer is told
            code, comment = self._exchange.normalized_refusal(
                error, status.AVAILABILITY_BY_CATEGORY, unreadable=status.INVALID_ATTRIBUTE_VALUE
            )
            _log.warning("notice_refused", peer=self._exchange.peer, status=f"{code:04X}", why=comment)
        self._exchange.answer(message, code, comment=comment, more={dimse.AFFECTED_SOP_INSTANCE_UID: uid})

    def ended(self) -> None:
        """Nothing is left to do: what was said is in the database."""
