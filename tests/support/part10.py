"""Part 10 files put together byte by byte, in shapes that no library would write but modalities do."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

_LONG = frozenset({"OB", "OW", "UN"})


@dataclass(frozen=True, kw_only=True)
class Part10:
    """An image and what stands around its pixels.

    Attributes:
        private_after: value of a private element behind the pixel data; none when empty.
        padding: value of Data Set Trailing Padding (FFFC,FFFC); none when empty.
        surplus: bytes of the pixel data behind the last frame.
        content: ``noise``, ``ramp`` (as a modality makes it), ``constant`` or ``high-bits`` (an old overlay in them).
        with_pixels: whether there is pixel data at all.
        syntax: transfer syntax that the header claims; empty for the true one.
    """

    implicit: bool = False
    rows: int = 32
    columns: int = 32
    frames: int = 1
    samples: int = 1
    planar: int = 0
    bits_allocated: int = 16
    bits_stored: int = 12
    signed: bool = False
    photometric: str = "MONOCHROME2"
    overlay: bool = False
    private_after: bytes = b""
    padding: bytes = b""
    surplus: int = 0
    content: str = "noise"
    seed: int = 0
    with_pixels: bool = True
    syntax: str = ""
    modality: str = "CT"
    #: Last parts of the UIDs; the seed of the content is one more.
    study: int = 1
    instance: int = 1

    def pixels(self) -> bytes:
        """Return the frames."""
        shape = (self.frames, self.samples, self.rows, self.columns)
        width = self.bits_allocated // 8
        stored = min(self.bits_stored, self.bits_allocated)
        high = 1 << stored
        if self.content == "noise":
            values: Any = np.random.default_rng(self.seed).integers(0, 1 << min(self.bits_allocated, 16), shape)
        elif self.content == "constant":
            values = np.full(shape, self.seed % high)
        else:
            y, x = np.mgrid[0 : self.rows, 0 : self.columns]
            one = (x * 3 + y * 2 + self.seed % 50) % high - (high // 2 if self.signed else 0)
            values = np.broadcast_to(one, shape).copy()
            if self.content == "high-bits":
                values = values | (1 << self.bits_allocated - 1)
        return bytes((values & ((1 << 8 * width) - 1)).astype(f"<u{width}").tobytes())

    def data(self) -> bytes:
        """Return the file."""
        elements = [
            (0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
            (0x00080018, "UI", _uid(f"2.25.{self.study}.1.{self.instance}.{self.seed}")),
            (0x00080060, "CS", self.modality.encode()),
            (0x00100010, "PN", b"Zhang^San "),
            (0x00100020, "LO", b"10086 "),
            (0x0020000D, "UI", _uid(f"2.25.{self.study}")),
            (0x0020000E, "UI", _uid(f"2.25.{self.study}.1")),
            (0x00200013, "IS", _even(str(self.instance))),
        ]
        if self.with_pixels:
            elements += [
                (0x00280002, "US", struct.pack("<H", self.samples)),
                (0x00280004, "CS", _even(self.photometric)),
                *([(0x00280006, "US", struct.pack("<H", self.planar))] if self.samples > 1 else []),
                (0x00280008, "IS", _even(str(self.frames))),
                (0x00280010, "US", struct.pack("<H", self.rows)),
                (0x00280011, "US", struct.pack("<H", self.columns)),
                (0x00280100, "US", struct.pack("<H", self.bits_allocated)),
                (0x00280101, "US", struct.pack("<H", min(self.bits_stored, self.bits_allocated))),
                (0x00280102, "US", struct.pack("<H", min(self.bits_stored, self.bits_allocated) - 1)),
                (0x00280103, "US", struct.pack("<H", int(self.signed))),
            ]
            if self.overlay:
                bits = random.Random(self.seed).randbytes((self.rows * self.columns + 15) // 16 * 2)
                elements += [
                    (0x60000010, "US", struct.pack("<H", self.rows)),
                    (0x60000011, "US", struct.pack("<H", self.columns)),
                    (0x60000040, "CS", b"G "),
                    (0x60000100, "US", struct.pack("<H", 1)),
                    (0x60000102, "US", struct.pack("<H", 0)),
                    (0x60003000, "OW", bits),
                ]
            value = self.pixels() + bytes(range(1, self.surplus + 1))
            elements.append((0x7FE00010, "OW", value + b"\0" * (len(value) % 2)))
            if self.private_after:
                value = self.private_after + b"\0" * (len(self.private_after) % 2)
                elements += [(0x7FE10010, "LO", b"MAKER "), (0x7FE11001, "OB", value)]
        if self.padding:
            elements.append((0xFFFCFFFC, "OB", self.padding + b"\0" * (len(self.padding) % 2)))
        true = "1.2.840.10008.1.2" if self.implicit else "1.2.840.10008.1.2.1"
        meta = b"".join(
            _explicit(*one)
            for one in (
                (0x00020001, "OB", b"\0\1"),
                (0x00020002, "UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
                (0x00020003, "UI", elements[1][2]),
                (0x00020010, "UI", _uid(self.syntax or true)),
                (0x00020012, "UI", b"1.2.3\0"),
            )
        )
        write = _implicit if self.implicit else _explicit
        head = b"\0" * 128 + b"DICM" + _explicit(0x00020000, "UL", struct.pack("<I", len(meta)))
        return head + meta + b"".join(write(*one) for one in elements)


def _explicit(tag: int, vr: str, value: bytes) -> bytes:
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in _LONG:
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def _implicit(tag: int, vr: str, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def _uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def _even(text: str) -> bytes:
    return text.encode() + b" " * (len(text) % 2)
