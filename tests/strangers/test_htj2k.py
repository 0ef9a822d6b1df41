"""High-Throughput JPEG 2000 from another maker's encoder (PS3.5 section 8.2.13): what OpenJPH writes, the hub keeps and decodes."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate

from adapters.pixels.syntaxes import EXPLICIT_LITTLE, JPEG_2000, JPEG_LS
from tests.adapters.dicomweb.test_dicomweb import parts
from tests.strangers.running import RunningHub
from tests.support.dicom import ROOT
from tests.support.pixels import ramp, sample
from tests.support.strangers import Node

LOSSLESS, LOSSLESS_RPCL, LOSSY = (f"1.2.840.10008.1.2.4.{last}" for last in (201, 202, 203))
#: Progression orders of JPEG 2000 (ISO/IEC 15444-1 table A.16).
LRCP, RPCL = 0, 2
#: Half a step of the lossy encoder for 12 bits, and some more for the transform: how far a sample may be off.
BOUND = 40
KINDS = {"u12": ramp(2), "s12": ramp(2, signed=True), "u8": ramp(2).astype(np.uint8), "rgb": ramp(2, samples=3)}

pytestmark = pytest.mark.tool("node", "npm")


def encoded(node: Node, folder: Path, syntax: str, pixels: Any, study: int) -> bytes:
    """Return an instance of two frames that OpenJPH encoded."""
    colour, bits = pixels.ndim == 4, 12 if pixels.dtype.itemsize == 2 else 8
    request = [
        {
            "rows": one.shape[0],
            "columns": one.shape[1],
            "bits": bits,
            "components": 3 if colour else 1,
            "signed": one.dtype.kind == "i",
            "transform": colour,
            "lossless": syntax != LOSSY,
            "step": 0.002,
            "order": RPCL if syntax == LOSSLESS_RPCL else LRCP,
            "data": base64.b64encode(one.tobytes()).decode(),
        }
        for one in pixels
    ]
    asked = folder / "asked.json"
    asked.write_text(json.dumps(request))
    streams = [base64.b64decode(one) for one in node("htj2k.js", stdin=asked)["frames"]]
    made = pydicom.dcmread(io.BytesIO(sample(pixels, frames=2)))
    made.StudyInstanceUID, made.SeriesInstanceUID = f"{ROOT}.{study}", f"{ROOT}.{study}.1"
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.{study}.1.1"
    made.file_meta.TransferSyntaxUID = syntax
    if colour:
        made.PhotometricInterpretation = "YBR_ICT" if syntax == LOSSY else "YBR_RCT"
    made.PixelData = encapsulate(streams, has_bot=False)
    made["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    made.save_as(out, enforce_file_format=True)
    return out.getvalue()


def stored(kn: httpx.Client, data: bytes) -> str:
    """Store *data*; returns the path of the instance."""
    dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    answer = kn.post("/studies", content=data, headers={"Content-Type": "application/dicom"})
    assert answer.status_code == 200, answer.text
    return f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"


@pytest.mark.parametrize(("number", "kind"), list(enumerate(KINDS)))
@pytest.mark.parametrize(("syntax", "base"), [(LOSSLESS, 760), (LOSSLESS_RPCL, 770), (LOSSY, 780)])
def test_htj2k_is_kept_handed_out_decoded_rendered_and_transcoded(
    hub: RunningHub, kn: httpx.Client, node: Node, tmp_path: Path, syntax: str, base: int, kind: str, number: int
) -> None:
    pixels = KINDS[kind]
    data = encoded(node, tmp_path, syntax, pixels, base + number)
    path = stored(kn, data)
    bound = 0 if syntax != LOSSY else BOUND

    whole = kn.get(path, headers={"Accept": "application/dicom; transfer-syntax=*"})
    assert whole.content == data
    kept = kn.get(
        f"{path}/frames/1,2",
        headers={"Accept": "multipart/related; type=application/octet-stream; transfer-syntax=*"},
    )
    assert [kind.rpartition("=")[2] for kind, _ in parts(kept)] == [syntax, syntax]
    assert all(stream.startswith(b"\xff\x4f\xff\x51") for _, stream in parts(kept))
    named = kn.get(f"{path}/frames/2", headers={"Accept": 'multipart/related; type="image/jphc"'})
    assert parts(named)[0][1] == parts(kept)[1][1]

    octets = kn.get(f"{path}/frames/2", headers={"Accept": "application/octet-stream"})
    found = np.frombuffer(octets.content, pixels.dtype)[: pixels[1].size].reshape(pixels[1].shape)
    assert np.abs(found.astype(int) - pixels[1].astype(int)).max() <= bound

    for target in (EXPLICIT_LITTLE, JPEG_LS, JPEG_2000):
        turned = kn.get(path, headers={"Accept": f"application/dicom; transfer-syntax={target}"})
        assert turned.status_code == 200, turned.text
        again = pydicom.dcmread(io.BytesIO(turned.content))
        assert again.file_meta.TransferSyntaxUID == target
        assert np.abs(again.pixel_array.astype(int) - pixels.astype(int)).max() <= bound

    picture = kn.get(f"{path}/frames/2/rendered", headers={"Accept": "image/png"})
    plain = pydicom.dcmread(io.BytesIO(sample(pixels, frames=2)))
    plain.StudyInstanceUID, plain.SeriesInstanceUID = f"{ROOT}.{base + number}", f"{ROOT}.{base + number}.2"
    plain.SOPInstanceUID = plain.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.{base + number}.2.1"
    out = io.BytesIO()
    plain.save_as(out)
    native = kn.get(f"{stored(kn, out.getvalue())}/frames/2/rendered", headers={"Accept": "image/png"})
    shown, expected = (np.asarray(Image.open(io.BytesIO(one.content))).astype(int) for one in (picture, native))
    assert np.abs(shown - expected).max() <= bound


def test_a_broken_htj2k_stream_costs_one_request(kn: httpx.Client, node: Node, tmp_path: Path) -> None:
    whole = pydicom.dcmread(io.BytesIO(encoded(node, tmp_path, LOSSLESS, KINDS["u12"], 790)))
    first = pydicom.encaps.get_frame(whole.PixelData, 0, number_of_frames=2)
    whole.PixelData = encapsulate([first[: len(first) // 3 * 2], first[:120] + b"\xff" * 80], has_bot=False)
    whole["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    whole.save_as(out)
    path = stored(kn, out.getvalue())
    for number in (1, 2):
        answer = kn.get(f"{path}/frames/{number}", headers={"Accept": "application/octet-stream"})
        # Half a stream may be decoded as far as it goes; it never takes the door along.
        assert answer.status_code in {200, 406}
    assert kn.get(path, headers={"Accept": "application/dicom; transfer-syntax=*"}).content == out.getvalue()
