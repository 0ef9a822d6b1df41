"""One association as requestor (PS3.7 annex D.3.1; PS3.8 section 7.1), and the one that stores instances (PS3.7 section 9.1.1).

Each request waits for its answer, in the thread that asks; there is no other thread that could take the answer first.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from adapters.dimse import command as dimse
from adapters.dimse import negotiation
from adapters.dimse.negotiation import Context, Proposal
from adapters.dimse.upper_layer import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    INVALID_PARAMETER,
    ConnectionEnd,
    ProtocolError,
    UpperLayer,
    connect,
    pdv_header,
)

_FRAGMENT_BYTES = 128 << 10
#: How often whoever waits for an answer may look after something else.
_LOOK_S = 0.5


class RejectedError(Exception):
    """The peer rejected the association; ``transient`` when it may take it later (PS3.8 table 9-21)."""

    def __init__(self, result: int, source: int, reason: int) -> None:
        super().__init__(f"{result}-{source}-{reason}")
        self.transient = result == 2


class Requestor:
    """An association that is open from construction to :meth:`release`, :meth:`abort` or :meth:`close`.

    Args:
        contexts: at most 128 to propose.
        timeout_s: for the connection, for each PDU and for each answer.
        secured: turns the connected socket into that of TLS; raises OSError.
        meanwhile: called now and then while an answer is awaited; what it raises ends the wait.

    Raises:
        HubError: unavailable when nobody listens.
        RejectedError: the peer does not want the association.
        ConnectionEnd, ProtocolError, OSError: it does not come about.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        calling_ae: str,
        called_ae: str,
        contexts: Sequence[Context | Proposal],
        timeout_s: float,
        max_pdu_bytes: int,
        secured: Callable[[socket.socket], socket.socket] | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._contexts = list(contexts)
        self._meanwhile = meanwhile
        self._message_id = 0
        connection = connect(host, port, timeout_s=timeout_s)
        try:
            if secured is not None:
                connection = secured(connection)
        except BaseException:
            connection.close()
            raise
        self._layer = UpperLayer(connection, max_pdu_bytes=max_pdu_bytes, pdu_deadline_s=timeout_s)
        try:
            #: Accepted contexts by id, each with the transfer syntax that the peer took.
            self.accepted, self._as_scp, self.max_peer_pdu_bytes, self._fragment_bytes = self._associate(
                calling_ae, called_ae
            )
        except ProtocolError as error:
            self._layer.abort(reason=error.reason)
            raise
        except ConnectionEnd:
            self._layer.abort()
            raise
        except BaseException:
            self._layer.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def takes(self, context: Context | Proposal) -> bool:
        """Return whether the peer accepted *context*."""
        return self._context_id(context) in self.accepted

    def release(self) -> None:
        """End the association in good order."""
        self._layer.release()

    def abort(self, *, reason: int | None = None) -> None:
        """End it at once; *reason* as :meth:`UpperLayer.abort` has it."""
        with contextlib.suppress(OSError):
            self._layer.abort(reason=reason)

    def close(self) -> None:
        """Let go of the connection; safe to repeat."""
        self._layer.close()

    def _context_id(self, context: Context | Proposal) -> int:
        return self._contexts.index(context) * 2 + 1

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def _associate(self, calling_ae: str, called_ae: str) -> tuple[dict[int, Context], frozenset[str], int, int]:
        """Return accepted contexts, SOP classes the hub may be SCP of, the peer's PDU limit, and the longest fragment."""
        self._layer.send(
            negotiation.propose(
                calling_ae=calling_ae,
                called_ae=called_ae,
                contexts=self._contexts,
                offered_pdu_bytes=negotiation.OFFERED_PDU_BYTES,
            )
        )
        kind, view = self._layer.read(wait_s=self._timeout_s)
        body = bytes(view)
        if kind == ASSOCIATE_RJ and len(body) == 4:
            raise RejectedError(body[1], body[2], body[3])
        if kind != ASSOCIATE_AC:
            raise ConnectionEnd("aborted-by-peer")
        answer = negotiation.read_answer(body)
        # 0 means no limit; the 6 bytes are the head of the PDV, which counts towards the limit (PS3.8 annex D.1).
        limit = (min(answer.max_pdu_bytes or _FRAGMENT_BYTES, _FRAGMENT_BYTES) - 6) & ~1
        if limit < 2:
            raise ProtocolError("pdu-limit-too-small", INVALID_PARAMETER)
        return self._agreed(answer), answer.as_scp, answer.max_pdu_bytes, limit

    def _agreed(self, answer: negotiation.Answer) -> dict[int, Context]:
        agreed: dict[int, Context] = {}
        for number, proposed in enumerate(self._contexts):
            taken = answer.syntaxes.get(number * 2 + 1)
            if taken is None:
                continue
            single = isinstance(proposed, Context)
            offered = (proposed.transfer_syntax,) if isinstance(proposed, Context) else proposed.transfer_syntaxes
            if single:
                # Some peers leave the syntax out where there was no choice.
                taken = taken or offered[0]
            if taken in offered:
                agreed[number * 2 + 1] = Context(proposed.abstract_syntax, taken)
        return agreed

    def _pdv(self) -> tuple[int, int, memoryview]:
        """Return (context id, message control header, fragment) of the next PDV of an answer."""
        if self._meanwhile is not None:
            deadline = time.monotonic() + self._timeout_s
            while not self._layer.readable(within_s=_LOOK_S) and time.monotonic() < deadline:
                self._meanwhile()
        found = self._layer.read_pdv(wait_s=self._timeout_s)
        if found is None:
            raise ProtocolError("release-inside-message")
        return found

    def _command(self) -> tuple[int, dimse.Command]:
        """Return (context id, command set) of the next message."""
        command = bytearray()
        context_id = 0
        while True:
            found = self._pdv()
            if not dimse.is_command(found[1]) or (context_id and found[0] != context_id):
                raise ProtocolError("unexpected-answer")
            context_id = found[0]
            command += found[2]
            if len(command) > dimse.MAX_BYTES:
                raise ProtocolError("command-too-long")
            if dimse.is_last(found[1]):
                return context_id, dimse.decode(command)


class StoreClient(Requestor):
    """A :class:`Requestor` that stores instances."""

    def store(
        self,
        context: Context | Proposal,
        sop_instance_uid: str,
        fragments: Callable[[int], Iterator[bytes]],
        *,
        originator: tuple[str, int] | None = None,
    ) -> int:
        """Send one instance and return the status that the peer answers.

        Args:
            fragments: given the longest fragment that the peer takes, yields the data set in such pieces.
            originator: AE title and Message ID of the C-MOVE that this belongs to.

        Raises:
            ConnectionEnd, ProtocolError: the association is of no more use. Whatever *fragments* raises.
        """
        context_id = self._context_id(context)
        message_id = self._next_message_id()
        # Opened before the command, so that a missing object does not leave a message without its data set.
        pieces = fragments(self._fragment_bytes)
        piece = next(pieces)
        values: dict[int, int | str] = {
            dimse.AFFECTED_SOP_CLASS_UID: context.abstract_syntax,
            dimse.COMMAND_FIELD: dimse.C_STORE_RQ,
            dimse.MESSAGE_ID: message_id,
            dimse.PRIORITY: 0,
            dimse.COMMAND_DATA_SET_TYPE: 0,
            dimse.AFFECTED_SOP_INSTANCE_UID: sop_instance_uid,
        }
        if originator is not None:
            values[dimse.MOVE_ORIGINATOR_AE_TITLE], values[dimse.MOVE_ORIGINATOR_MESSAGE_ID] = originator
        self._layer.send(dimse.pdu(context_id, values))
        for following in pieces:
            self._layer.send(pdv_header(context_id, 0, len(piece)), piece)
            piece = following
        self._layer.send(pdv_header(context_id, 2, len(piece)), piece)
        answered_on, answer = self._command()
        if answered_on != context_id:
            raise ProtocolError("unexpected-answer")
        if (
            dimse.number(answer, dimse.COMMAND_FIELD) != dimse.C_STORE_RSP
            or dimse.number(answer, dimse.MESSAGE_ID_RESPONDED_TO) != message_id
        ):
            raise ProtocolError("answer-to-another-message")
        return dimse.number(answer, dimse.STATUS)
