"""The hub at rest: what all its processes hold in memory, with every door open."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.measure import Row, Spread, Target
from benchmarks.memory import MB, proportional_bytes, status_bytes
from benchmarks.processes import hub
from benchmarks.scale import Scale

#: Modules that are loaded late have been loaded by then.
SETTLE_S = 3.0


def run(scale: Scale, folder: Path) -> list[Row]:
    """Return the resident memory of all processes; a page that several share counts once, as it is in memory once."""
    with hub(folder) as running:
        if scale.name != "tiny":
            time.sleep(SETTLE_S)
        pids = running.pids()
        resident = {name: proportional_bytes(pid) / MB for name, pid in pids.items()}
        counted_often = sum(status_bytes(pid, "VmRSS") for pid in pids.values()) / MB
    parts = ", ".join(f"{name} {value:.0f}" for name, value in resident.items())
    return [
        Row(
            key="idle",
            work="idle hub, all doors: resident memory of all processes, shared pages once",
            unit="MB",
            hub=Spread.of([sum(resident.values())]),
            more_is_better=False,
            target=Target(at_most=400.0),
            counted=scale.name == "full",
            note=f"{counted_often:.0f} MB when each process counts them again; {parts}",
        )
    ]
