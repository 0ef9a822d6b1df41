"""C-STORE (PS3.7 9.1.1): a CT series sent by DCMTK's ``dcmsend``, by one sender and by more, to the hub and to Orthanc."""

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
from storage.objects.block_groups import spread

#: Senders at the same time -> how much faster than Orthanc the hub must be.
RATIOS = {1: 1.2, 4: 1.2, 8: 2.0}
#: Series that the senders share.
_SERIES = max(RATIOS)


def send(folders: Sequence[Path], port: int, called: str, *, senders: int = 1) -> float:
    """Send *folders*, shared out among *senders* associations at the same time; returns the seconds until all were sent."""
    groups = [list(folders[number::senders]) for number in range(senders)]
    options = ["-pdu", "131072", "-aet", "KN_PACS", "-aec", called, "+sd", "127.0.0.1", str(port)]
    environment = {**os.environ, **DCMTK_ENVIRONMENT}
    # What earlier rounds left in the page cache must not be written back at the expense of this one.
    os.sync()
    start = time.perf_counter()
    running = [
        subprocess.Popen(
            ["dcmsend", *options, *map(str, group)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for group in groups
    ]
    told = [sender.communicate(timeout=300)[0] for sender in running]
    seconds = time.perf_counter() - start
    for sender, text in zip(running, told, strict=True):
        if sender.returncode != 0:
            raise RuntimeError(f"dcmsend ended with {sender.returncode}: {text.decode(errors='replace')[-2000:]}")
    return seconds


def to_hub(folder: Path, folders: Sequence[Path], count: int, *, senders: int) -> float:
    """Return the seconds that a fresh hub takes; fails unless it holds every object afterwards."""
    with hub(folder, only=("dimse", "mllp", "worker")) as running:
        seconds = send(folders, running.ports["dimse"], "YIXIE", senders=senders)
        engine = sa.create_engine(running.settings.database())
        with engine.connect() as connection:
            kept = connection.exec_driver_sql("SELECT count(*) FROM imaging_instance").scalar()
        engine.dispose()
    if kept != count:
        raise RuntimeError(f"the hub holds {kept} of {count} objects")
    return seconds


def to_orthanc(folder: Path, folders: Sequence[Path], count: int, *, senders: int) -> float:
    """Return the seconds that a fresh Orthanc takes; fails unless it holds every object afterwards."""
    with orthanc(folder) as running:
        seconds = send(folders, running.dicom_port, "ORTHANC", senders=senders)
        with urllib.request.urlopen(f"http://127.0.0.1:{running.http_port}/statistics", timeout=30) as answer:
            told = answer.read().decode()
    if f'"CountInstances" : {count},' not in told:
        raise RuntimeError(f"Orthanc does not hold {count} objects: {told}")
    return seconds


def run(scale: Scale, folder: Path) -> list[Row]:
    """Return a row for each number of senders; the servers take turns, each round with fresh storage."""
    each = max(1, scale.cstore_objects // _SERIES)
    count = each * _SERIES
    folders = [
        ct.write_series(folder / "ct" / str(series), 1, series, each, pixels=scale.cstore_pixels)
        for series in range(1, _SERIES + 1)
    ]
    size = sum(path.stat().st_size for path in folders[0].iterdir()) / each
    version = orthanc_version()
    rows = []
    for senders, ratio in RATIOS.items():
        ours: list[float] = []
        theirs: list[float] = []
        for number in range(scale.rounds):
            place = folder / f"round-{senders}-{number}"
            place.mkdir(parents=True)
            # What earlier rounds and others removed makes new files dear in the block groups where it lay; neither
            # server is to pay for that.
            spread(place)
            turns = [(ours, to_hub), (theirs, to_orthanc)] if version else [(ours, to_hub)]
            # Who comes first changes, so that neither always follows the other's write-back.
            for values, server in turns if number % 2 == 0 else turns[::-1]:
                values.append(count / server(place / server.__name__, folders, count, senders=senders))
            shutil.rmtree(place)
        rows.append(
            Row(
                key=f"cstore-{senders}",
                work=f"C-STORE {count} x {size / 1e6:.2f} MB, {senders} sender{'s' if senders > 1 else ''}",
                unit="objects/s",
                hub=Spread.of(ours),
                more_is_better=True,
                peer=Spread.of(theirs) if theirs else None,
                peer_name=f"Orthanc {version}" if version else "",
                target=Target(ratio=ratio),
                counted=scale.name == "full",
            )
        )
    return rows
