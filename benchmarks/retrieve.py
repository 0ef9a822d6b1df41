"""WADO-RS (PS3.18 section 10.4): a whole study out beside Orthanc, and one frame of a long multi-frame object."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks import ct
from benchmarks.cstore import send
from benchmarks.measure import Row, Spread, Target, percentile
from benchmarks.processes import hub, orthanc, orthanc_version, until
from benchmarks.scale import Scale
from benchmarks.wire import download, drive, expecting, fetch, request

FRAMES = 300
FRAME_PIXELS = 512
JPEG_LS = "1.2.840.10008.1.2.4.80"
_STUDY = 'multipart/related; type="application/dicom"; transfer-syntax=*'
FRAME = {
    "as stored": 'multipart/related; type="application/octet-stream"; transfer-syntax=*',
    "decoded": f'multipart/related; type="application/octet-stream"; transfer-syntax={ct.EXPLICIT}',
}
_FRAME_MS = 50.0
#: Which of :func:`benchmarks.ct.uids` the long object has, unless it must stand beside a generator's studies.
_STUDY_NUMBER = 9


def study_rate(port: int, token: str, study: str, size: int) -> float:
    """Return the MB/s at which the study comes; fails unless all of its bytes do."""
    start = time.perf_counter()
    status, length = download(port, f"/dicom-web/studies/{study}", token=token, Accept=_STUDY)
    seconds = time.perf_counter() - start
    if status != 200 or length < size:
        raise RuntimeError(f"the study -> {status}, {length} of {size} bytes")
    return size / seconds / 1e6


def multi_frame(folder: Path, number: int = _STUDY_NUMBER, **patient: Any) -> Path:
    """Write one object of :data:`FRAMES` frames in JPEG-LS, of study *number*, and return its folder."""
    import io
    import random

    import jpeg_ls
    import numpy as np
    from pydicom import dcmread
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    folder.mkdir(parents=True, exist_ok=True)
    dataset = dcmread(io.BytesIO(ct.part10(number, 1, 1, pixels=FRAME_PIXELS, **patient)))
    noise = random.Random(9).randbytes(FRAME_PIXELS * FRAME_PIXELS)
    # Half of each value is noise, as in a real picture, so that the codec has work to do.
    base = (np.frombuffer(noise, np.uint8).astype(np.uint16) // 8).reshape(FRAME_PIXELS, FRAME_PIXELS)
    ramp = np.arange(FRAME_PIXELS, dtype=np.uint16)[None, :]
    frames = [bytes(jpeg_ls.encode_array(base + ramp + frame)) for frame in range(FRAMES)]
    dataset.NumberOfFrames = FRAMES
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = UID(JPEG_LS)
    dataset.save_as(folder / "multi.dcm", enforce_file_format=True)
    return folder


def frame_latency(port: int, token: str, accept: str, count: int, number: int = _STUDY_NUMBER) -> float:
    """Return the p50 in ms of single frames out of all parts of the object, one after the other."""
    study, series, instance = ct.uids(number, 1, 1)
    place = f"/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames"
    numbers = [1 + (37 * turn) % FRAMES for turn in range(count)]
    asked = [request("GET", f"{place}/{number}", token=token, Accept=accept) for number in numbers]
    return percentile(drive(port, asked, expecting(200), connections=1).latencies_ms, 0.5)


def has_frames(port: int, token: str, number: int = _STUDY_NUMBER) -> bool:
    """Return whether the long object of study *number* can be read."""
    study, series, instance = ct.uids(number, 1, 1)
    path = f"/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/1"
    return fetch(port, path, token=token, Accept=FRAME["as stored"])[0] == 200


def run(scale: Scale, folder: Path) -> list[Row]:
    """Return the rows of a study's retrieval and of one frame, as stored and decoded."""
    version = orthanc_version()
    rounds = max(3, scale.rounds)
    files = ct.write_series(folder / "ct", 1, 1, scale.series_slices, pixels=scale.cstore_pixels)
    size = sum(path.stat().st_size for path in files.iterdir())
    study, series, _ = ct.uids(1, 1, 1)
    theirs: list[float] = []
    if version:
        with orthanc(folder / "orthanc") as peer:
            send([files], peer.dicom_port, "ORTHANC")
            study_rate(peer.http_port, "", study, size)
            theirs = [study_rate(peer.http_port, "", study, size) for _ in range(rounds)]
    frames: dict[str, list[float]] = {}
    multi = multi_frame(folder / "multi")
    with hub(folder / "hub", study_quiet_s="1") as running:
        port, token = running.ports["http"], running.tokens["KN"]
        send([files, multi], running.ports["dimse"], "YIXIE")
        until(lambda: _all_here(port, token, study, series, scale), what="the study can be read")
        study_rate(port, token, study, size)
        ours = [study_rate(port, token, study, size) for _ in range(rounds)]
        for kind, accept in FRAME.items():
            frame_latency(port, token, accept, 3)
            frames[kind] = [frame_latency(port, token, accept, 20) for _ in range(rounds)]
    return [
        Row(
            key="retrieve-study",
            work=f"WADO-RS study of {scale.series_slices} x {size / scale.series_slices / 1e6:.2f} MB",
            unit="MB/s",
            hub=Spread.of(ours),
            more_is_better=True,
            peer=Spread.of(theirs) if theirs else None,
            peer_name=f"Orthanc {version}" if version else "",
            target=Target(ratio=1.0),
            counted=scale.name == "full",
            note="every object checked as it goes out",
        ),
        *(
            Row(
                key=f"frame-{kind.replace(' ', '-')}",
                work=f"one frame of a {FRAMES}-frame JPEG-LS object, {kind}: p50",
                unit="ms",
                hub=Spread.of(values),
                more_is_better=False,
                target=Target(at_most=_FRAME_MS),
                counted=scale.name == "full",
            )
            for kind, values in frames.items()
        ),
    ]


def _all_here(port: int, token: str, study: str, series: str, scale: Scale) -> bool:
    import json

    path = f"/dicom-web/studies/{study}/series/{series}/metadata"
    status, body = fetch(port, path, token=token, Accept="application/dicom+json")
    found: list[Any] = json.loads(body) if status == 200 else []
    return len(found) == scale.series_slices
