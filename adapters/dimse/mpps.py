"""Modality Performed Procedure Step as SCP: N-CREATE, N-SET, and N-GET for those who ask (PS3.4 annex F; PS3.7 section 10)."""

from __future__ import annotations

from typing import Any

import structlog
from pydicom.uid import generate_uid

from adapters.dimse import command as dimse
from adapters.dimse import status
from adapters.dimse.exchange import Exchange, Message
from fhir_mappings.dicom import identifier
from hub.performed_step import FinalStepError, PerformedSteps

_log = structlog.get_logger("adapters.dimse")

SOP_CLASS, RETRIEVE_SOP_CLASS = "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.3.1.2.3.4"
#: Error ID of a step that is over (PS3.4 F.7.2.2.2).
_FINAL = 0xA710


class PerformedProcedureStep:
    """Keeps the steps that the modalities of one association report."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._steps = PerformedSteps(exchange.services)

    def handle(self, message: Message) -> None:
        """Answer one request; a success means that what it said is durable."""
        retrieve = message.context.abstract_syntax == RETRIEVE_SOP_CLASS
        known = (
            {dimse.N_GET_RQ: self._get} if retrieve else {dimse.N_CREATE_RQ: self._create, dimse.N_SET_RQ: self._set}
        )
        operation = known.get(message.kind)
        if operation is None:
            self._exchange.unknown(message)
            return
        data = self._exchange.dataset(message, max_bytes=identifier.MAX_BYTES)
        try:
            operation(message, data)
        except FinalStepError:
            self._refuse(message, status.PROCESSING_FAILURE, "The step is over and may no longer be updated.", _FINAL)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, nothing is kept, and the peer is told
            self._refuse(message, *self._exchange.normalized_refusal(error, status.MPPS_BY_CATEGORY))

    def ended(self) -> None:
        """Nothing is left to do: what was said is in the database."""

    def _create(self, message: Message, data: bytes) -> None:
        # The SCU may leave the choice of the UID to us (PS3.7 section 10.1.5.1.4).
        uid = dimse.uid(message.command, dimse.AFFECTED_SOP_INSTANCE_UID) or str(generate_uid(prefix=None))
        self._steps.create(self._exchange.envelope("N-CREATE"), uid, self._read(message, data))
        self._exchange.answer(message, status.SUCCESS, more={dimse.AFFECTED_SOP_INSTANCE_UID: uid})

    def _set(self, message: Message, data: bytes) -> None:
        uid = dimse.uid(message.command, dimse.REQUESTED_SOP_INSTANCE_UID)
        self._steps.change(self._exchange.envelope("N-SET"), uid, self._read(message, data))
        self._exchange.answer(message, status.SUCCESS, more={dimse.AFFECTED_SOP_INSTANCE_UID: uid})

    def _get(self, message: Message, data: bytes) -> None:
        del data
        uid = dimse.uid(message.command, dimse.REQUESTED_SOP_INSTANCE_UID)
        content = self._steps.read(self._exchange.envelope("N-GET"), uid)
        wanted = _tags(message.command.get(dimse.ATTRIBUTE_IDENTIFIER_LIST, b""))
        if wanted:
            content = {tag: element for tag, element in content.items() if tag in wanted}
        self._exchange.answer(
            message,
            status.SUCCESS,
            data=identifier.write(content, message.context.transfer_syntax),
            more={dimse.AFFECTED_SOP_INSTANCE_UID: uid},
        )

    def _read(self, message: Message, data: bytes) -> dict[str, Any]:
        override = self._exchange.endpoint.settings.get("charset-in") or None
        return identifier.read(data, message.context.transfer_syntax, charset_override=override).attributes

    def _refuse(self, message: Message, code: int, comment: str, error_id: int | None = None) -> None:
        _log.warning("performed_step_refused", peer=self._exchange.peer, status=f"{code:04X}", why=comment)
        more: dict[int, int | str] = {} if error_id is None else {dimse.ERROR_ID: error_id}
        self._exchange.answer(message, code, comment=comment, more=more)


def _tags(raw: bytes) -> frozenset[str]:
    """Return the tags of an AT value, always Little Endian in a command set (PS3.7 section 6.3.1)."""
    pairs = [raw[start : start + 4] for start in range(0, len(raw) // 4 * 4, 4)]
    return frozenset(f"{int.from_bytes(one[:2], 'little'):04X}{int.from_bytes(one[2:], 'little'):04X}" for one in pairs)
