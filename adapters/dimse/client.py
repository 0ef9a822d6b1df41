"""One association as requestor that stores instances (PS3.7 section 9.1.1), for deliveries and for sample feeds.

Each request waits for its answer, in the thread that asks; there is no other thread that could take the answer first.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from adapters.dimse import command as dimse
from adapters.dimse import negotiation
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


class RejectedError(Exception):
    """The peer rejected the association; ``transient`` when it may take it later (PS3.8 table 9-21)."""

    def __init__(self, result: int, source: int, reason: int) -> None:
        super().__init__(f"{result}-{source}-{reason}")
        self.transient = result == 2


class StoreClient:
    """An association that is open from construction to :meth:`release`, :meth:`abort` or :meth:`close`.

    Args:
        contexts: at most 128 to propose.
        timeout_s: for the connection, for each PDU and for each answer.
        secured: turns the connected socket into that of TLS; raises OSError.

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
        contexts: Sequence[negotiation.Context],
        timeout_s: float,
        max_pdu_bytes: int,
        secured: Callable[[socket.socket], socket.socket] | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._contexts = list(contexts)
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
            self._accepted, self._fragment_bytes = self._associate(calling_ae, called_ae)
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

    def takes(self, context: negotiation.Context) -> bool:
        """Return whether the peer accepted *context*."""
        return self._context_id(context) in self._accepted

    def store(
        self, context: negotiation.Context, sop_instance_uid: str, fragments: Callable[[int], Iterator[bytes]]
    ) -> int:
        """Send one instance and return the status that the peer answers.

        Args:
            fragments: given the longest fragment that the peer takes, yields the data set in such pieces.

        Raises:
            ConnectionEnd, ProtocolError: the association is of no more use. Whatever *fragments* raises.
        """
        context_id = self._context_id(context)
        self._message_id = self._message_id % 0xFFFF + 1
        # Opened before the command, so that a missing object does not leave a message without its data set.
        pieces = fragments(self._fragment_bytes)
        piece = next(pieces)
        self._layer.send(
            dimse.pdu(
                context_id,
                {
                    dimse.AFFECTED_SOP_CLASS_UID: context.abstract_syntax,
                    dimse.COMMAND_FIELD: dimse.C_STORE_RQ,
                    dimse.MESSAGE_ID: self._message_id,
                    dimse.PRIORITY: 0,
                    dimse.COMMAND_DATA_SET_TYPE: 0,
                    dimse.AFFECTED_SOP_INSTANCE_UID: sop_instance_uid,
                },
            )
        )
        for following in pieces:
            self._layer.send(pdv_header(context_id, 0, len(piece)), piece)
            piece = following
        self._layer.send(pdv_header(context_id, 2, len(piece)), piece)
        return self._answer(context_id)

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

    def _context_id(self, context: negotiation.Context) -> int:
        return self._contexts.index(context) * 2 + 1

    def _associate(self, calling_ae: str, called_ae: str) -> tuple[frozenset[int], int]:
        """Return the accepted context ids and the longest fragment the peer takes."""
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
        accepted, max_pdu_bytes = negotiation.read_acceptance(body)
        # 0 means no limit; the 6 bytes are the head of the PDV, which counts towards the limit (PS3.8 annex D.1).
        limit = (min(max_pdu_bytes or _FRAGMENT_BYTES, _FRAGMENT_BYTES) - 6) & ~1
        if limit < 2:
            raise ProtocolError("pdu-limit-too-small", INVALID_PARAMETER)
        return accepted, limit

    def _answer(self, context_id: int) -> int:
        answer = bytearray()
        while True:
            found = self._layer.read_pdv(wait_s=self._timeout_s)
            if found is None:
                raise ProtocolError("release-inside-message")
            if found[0] != context_id or not dimse.is_command(found[1]):
                raise ProtocolError("unexpected-answer")
            answer += found[2]
            if len(answer) > dimse.MAX_BYTES:
                raise ProtocolError("command-too-long")
            if dimse.is_last(found[1]):
                break
        message = dimse.decode(answer)
        if (
            dimse.number(message, dimse.COMMAND_FIELD) != dimse.C_STORE_RSP
            or dimse.number(message, dimse.MESSAGE_ID_RESPONDED_TO) != self._message_id
        ):
            raise ProtocolError("answer-to-another-message")
        return dimse.number(message, dimse.STATUS)
