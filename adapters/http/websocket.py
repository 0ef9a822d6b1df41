"""uvicorn's WebSocket protocol (RFC 6455) with the limits that it does not have itself.

Peers of the hub have nothing to say: messages are small, nothing is compressed, and whoever does not read what comes, be it
events or answers to pings, is dropped. When the hub stops, channels close with 1001.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto import events
from wsproto.connection import ConnectionState

from hub import metrics

#: Largest message from a peer, which is refused anyway, but by its content then.
MAX_MESSAGE_BYTES = 4096
PING_S = 20.0
_GOING_AWAY, _POLICY = 1001, 1008


class GuardedWebSocket(WSProtocol):
    """One WebSocket."""

    #: How long a peer may leave what is sent to it unread, and then the close frame.
    stall_s: ClassVar[float] = 30.0
    linger_s: ClassVar[float] = 2.0
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give the peer time to read what does not fit into the buffers any more."""
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self.stall_s, self._drop)

    def resume_writing(self) -> None:
        """The peer has caught up."""
        super().resume_writing()
        if not self.close_sent:
            self._stop_clock()

    def handle_ping(self, event: events.Ping) -> None:
        """Answer, unless the peer does not read the answers."""
        if self.writable.is_set():
            super().handle_ping(event)
        else:
            self.transport.abort()

    def handle_close(self, event: events.CloseConnection) -> None:
        """Say why, where the peer broke the protocol; its own close frame is answered."""
        if self.conn.state is ConnectionState.OPEN and not self.close_sent:
            self.transport.write(self.conn.send(events.CloseConnection(code=event.code, reason=event.reason)))
        super().handle_close(event)

    def shutdown(self) -> None:
        """Close because the hub stops."""
        if self.handshake_complete and not self.close_sent and not self.response_started:
            self.close_sent = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": _GOING_AWAY})
            if self.conn.state is ConnectionState.OPEN:
                self.transport.write(self.conn.send(events.CloseConnection(code=_GOING_AWAY)))
        super().shutdown()
        # A peer that does not read would keep the process.
        self._stop_clock()
        self._stall_timer = self.loop.call_later(self.linger_s, self.transport.abort)

    def _drop(self) -> None:
        if not self.close_sent and self.conn.state is ConnectionState.OPEN:
            self.close_sent = True
            metrics.count("websockets_stalled")
            self.stop_keepalive()
            closing = events.CloseConnection(code=_POLICY, reason="The peer reads too slowly.")
            self.transport.write(self.conn.send(closing))
            # Whoever waits to send more is told that nobody is there.
            self.disconnected = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": _POLICY})
        self._stall_timer = self.loop.call_later(self.linger_s, self.transport.abort)

    def _stop_clock(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
