"""What a DIMSE service sees of its association: messages in, answers out, and whether the peer has had enough (PS3.7).

A service never touches the socket. It reads the data set of the message in hand, answers it as often as its service
class says, and asks between two answers whether the peer has cancelled. The peer may send nothing else meanwhile, since
the hub negotiates no asynchronous operations (PS3.7 annex D.3.3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from adapters.dimse import command as dimse
from adapters.dimse import status
from adapters.dimse.negotiation import Context
from adapters.dimse.upper_layer import ProtocolError, UpperLayer, pdv_header
from hub.actor import Actor
from hub.config import Settings
from hub.envelope import Envelope, new_correlation_id
from hub.errors import Category, HubError
from hub.ports import MemberEndpoint

if TYPE_CHECKING:
    from hub.boot import Services

_FRAGMENT_BYTES = 128 << 10


@dataclass(frozen=True, slots=True)
class Message:
    """A DIMSE request whose command set has arrived, and whose data set, if any, is still on its way."""

    context_id: int
    context: Context
    command: dimse.Command
    kind: int
    has_data: bool

    @property
    def id(self) -> int:
        """(0000,0110) Message ID."""
        return dimse.number(self.command, dimse.MESSAGE_ID)

    @property
    def sop_class(self) -> str:
        """The affected, else the requested SOP class; empty where the command names none."""
        return dimse.uid(self.command, dimse.AFFECTED_SOP_CLASS_UID) or dimse.uid(
            self.command, dimse.REQUESTED_SOP_CLASS_UID
        )


@dataclass(slots=True)
class Exchange:
    """One association that stands, for the services that act on it.

    Attributes:
        contexts: what was accepted, by presentation context id.
        extended: the extended negotiation that was accepted, by SOP class (PS3.7 annex D.3.3.5).
        max_pdu_bytes: what the peer takes in one PDU; 0 means no limit.
        stopping: the hub is going down, so long services end after their present sub-operation.
        fatal: set when the disk failed and the node must not take data any more.
    """

    services: Services
    layer: UpperLayer
    endpoint: MemberEndpoint
    actor: Actor
    calling_ae: str
    peer: str
    contexts: Mapping[int, Context]
    max_pdu_bytes: int = 0
    extended: Mapping[str, bytes] = field(default_factory=dict)
    correlation_id: str = field(default_factory=new_correlation_id)
    stopping: Callable[[], bool] = lambda: False
    fatal: HubError | None = None
    _cancelled: set[int] = field(default_factory=set)
    _sub_operation: int = 0

    @property
    def settings(self) -> Settings:
        """The settings of the hub."""
        return self.services.settings

    @property
    def fragment_bytes(self) -> int:
        """The longest even fragment the peer takes; the 6 bytes of the PDV head count too (PS3.8 annex D.1)."""
        return max((min(self.max_pdu_bytes or _FRAGMENT_BYTES, _FRAGMENT_BYTES) - 6) & ~1, 2)

    def envelope(self, kind: str, *, received_at: datetime | None = None) -> Envelope:
        """Return the envelope under which what *kind* does is journalled and audited."""
        return Envelope(
            door="dimse",
            actor=self.actor,
            peer=self.peer,
            kind=kind,
            correlation_id=self.correlation_id,
            received_at=received_at or self.services.clock(),
        )

    # --- what arrives ----------------------------------------------------------------------------------------

    def command(self, found: tuple[int, int, memoryview]) -> tuple[int, dimse.Command]:
        """Return (context id, command set) of the message that begins with the PDV *found*."""
        context_id, control, data = found
        if context_id not in self.contexts:
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
            control, data = self.fragment(context_id)

    def message(self, found: tuple[int, int, memoryview]) -> Message:
        """Return the message that begins with the PDV *found*."""
        context_id, command = self.command(found)
        return Message(
            context_id,
            self.contexts[context_id],
            command,
            dimse.number(command, dimse.COMMAND_FIELD),
            dimse.number(command, dimse.COMMAND_DATA_SET_TYPE) != dimse.NO_DATA_SET,
        )

    def fragment(self, context_id: int) -> tuple[int, memoryview]:
        """Return (message control header, bytes) of the next PDV of a message; valid until the next one is read."""
        found = self.layer.read_pdv(wait_s=self.settings.pdu_deadline_s)
        if found is None:
            raise ProtocolError("release-inside-message")
        if found[0] != context_id:
            raise ProtocolError("context-changed-inside-message")
        return found[1], found[2]

    def dataset(self, message: Message, *, max_bytes: int) -> bytes:
        """Return the data set of *message*, empty where it has none; the peer is cut off beyond *max_bytes*."""
        if not message.has_data:
            return b""
        data = bytearray()
        while True:
            control, piece = self.fragment(message.context_id)
            if dimse.is_command(control):
                raise ProtocolError("command-inside-data")
            data += piece
            if len(data) > max_bytes:
                raise ProtocolError("data-set-too-long", 0)
            if dimse.is_last(control):
                return bytes(data)

    def pass_over(self, message: Message) -> None:
        """Read the data set of *message* and forget it, so that the message can be answered."""
        while message.has_data:
            control, _ = self.fragment(message.context_id)
            if dimse.is_command(control):
                raise ProtocolError("command-inside-data")
            if dimse.is_last(control):
                return

    def cancelled(self, message: Message) -> bool:
        """Return, without waiting, whether the peer has cancelled *message* (PS3.7 section 9.3.2.3).

        Raises:
            ConnectionEnd: the peer is gone.
            ProtocolError: it sent anything else while a request of its own is being served.
        """
        while message.id not in self._cancelled and self.layer.readable():
            found = self.layer.read_pdv(wait_s=self.settings.pdu_deadline_s)
            if found is None:
                raise ProtocolError("release-inside-message")
            self._note_cancel(self.message(found))
        return message.id in self._cancelled

    def _note_cancel(self, message: Message) -> None:
        if message.kind != dimse.C_CANCEL_RQ:
            raise ProtocolError("request-inside-message")
        self.pass_over(message)
        self._cancelled.add(dimse.number(message.command, dimse.MESSAGE_ID_RESPONDED_TO))

    def done(self, message: Message) -> None:
        """Forget that *message* may have been cancelled; its Message ID may be used again."""
        self._cancelled.discard(message.id)

    # --- what goes out ---------------------------------------------------------------------------------------

    def answer(
        self,
        message: Message,
        code: int,
        *,
        comment: str = "",
        data: bytes | None = None,
        more: Mapping[int, int | str | bytes] | None = None,
    ) -> None:
        """Send one response to *message* with status *code*.

        Args:
            data: its data set, encoded in the transfer syntax of the message's context.
            more: further elements of the command set, by element number of group 0000.
        """
        values: dict[int, int | str | bytes] = {
            dimse.COMMAND_FIELD: message.kind | 0x8000,
            dimse.MESSAGE_ID_RESPONDED_TO: message.id,
            dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET if data is None else dimse.DATA_SET,
            dimse.STATUS: code,
        }
        sop_class = message.sop_class
        if sop_class:
            values[dimse.AFFECTED_SOP_CLASS_UID] = sop_class
        if comment:
            values[dimse.ERROR_COMMENT] = status.comment(comment)
        values.update(more or {})
        self.send(message.context_id, values, data)

    def send(self, context_id: int, values: Mapping[int, int | str | bytes], data: bytes | None = None) -> None:
        """Send a command set and, where there is one, its data set in fragments the peer takes."""
        parts: list[bytes | memoryview] = [dimse.pdu(context_id, values)]
        if data is not None:
            size = self.fragment_bytes
            view = memoryview(data)
            last = max(len(data) - 1, 0) // size * size
            for start in range(0, last + 1, size):
                piece = view[start : start + size]
                parts += [pdv_header(context_id, 2 if start == last else 0, len(piece)), piece]
        self.layer.send(*parts)

    def unknown(self, message: Message) -> None:
        """Answer an operation that the message's service class does not have."""
        self.pass_over(message)
        self.answer(message, status.UNRECOGNIZED_OPERATION)

    def store(
        self,
        context_id: int,
        sop_instance: str,
        fragments: Callable[[int], Iterator[bytes]],
    ) -> int:
        """Send one C-STORE sub-operation of a C-GET on this association; returns the peer's status.

        A C-CANCEL that comes meanwhile is noted for :meth:`cancelled` (PS3.4 section C.4.3.3). The association is of no
        more use after ConnectionEnd or ProtocolError, or when *fragments* raises once it has begun.
        """
        message_id = self._next_id()
        pieces = fragments(self.fragment_bytes)
        # Opened before the command, so that a missing object does not leave a message without its data set.
        piece = next(pieces)
        self.layer.send(
            dimse.pdu(
                context_id,
                {
                    dimse.AFFECTED_SOP_CLASS_UID: self.contexts[context_id].abstract_syntax,
                    dimse.COMMAND_FIELD: dimse.C_STORE_RQ,
                    dimse.MESSAGE_ID: message_id,
                    dimse.PRIORITY: 0,
                    dimse.COMMAND_DATA_SET_TYPE: dimse.DATA_SET,
                    dimse.AFFECTED_SOP_INSTANCE_UID: sop_instance,
                },
            )
        )
        for following in pieces:
            self.layer.send(pdv_header(context_id, 0, len(piece)), piece)
            piece = following
        self.layer.send(pdv_header(context_id, 2, len(piece)), piece)
        return self._outcome(dimse.C_STORE_RSP, message_id)

    def request(self, context_id: int, values: Mapping[int, int | str], data: bytes | None = None) -> int:
        """Send a request of the hub's own on this association; returns the status that the peer answers.

        Raises:
            ConnectionEnd, ProtocolError: the association is of no more use.
        """
        message_id = self._next_id()
        kind = int(values[dimse.COMMAND_FIELD])
        data_set = dimse.NO_DATA_SET if data is None else dimse.DATA_SET
        self.send(context_id, {**values, dimse.MESSAGE_ID: message_id, dimse.COMMAND_DATA_SET_TYPE: data_set}, data)
        return self._outcome(kind | 0x8000, message_id)

    def _next_id(self) -> int:
        self._sub_operation = self._sub_operation % 0xFFFF + 1
        return self._sub_operation

    def _outcome(self, kind: int, message_id: int) -> int:
        """Return the status of the response *kind* to the hub's own request *message_id*."""
        while True:
            found = self.layer.read_pdv(wait_s=self.settings.association_idle_s)
            if found is None:
                raise ProtocolError("release-inside-message")
            answer = self.message(found)
            if answer.kind == kind:
                self.pass_over(answer)
                if dimse.number(answer.command, dimse.MESSAGE_ID_RESPONDED_TO) != message_id:
                    raise ProtocolError("answer-to-another-message")
                return dimse.number(answer.command, dimse.STATUS)
            self._note_cancel(answer)

    def refusal(self, error: Exception) -> tuple[int, str]:
        """Return (status, Error Comment) for *error*, and remember a disk that failed."""
        if isinstance(error, HubError) and error.fatal:
            self.fatal = error
        return status.of_error(error)

    def normalized_refusal(
        self, error: Exception, by_category: Mapping[Category, int], *, unreadable: int = status.PROCESSING_FAILURE
    ) -> tuple[int, str]:
        """Return the same as a service of DIMSE-N says it; see :func:`adapters.dimse.status.of_normalized`."""
        self.refusal(error)
        return status.of_normalized(error, by_category, unreadable=unreadable)


def too_busy() -> HubError:
    """Return the error of a service that ends because the hub goes down."""
    return HubError(Category.INTERRUPTED, "The hub is stopping.", remedy="Ask again in a minute.")
