"""C-STORE (PS3.7 9.1.1): a CT series sent by DCMTK's ``dcmsend``, by one sender and by four, to the hub and to Orthanc."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from benchmarks import ct
from benchmarks.measure import Row, Spread, Target
from benchmarks.processes import DCMTK_ENVIRONMENT, hub, orthanc, orthanc_version
from benchmarks.scale import Scale

SENDERS = 4
#: The hub must be this much faster than Orthanc.
RATIO = 1.2


def send(folders: Sequence[Path], port: int, called: str, *, parallel: bool) -> float:
    """Send *folders* over one association, or over one each at the same time; returns the seconds until all were sent."""
    groups = [[folder] for folder in folders] if parallel else [list(folders)]
    options = ["-pdu", "131072", "-aet", "KN_PACS", "-aec", called, "+sd", "127.0.0.1", str(port)]
    environment = {**os.environ, **DCMTK_ENVIRONMENT}
    # What earlier rounds left in the page cache must not be written back at the expense of this one.
    os.sync()
    start = time.perf_counter()
    senders = [
        subprocess.Popen(
            ["dcmsend", *options, *map(str, group)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for group in groups
    ]
    told = [sender.communicate(timeout=300)[0] for sender in senders]
    seconds = time.perf_counter() - start
    for sender, text in zip(senders, told, strict=True):
        if sender.returncode != 0:
            raise RuntimeError(f"dcmsend ended with {sender.returncode}: {text.decode(errors='replace')[-2000:]}")
    return seconds


def to_hub(folder: Path, folders: Sequence[Path], count: int, *, parallel: bool) -> float:
    """Return the seconds that a fresh hub takes; fails unless it holds every object afterwards."""
    with hub(folder, only=("dimse", "mllp", "worker")) as running:
        seconds = send(folders, running.ports["dimse"], "YIXIE", parallel=parallel)
        engine = sa.create_engine(running.settings.database())
        with engine.connect() as connection:
            kept = connection.exec_driver_sql("SELECT count(*) FROM imaging_instance").scalar()
        engine.dispose()
    if kept != count:
        raise RuntimeError(f"the hub holds {kept} of {count} objects")
    return seconds


def to_orthanc(folder: Path, folders: Sequence[Path], count: int, *, parallel: bool) -> float:
    """Return the seconds that a fresh Orthanc takes; fails unless it holds every object afterwards."""
    with orthanc(folder) as running:
        seconds = send(folders, running.dicom_port, "ORTHANC", parallel=parallel)
        with urllib.request.urlopen(f"http://127.0.0.1:{running.http_port}/statistics", timeout=30) as answer:
            told = answer.read().decode()
    if f'"CountInstances" : {count},' not in told:
        raise RuntimeError(f"Orthanc does not hold {count} objects: {told}")
    return seconds


def run(scale: Scale, folder: Path) -> list[Row]:
    """Return the rows for one sender and for four; the servers take turns, each round with fresh storage."""
    count = scale.cstore_objects // SENDERS * SENDERS
    folders = [
        ct.write_series(folder / "ct" / str(series), 1, series, count // SENDERS, pixels=scale.cstore_pixels)
        for series in range(1, SENDERS + 1)
    ]
    size = sum(path.stat().st_size for path in folders[0].iterdir()) / (count // SENDERS)
    version = orthanc_version()
    rows = []
    for parallel in (False, True):
        ours: list[float] = []
        theirs: list[float] = []
        for number in range(scale.rounds):
            place = folder / f"round-{parallel}-{number}"
            turns = [(ours, to_hub), (theirs, to_orthanc)] if version else [(ours, to_hub)]
            # Who comes first changes, so that neither always follows the other's write-back.
            for values, server in turns if number % 2 == 0 else turns[::-1]:
                values.append(count / server(place / server.__name__, folders, count, parallel=parallel))
            shutil.rmtree(place)
        senders = SENDERS if parallel else 1
        rows.append(
            Row(
                key=f"cstore-{senders}",
                work=f"C-STORE {count} x {size / 1e6:.2f} MB, {senders} sender{'s' if parallel else ''}",
                unit="objects/s",
                hub=Spread.of(ours),
                more_is_better=True,
                peer=Spread.of(theirs) if theirs else None,
                peer_name=f"Orthanc {version}" if version else "",
                target=Target(ratio=RATIO),
                counted=scale.name == "full",
            )
        )
    return rows
