"""Synthetic CT series for the image benchmarks: incompressible-looking noise around a fictional patient's header."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

ROOT = "1.2.826.0.1.3680043.10.1999.7"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
_LONG = frozenset({"OB", "OW", "SQ", "UN"})


def _element(tag: int, vr: str, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\0" if vr in {"UI", "OB"} else b" "
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in _LONG:
        return head + b"\0\0" + struct.pack("<I", len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def uids(study: int, series: int, instance: int) -> tuple[str, str, str]:
    """Return Study, Series and SOP Instance UID of the numbers."""
    return f"{ROOT}.{study}", f"{ROOT}.{study}.{series}", f"{ROOT}.{study}.{series}.{instance}"


def header(
    study: int,
    series: int,
    instance: int,
    *,
    rows: int,
    columns: int,
    patient: int = 1,
    date: str = "20250611",
    frames: int = 1,
) -> bytes:
    """Return a Part 10 file up to its pixel data, which is as long a header as a scanner writes without its private part."""
    study_uid, series_uid, sop_uid = uids(study, series, instance)
    meta_elements = b"".join(
        (
            _element(0x00020001, "OB", b"\0\1"),
            _element(0x00020002, "UI", CT_IMAGE_STORAGE.encode()),
            _element(0x00020003, "UI", sop_uid.encode()),
            _element(0x00020010, "UI", EXPLICIT.encode()),
            _element(0x00020012, "UI", f"{ROOT}.0".encode()),
        )
    )
    meta = b"\0" * 128 + b"DICM" + _element(0x00020000, "UL", struct.pack("<I", len(meta_elements))) + meta_elements
    values: tuple[tuple[int, str, str | int | bytes], ...] = (
        (0x00080005, "CS", "GB18030"),
        (0x00080008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
        (0x00080016, "UI", CT_IMAGE_STORAGE),
        (0x00080018, "UI", sop_uid),
        (0x00080020, "DA", date),
        (0x00080021, "DA", date),
        (0x00080030, "TM", "101500"),
        (0x00080031, "TM", "101530"),
        (0x00080050, "SH", f"A{study:08d}"),
        (0x00080060, "CS", "CT"),
        (0x00080070, "LO", "EXAMPLE IMAGING"),
        (0x00080080, "LO", "云岭示范县康宁医院（测试）".encode("gb18030")),
        (0x00081010, "SH", "CT01"),
        (0x00081030, "LO", "胸部CT平扫".encode("gb18030")),
        (0x0008103E, "LO", "1.25mm LUNG"),
        (0x00081090, "LO", "Example CT 64"),
        (0x00100010, "PN", f"测试^{patient}".encode("gb18030")),
        (0x00100020, "LO", f"P{patient:07d}"),
        (0x00100030, "DA", "19760229"),
        (0x00100040, "CS", "M"),
        (0x00101010, "AS", "049Y"),
        (0x00180015, "CS", "CHEST"),
        (0x00180022, "CS", "HELICAL"),
        (0x00180050, "DS", "1.25"),
        (0x00180060, "DS", "120"),
        (0x00180090, "DS", "500"),
        (0x00181020, "LO", "1.0"),
        (0x00181030, "LO", "CHEST ROUTINE"),
        (0x00181150, "IS", "500"),
        (0x00181151, "IS", "220"),
        (0x00181210, "SH", "LUNG"),
        (0x0020000D, "UI", study_uid),
        (0x0020000E, "UI", series_uid),
        (0x00200010, "SH", str(study)),
        (0x00200011, "IS", str(series)),
        (0x00200013, "IS", str(instance)),
        (0x00200032, "DS", f"-175\\-175\\{instance * 1.25}"),
        (0x00200037, "DS", "1\\0\\0\\0\\1\\0"),
        (0x00200052, "UI", f"{series_uid}.0"),
        (0x00201041, "DS", str(instance * 1.25)),
        (0x00280002, "US", 1),
        (0x00280004, "CS", "MONOCHROME2"),
        *(((0x00280008, "IS", str(frames)),) if frames > 1 else ()),
        (0x00280010, "US", rows),
        (0x00280011, "US", columns),
        (0x00280030, "DS", "0.683594\\0.683594"),
        (0x00280100, "US", 16),
        (0x00280101, "US", 12),
        (0x00280102, "US", 11),
        (0x00280103, "US", 0),
        (0x00281050, "DS", "-600"),
        (0x00281051, "DS", "1500"),
        (0x00281052, "DS", "-1024"),
        (0x00281053, "DS", "1"),
    )
    body = b"".join(
        _element(
            tag,
            vr,
            struct.pack("<H", value) if isinstance(value, int) else value.encode() if isinstance(value, str) else value,
        )
        for tag, vr, value in values
    )
    length = rows * columns * 2 * frames
    return meta + body + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, length)


def part10(
    study: int, series: int, instance: int, *, pixels: int = 16, patient: int = 1, date: str = "20250611"
) -> bytes:
    """Return one slice of *pixels* x *pixels*; the noise is the same for the same numbers."""
    noise = random.Random(f"{study}.{series}.{instance}").randbytes(pixels * pixels * 2)
    return header(study, series, instance, rows=pixels, columns=pixels, patient=patient, date=date) + noise


def write_series(
    folder: Path, study: int, series: int, count: int, *, pixels: int, patient: int = 1, date: str = "20250611"
) -> Path:
    """Write *count* slices of one series into *folder* and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for instance in range(1, count + 1):
        data = part10(study, series, instance, pixels=pixels, patient=patient, date=date)
        (folder / f"{instance:05d}.dcm").write_bytes(data)
    return folder


def large(study: int, length: int, *, chunk: int = 1 << 20) -> Iterator[bytes]:
    """Yield one multi-frame object of about *length* bytes, a frame of 1 MiB at a time; nothing larger is ever held."""
    frames = max(2, length // (1 << 20))
    yield header(study, 1, 1, rows=512, columns=1024, frames=frames)
    frame = random.Random(study).randbytes(chunk)
    for number in range(frames):
        yield struct.pack("<I", number) + frame[4:]
