"""The Image Pixel Module of one object: how its bytes are pixels (PS3.3 section C.7.6.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from hub.errors import Category, HubError


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a codec must know about a frame.

    Attributes:
        samples: for each pixel; 3 for colour.
        bits_allocated: 1, or whole bytes.
        photometric: Photometric Interpretation (0028,0004).
        planar: Planar Configuration (0028,0006); 1 is colour by plane.
    """

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    planar: int

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Self:
        """Return the description in *attributes*, which are DICOM JSON.

        Raises:
            HubError: not-found where the object has no pixels, unsupported (406) where no codec takes such ones.
        """
        bits = _number(attributes, "00280100")
        found = cls(
            rows=_number(attributes, "00280010"),
            columns=_number(attributes, "00280011"),
            samples=_number(attributes, "00280002", 1),
            bits_allocated=bits,
            bits_stored=_number(attributes, "00280101", bits),
            high_bit=_number(attributes, "00280102", _number(attributes, "00280101", bits) - 1),
            signed=_number(attributes, "00280103", 0) == 1,
            photometric=_text(attributes, "00280004").strip() or "MONOCHROME2",
            planar=_number(attributes, "00280006", 0),
        )
        plausible = (
            found.rows > 0
            and found.columns > 0
            and found.samples in {1, 3, 4}
            and (bits == 1 or bits in {8, 16, 32, 64})
            and 1 <= found.bits_stored <= bits
            and found.bits_stored - 1 <= found.high_bit < bits
        )
        if not plausible:
            raise HubError(
                Category.UNSUPPORTED,
                "The description of the pixels is not one that can be decoded.",
                where="(0028,0002), (0028,0010), (0028,0011), (0028,0100), (0028,0101), (0028,0102)",
                remedy="Retrieve the whole instance as stored.",
                status=406,
            )
        return found

    @property
    def frame_bytes(self) -> int:
        """Size of one decoded frame; one-bit pixels count as a byte each, which is how codecs hold them."""
        return self.rows * self.columns * self.samples * max(self.bits_allocated // 8, 1)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def _number(attributes: Mapping[str, Any], tag: str, default: int | None = None) -> int:
    values = attributes.get(tag, {}).get("Value") or [default]
    if not isinstance(values[0], int):
        raise HubError(Category.NOT_FOUND, "The instance does not describe its pixels.", where=f"({tag[:4]},{tag[4:]})")
    return values[0]


def _text(attributes: Mapping[str, Any], tag: str) -> str:
    values = attributes.get(tag, {}).get("Value") or [""]
    return str(values[0])
