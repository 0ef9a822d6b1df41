"""Frames compressed with loss, for those who name such a transfer syntax (PS3.5 sections 8.2.1 and 8.2.4).

Runs in a child process only.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image as Pictures
from pydicom.pixels.encoders.base import get_encoder

from adapters.pixels.codec import check_encodable, to_rgb
from adapters.pixels.image import Image
from adapters.pixels.syntaxes import JPEG_2000_LOSSY, JPEG_BASELINE
from hub.errors import Category, HubError

Array = np.ndarray[Any, np.dtype[Any]]

#: Of JPEG, on the scale of its common encoder.
QUALITY = 90
#: Of JPEG 2000, to one; what guidelines of radiologists allow for most radiographs.
RATIO = 8
_COLOUR = frozenset({"RGB", "YBR_FULL"})


def encode(array: Array, image: Image, target: str) -> tuple[bytes, Image]:
    """Return *array* as one frame of *target*, and what its pixels then are.

    Raises:
        HubError: unsupported for pixels that are no levels of light, such as indices into a palette.
    """
    grey = image.samples == 1 and image.photometric in {"MONOCHROME1", "MONOCHROME2"}
    colour = image.samples == 3 and image.photometric in _COLOUR
    if not (grey or colour) or (target == JPEG_BASELINE and (image.bits_stored > 8 or image.signed)):
        raise HubError(
            Category.UNSUPPORTED, "Such pixels are not compressed with loss into this transfer syntax.",
            where="(0028,0004), (0028,0101)",
        )  # fmt: skip
    check_encodable(array, image, target)
    shown = np.ascontiguousarray(to_rgb(array, image) if colour else array)
    if target == JPEG_BASELINE:
        out = io.BytesIO()
        # Colour is kept for each two pixels of a row, which is what the standard names YBR_FULL_422.
        Pictures.fromarray(shown).save(out, "JPEG", quality=QUALITY, subsampling=1)
        return out.getvalue(), replace(image, photometric="YBR_FULL_422" if colour else image.photometric, planar=0)
    photometric = "YBR_ICT" if colour else image.photometric
    options: dict[str, Any] = {"planar_configuration": 0} if colour else {}
    data = get_encoder(JPEG_2000_LOSSY).encode(
        shown,
        rows=image.rows,
        columns=image.columns,
        number_of_frames=1,
        samples_per_pixel=image.samples,
        bits_allocated=image.bits_allocated,
        bits_stored=image.bits_stored,
        pixel_representation=int(image.signed),
        photometric_interpretation=photometric,
        j2k_cr=[RATIO],
        **options,
    )
    return bytes(data), replace(image, photometric=photometric, planar=0)
