"""Reads what the tests want to know of an MP4 file (ISO/IEC 14496-12)."""

from __future__ import annotations

import struct


def box(data: bytes, path: str) -> bytes:
    """Return the content of the box at *path*, names joined by slashes; raises KeyError where there is none."""
    for name in path.split("/"):
        at, found = 0, None
        while at + 8 <= len(data):
            size, kind = struct.unpack_from(">I4s", data, at)
            if kind == name.encode():
                found = data[at + 8 : at + size]
                break
            at += size
        if found is None:
            raise KeyError(path)
        data = found
    return data


def durations(data: bytes) -> list[tuple[int, int]]:
    """Return (frames, duration of each) of the first track, in its own units of time."""
    table = box(data, "moov/trak/mdia/minf/stbl/stts")
    (count,) = struct.unpack_from(">I", table, 4)
    return [struct.unpack_from(">II", table, 8 + 8 * place) for place in range(count)]


def sizes(data: bytes) -> tuple[int, int]:
    """Return width and height of the first track."""
    width, height = struct.unpack(">II", box(data, "moov/trak/tkhd")[-8:])
    return width >> 16, height >> 16
