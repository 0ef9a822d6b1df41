"""Clients that cost little, because they share the cores with what they measure: raw asyncio streams, no HTTP library."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

Asking = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]
#: A single answer that takes longer has failed.
ANSWER_S = 120.0
_LIMIT = 1 << 24


@dataclass(slots=True)
class Load:
    """What a run of requests took."""

    seconds: float
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def per_s(self) -> float:
        """Answers a second over the whole run."""
        return len(self.latencies_ms) / self.seconds


def drive(port: int, requests: Sequence[bytes], ask: Asking, *, connections: int) -> Load:
    """Send *requests* over *connections* that stay open; each waits for its answer before it sends the next.

    Raises whatever *ask* raises for an answer that is not the wanted one, so that no failure counts as speed.
    """

    async def one(share: Sequence[bytes], load: Load, gate: asyncio.Barrier) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT)
        try:
            await gate.wait()
            for request in share:
                start = time.perf_counter()
                await asyncio.wait_for(ask(reader, writer, request), ANSWER_S)
                load.latencies_ms.append((time.perf_counter() - start) * 1000)
        finally:
            writer.close()

    async def everyone() -> Load:
        load = Load(seconds=0.0)
        gate = asyncio.Barrier(connections + 1)
        async with asyncio.TaskGroup() as group:
            for number in range(connections):
                group.create_task(one(requests[number::connections], load, gate))
            await gate.wait()
            start = time.perf_counter()
        load.seconds = time.perf_counter() - start
        return load

    return asyncio.run(everyone())


# --- MLLP ------------------------------------------------------------------------------------------------------


async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> None:
    """Send one v2 message in its MLLP frame and wait for AA with its control id."""
    writer.write(b"\x0b" + message + b"\x1c\r")
    answer = await reader.readuntil(b"\x1c\r")
    control_id = message.split(b"|", 10)[9]
    if b"\rMSA|AA|" + control_id not in answer:
        raise RuntimeError(f"not accepted: {answer[:500]!r}")


# --- HTTP/1.1 --------------------------------------------------------------------------------------------------


def request(method: str, path: str, *, token: str = "", body: bytes = b"", **headers: str) -> bytes:
    """Return the bytes of one request; *headers* write ``_`` for ``-``."""
    lines = [f"{method} {path} HTTP/1.1", "Host: hub"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body or method in {"POST", "PUT"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def read_answer(
    reader: asyncio.StreamReader, keep: Callable[[bytes], object] | None = None
) -> tuple[int, bytes, int]:
    """Read one answer; return (status, body, body length), the body empty when *keep* was given its pieces instead."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    lowered = head.lower()
    pieces: list[bytes] = []
    take = keep if keep is not None else pieces.append
    length = 0
    if b"\r\ntransfer-encoding: chunked" in lowered:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            length += size
            async for piece in _pieces(reader, size):
                take(piece)
            await reader.readexactly(2)
        await reader.readexactly(2)
    elif b"\r\ncontent-length:" in lowered:
        length = int(lowered.split(b"\r\ncontent-length:", 1)[1].split(b"\r\n", 1)[0])
        async for piece in _pieces(reader, length):
            take(piece)
    elif status == 200:
        # Neither a length nor chunks: the body ends with the connection (RFC 9112 section 6.3).
        while piece := await reader.read(1 << 18):
            length += len(piece)
            take(piece)
    return status, b"".join(pieces), length


async def _pieces(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size:
        piece = await reader.read(min(size, 1 << 18))
        if not piece:
            raise RuntimeError("the connection ended inside an answer")
        size -= len(piece)
        yield piece


def expecting(status: int, check: Callable[[bytes], bool] | None = None) -> Asking:
    """Return an asking that fails unless the answer has *status* and fulfils *check*."""

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> None:
        writer.write(message)
        found, body, _ = await read_answer(reader)
        if found != status or (check is not None and not check(body)):
            raise RuntimeError(f"{message.split(b' HTTP', 1)[0]!r} -> {found}: {body[:500]!r}")

    return ask


def fetch(port: int, path: str, *, token: str = "", **headers: str) -> tuple[int, bytes]:
    """Return status and body of one GET."""

    async def work() -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT)
        writer.write(request("GET", path, token=token, body=b"", **headers))
        status, body, _ = await asyncio.wait_for(read_answer(reader), ANSWER_S)
        writer.close()
        return status, body

    return asyncio.run(work())


def download(port: int, path: str, *, token: str = "", **headers: str) -> tuple[int, int]:
    """GET a body of any size and drop it; return its status and length."""

    async def work() -> tuple[int, int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT)
        writer.write(request("GET", path, token=token, body=b"", **headers))
        status, _, length = await read_answer(reader, keep=lambda _piece: None)
        writer.close()
        return status, length

    return asyncio.run(work())


def upload(
    port: int, path: str, pieces: Iterable[bytes], length: int, *, token: str = "", **headers: str
) -> tuple[int, bytes]:
    """POST a body of *length* bytes piece by piece, never holding more than one; return status and answer."""

    async def work() -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT)
        head = request("POST", path, token=token, body=b"", **headers).replace(
            b"Content-Length: 0", f"Content-Length: {length}".encode()
        )
        writer.write(head)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        status, body, _ = await asyncio.wait_for(read_answer(reader), ANSWER_S)
        writer.close()
        return status, body

    return asyncio.run(work())
