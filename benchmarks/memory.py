"""What large things cost in memory: a 2 GiB object in and out, ten of 1 GiB at once, a study of 5,000 instances, and the hub at rest.

Growth is that of anonymous memory (``RssAnon`` of ``/proc/PID/status``) over all processes of the hub, sampled while the
work runs: pages of files that the kernel keeps because there is room are no cost.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import ct
from benchmarks.cstore import send
from benchmarks.measure import Row, Spread, Target
from benchmarks.processes import Hub, hub
from benchmarks.scale import Scale
from benchmarks.wire import download, upload

MB = 1_000_000
SAMPLE_S = 0.02
BOUNDARY = "bench-boundary"
#: Objects that come at once, each of half the size of the one that comes alone.
AT_ONCE = 10


def status_bytes(pid: int, name: str) -> int:
    """Return one ``kB`` line of ``/proc/PID/status`` (proc(5)) in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def proportional_bytes(pid: int) -> int:
    """Return the proportional share of *pid*: pages that processes share are counted once over all of them."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


@dataclass(slots=True)
class Growth:
    """Anonymous memory of a hub over a stretch of work."""

    before: int
    peak: int
    by_process: dict[str, int] = field(default_factory=dict)

    @property
    def megabytes(self) -> float:
        """How much more than before there was at the peak."""
        return max(0, self.peak - self.before) / MB

    @property
    def where(self) -> str:
        """The process that grew most, for the note of the row."""
        name, grown = max(self.by_process.items(), key=lambda item: item[1], default=("", 0))
        return f"most in {name}: {grown / MB:.0f} MB" if grown > MB else ""


@contextmanager
def watched(running: Hub) -> Iterator[Growth]:
    """Sample the memory of *running* while the block works."""
    pids = running.pids()
    first = _anonymous(pids)
    growth = Growth(before=sum(first.values()), peak=sum(first.values()))
    done = threading.Event()

    def look() -> None:
        while not done.wait(SAMPLE_S):
            now = _anonymous(pids)
            growth.peak = max(growth.peak, sum(now.values()))
            for name, value in now.items():
                growth.by_process[name] = max(growth.by_process.get(name, 0), value - first[name])

    sampler = threading.Thread(target=look, daemon=True)
    sampler.start()
    try:
        yield growth
    finally:
        done.set()
        sampler.join()
    if running.pids() != pids:
        raise RuntimeError("a process of the hub was started anew while it was measured")


def _anonymous(pids: Mapping[str, int]) -> dict[str, int]:
    return {name: status_bytes(pid, "RssAnon") + status_bytes(pid, "RssShmem") for name, pid in pids.items()}


def _row(key: str, work: str, growth: Growth, scale: Scale) -> Row:
    return Row(
        key=key,
        work=work,
        unit="MB",
        hub=Spread.of([growth.megabytes]),
        more_is_better=False,
        target=Target(at_most=128.0),
        counted=scale.name == "full",
        note=growth.where,
    )


def _stow(study: int, length: int) -> tuple[Iterator[bytes], int, str]:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()

    def pieces() -> Iterator[bytes]:
        yield head
        yield from ct.large(study, length)
        yield tail

    # The length must be known before the first byte, and the object is too large to be held, so it is made twice.
    total = len(head) + len(tail) + sum(len(piece) for piece in ct.large(study, length))
    return pieces(), total, f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def run(scale: Scale, folder: Path) -> list[Row]:
    """Return the growth for a large object by C-STORE, STOW-RS and WADO-RS, for ten at once, and for a study of many."""
    rows = []
    size = f"{scale.memory_bytes / (1 << 30):.2g} GiB object"
    with hub(folder / "hub", study_quiet_s="2") as running:
        port, token = running.ports["http"], running.tokens["KN"]
        source = folder / "large"
        source.mkdir(parents=True)
        with (source / "1.dcm").open("wb") as target:
            for piece in ct.large(1, scale.memory_bytes):
                target.write(piece)
        with watched(running) as growth:
            send([source], running.ports["dimse"], "YIXIE")
        rows.append(_row("memory-cstore", f"{size} in by C-STORE", growth, scale))
        shutil.rmtree(source)

        body, length, content_type = _stow(2, scale.memory_bytes)
        with watched(running) as growth:
            status, answer = upload(
                port, "/dicom-web/studies", body, length,
                token=token, Content_Type=content_type, Accept="application/dicom+json",
            )  # fmt: skip
        if status != 200:
            raise RuntimeError(f"STOW-RS -> {status}: {answer[:500]!r}")
        rows.append(_row("memory-stow", f"{size} in by STOW-RS", growth, scale))

        study, series, instance = ct.uids(2, 1, 1)
        with watched(running) as growth:
            status, received = download(
                port,
                f"/dicom-web/studies/{study}/series/{series}/instances/{instance}",
                token=token,
                Accept='multipart/related; type="application/dicom"; transfer-syntax=*',
            )
        if status != 200 or received < scale.memory_bytes:
            raise RuntimeError(f"WADO-RS -> {status}, {received} bytes")
        rows.append(_row("memory-wado", f"{size} out by WADO-RS", growth, scale))

        half = scale.memory_bytes // 2

        def one_of_many(number: int) -> None:
            body, length, content_type = _stow(100 + number, half)
            status, answer = upload(
                port, "/dicom-web/studies", body, length,
                token=token, Content_Type=content_type, Accept="application/dicom+json",
            )  # fmt: skip
            if status != 200:
                raise RuntimeError(f"STOW-RS -> {status}: {answer[:500]!r}")

        with watched(running) as growth, ThreadPoolExecutor(AT_ONCE) as senders:
            list(senders.map(one_of_many, range(AT_ONCE)))
        work = f"{AT_ONCE} objects of {half / (1 << 30):.2g} GiB in by STOW-RS at once"
        rows.append(_row("memory-at-once", work, growth, scale))

        files = ct.write_series(folder / "many", 3, 1, scale.memory_instances, pixels=64)
        study, _, _ = ct.uids(3, 1, 1)
        with watched(running) as growth:
            send([files], running.ports["dimse"], "YIXIE")
            status, received = download(
                port, f"/dicom-web/studies/{study}/metadata", token=token, Accept="application/dicom+json"
            )
        if status != 200:
            raise RuntimeError(f"metadata -> {status}, {received} bytes")
        rows.append(
            _row(
                "memory-study",
                f"{scale.memory_instances:,}-instance study in by C-STORE, its metadata out",
                growth,
                scale,
            )
        )
    return rows
