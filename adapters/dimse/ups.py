"""Unified Procedure Step as SCP: Push, Pull, Watch and Query (PS3.4 annex CC; PS3.7 section 10).

N-CREATE, N-SET, N-GET and N-ACTION name the SOP class UPS Push in their command sets whatever context they come by
(PS3.4 section CC.3.1); the context says what may be asked. Who subscribes by Watch is told on associations that the hub opens
(:mod:`adapters.dimse.ups_events`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import structlog

from adapters.dimse import command as dimse
from adapters.dimse import metrics, status
from adapters.dimse.exchange import Message
from adapters.dimse.find import Json, Query
from fhir_mappings.dicom import identifier
from fhir_mappings.dicom import workitem as mapping
from fhir_mappings.dicom.performed_step import first
from hub.workitem import Workitems
from hub.workitem_rules import Remark, SubscriptionChange, WorkitemError
from hub.workitem_search import WorkitemSearch, keys_of, selected

_log = structlog.get_logger("adapters.dimse")

PUSH, WATCH, PULL, QUERY = (f"1.2.840.10008.5.1.4.34.6.{number}" for number in (1, 2, 3, 5))
_CHANGE_STATE, _REQUEST_CANCEL = 1, 2
_SUBSCRIPTIONS = frozenset(one.value for one in SubscriptionChange)
#: Operations of each SOP class (PS3.4 table CC.2-1).
_OPERATIONS: Mapping[str, frozenset[int]] = {
    PUSH: frozenset({dimse.N_CREATE_RQ, dimse.N_GET_RQ, dimse.N_ACTION_RQ}),
    PULL: frozenset({dimse.C_FIND_RQ, dimse.N_GET_RQ, dimse.N_SET_RQ, dimse.N_ACTION_RQ}),
    WATCH: frozenset({dimse.C_FIND_RQ, dimse.N_GET_RQ, dimse.N_ACTION_RQ}),
    QUERY: frozenset({dimse.C_FIND_RQ}),
}
_ACTIONS: Mapping[str, frozenset[int]] = {
    PUSH: frozenset({_REQUEST_CANCEL}),
    PULL: frozenset({_CHANGE_STATE}),
    WATCH: frozenset({_REQUEST_CANCEL, *_SUBSCRIPTIONS}),
}


class UnifiedProcedureStep(Query):
    """Serves the workitems that one peer may see."""

    name: ClassVar[str] = "ups"

    def handle(self, message: Message) -> None:
        """Answer one request; a success means that what it said is durable."""
        if message.kind not in _OPERATIONS[message.context.abstract_syntax]:
            self._exchange.unknown(message)
            return
        if message.kind == dimse.C_FIND_RQ:
            super().handle(message)
            return
        operation = {
            dimse.N_CREATE_RQ: self._create,
            dimse.N_SET_RQ: self._set,
            dimse.N_GET_RQ: self._get,
            dimse.N_ACTION_RQ: self._act,
        }[message.kind]
        data = self._exchange.dataset(message, max_bytes=identifier.MAX_BYTES)
        try:
            operation(message, data)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, nothing is kept, and the peer is told
            code, comment = self._refusal(error)
            _log.warning("workitem_refused", peer=self._exchange.peer, status=f"{code:04X}", why=comment)
            metrics.workitems.labels(f"{message.kind:04X}", f"{code:04X}").inc()
            self._exchange.answer(message, code, comment=comment)

    def pages(self, message: Message, attributes: Mapping[str, Json]) -> tuple[int, Iterable[Sequence[Json]]]:
        """Return the workitems that match, with what was asked for."""
        del message
        exchange = self._exchange
        keys = list(keys_of(attributes, zone=exchange.settings.time_zone))
        search = WorkitemSearch(
            exchange.services, exchange.actor, keys, subtype="UPS C-FIND", correlation_id=exchange.correlation_id
        )
        wanted = {tag: element for tag, element in attributes.items() if tag != mapping.TRANSACTION_UID}
        return status.PENDING, ([selected(one, wanted) for one in page] for page in search.pages())

    def _create(self, message: Message, data: bytes) -> None:
        uid = dimse.uid(message.command, dimse.AFFECTED_SOP_INSTANCE_UID)
        uid, remark = self._items().create(self._exchange.envelope("UPS N-CREATE"), uid, self._read(message, data))
        self._done(message, uid, remark)

    def _set(self, message: Message, data: bytes) -> None:
        uid = dimse.uid(message.command, dimse.REQUESTED_SOP_INSTANCE_UID)
        self._items().update(self._exchange.envelope("UPS N-SET"), uid, self._read(message, data))
        self._done(message, uid, Remark.NONE)

    def _get(self, message: Message, data: bytes) -> None:
        del data
        uid = dimse.uid(message.command, dimse.REQUESTED_SOP_INSTANCE_UID)
        content = self._items().read(self._exchange.envelope("UPS N-GET"), uid)
        wanted = _tags(message.command.get(dimse.ATTRIBUTE_IDENTIFIER_LIST, b""))
        if wanted:
            content = {tag: element for tag, element in content.items() if tag in wanted}
        self._done(message, uid, Remark.NONE, identifier.write(content, message.context.transfer_syntax))

    def _act(self, message: Message, data: bytes) -> None:
        uid = dimse.uid(message.command, dimse.REQUESTED_SOP_INSTANCE_UID)
        kind = int.from_bytes(message.command.get(dimse.ACTION_TYPE_ID, b""), "little")
        if kind not in _ACTIONS[message.context.abstract_syntax]:
            if kind in _SUBSCRIPTIONS:
                raise _RefusedError(status.UPS_NO_EVENT_REPORTS, "Subscribe by the SOP class UPS Watch.")
            raise _RefusedError(status.NO_SUCH_ACTION, "Action Type ID is not one of this SOP class.")
        told = self._read(message, data) if data else {}
        if kind in _SUBSCRIPTIONS:
            change = SubscriptionChange(kind)
            envelope = self._exchange.envelope(f"UPS {change.name.capitalize()}")
            self._items().change_subscription(envelope, uid, told, change)
            self._done(message, uid, Remark.NONE, kind=kind)
            return
        if kind == _REQUEST_CANCEL:
            remark = self._items().request_cancellation(self._exchange.envelope("UPS Request Cancel"), uid, told)
        else:
            envelope = self._exchange.envelope("UPS Change State")
            state, lock = first(told, mapping.STATE), first(told, mapping.TRANSACTION_UID)
            remark = self._items().change_state(envelope, uid, state, lock)
        self._done(message, uid, remark, kind=kind)

    def _done(
        self, message: Message, uid: str, remark: Remark, data: bytes | None = None, *, kind: int | None = None
    ) -> None:
        code = status.BY_UPS_REMARK[remark]
        metrics.workitems.labels(f"{message.kind:04X}", f"{code:04X}").inc()
        more: dict[int, int | str | bytes] = {dimse.AFFECTED_SOP_INSTANCE_UID: uid}
        if kind is not None:
            more[dimse.ACTION_TYPE_ID] = kind
        self._exchange.answer(message, code, comment=remark.value, data=data, more=more)

    def _items(self) -> Workitems:
        return Workitems(self._exchange.services)

    def _read(self, message: Message, data: bytes) -> Json:
        return identifier.read(data, message.context.transfer_syntax, charset_override=self._charset).attributes

    def _refusal(self, error: Exception) -> tuple[int, str]:
        if isinstance(error, _RefusedError):
            return error.code, str(error)
        if isinstance(error, WorkitemError):
            return status.BY_UPS_REASON[error.reason], self._exchange.refusal(error)[1]
        return self._exchange.normalized_refusal(error, status.UPS_BY_CATEGORY)


class _RefusedError(Exception):
    def __init__(self, code: int, comment: str) -> None:
        super().__init__(comment)
        self.code = code


def _tags(raw: bytes) -> frozenset[str]:
    """Return the tags of an AT value, always Little Endian in a command set (PS3.7 section 6.3.1)."""
    pairs = struct.iter_unpack("<HH", raw[: len(raw) // 4 * 4])
    return frozenset(f"{group:04X}{element:04X}" for group, element in pairs)
