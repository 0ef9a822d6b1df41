"""VP9 frames as an MP4 file (ISO/IEC 14496-12; "VP Codec ISO Media File Format Binding" 1.0).

The index stands before the frames, so that a player begins while it still receives; each frame has its own duration, in
microseconds, because FrameTimeVector (0018,1065) may give each its own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import groupby

#: Units of time in a second.
_TIMESCALE = 1_000_000
#: Most luma pixels of a picture at each level (table of levels of the VP9 specification, annex A).
_LEVELS = (
    (10, 36_864), (11, 73_728), (20, 122_880), (21, 245_760), (30, 552_960), (31, 983_040), (40, 2_228_224),
    (50, 8_912_896), (60, 35_651_584),
)  # fmt: skip
_HIGHEST = 62
_IDENTITY = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
#: Primaries, transfer and matrix of ITU-R BT.601 (ISO/IEC 23091-2: 6), which OpenCV's conversion uses.
_BT_601 = 6


def write(frames: Sequence[tuple[bytes, bool]], durations_us: Sequence[int], width: int, height: int) -> bytes:
    """Return *frames* (data, whether a key frame) as a file; each is shown for its duration in microseconds."""
    sizes = [len(data) for data, _ in frames]
    total = sum(durations_us)
    head = _box(b"ftyp", b"isom", struct.pack(">I", 0x200), b"isomiso2mp41")
    # The place of the first frame is known once the index is made; it does not change the size of the index.
    start = len(head) + len(_index(sizes, frames, durations_us, total, width, height, 0)) + 8
    return b"".join(
        [
            head,
            _index(sizes, frames, durations_us, total, width, height, start),
            struct.pack(">I4s", sum(sizes) + 8, b"mdat"),
            *(data for data, _ in frames),
        ]
    )


def _index(
    sizes: Sequence[int],
    frames: Sequence[tuple[bytes, bool]],
    durations_us: Sequence[int],
    total: int,
    width: int,
    height: int,
    start: int,
) -> bytes:
    runs = [(len(list(group)), duration) for duration, group in groupby(durations_us)]
    keys = [number for number, (_, key) in enumerate(frames, 1) if key]
    table = _box(
        b"stbl",
        _full(b"stsd", 0, 0, struct.pack(">I", 1), _entry(width, height)),
        _full(b"stts", 0, 0, struct.pack(">I", len(runs)), *(struct.pack(">II", *run) for run in runs)),
        _full(b"stss", 0, 0, struct.pack(f">{len(keys) + 1}I", len(keys), *keys)),
        _full(b"stsc", 0, 0, struct.pack(">IIII", 1, 1, len(sizes), 1)),
        _full(b"stsz", 0, 0, struct.pack(f">{len(sizes) + 2}I", 0, len(sizes), *sizes)),
        _full(b"stco", 0, 0, struct.pack(">II", 1, start)),
    )
    times = struct.pack(">QQIQ", 0, 0, _TIMESCALE, total)
    media = _box(
        b"mdia",
        _full(b"mdhd", 1, 0, times, struct.pack(">HH", 0x55C4, 0)),
        _full(b"hdlr", 0, 0, struct.pack(">I4s12x", 0, b"vide"), b"\0"),
        _box(
            b"minf",
            _full(b"vmhd", 0, 1, bytes(8)),
            _box(b"dinf", _full(b"dref", 0, 0, struct.pack(">I", 1), _full(b"url ", 0, 1))),
            table,
        ),
    )
    # Flags 3: the track is enabled and part of the presentation.
    track = _full(
        b"tkhd", 1, 3, struct.pack(">QQIIQ", 0, 0, 1, 0, total), bytes(16), _IDENTITY,
        struct.pack(">II", width << 16, height << 16),
    )  # fmt: skip
    movie = _full(
        b"mvhd", 1, 0, times, struct.pack(">IH10x", 0x10000, 0x100), _IDENTITY, bytes(24), struct.pack(">I", 2)
    )
    return _box(b"moov", movie, _box(b"trak", track, media))


def _entry(width: int, height: int) -> bytes:
    level = next((one for one, most in _LEVELS if width * height <= most), _HIGHEST)
    # Profile 0, 8 bits, 4:2:0 with chroma beside the first luma sample, limited range.
    codec = struct.pack(">BBBBBBH", 0, level, 8 << 4 | 1 << 1, _BT_601, _BT_601, _BT_601, 0)
    return _box(
        b"vp09",
        struct.pack(">6xH16xHHIII", 1, width, height, 0x480000, 0x480000, 0),
        struct.pack(">H32xHh", 1, 24, -1),
        _full(b"vpcC", 1, 0, codec),
        _box(b"colr", b"nclx", struct.pack(">HHHB", _BT_601, _BT_601, _BT_601, 0)),
    )


def _full(kind: bytes, version: int, flags: int, *content: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *content)


def _box(kind: bytes, *content: bytes) -> bytes:
    size = 8 + sum(map(len, content))
    return struct.pack(">I4s", size, kind) + b"".join(content)
