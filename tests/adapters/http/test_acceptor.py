"""Processes that accept on one socket share its connections."""

from __future__ import annotations

import asyncio
import socket

import pytest
import structlog

from adapters.http.acceptor import Acceptor

PEERS = 12


class Counted(asyncio.Protocol):
    def __init__(self, taken: list[asyncio.BaseTransport], turn: asyncio.Semaphore | None = None) -> None:
        self._taken = taken
        self._turn = turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._taken.append(transport)
        if self._turn is not None:
            self._turn.release()


async def taken_by_two(*, busy: int) -> tuple[int, int]:
    """Return how many of twelve peers that wait already each of two acceptors takes; the first has *busy* more."""
    arrived = asyncio.Semaphore(0)
    with socket.create_server(("127.0.0.1", 0), backlog=PEERS) as listener:
        peers = [socket.create_connection(listener.getsockname()) for _ in range(PEERS)]
        first: list[asyncio.BaseTransport] = []
        second: list[asyncio.BaseTransport] = []
        with listener.dup() as other:
            acceptors = [
                Acceptor(
                    one,
                    lambda mine=mine: Counted(mine, arrived),  # type: ignore[misc]
                    tls=None,
                    open_connections=lambda mine=mine, more=more: len(mine) + more,  # type: ignore[misc]
                    shared=True,
                )
                for one, mine, more in ((listener, first, busy), (other, second, 0))
            ]
            async with asyncio.timeout(20):
                for _ in range(PEERS):
                    await arrived.acquire()
            for acceptor in acceptors:
                acceptor.close()
                await acceptor.wait_closed()
        for transport in (*first, *second):
            transport.close()
        for peer in peers:
            peer.close()
        await asyncio.sleep(0)
    return len(first), len(second)


def test_peers_that_wait_together_are_shared() -> None:
    first, second = asyncio.run(taken_by_two(busy=0))

    assert min(first, second) >= PEERS // 3


def test_nobody_is_taken_after_the_end() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            taken: list[asyncio.BaseTransport] = []
            acceptor = Acceptor(listener, lambda: Counted(taken), tls=None, open_connections=lambda: 9, shared=True)
            with socket.create_connection(listener.getsockname()):
                # Its turn is being waited for when the end comes.
                await asyncio.sleep(0)
                acceptor.close()
                await acceptor.wait_closed()
                acceptor.close()
            assert taken == []

    asyncio.run(scenario())


def test_a_peer_that_speaks_no_tls_does_not_disturb_the_next(caplog: pytest.LogCaptureFixture) -> None:
    import ssl

    async def scenario() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            taken: list[asyncio.BaseTransport] = []
            acceptor = Acceptor(listener, lambda: Counted(taken), tls=context, open_connections=lambda: 0, shared=False)
            for _ in range(2):
                reader, writer = await asyncio.open_connection(*listener.getsockname())
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                # The handshake fails, and what the server says before it closes is no concern of ours.
                async with asyncio.timeout(20):
                    await reader.read()
                writer.close()
            acceptor.close()
            await acceptor.wait_closed()
            assert taken == []

    with structlog.testing.capture_logs() as logs:
        asyncio.run(scenario())
    assert "never retrieved" not in caplog.text
    told = {"event": "tls_refused", "peer": "127.0.0.1", "why": "the peer does not speak TLS here"}
    assert logs == [{**told, "log_level": "warning"}] * 2
