"""Objects in S3: answered by the durable spool beside answered by the server, and one frame out of a large object.

The server is SeaweedFS on the same machine, so the network, which the spool takes out of the answer, costs nothing here.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.measure import Row, Spread, percentile
from benchmarks.scale import Scale
from storage.objects import SpoolSettings, SweepableStore, open_store
from storage.objects.spooled import SpooledStore
from tests.support import seaweedfs

#: One slice of 512 x 512 at 16 bits.
OBJECT_BYTES = 512 * 512 * 2
FRAMES = 300
MOST_OBJECTS = 200


def _put_ms(store: SweepableStore, count: int, clients: int) -> list[float]:
    """Return how long each of *count* puts took with so many clients at once."""

    def one(_: int) -> float:
        data = os.urandom(OBJECT_BYTES)
        began = time.perf_counter()
        store.put_bytes(data)
        return (time.perf_counter() - began) * 1000

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(one, range(count)))


def _p99(rounds: Sequence[Sequence[float]]) -> float:
    return percentile([one for values in rounds for one in values], 0.99)


def _timed_ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def run(scale: Scale, folder: Path) -> list[Row]:
    """Return put latency with 1 and 8 clients, the rate at which a backlog is uploaded, and the time of one frame."""
    server = seaweedfs.server()
    # The test server holds 5 GB in all, and every round stays there.
    count, frames = min(MOST_OBJECTS, scale.cstore_objects), FRAMES if scale.name != "tiny" else 12
    direct = open_store(server.new_url(), data_dir=folder / "direct", s3=server.settings())
    spooled = open_store(
        server.new_url(), data_dir=folder / "spooled", s3=server.settings(), spool=SpoolSettings(cache_bytes=0)
    )
    assert isinstance(spooled, SpooledStore)
    spooled.reachable()
    rows = []
    rates: list[float] = []
    for clients in (1, 8):
        here: list[list[float]] = []
        there: list[list[float]] = []
        for _ in range(scale.rounds):
            there.append(_put_ms(direct, count, clients))
            here.append(_put_ms(spooled, count, clients))
            began = time.perf_counter()
            sent = spooled.upload(threading.Event()).sent
            rates.append(sent / (time.perf_counter() - began))
        rows.append(
            Row(
                key=f"object-put-{clients}",
                work=f"0.5 MB object answered, {clients} client{'s' if clients > 1 else ''}: spool, beside S3 direct",
                unit="ms",
                hub=Spread.of([percentile(one, 0.5) for one in here]),
                peer=Spread.of([percentile(one, 0.5) for one in there]),
                peer_name="S3 direct",
                more_is_better=False,
                note=f"p99 {_p99(here):.1f} ms, direct {_p99(there):.1f} ms",
            )
        )
    rows.append(
        Row(
            key="object-upload",
            work="0.5 MB objects uploaded from the spool, nothing else going on",
            unit="1/s",
            hub=Spread.of(rates),
            more_is_better=True,
        )
    )
    with spooled.spool(max_bytes=frames * OBJECT_BYTES) as spool:
        for _ in range(frames):
            spool.write(os.urandom(OBJECT_BYTES))
        digest = spooled.put(spool).digest
    spooled.upload(threading.Event())

    def frame(number: int) -> bytes:
        with spooled.open(digest) as source:
            source.seek(number * OBJECT_BYTES)
            return source.read(OBJECT_BYTES)

    rows.append(
        Row(
            key="object-frame",
            work=f"one 0.5 MB frame of a {frames}-frame object that only S3 has, beside the whole object",
            unit="ms",
            hub=Spread.of(
                [_timed_ms(lambda at=number: frame(at)) for number in range(0, frames, max(1, frames // 20))]
            ),  # type: ignore[misc]
            peer=Spread.of([_timed_ms(lambda: sum(map(len, spooled.stream(digest)))) for _ in range(scale.rounds)]),
            peer_name="whole object",
            more_is_better=False,
        )
    )
    direct.close()
    spooled.close()
    return rows
