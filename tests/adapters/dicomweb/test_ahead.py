"""Long bodies are fetched ahead of their reader, whole, in order, and not further than two batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from adapters.dicomweb.ahead import BATCH_BYTES, ahead

PIECE = BATCH_BYTES // 4


class Body:
    """Pieces that count how many were taken, and say when they are let go of."""

    def __init__(self, pieces: int, *, fails_at: int | None = None) -> None:
        self.pieces = pieces
        self.taken = 0
        self.closed = threading.Event()
        self._fails_at = fails_at

    def __call__(self) -> Iterator[bytes]:
        try:
            for number in range(self.pieces):
                if number == self._fails_at:
                    raise OSError("the disk has gone")
                self.taken += 1
                yield number.to_bytes(4, "big") + bytes(PIECE - 4)
        finally:
            self.closed.set()


def test_every_piece_comes_once_and_in_order() -> None:
    body = Body(50)

    async def read() -> list[int]:
        return [int.from_bytes(piece[:4], "big") async for piece in ahead(body())]

    assert asyncio.run(read()) == list(range(50))
    assert body.closed.wait(10)


def test_an_empty_body_is_empty() -> None:
    async def read() -> list[bytes]:
        return [piece async for piece in ahead(iter(()))]

    assert asyncio.run(read()) == []


def test_no_more_than_two_batches_are_held() -> None:
    body = Body(200)

    async def read() -> None:
        most = 0
        seen = 0
        async for _ in ahead(body()):
            seen += 1
            await asyncio.sleep(0)
            most = max(most, body.taken - seen)
        assert most <= 2 * (BATCH_BYTES // PIECE)

    asyncio.run(read())


def test_a_reader_that_leaves_lets_go_of_the_body() -> None:
    body = Body(200)

    async def read() -> None:
        pieces = ahead(body())
        await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]

    asyncio.run(read())
    assert body.closed.wait(10)
    assert body.taken < 200


def test_trouble_in_the_middle_reaches_the_reader() -> None:
    body = Body(50, fails_at=20)

    seen: list[int] = []

    async def read() -> None:
        async for piece in ahead(body()):
            seen.append(int.from_bytes(piece[:4], "big"))

    with pytest.raises(OSError, match="gone"):
        asyncio.run(read())
    assert seen == list(range(len(seen)))
    assert len(seen) <= 20
    assert body.closed.wait(10)
