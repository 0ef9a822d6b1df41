"""What one v2 message costs, stage by stage, and how its cost grows with its size, the feeds and what is stored.

The stages are timed inside one process, one message after the other, so they add up to the latency of a quiet feed; rates
over the network stand in :mod:`benchmarks.mllp`.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.engine import fill
from benchmarks.measure import Row, Spread
from benchmarks.mllp import CONNECTIONS, admission, results
from benchmarks.processes import hub, member_resources
from benchmarks.scale import Scale
from benchmarks.wire import accepted, drive

#: OBX segments of a result.
SIZES = (1, 20, 100, 500)
#: Hundredths of the scale's stored messages.
STEPS = (1, 10, 100)
FEEDS = (1, 4, 16)
STAGES = ("decode", "cut", "translate", "commit", "rest")


def run(scale: Scale, folder: Path) -> list[Row]:
    """Return the rows: ``stages-…`` for the table of stages, ``v2growth-…`` for that of growth."""
    count = max(8, min(200, scale.messages // 4))
    rows = stages(scale, folder / "stages", count)
    with hub(folder / "hub", only=("dimse", "mllp", "worker")) as running:
        port = running.ports["mllp"]
        _rate(port, 9_000_000, CONNECTIONS * 4)
        return [*rows, *feeds(scale, port), *stored(scale, port, running.settings.database())]


@contextlib.contextmanager
def _clocked(spent: dict[str, float], owner: Any, name: str, stage: str) -> Iterator[None]:
    original = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            spent[stage] = spent.get(stage, 0.0) + time.perf_counter() - start

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, original)


def spent_on(services: Any, messages: list[bytes]) -> dict[str, float]:
    """Return the milliseconds that each stage takes of one of *messages*, all of which must be answered AA."""
    from hub import applying, arrival

    spent: dict[str, float] = {}
    with (
        _clocked(spent, arrival, "decode_message", "decode"),
        _clocked(spent, arrival, "parse", "cut"),
        _clocked(spent, applying, "translate", "translate"),
        _clocked(spent, services.database, "write", "commit"),
    ):
        start = time.perf_counter()
        for message in messages:
            answer = services.messages.receive(message, "127.0.0.1:40000")
            if b"MSA|AA|" not in (answer or b""):
                raise RuntimeError(f"not accepted: {answer!r}")
        spent["rest"] = time.perf_counter() - start - sum(spent.values())
    return {stage: spent.get(stage, 0.0) / len(messages) * 1000 for stage in STAGES}


def with_observations(control_id: str, number: int, count: int) -> bytes:
    """Return an ORU^R01 with *count* OBX."""
    whole = results(control_id, number)
    head, lines = whole.split(b"OBX|", 1)[0], whole[whole.index(b"OBX|") :].split(b"\r")[:-1]
    made = []
    for place in range(count):
        fields = lines[place % len(lines)].split(b"|")
        fields[1], fields[4] = str(place + 1).encode(), str(place // len(lines)).encode()
        made.append(b"|".join(fields))
    return head + b"\r".join(made) + b"\r"


def stages(scale: Scale, folder: Path, count: int) -> list[Row]:
    """Return one row for each kind of message and each stage."""
    import importlib

    from hub.boot import assemble
    from hub.config import Settings

    kinds: dict[str, Callable[[str, int], bytes]] = {"ADT^A01": admission}
    for size in SIZES:
        kinds[f"ORU^R01, {size} OBX"] = lambda control_id, number, size=size: with_observations(  # type: ignore[misc]
            control_id, number, size
        )
    settings = Settings(data_dir=folder)
    importlib.import_module("storage.sql.migrate").migrate(settings)
    services = assemble(settings, node="bench")
    rows: list[Row] = []
    try:
        services.directory.load(member_resources())
        for kind, make in kinds.items():
            some = max(4, count // 10) if "500" in kind or "100" in kind else count
            spent_on(services, [make(f"W{kind}{n}", n) for n in range(4)])
            found = [
                spent_on(services, [make(f"{kind}{turn}-{n}", 1000 * turn + n) for n in range(some)])
                for turn in range(min(3, scale.rounds))
            ]
            for stage in STAGES:
                rows.append(
                    Row(
                        key=f"stages-{stage}-{kind}",
                        work=stage,
                        unit="ms",
                        hub=Spread.of([one[stage] for one in found]),
                        more_is_better=False,
                        note=kind,
                    )
                )
    finally:
        services.close()
        shutil.rmtree(folder, ignore_errors=True)
    return rows


def _rate(port: int, first: int, count: int) -> float:
    batch = [admission(f"G{first + n}", first + n) for n in range(count)]
    return drive(port, batch, accepted, connections=CONNECTIONS).per_s


def stored(scale: Scale, port: int, database: str) -> list[Row]:
    """Return the rate of admissions with ever more messages stored."""
    rows = []
    count = 0
    for step in STEPS:
        more = max(1, scale.stored_rows * step // 100) - count
        fill(database, more, after=count)
        count += more
        _rate(port, 9_000_000 + step * 1000, CONNECTIONS * 4)
        found = [
            _rate(port, 1_000_000 * step + 100_000 * (turn + 1), max(8, scale.messages // 2))
            for turn in range(min(3, scale.rounds))
        ]
        rows.append(
            Row(
                key=f"v2growth-stored-{step}",
                work="ADT^A01 to FHIR",
                unit="messages/s",
                hub=Spread.of(found),
                more_is_better=True,
                note=f"{count:,} stored messages",
            )
        )
    return rows


def feeds(scale: Scale, port: int) -> list[Row]:
    """Return the rate of admissions when ever more feeds send at the same time, a connection each."""
    rows = []
    for number in FEEDS:
        found = []
        for turn in range(min(3, scale.rounds)):
            first = 1_000_000_000 + 1_000_000 * number + 100_000 * turn
            batch = [admission(f"F{first + n}", first + n) for n in range(max(16, scale.messages // 2))]
            found.append(drive(port, batch, accepted, connections=number).per_s)
        rows.append(
            Row(
                key=f"v2feeds-{number}",
                work="ADT^A01 to FHIR",
                unit="messages/s",
                hub=Spread.of(found),
                more_is_better=True,
                note=f"{number} connection{'s' if number > 1 else ''}",
            )
        )
    return rows
