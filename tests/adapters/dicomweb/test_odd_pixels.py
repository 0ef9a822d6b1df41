"""Pixels that are no ordinary image: one bit each, and floating point, stored and handed out as they are (PS3.3 C.7.6.24, C.8.20)."""

from __future__ import annotations

import io
import struct
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from adapters.pixels.syntaxes import EXPLICIT_LITTLE
from hub.boot import Services
from tests.adapters.dicomweb.test_dicomweb import PATH, parts
from tests.adapters.dicomweb.test_pixels import open_picture
from tests.support.images import ct
from tests.support.pixels import sample

OCTETS = {"Accept": "multipart/related; type=application/octet-stream"}
#: Odd sizes: no frame but the first begins on a byte.
ROWS, COLUMNS, FRAMES = 5, 7, 3
#: Which of 105 bits are set.
MASK = np.array([(place * place + place // 3) % 5 < 2 for place in range(FRAMES * ROWS * COLUMNS)])


def stow(http: httpx.Client, data: bytes) -> None:
    answer = http.post("/studies", content=data, headers={"Content-Type": "application/dicom"})
    assert answer.status_code == 200, answer.text


def segmentation() -> bytes:
    """Return a binary segmentation whose frames follow each other bit by bit."""
    one = pydicom.dcmread(io.BytesIO(sample(np.zeros((ROWS, COLUMNS), np.uint8))))
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    one.BitsAllocated = one.BitsStored = 1
    one.HighBit, one.NumberOfFrames, one.SegmentationType = 0, FRAMES, "BINARY"
    packed = np.packbits(MASK, bitorder="little").tobytes()
    one.PixelData = packed + b"\0" * (len(packed) % 2)
    out = io.BytesIO()
    one.save_as(out)
    return out.getvalue()


def test_frames_of_a_binary_segmentation_begin_at_their_own_bit(http: httpx.Client, hub: Services) -> None:
    data = segmentation()
    stow(http, data)
    assert http.get(PATH, headers={"Accept": "application/dicom; transfer-syntax=*"}).content == data
    found = parts(http.get(f"{PATH}/frames/1,2,3", headers=OCTETS))
    for (kind, frame), wanted in zip(found, MASK.reshape(FRAMES, -1), strict=True):
        assert kind.endswith(f"transfer-syntax={EXPLICIT_LITTLE}")
        assert len(frame) == (ROWS * COLUMNS + 7) // 8
        bits = np.unpackbits(np.frombuffer(frame, "u1"), bitorder="little")
        assert np.array_equal(bits[: ROWS * COLUMNS] > 0, wanted)
        # What the next frame begins with is not among the padding bits.
        assert not bits[ROWS * COLUMNS :].any()
    for number, wanted in enumerate(MASK.reshape(FRAMES, ROWS, COLUMNS), 1):
        picture = open_picture(http.get(f"{PATH}/frames/{number}/rendered", headers={"Accept": "image/png"}))
        assert np.array_equal(np.asarray(picture) > 127, wanted)


def floating(code: str, syntax: str) -> tuple[bytes, bytes]:
    """Return a parametric map of float (``f``) or double (``d``) pixels, and the pixels in little endian."""
    tag, vr, bits = {"f": (0x7FE00008, "OF", 32), "d": (0x7FE00009, "OD", 64)}[code]
    values = [1.5, -2.25, float("inf"), 0.0, 1e-30, 3e30] * 2
    little = struct.pack(f"<12{code}", *values)
    one = pydicom.dcmread(io.BytesIO(ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.30")))
    del one.PixelData, one.BitsStored, one.HighBit, one.PixelRepresentation
    one.Rows, one.Columns, one.NumberOfFrames, one.BitsAllocated = 2, 3, 2, bits
    one.add_new(tag, vr, struct.pack(f">12{code}", *values) if syntax == ExplicitVRBigEndian else little)
    for _ in one.iterall():
        # Read, so that nothing is written again in the byte order it came in.
        pass
    fresh = pydicom.Dataset()
    fresh.update(one)
    fresh.file_meta, fresh.preamble = one.file_meta, one.preamble
    fresh.file_meta.TransferSyntaxUID = syntax
    fresh.file_meta.MediaStorageSOPClassUID = fresh.SOPClassUID
    out = io.BytesIO()
    fresh.save_as(out, enforce_file_format=True)
    return out.getvalue(), little


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("code", ["f", "d"])
def test_floating_point_pixels_are_kept_and_handed_out(
    http: httpx.Client, hub: Services, code: str, syntax: str
) -> None:
    data, little = floating(code, syntax)
    stow(http, data)
    assert http.get(PATH, headers={"Accept": "application/dicom; transfer-syntax=*"}).content == data
    (metadata,) = http.get(f"{PATH}/metadata").json()
    element: dict[str, Any] = metadata["7FE00008" if code == "f" else "7FE00009"]
    assert element["vr"] == ("OF" if code == "f" else "OD")
    if "BulkDataURI" in element:
        assert http.get(element["BulkDataURI"], headers={"Accept": "application/octet-stream"}).content == little
    else:
        from base64 import b64decode

        assert b64decode(element["InlineBinary"]) == little
    turned = http.get(PATH, headers={"Accept": f"application/dicom; transfer-syntax={EXPLICIT_LITTLE}"})
    again = pydicom.dcmread(io.BytesIO(turned.content))
    assert again[0x7FE00008 if code == "f" else 0x7FE00009].value == little
    frames = parts(http.get(f"{PATH}/frames/1,2", headers=OCTETS))
    assert [frame for _, frame in frames] == [little[: len(little) // 2], little[len(little) // 2 :]]
    assert http.get(f"{PATH}/frames/1", headers={"Accept": "image/jls"}).status_code == 406
    # They have no grey levels of their own, so there is no picture of them.
    assert http.get(f"{PATH}/rendered", headers={"Accept": "image/png"}).status_code == 406
    assert http.get(f"{PATH}/thumbnail").status_code == 404
