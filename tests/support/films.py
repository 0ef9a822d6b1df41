"""DICOM objects that hold a small film of known frames (tests/adapters/pixels/films)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.support.images import ct

FOLDER = Path(__file__).parent.parent / "adapters" / "pixels" / "films"
#: Transfer syntax of each film: MPEG-2, H.264 and HEVC (PS3.5 annex A.4.5 to A.4.10).
SYNTAXES = {
    "mpeg2.ts": "1.2.840.10008.1.2.4.100",
    "mpeg2.m2v": "1.2.840.10008.1.2.4.100",
    "h264.mp4": "1.2.840.10008.1.2.4.102",
    "h264.ts": "1.2.840.10008.1.2.4.102",
    "hevc.mp4": "1.2.840.10008.1.2.4.107",
    "hevc.ts": "1.2.840.10008.1.2.4.107",
}
ROWS, COLUMNS, FRAMES = 48, 64, 10


def stream(name: str) -> bytes:
    """Return a film as it is."""
    return (FOLDER / name).read_bytes()


def video_object(data: bytes, syntax: str, number: int = 1, *, frames: int = FRAMES, **attributes: Any) -> bytes:
    """Return a Part 10 file that holds the stream *data*."""
    kept = {
        "Rows": ROWS, "Columns": COLUMNS, "SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsAllocated": 8,
        "BitsStored": 8, "HighBit": 7, "PhotometricInterpretation": "YBR_PARTIAL_420", "NumberOfFrames": frames,
        **attributes,
    }  # fmt: skip
    return ct(number, compressed=[data], meta={"TransferSyntaxUID": syntax}, **kept)


def shows(picture: Any, number: int) -> bool:
    """Return whether *picture* (rows, columns, RGB) is frame *number* of a film, within what its compression loses."""
    grey = 255 / 219 * (40 + 16 * (number - 1) - 16)
    left, right = (np.asarray(picture, float)[8:-8, part].mean(axis=(0, 1)) for part in (slice(8, 24), slice(40, 56)))
    # BT.601: R = Y + 1.596 (Cr - 128), clipped; a frame is 18.6 from the next.
    return bool(np.all(np.abs(left - grey) < 8)) and abs(right[0] - min(grey + 1.596 * 72, 255)) < 8
