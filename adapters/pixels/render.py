"""A decoded frame as a picture for people: grey levels, colour, region, size, text, file format (PS3.18 section 8.3.5).

Runs in a child process only.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image as Pictures
from PIL import ImageCms, ImageDraw
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.pixels.processing import apply_color_lut

from adapters.pixels.codec import to_rgb
from adapters.pixels.graphics import draw, font
from adapters.pixels.grey import effective, levels, stored
from adapters.pixels.image import Image
from adapters.pixels.look import Look
from adapters.pixels.overlay import planes
from adapters.pixels.presentation import Matrix, State
from hub.errors import Category, HubError

Array = np.ndarray[Any, np.dtype[Any]]

#: Pixels of one picture; a common cloud service stops at 10,000 on a side.
MAX_PIXELS = 64 << 20
_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/gif": "GIF"}


def picture(array: Array, image: Image, header: bytes, number: int, look: Look, state: State | None = None) -> bytes:
    """Return the frame as a file of the media type asked for; the arguments are those of :func:`drawn`."""
    made, profile = drawn(array, image, header, number, look, state)
    return as_file(made, look, profile)


def drawn(
    array: Array, image: Image, header: bytes, number: int, look: Look, state: State | None = None
) -> tuple[Pictures.Image, bytes]:
    """Return the frame as people are to see it, and the colour profile that goes with it.

    Args:
        header: the elements that rendering needs, in Explicit VR Little Endian.
        number: of the frame, from 1.
        state: the presentation state in whose way it is shown; the region and the size of *look* come after it.
    """
    known = effective(read_dataset(io.BytesIO(header), is_implicit_VR=False, is_little_endian=True), number)
    profile = b""
    if state is not None and state.grey_only:
        shown = levels(array, *state.grey(image, known), None)
    elif image.samples == 1 and image.photometric != "PALETTE COLOR":
        shown = levels(array, image, known, look.window)
    else:
        shown = _colour(array, image, known)
    if state is None:
        shown = _overlaid(shown, array, image, known, number)
    else:
        shown = state.covered(shown, known, image, array)
    made = Pictures.fromarray(shown)
    if made.mode != "L" and image.samples > 1:
        made, profile = _managed(made, known, look.icc)
    matrix, display = np.eye(3), np.eye(3)
    if state is not None:
        made, matrix = state.placed(made, magnify=look.size is None)
        display = np.diag([made.width, made.height, 1.0])
    made, step = _cut(made, look)
    cut = made.size
    made = _sized(made, look)
    step = np.diag([made.width / cut[0], made.height / cut[1], 1.0]) @ step
    if state is not None:
        made = draw(made, state, step @ matrix, step @ display)
    if look.lines:
        _annotate(made, look.lines)
    return made, profile


def animation(pictures: Sequence[bytes], *, duration_ms: int) -> bytes:
    """Return PNG *pictures* as one GIF that shows each for *duration_ms*."""
    frames: list[Pictures.Image] = [Pictures.open(io.BytesIO(one)) for one in pictures]
    if frames[0].mode != "L":
        frames = [frame.quantize(256) for frame in frames]
    out = io.BytesIO()
    frames[0].save(
        out, "GIF", save_all=True, append_images=frames[1:], duration=duration_ms, loop=0, optimize=False, disposal=1
    )
    return out.getvalue()


def film(look: Look) -> bytes:
    """Return a sign that stands for a film: a strip with holes and a triangle, as large as *look* says."""
    made = Pictures.new("L", (128, 128), 24)
    pen = ImageDraw.Draw(made)
    for place in range(6, 128, 20):
        for top in (8, 108):
            pen.rectangle((place, top, place + 10, top + 11), 110)
    pen.polygon([(48, 40), (48, 88), (90, 64)], 235)
    return as_file(_sized(made, look), look, b"")


def _overlaid(shown: Array, array: Array, image: Image, header: Dataset, number: int) -> Array:
    """Return *shown* with the overlays of the image in white."""
    for _, where in planes(header, image, number, array):
        shown[where] = 255
    return shown


def _colour(array: Array, image: Image, header: Dataset) -> Array:
    """Return RGB of 8 bits."""
    if image.photometric == "PALETTE COLOR":
        rgb = np.asarray(apply_color_lut(stored(array, image), header))
        if rgb.dtype.itemsize > 1:
            # 16-bit entries that hold 8 bits are common.
            rgb = rgb >> 8 if int(rgb.max()) > 255 else rgb
        return rgb.astype(np.uint8)[..., :3]
    if image.photometric not in {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"}:
        raise HubError(
            Category.UNSUPPORTED, f"Colour as {image.photometric[:16]} cannot be rendered.", where="(0028,0004)"
        )
    rgb = to_rgb(stored(array, image), image)
    if image.bits_allocated > 8:
        rgb = rgb >> max(image.bits_stored - 8, 0)
    return np.ascontiguousarray(rgb.astype(np.uint8))


def _managed(made: Pictures.Image, header: Dataset, icc: str) -> tuple[Pictures.Image, bytes]:
    """Return the picture in the colour space asked for, and the profile to put into its file."""
    if icc == "no":
        return made, b""
    paths = header.get("OpticalPathSequence")
    own = header.get("ICCProfile") or (paths[0].get("ICCProfile") if paths else None)
    standard = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if own is None:
        # Without a profile of its own, sRGB is what the colours are taken for anyway.
        return made, standard
    if icc == "yes":
        return made, bytes(own)
    try:
        converted = ImageCms.profileToProfile(made, io.BytesIO(bytes(own)), io.BytesIO(standard))
    except ImageCms.PyCMSError as error:
        raise HubError(
            Category.UNSUPPORTED, "The colour profile of the object cannot be read.", where="(0028,2000)"
        ) from error
    assert converted is not None
    return converted, standard


def _cut(made: Pictures.Image, look: Look) -> tuple[Pictures.Image, Matrix]:
    """Return the region of the picture that is wanted, mirrored where its size is negative, and how places move."""
    if look.region is not None:
        left, top, right, bottom = look.region
        box = _box(made, left * made.width, top * made.height, right * made.width, bottom * made.height)
        return made.crop(box), _moved(box)
    if look.source is None:
        return made, np.eye(3)
    left, top, width, height = look.source[0] or 0.0, look.source[1] or 0.0, *look.source[2:]
    wide = made.width - left if width is None else abs(width)
    high = made.height - top if height is None else abs(height)
    box = _box(made, left, top, left + wide, top + high)
    cut, matrix = made.crop(box), _moved(box)
    if width is not None and width < 0:
        cut = cut.transpose(Pictures.Transpose.FLIP_LEFT_RIGHT)
        matrix = np.array([[-1, 0, cut.width], [0, 1, 0], [0, 0, 1]]) @ matrix
    if height is not None and height < 0:
        cut = cut.transpose(Pictures.Transpose.FLIP_TOP_BOTTOM)
        matrix = np.array([[1, 0, 0], [0, -1, cut.height], [0, 0, 1]]) @ matrix
    return cut, matrix


def _moved(box: tuple[int, int, int, int]) -> Matrix:
    return np.array([[1, 0, -box[0]], [0, 1, -box[1]], [0, 0, 1]], float)


def _box(made: Pictures.Image, left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int]:
    box = (
        max(round(left), 0), max(round(top), 0), min(round(right), made.width), min(round(bottom), made.height),
    )  # fmt: skip
    if box[0] >= box[2] or box[1] >= box[3]:
        raise HubError(
            Category.INCORRECT,
            f"The region lies outside the image, which has {made.width} columns and {made.height} rows.",
            where="viewport",
        )
    return box


def _sized(made: Pictures.Image, look: Look) -> Pictures.Image:
    """Return the picture scaled to fit its size, with its proportions kept."""
    if look.size is None:
        return made
    scale = min(look.size[0] / made.width, look.size[1] / made.height)
    if scale > 1 and not look.enlarge:
        return made
    width, height = (max(round(side * scale), 1) for side in made.size)
    if width * height > MAX_PIXELS:
        raise HubError(Category.UNSUPPORTED, "The picture would be too large.", where="viewport")
    kind = Pictures.Resampling.BICUBIC if scale > 1 else Pictures.Resampling.LANCZOS
    return made.resize((width, height), kind, reducing_gap=3.0)


def _annotate(made: Pictures.Image, lines: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Write texts into the upper corners, light with a dark edge so that they show on anything."""
    size = max(made.height // 36, 9)
    known, han = font(size)
    pen = ImageDraw.Draw(made)
    light, dark = (255, 0) if made.mode == "L" else ((255, 255, 255), (0, 0, 0))
    for corner, texts in lines.items():
        for row, (text, plain) in enumerate(texts):
            shown = text if han else plain
            width = pen.textlength(shown, known)
            left = size / 2 if corner == "left" else made.width - size / 2 - width
            pen.text(
                (left, size / 2 + row * size * 1.3),
                shown,
                light,
                known,
                stroke_width=max(size // 12, 1),
                stroke_fill=dark,
            )


def as_file(made: Pictures.Image, look: Look, profile: bytes = b"") -> bytes:
    """Return *made* as a file of the media type asked for."""
    out = io.BytesIO()
    options: dict[str, Any] = {"icc_profile": profile} if profile and look.media_type != "image/gif" else {}
    if look.media_type == "image/jpeg":
        # Above 95 the tables of the common encoder no longer mean anything (its own words).
        options |= {"quality": min(max(look.quality, 1), 100), "subsampling": 0 if look.quality >= 90 else 2}
    elif look.media_type == "image/png":
        options["compress_level"] = 3
    made.save(out, _FORMATS[look.media_type], **options)
    return out.getvalue()
