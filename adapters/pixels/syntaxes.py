"""Transfer syntaxes of images: what each is called on the web, and what this hub can do with it (PS3.18 table 8.7.3-5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
JPEG_2000_LOSSY = "1.2.840.10008.1.2.4.91"
RLE = "1.2.840.10008.1.2.5"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntax:
    """One transfer syntax of pixel data.

    Attributes:
        media_type: of a single frame.
        decodes: its frames can be decoded here.
        encodes: frames can be encoded into it here, always without loss.
    """

    uid: str
    media_type: str
    decodes: bool = True
    encodes: bool = False


_OCTETS = "application/octet-stream"
_ALL = (
    Syntax(uid=EXPLICIT_LITTLE, media_type=_OCTETS, encodes=True),
    Syntax(uid=IMPLICIT_LITTLE, media_type=_OCTETS),
    Syntax(uid=EXPLICIT_BIG, media_type=_OCTETS),
    Syntax(uid=DEFLATED, media_type=_OCTETS),
    Syntax(uid=JPEG_BASELINE, media_type="image/jpeg"),
    Syntax(uid=JPEG_EXTENDED, media_type="image/jpeg"),
    Syntax(uid="1.2.840.10008.1.2.4.57", media_type="image/jpeg"),
    Syntax(uid="1.2.840.10008.1.2.4.70", media_type="image/jpeg"),
    Syntax(uid=JPEG_LS, media_type="image/jls", encodes=True),
    Syntax(uid="1.2.840.10008.1.2.4.81", media_type="image/jls"),
    Syntax(uid=JPEG_2000, media_type="image/jp2", encodes=True),
    Syntax(uid=JPEG_2000_LOSSY, media_type="image/jp2"),
    # Multi-component volumes are one code stream for many frames; no codec of ours takes them apart.
    Syntax(uid="1.2.840.10008.1.2.4.92", media_type="image/jpx", decodes=False),
    Syntax(uid="1.2.840.10008.1.2.4.93", media_type="image/jpx", decodes=False),
    Syntax(uid="1.2.840.10008.1.2.4.201", media_type="image/jphc"),
    Syntax(uid="1.2.840.10008.1.2.4.202", media_type="image/jphc"),
    Syntax(uid="1.2.840.10008.1.2.4.203", media_type="image/jphc"),
    Syntax(uid=RLE, media_type="image/dicom-rle", encodes=True),
    Syntax(uid=DEFLATED_FRAMES, media_type="application/x-deflate"),
)
SYNTAXES: Mapping[str, Syntax] = {one.uid: one for one in _ALL}
#: What frames and instances can be turned into, best known first; all are exact.
TARGETS = tuple(one for one in _ALL if one.encodes)
#: What pixels are compressed into with loss, and the most bits of a sample; only for who names the transfer syntax.
LOSSY: Mapping[str, int] = {JPEG_BASELINE: 8, JPEG_2000_LOSSY: 16}
NATIVE = frozenset({EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED})


def decodes(uid: str) -> bool:
    """Return whether frames of the transfer syntax can be decoded here."""
    found = SYNTAXES.get(uid)
    return found is not None and found.decodes


def video(uid: str) -> bool:
    """Return whether the transfer syntax is one of MPEG-2, MPEG-4 or HEVC (PS3.5 sections 8.2.5 to 8.2.8, 8.2.10)."""
    head, _, last = uid.rpartition(".")
    return (head == "1.2.840.10008.1.2.4" and last in {str(n) for n in range(100, 109)}) or (
        head in {f"1.2.840.10008.1.2.4.{n}" for n in range(100, 107)} and last == "1"
    )
