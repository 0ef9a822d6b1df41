"""Synthetic images of every kind of pixel and transfer syntax, and a pool that decodes them."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.datadict import tag_for_keyword
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from adapters.pixels.pool import Pool
from tests.support.images import ct

NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
EXACT = (*NATIVE, JPEGLSLossless, JPEG2000Lossless, RLELossless)
#: Lossy syntaxes and how far a sample may be off.
LOSSY = {JPEGLSNearLossless: 2, JPEG2000: 40}
#: What DCMTK's dcmcjpeg makes, by its option.
DCMCJPEG = {"1.2.840.10008.1.2.4.51": "+ee", "1.2.840.10008.1.2.4.57": "+el", "1.2.840.10008.1.2.4.70": "+e1"}


def ramp(frames: int = 1, *, rows: int = 40, columns: int = 48, signed: bool = False, samples: int = 1) -> Any:
    """Return frames of a slanted ramp with a bright block: 12 bits in 16 for grey, 8 bits for colour."""
    y, x = np.mgrid[0:rows, 0:columns]
    made = []
    for frame in range(frames):
        if samples == 3:
            one = np.stack([(x * 7 + frame) % 256, (y * 9) % 256, (x + y * 3) % 256], axis=-1).astype(np.uint8)
        else:
            one = (x * 61 + y * 17 + frame * 101) % 4096
            one[4:8, 4:8] = 4095
            one = (one - 2048).astype(np.int16) if signed else one.astype(np.uint16)
        made.append(one)
    return np.stack(made) if frames > 1 else made[0]


def sample(pixels: Any, syntax: str = ExplicitVRLittleEndian, *, frames: int = 1, **attributes: Any) -> bytes:
    """Return a Part 10 file that holds *pixels*, encoded by the libraries under no test here."""
    dataset = pydicom.dcmread(io.BytesIO(ct()))
    every = list(pixels) if frames > 1 else [pixels]
    first = every[0]
    colour = first.ndim == 3
    bits = first.dtype.itemsize * 8
    values: dict[str, Any] = {
        "Rows": first.shape[0],
        "Columns": first.shape[1],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": 12 if bits == 16 else bits,
        "HighBit": 11 if bits == 16 else bits - 1,
        "PixelRepresentation": int(first.dtype.kind == "i"),
        "NumberOfFrames": frames if frames > 1 else None,
        "PlanarConfiguration": 0 if colour else None,
    }
    for keyword, value in {**values, **attributes}.items():
        if keyword.endswith(("TableDescriptor", "TableData")):
            # The toolkit cannot tell which of its VRs these have.
            dataset.add_new(tag_for_keyword(keyword), "US" if "Descriptor" in keyword else "OW", value)
        elif value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax in NATIVE:
        flat = np.stack(every)
        if colour and dataset.PlanarConfiguration == 1:
            flat = flat.transpose(0, 3, 1, 2)
        raw = flat.astype(flat.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")).tobytes()
        dataset.PixelData = raw + b"\0" * (len(raw) % 2)
        dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    else:
        dataset.PixelData = encapsulate([encoded(one, dataset, syntax) for one in every], has_bot=False)
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
    for _ in dataset.iterall():
        # Read, so that nothing is written again as the bytes of the byte order it came in.
        pass
    fresh = pydicom.Dataset()
    fresh.update(dataset)
    fresh.file_meta, fresh.preamble = dataset.file_meta, dataset.preamble
    out = io.BytesIO()
    fresh.save_as(out, enforce_file_format=True)
    return out.getvalue()


def encoded(frame: Any, dataset: Any, syntax: str) -> bytes:
    """Return one frame as a code stream of *syntax*."""
    if syntax == JPEGBaseline8Bit:
        out = io.BytesIO()
        Image.fromarray(frame).save(out, "JPEG", quality=95, subsampling=0)
        return out.getvalue()
    options: dict[str, Any] = {JPEGLSNearLossless: {"jls_error": 2}, JPEG2000: {"j2k_psnr": [60]}}.get(syntax, {})
    if frame.ndim == 3:
        options["planar_configuration"] = 0
    made: bytes = get_encoder(syntax).encode(
        frame,
        rows=dataset.Rows,
        columns=dataset.Columns,
        number_of_frames=1,
        samples_per_pixel=dataset.SamplesPerPixel,
        bits_allocated=dataset.BitsAllocated,
        bits_stored=dataset.BitsStored,
        pixel_representation=dataset.PixelRepresentation,
        photometric_interpretation=dataset.PhotometricInterpretation,
        **options,
    )
    return bytes(made)


def by_dcmtk(data: bytes, option: str, folder: Path) -> bytes:
    """Return *data* compressed by dcmcjpeg."""
    source, target = folder / "source.dcm", folder / "target.dcm"
    source.write_bytes(data)
    subprocess.run(["dcmcjpeg", option, str(source), str(target)], check=True, capture_output=True)
    return target.read_bytes()


def pool(**limits: Any) -> Pool:
    """Return a pool with room for what tests do."""
    return Pool(
        **{
            "processes": 1,
            "memory_bytes": 2 << 30,
            "cpu_s": 20.0,
            "deadline_s": 60.0,
            "idle_s": 60.0,
            **limits,
        }
    )


class Counted:
    """A pool that counts the jobs of each kind."""

    def __init__(self, inner: Pool) -> None:
        self.inner = inner
        self.jobs: list[str] = []

    def run(self, head: Any, *payload: bytes) -> Any:
        """Count and pass on."""
        self.jobs.append(head["do"])
        return self.inner.run(head, *payload)
