"""A client of event channels on a real socket, made of nothing but the protocol library."""

from __future__ import annotations

import json
import socket
from typing import Any

import wsproto
from wsproto import events

DEADLINE_S = 20.0


class WebSocket:
    """One connection; *status* is that of the answer to its opening request."""

    def __init__(
        self, address: tuple[str, int], path: str, token: str = "", *, receive_buffer: int = 0, **headers: str
    ) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(DEADLINE_S)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(address)
        self._connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        more = [(name.encode(), value.encode()) for name, value in headers.items()]
        if token:
            more.append((b"authorization", f"Bearer {token}".encode()))
        request = events.Request(host=f"{address[0]}:{address[1]}", target=path, extra_headers=more)
        self.socket.sendall(self._connection.send(request))
        self._events: list[events.Event] = []
        first = self._next()
        self.status = first.status_code if isinstance(first, events.RejectConnection) else 101

    def told(self) -> dict[str, Any]:
        """Return the next message as JSON; fails when the other side closes instead."""
        text = ""
        while True:
            one = self._next()
            assert isinstance(one, events.TextMessage), one
            text += one.data
            if one.message_finished:
                found: dict[str, Any] = json.loads(text)
                return found

    def closed(self) -> int | None:
        """Return the code with which the other side closes, ``None`` when it leaves without one."""
        try:
            while True:
                one = self._next()
                if isinstance(one, events.CloseConnection):
                    return None if one.code == 1006 else int(one.code)
        except ConnectionError:
            return None

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def close(self) -> None:
        """Leave without a word."""
        self.socket.close()

    def _next(self) -> events.Event:
        while not self._events:
            data = self.socket.recv(65536)
            self._connection.receive_data(data or None)
            for one in self._connection.events():
                if isinstance(one, events.Ping):
                    self.socket.sendall(self._connection.send(one.response()))
                elif not isinstance(one, events.RejectData):
                    self._events.append(one)
        return self._events.pop(0)
