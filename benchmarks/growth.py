"""How cost grows with what is stored: the same work with 1, 10 and 100 hundredths of a county's images in the index."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks import ct, qido_metadata, retrieve, viewer
from benchmarks.cstore import send
from benchmarks.measure import Row, Spread
from benchmarks.processes import hub, until
from benchmarks.scale import Scale

#: Hundredths of the scale's studies and instances that the index holds before anything is measured.
STEPS = (1, 10, 100)
#: The study that is sent and read stands behind those of the generator.
STUDY = 99_000_001
MULTI = STUDY + 1
_SLICES = 100


def run(scale: Scale, folder: Path) -> list[Row]:
    """Return one row for each kind of work and each step; their keys are ``growth-KIND-STEP``."""
    slices = min(_SLICES, scale.series_slices)
    # Of a patient and a day that the generator does not know, so that its queries find what it made.
    files = ct.write_series(
        folder / "ct", STUDY, 1, slices, pixels=scale.cstore_pixels, patient=9_000_001, date="20300101"
    )
    multi = retrieve.multi_frame(folder / "multi", MULTI, patient=9_000_001)
    size = sum(path.stat().st_size for path in files.iterdir())
    rows: list[Row] = []
    for step in STEPS:
        studies = max(1, scale.qido_studies * step // 100)
        instances = max(studies * qido_metadata.SERIES, scale.qido_instances * step // 100)
        rows += _step(scale, folder / str(step), files, multi, size, slices, step, studies, instances)
    return rows


def _step(
    scale: Scale, place: Path, files: Path, multi: Path, size: int, slices: int, step: int, studies: int, instances: int
) -> list[Row]:
    place.mkdir(parents=True)
    rounds = min(3, scale.rounds)

    def prepare(services: Any) -> None:
        qido_metadata.fill(services.settings.database(), studies, instances, place)

    found: dict[str, tuple[str, bool, list[float]]] = {}
    options: dict[str, Any] = {"viewer_dir": str(viewer.VIEWER)} if viewer.is_here() else {}
    with hub(place / "hub", prepare=prepare, study_quiet_s="1", **options) as running:
        port, token = running.ports["http"], running.tokens["KN"]
        found["C-STORE, 1 sender"] = (
            "objects/s",
            True,
            [slices / send([files], running.ports["dimse"], "YIXIE")],
        )
        study, series, _ = ct.uids(STUDY, 1, 1)
        until(lambda: qido_metadata.warm(port, token, study, series, slices), what="the study's metadata are kept")
        for kind, spread in qido_metadata.latencies(port, token, studies, scale.qido_queries, rounds).items():
            found[f"QIDO studies by {kind}: p50"] = ("ms", False, spread)
        found[f"metadata of a {slices}-slice series, warm"] = (
            "ms",
            False,
            [qido_metadata.timed(port, token, study, series, slices) for _ in range(rounds)],
        )
        found[f"WADO-RS study of {slices} objects"] = (
            "MB/s",
            True,
            [retrieve.study_rate(port, token, study, size) for _ in range(rounds)],
        )
        send([multi], running.ports["dimse"], "YIXIE")
        until(lambda: retrieve.has_frames(port, token, MULTI), what="the long object can be read")
        for kind, accept in retrieve.FRAME.items():
            retrieve.frame_latency(port, token, accept, 3, MULTI)
            found[f"one frame of {retrieve.FRAMES}, {kind}: p50"] = (
                "ms",
                False,
                [retrieve.frame_latency(port, token, accept, 20, MULTI) for _ in range(rounds)],
            )
        if viewer.is_here():
            _, warm = viewer.visits(viewer.address(port, study), token, 1, rounds)
            found[f"first image in the viewer, {slices} slices"] = ("s", False, warm)
    shutil.rmtree(place)
    return [
        Row(
            key=f"growth-{work.split(':')[0]}-{step}",
            work=work,
            unit=unit,
            hub=Spread.of(values),
            more_is_better=more,
            note=f"{studies:,} studies / {instances:,} instances",
        )
        for work, (unit, more, values) in found.items()
    ]
