"""Synthetic DICOM objects, encoded by a few lines of our own so that no library under test makes its own input.

All people and institutions are fictional (see sample_data).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
ROOT = "1.2.826.0.1.3680043.10.1999"

LONG = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
Value = bytes | str | int | float | Sequence["Tags"]
Tags = Mapping[int, tuple[str, Value]]

_PACK = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}


def encode(tags: Tags, transfer_syntax: str = EXPLICIT, *, undefined: bool = False, inside: bool = False) -> bytes:
    """Return *tags* as a data set; with *undefined* sequences and items end with delimiters."""
    mark = ">" if transfer_syntax == BIG_ENDIAN else "<"
    out = []
    for tag, (vr, value) in sorted(tags.items()):
        head = struct.pack(mark + "HH", tag >> 16, tag & 0xFFFF)
        length: int | None = None
        if vr == "SQ":
            assert not isinstance(value, bytes | str | int | float)
            items = [encode(item, transfer_syntax, undefined=undefined, inside=True) for item in value]
            raw = b"".join(_item(item, mark, undefined) for item in items)
            if undefined:
                length, raw = 0xFFFFFFFF, raw + struct.pack(mark + "HHI", 0xFFFE, 0xE0DD, 0)
        elif isinstance(value, bytes):
            raw = value
        elif isinstance(value, int | float):
            raw = struct.pack(mark + _PACK[vr], value)
        else:
            assert isinstance(value, str)
            raw = value.encode("ascii")
        if vr == "OB" and tag == 0x7FE00010 and raw.startswith(b"\xfe\xff\x00\xe0"):
            length = 0xFFFFFFFF
        if length is None:
            if len(raw) % 2:
                raw += b"\0" if vr in {"UI", "OB", "UN"} else b" "
            length = len(raw)
        if transfer_syntax == IMPLICIT:
            out.append(head + struct.pack("<I", length) + raw)
        elif vr in LONG:
            out.append(head + vr.encode() + b"\0\0" + struct.pack(mark + "I", length) + raw)
        else:
            out.append(head + vr.encode() + struct.pack(mark + "H", length) + raw)
    data = b"".join(out)
    if transfer_syntax == DEFLATED and not inside:
        deflater = zlib.compressobj(wbits=-15)
        data = deflater.compress(data) + deflater.flush()
        data += b"\0" * (len(data) % 2)
    return data


def _item(data: bytes, mark: str, undefined: bool) -> bytes:
    if undefined:
        return (
            struct.pack(mark + "HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + data + struct.pack(mark + "HHI", 0xFFFE, 0xE00D, 0)
        )
    return struct.pack(mark + "HHI", 0xFFFE, 0xE000, len(data)) + data


def fragments(*frames: bytes) -> bytes:
    """Return encapsulated pixel data with an empty offset table (PS3.5 annex A.4)."""
    parts = [_item(b"", "<", False)]
    parts += [_item(frame + b"\0" * (len(frame) % 2), "<", False) for frame in frames]
    return b"".join(parts) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def part10(dataset: bytes, *, sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    """Return a Part 10 file around an encoded data set."""
    meta = encode(
        {
            0x00020001: ("OB", b"\0\1"),
            0x00020002: ("UI", sop_class),
            0x00020003: ("UI", sop_instance),
            0x00020010: ("UI", transfer_syntax),
            0x00020012: ("UI", ROOT + ".1"),
        }
    )
    return b"\0" * 128 + b"DICM" + encode({0x00020000: ("UL", len(meta))}) + meta + dataset


def ct_tags(
    *,
    study: int = 1,
    series: int = 1,
    instance: int = 1,
    patient_id: str = "10086",
    patient_name: bytes = b"\xd6\xa3\xce\xb0",
    charset: bytes | None = None,
    sop_class: str = CT_IMAGE_STORAGE,
    size: int = 16,
    more: Tags | None = None,
) -> dict[int, tuple[str, Value]]:
    """Return the tags of one synthetic CT slice of *size* x *size* pixels; numbers choose the UIDs.

    The default is the hard case: no (0008,0005), the name 郑伟 in GBK (whose bytes are also valid UTF-8).
    """
    uid = f"{ROOT}.{study}"
    tags: dict[int, tuple[str, Value]] = {
        0x00080008: ("CS", "ORIGINAL\\PRIMARY\\AXIAL"),
        0x00080016: ("UI", sop_class),
        0x00080018: ("UI", f"{uid}.{series}.{instance}"),
        0x00080020: ("DA", "20250611"),
        0x00080030: ("TM", "101500"),
        0x00080050: ("SH", ""),
        0x00080060: ("CS", "CT"),
        0x00080070: ("LO", "EXAMPLE IMAGING"),
        0x00080080: ("LO", "云岭示范县康宁医院（测试）".encode("gb18030")),
        0x00081030: ("LO", "胸部CT平扫".encode("gb18030")),
        0x00100010: ("PN", patient_name),
        0x00100020: ("LO", patient_id),
        0x00100030: ("DA", "19760229"),
        0x00100040: ("CS", "M"),
        0x00180015: ("CS", "CHEST"),
        0x00180050: ("DS", "1.25"),
        0x0020000D: ("UI", uid),
        0x0020000E: ("UI", f"{uid}.{series}"),
        0x00200010: ("SH", "1"),
        0x00200011: ("IS", str(series)),
        0x00200013: ("IS", str(instance)),
        0x00200032: ("DS", f"-120.5\\-130\\{instance}.25"),
        0x00280002: ("US", 1),
        0x00280004: ("CS", "MONOCHROME2"),
        0x00280010: ("US", size),
        0x00280011: ("US", size),
        0x00280030: ("DS", "0.683594\\0.683594"),
        0x00280100: ("US", 16),
        0x00280101: ("US", 12),
        0x00280102: ("US", 11),
        0x00280103: ("US", 0),
        0x00400275: ("SQ", [{0x00400007: ("LO", "胸部".encode("gb18030")), 0x00401001: ("SH", "RP1")}]),
        0x7FE00010: ("OW", pixels(size, instance)),
    }
    if charset is not None:
        tags[0x00080005] = ("CS", charset)
    tags.update(more or {})
    return tags


def pixels(size: int, seed: int) -> bytes:
    """Return *size* x *size* 12-bit pixels of a slanted ramp that differs with *seed*."""
    row = struct.pack(f"<{size}H", *((column * 3 + seed) % 4096 for column in range(size)))
    return row * size


def make_ct(
    path: Path | None = None, *, transfer_syntax: str = EXPLICIT, undefined: bool = False, **choices: object
) -> bytes:
    """Return one synthetic CT as a Part 10 file, written to *path* too when given; *choices* as for :func:`ct_tags`."""
    tags = ct_tags(**choices)  # type: ignore[arg-type]
    sop_class, sop_instance = tags[0x00080016][1], tags[0x00080018][1]
    assert isinstance(sop_class, str)
    assert isinstance(sop_instance, str)
    data = part10(
        encode(tags, transfer_syntax, undefined=undefined),
        sop_class=sop_class,
        sop_instance=sop_instance,
        transfer_syntax=transfer_syntax,
    )
    if path is not None:
        path.write_bytes(data)
    return data


def make_series(folder: Path, count: int, **choices: object) -> list[Path]:
    """Write *count* slices of one series and return their paths."""
    paths = []
    for number in range(1, count + 1):
        path = folder / f"{number:04d}.dcm"
        make_ct(path, instance=number, **choices)
        paths.append(path)
    return paths
