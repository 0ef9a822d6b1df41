"""Long bodies, fetched ahead of the reader: while one batch of pieces goes out, a thread gets the next one.

A piece at a time would cost a change of threads for each, with nothing on its way meanwhile. At most two batches of one
body are held, and a reader that is slow keeps no thread waiting.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

#: Bytes that make a batch; the last piece may go beyond.
BATCH_BYTES = 2 << 20
_THREADS = 16


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    """Return the process's threads for bodies, made by the first one: the process may have been forked before."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="body")


class _Source:
    """The pieces of one body, taken by one thread at a time, and closed when nobody wants more of them."""

    def __init__(self, content: Iterator[bytes]) -> None:
        self._content = content
        self._lock = threading.Lock()
        self._over = False

    def batch(self) -> tuple[list[bytes], bool]:
        """Return the next pieces, and whether there may be more."""
        with self._lock:
            pieces: list[bytes] = []
            size = 0
            while size < BATCH_BYTES and not self._over:
                piece = next(self._content, None)
                if piece is None:
                    return pieces, False
                pieces.append(piece)
                size += len(piece)
            return pieces, not self._over

    def close(self) -> None:
        """Let go of what the pieces come from; waits for a batch that is being taken."""
        self._over = True
        with self._lock:
            closing = getattr(self._content, "close", None)
            if closing is not None:
                closing()


async def ahead(content: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the pieces of *content*, whose ``next`` may wait for a disk; raises what it raises."""
    loop = asyncio.get_running_loop()
    source = _Source(content)
    pending: asyncio.Future[tuple[list[bytes], bool]] | None = loop.run_in_executor(_pool(), source.batch)
    try:
        while pending is not None:
            pieces, more = await pending
            pending = loop.run_in_executor(_pool(), source.batch) if more else None
            for piece in pieces:
                yield piece
    finally:
        if pending is not None:
            # Looked at, so that trouble which nobody will read of any more is not reported as lost.
            pending.add_done_callback(lambda done: done.cancelled() or done.exception())
        # Not here: a batch that waits for the disk would stop every other answer.
        loop.run_in_executor(_pool(), source.close)
