"""Compression with loss, for those who name such a transfer syntax and for nobody else (PS3.3 C.7.6.1.1.5)."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image

from adapters.pixels.syntaxes import EXPLICIT_LITTLE, JPEG_2000, JPEG_2000_LOSSY, JPEG_BASELINE, JPEG_LS
from hub.boot import Services
from tests.adapters.dicomweb.test_dicomweb import PATH, parts
from tests.support.images import STUDY, receive
from tests.support.pixels import ramp, sample


def smooth(*, samples: int = 1, bits: int = 8, signed: bool = False) -> Any:
    """Return an image without noise, which a lossy codec keeps nearly as it is."""
    y, x = np.mgrid[0:128, 0:160]
    one = np.sin(x / 23) * 0.3 + np.cos(y / 31) * 0.2 + 0.5
    if samples == 3:
        return (np.stack([one, one * 0.7 + 0.1, 0.9 - one * 0.5], axis=-1) * 255).astype(np.uint8)
    levels = (one * ((1 << bits) - 1)).astype(np.int32)
    if signed:
        return (levels - (1 << bits - 1)).astype(np.int16)
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


def get(http: httpx.Client, syntax: str) -> pydicom.Dataset:
    answer = http.get(PATH, headers={"Accept": f"application/dicom; transfer-syntax={syntax}"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == f"application/dicom; transfer-syntax={syntax}"
    return pydicom.dcmread(io.BytesIO(answer.content))


@pytest.mark.parametrize(
    ("target", "pixels", "photometric", "method"),
    [
        (JPEG_BASELINE, smooth(), "MONOCHROME2", "ISO_10918_1"),
        (JPEG_BASELINE, smooth(samples=3), "YBR_FULL_422", "ISO_10918_1"),
        (JPEG_2000_LOSSY, smooth(), "MONOCHROME2", "ISO_15444_1"),
        (JPEG_2000_LOSSY, smooth(bits=12), "MONOCHROME2", "ISO_15444_1"),
        (JPEG_2000_LOSSY, smooth(bits=12, signed=True), "MONOCHROME2", "ISO_15444_1"),
        (JPEG_2000_LOSSY, smooth(samples=3), "YBR_ICT", "ISO_15444_1"),
    ],
)
@pytest.mark.parametrize("stored", [EXPLICIT_LITTLE, JPEG_LS])
def test_what_has_lost_something_is_another_instance_that_says_so(
    http: httpx.Client, hub: Services, stored: str, target: str, pixels: Any, photometric: str, method: str
) -> None:
    data = sample(pixels, stored, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    receive(hub, data)
    before, found = pydicom.dcmread(io.BytesIO(data)), get(http, target)
    assert found.file_meta.TransferSyntaxUID == target
    assert found.SOPInstanceUID == found.file_meta.MediaStorageSOPInstanceUID
    assert found.SOPInstanceUID != before.SOPInstanceUID
    assert found.SOPInstanceUID.is_valid
    assert list(found.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
    assert (found.LossyImageCompression, found.LossyImageCompressionMethod) == ("01", method)
    assert float(found.LossyImageCompressionRatio) > 3
    (source,) = found.SourceImageSequence
    assert (source.ReferencedSOPInstanceUID, source.ReferencedSOPClassUID) == (
        before.SOPInstanceUID,
        before.SOPClassUID,
    )
    assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121320"
    assert found.DerivationCodeSequence[0].CodeValue == "113040"
    assert found.PhotometricInterpretation == photometric
    assert (found.StudyInstanceUID, found.PatientName) == (before.StudyInstanceUID, before.PatientName)
    shown = found.pixel_array if pixels.ndim == 2 else pydicom.pixels.pixel_array(found)
    span = 255 if pixels.dtype.itemsize == 1 else 4095
    assert np.abs(shown.astype(int) - pixels.astype(int)).max() <= span * 0.03
    # Asked for again it is the same instance, and the stored one is as it was.
    assert get(http, target).SOPInstanceUID == found.SOPInstanceUID
    assert http.get(PATH, headers={"Accept": "application/dicom; transfer-syntax=*"}).content == data
    assert http.get(f"/studies/{STUDY}/instances").json()[0]["00080018"]["Value"] == [before.SOPInstanceUID]


def test_what_was_lossy_before_keeps_its_history(http: httpx.Client, hub: Services) -> None:
    more = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "5",
        "LossyImageCompressionMethod": "ISO_14495_1",
    }
    receive(hub, sample(smooth(), **more))
    found = get(http, JPEG_2000_LOSSY)
    assert list(found.LossyImageCompressionMethod) == ["ISO_14495_1", "ISO_15444_1"]
    assert [float(one) > 1 for one in found.LossyImageCompressionRatio] == [True, True]
    assert found.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "121322"


def test_frames_are_lossy_only_where_the_syntax_is_named(http: httpx.Client, hub: Services) -> None:
    receive(hub, sample(smooth()))
    named = f"multipart/related; type=image/jpeg; transfer-syntax={JPEG_BASELINE}"
    ((kind, data),) = parts(http.get(f"{PATH}/frames/1", headers={"Accept": named}))
    assert kind == f"image/jpeg; transfer-syntax={JPEG_BASELINE}"
    assert np.abs(np.asarray(Image.open(io.BytesIO(data))).astype(int) - smooth()).max() <= 8
    single = f"image/jp2; transfer-syntax={JPEG_2000_LOSSY}"
    assert http.get(f"{PATH}/frames/1", headers={"Accept": single}).headers["content-type"] == single
    assert http.get(f"{PATH}/frames/1", headers={"Accept": "image/jpeg"}).status_code == 406
    plain = http.get(f"{PATH}/frames/1", headers={"Accept": "image/jp2"})
    assert plain.headers["content-type"].endswith(JPEG_2000)
    octets = http.get(f"{PATH}/frames/1", headers={"Accept": "application/octet-stream"})
    assert octets.content == smooth().tobytes()


@pytest.mark.parametrize(
    ("pixels", "target", "more"),
    [
        (ramp(), JPEG_BASELINE, {}),
        ((np.arange(1600) % 4).reshape(40, 40).astype(np.uint8), JPEG_BASELINE, {"PhotometricInterpretation": "PALETTE COLOR"}),
        ((np.arange(1600) % 4).reshape(40, 40).astype(np.uint8), JPEG_2000_LOSSY, {"PhotometricInterpretation": "PALETTE COLOR"}),
        (ramp(rows=8, columns=8), JPEG_2000_LOSSY, {}),
        (ramp().astype(np.uint32), JPEG_2000_LOSSY, {}),
        (smooth(), "1.2.840.10008.1.2.4.81", {}),
    ],
)  # fmt: skip
def test_what_would_be_spoilt_is_refused(
    http: httpx.Client, hub: Services, pixels: Any, target: str, more: dict[str, Any]
) -> None:
    receive(hub, sample(pixels, **more))
    for path, accept in (
        (PATH, f"application/dicom; transfer-syntax={target}"),
        (f"{PATH}/frames/1", f"image/*; transfer-syntax={target}"),
    ):
        assert http.get(path, headers={"Accept": accept}).status_code == 406
