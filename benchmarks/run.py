"""``python -m benchmarks.run``: run the benchmarks, print the table, and with ``--write`` keep it for docs and README.

A run at scale ``full`` takes a quarter of an hour and some 10 GB of disk; ``small`` takes two minutes.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.measure import Row
from benchmarks.scale import SCALES, Scale

#: Benchmarks in the order of the table.
NAMES = (
    "cstore",
    "mllp",
    "engine",
    "hl7_cost",
    "fhir",
    "qido_metadata",
    "retrieve",
    "objects",
    "memory",
    "idle",
    "recovery",
    "viewer",
    "growth",
)


def measure(names: Sequence[str], scale: Scale, folder: Path) -> tuple[list[Row], list[str]]:
    """Run the benchmarks *names*; returns their rows and the names of those that failed."""
    rows: list[Row] = []
    failed: list[str] = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        start = time.monotonic()
        place = folder / name
        try:
            rows += importlib.import_module(f"benchmarks.{name}").run(scale, place)
        except Exception:
            # One that fails must not cost the figures of the others; the exit status tells.
            traceback.print_exc()
            failed.append(name)
        shutil.rmtree(place, ignore_errors=True)
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return rows, failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 when a benchmark failed, whatever its figures."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--scale", choices=sorted(SCALES), default="small")
    parser.add_argument("--only", choices=NAMES, action="append", help="run only this one; may be repeated")
    parser.add_argument("--folder", type=Path, help="where the servers keep their data; a disk, not memory")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results, docs and README")
    chosen = parser.parse_args(arguments)
    scale = SCALES[chosen.scale]
    names = [name for name in NAMES if not chosen.only or name in chosen.only]
    with tempfile.TemporaryDirectory(prefix="hub-bench-", dir=chosen.folder) as folder:
        known = report.machine(Path(folder))
        if known["filesystem"] in {"tmpfs", "ramfs"}:
            parser.error(f"{folder} lives in memory, where durability costs nothing; name a --folder on a disk")
        rows, failed = measure(names, scale, Path(folder))
    if chosen.write and not failed:
        if chosen.only:
            # The other rows stay as they are: they were measured at another time on the same machine or not at all.
            kept, _, before = report.read()
            if before != scale.name:
                parser.error(f"results/latest.json is of scale {before}; a part of it cannot be of another")
            fresh = {row.key: row for row in rows}
            rows = [fresh.pop(row.key, row) for row in kept] + list(fresh.values())
        report.write(rows, known, scale.name)
        for path in (report.PERFORMANCE, report.README):
            if not report.publish(path, report.section(rows, known, scale.name)):
                print(f"{path.name} has no section for the table", file=sys.stderr)
        report.publish_growth(rows)
        report.publish_engine(rows)
    print(report.facts(known, scale.name))
    print()
    print(report.table(rows))
    print()
    for table in ("growth-", "stages-", "v2growth-", "v2feeds-"):
        print(report.growth(rows, table))
        print()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
