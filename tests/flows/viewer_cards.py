"""A study of colour cards: images of four quarters whose stored values are known, so the screen can be computed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    MRImageStorage,
    NuclearMedicineImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)

from tests.flows.viewer_studies import Study, _grey, _header

#: Quarters of a card, in the order in which they are read.
TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT = range(4)


def _quarters(size: int, values: tuple[Any, Any, Any, Any]) -> np.ndarray[Any, Any]:
    half = size // 2
    first = np.asarray(values[0])
    picture = np.zeros((size, size, *first.shape))
    picture[:half, :half], picture[:half, half:] = values[TOP_LEFT], values[TOP_RIGHT]
    picture[half:, :half], picture[half:, half:] = values[BOTTOM_LEFT], values[BOTTOM_RIGHT]
    return picture


def _file(values: Mapping[str, Any], sop_class: str, syntax: str = ExplicitVRLittleEndian, number: int = 1) -> bytes:
    """Return the file of *values*; *syntax* is one that pydicom can write."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = f"{values['SeriesInstanceUID']}.{number}"
    dataset.InstanceNumber = number
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if "PixelData" in values:
        dataset["PixelData"].VR = "OB" if values["BitsAllocated"] <= 8 else "OW"
        if syntax != ExplicitVRLittleEndian:
            dataset.compress(syntax, generate_instance_uid=False)
    dataset.preamble = b"\0" * 128
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


#: What the quarters of each series of :func:`cards` look like on the screen: grey, or red, green and blue.
CARDS: dict[str, tuple[Any, Any, Any, Any]] = {
    "CR 反相": (255, 191, 128, 0),
    "MR 16位 RLE": (0, 64, 128, 255),
    "CT JPEG-LS": (32, 96, 160, 224),
    "NM 多帧": (0, 85, 170, 255),
    "US YBR_FULL_422": ((200, 60, 40), (40, 180, 60), (50, 70, 210), (128, 128, 128)),
    "SC 分平面": ((220, 30, 30), (30, 220, 30), (30, 30, 220), (240, 240, 40)),
    "SC 调色板": ((220, 30, 30), (30, 220, 30), (30, 30, 220), (240, 240, 40)),
}


def cards(*, size: int = 64) -> Study:
    """Return a study with one series for each of :data:`CARDS`, as different makers' machines send them."""
    header = _header(50, "OT", "CE^SHIKA=测^试卡", "50050", "20250615", "显示测试卡")
    makers = (_cr, _mr, _ct, _nm, _us, _planar, _palette)
    files = []
    for number, ((description, shown), make) in enumerate(zip(CARDS.items(), makers, strict=True), 1):
        series = {
            **header,
            "Modality": description.split()[0],
            "SeriesInstanceUID": f"{header['StudyInstanceUID']}.{number}",
            "SeriesNumber": number,
            "SeriesDescription": description,
        }
        files.append(make(series, shown, size))
    return Study(
        uid=header["StudyInstanceUID"], name="测^试卡", patient_id="50050", modality="OT", date="20250615", files=files
    )


def _scaled(shown: tuple[Any, ...], top: int) -> tuple[Any, ...]:
    """Return the stored values that a window over 0 to *top* shows as *shown*."""
    return tuple(round(one / 255 * top) for one in shown)


def _cr(series: dict[str, Any], shown: tuple[Any, ...], size: int) -> bytes:
    values = _scaled(tuple(255 - one for one in shown), 4095)
    more = {
        **_grey(_quarters(size, values), 12),
        "PhotometricInterpretation": "MONOCHROME1",
        "WindowCenter": 2048,
        "WindowWidth": 4096,
    }
    return _file({**series, **more}, ComputedRadiographyImageStorage)


def _mr(series: dict[str, Any], shown: tuple[Any, ...], size: int) -> bytes:
    more = {
        **_grey(_quarters(size, _scaled(shown, 65535)), 16),
        "WindowCenter": 32768,
        "WindowWidth": 65536,
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1, 1],
    }
    return _file({**series, **more}, MRImageStorage, RLELossless)


def _ct(series: dict[str, Any], shown: tuple[Any, ...], size: int) -> bytes:
    more = {
        **_grey(_quarters(size, _scaled(shown, 2047)), 12),
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
        "WindowCenter": 0,
        "WindowWidth": 2048,
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1, 1],
    }
    return _file({**series, **more}, CTImageStorage, JPEGLSLossless)


def _nm(series: dict[str, Any], shown: tuple[Any, ...], size: int) -> bytes:
    frame = _quarters(size, _scaled(shown, 255))
    more = {
        **_grey(frame, 16),
        "NumberOfFrames": 3,
        "FrameIncrementPointer": (0x0054, 0x0010),
        "EnergyWindowVector": [1, 1, 1],
        "ImageType": ["ORIGINAL", "PRIMARY", "STATIC", "EMISSION"],
        "WindowCenter": 128,
        "WindowWidth": 256,
        "PixelSpacing": [4, 4],
        "PixelData": np.stack([frame, frame[::-1], frame]).astype("<u2").tobytes(),
    }
    return _file({**series, **more}, NuclearMedicineImageStorage)


def _colour(size: int) -> dict[str, Any]:
    return {
        "Rows": size,
        "Columns": size,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 3,
        "PlanarConfiguration": 0,
        "PhotometricInterpretation": "RGB",
    }


def _us(series: dict[str, Any], shown: tuple[Any, ...], size: int) -> bytes:
    # PS3.3 C.7.6.3.1.2: two luminances, then the two chrominances that both pixels have in common.
    red, green, blue = (_quarters(size, shown)[..., one] for one in range(3))
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    cb = 128 - 0.168736 * red - 0.331264 * green + 0.5 * blue
    cr = 128 + 0.5 * red - 0.418688 * green - 0.081312 * blue
    packed = np.stack([y[:, ::2], y[:, 1::2], cb[:, ::2], cr[:, ::2]], axis=-1)
    more = {
        **_colour(size),
        "PhotometricInterpretation": "YBR_FULL_422",
        "PixelData": packed.round().clip(0, 255).astype(np.uint8).tobytes(),
    }
    return _file({**series, **more}, UltrasoundImageStorage)


def _planar(series: dict[str, Any], shown: tuple[Any, ...], size: int) -> bytes:
    planes = _quarters(size, shown).astype(np.uint8).transpose(2, 0, 1)
    more = {**_colour(size), "PlanarConfiguration": 1, "PixelData": planes.tobytes()}
    return _file({**series, **more}, SecondaryCaptureImageStorage)


def _palette(series: dict[str, Any], shown: tuple[Any, ...], size: int) -> bytes:
    more = {
        **_colour(size),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "PALETTE COLOR",
        "PixelData": _quarters(size, (0, 1, 2, 3)).astype(np.uint8).tobytes(),
    }
    del more["PlanarConfiguration"]
    for place, colour in enumerate(("Red", "Green", "Blue")):
        table = np.zeros(256, dtype="<u2")
        table[:4] = [one[place] * 257 for one in shown]
        more[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        more[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
    return _file({**series, **more}, SecondaryCaptureImageStorage)
