"""What a header must say once its pixels have lost something: another instance, derived, and how (PS3.3 C.7.6.1.1.2, C.7.6.1.1.5)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from adapters.pixels import part10
from adapters.pixels.syntaxes import JPEG_2000_LOSSY, JPEG_BASELINE

#: Lossy Image Compression Method (0028,2114) by transfer syntax (PS3.3 C.7.6.1.1.5.1).
_METHODS = {JPEG_BASELINE: "ISO_10918_1", JPEG_2000_LOSSY: "ISO_15444_1"}
_NAMESPACE = uuid.UUID("1b0c0d4e-6a0f-5c53-9d0e-2a7f0f3b6a55")


def lossy(header: Mapping[str, Any], digest: str, target: str, ratio: float) -> dict[int, tuple[str, bytes] | None]:
    """Return the changes to the header of an object that is compressed into *target*.

    The same object in the same syntax is the same derived instance each time.

    Args:
        digest: of the object, or what else tells its bytes from all others.
        ratio: bytes before to bytes after.
    """
    name = "|".join([_one(header, "00080018"), digest, target])
    uid = f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"
    kinds = [str(one or "") for one in header.get("00080008", {}).get("Value") or ["", "SECONDARY"]]
    ratios = [*_all(header, "00282112"), f"{ratio:.4g}"]
    methods = [*_all(header, "00282114"), _METHODS[target]]
    # Purpose of reference: (121320, DCM) is for one that nothing was lost of before.
    lost = _one(header, "00282110") == "01"
    purpose = (
        _code("121322", "Source image for image processing operation")
        if lost
        else _code("121320", "Uncompressed predecessor")
    )
    source = _text(0x00081150, "UI", _one(header, "00080016")) + _text(0x00081155, "UI", _one(header, "00080018"))
    source += part10.element(0x0040A170, "SQ", part10.item(purpose))
    return {
        0x00080008: ("CS", _even("\\".join(["DERIVED", *kinds[1:]]), b" ")),
        0x00080018: ("UI", _even(uid, b"\0")),
        0x00082111: ("ST", _even(f"Compressed with loss as {_METHODS[target]}", b" ")),
        0x00082112: ("SQ", part10.item(source)),
        0x00089215: ("SQ", part10.item(_code("113040", "Lossy Compression"))),
        0x00282110: ("CS", b"01"),
        0x00282112: ("DS", _even("\\".join(ratios), b" ")),
        0x00282114: ("CS", _even("\\".join(methods), b" ")),
    }


def _code(value: str, meaning: str) -> bytes:
    return _text(0x00080100, "SH", value) + _text(0x00080102, "SH", "DCM") + _text(0x00080104, "LO", meaning)


def _text(tag: int, vr: str, value: str) -> bytes:
    return part10.element(tag, vr, _even(value, b"\0" if vr == "UI" else b" "))


def _even(text: str, padding: bytes) -> bytes:
    data = text.encode("ascii", "replace")
    return data + padding * (len(data) % 2)


def _all(header: Mapping[str, Any], tag: str) -> list[str]:
    return [str(one) for one in header.get(tag, {}).get("Value") or () if one not in (None, "")]


def _one(header: Mapping[str, Any], tag: str) -> str:
    return next(iter(_all(header, tag)), "")
