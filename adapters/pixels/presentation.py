"""A softcopy presentation state applied to one frame: grey levels, shutter, overlays, area and turn (PS3.3 C.10.4, C.11, PS3.4 N.2).

What the state says replaces what the image says; what it leaves out is not taken from the image (PS3.4 section N.2.1). Runs in a
child process only.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from PIL import Image as Pictures
from PIL import ImageDraw
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from adapters.pixels.image import Image
from adapters.pixels.look import GRAYSCALE_STATE
from adapters.pixels.overlay import GROUPS, plane
from hub.errors import Category, HubError

Array = np.ndarray[Any, np.dtype[Any]]
#: A 3 x 3 matrix that carries places of the image to places of the picture.
Matrix = np.ndarray[Any, np.dtype[np.float64]]

#: Pixels of a displayed area, which may be larger than its image.
MAX_AREA = 64 << 20
#: What of an image its presentation state replaces.
_REPLACED = (
    "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "PresentationLUTShape", "PresentationLUTSequence",
)  # fmt: skip
_ACTIVATION = 0x1001
_WHITE = 255


class State:
    """A presentation state, as far as it speaks of one frame.

    Args:
        data: its elements; texts are taken from *texts*, in the order in which they stand.
        texts: each as it is, and in ASCII for want of a font.
        instance: SOP Instance UID of the image.
        number: of the frame, from 1.
    """

    def __init__(self, data: Dataset, texts: Sequence[tuple[str, str]], instance: str, number: int) -> None:
        self.data = data
        self.texts = texts
        self._instance = instance
        self._number = number
        if data.get("MaskSubtractionSequence"):
            raise _not_drawn("a mask that is subtracted", "(0028,6100)")

    @classmethod
    def of(cls, parts: Sequence[bytes], instance: str, number: int) -> Self:
        """Return the state in *parts*: its elements in Explicit VR Little Endian, and its texts as JSON."""
        data = read_dataset(io.BytesIO(parts[0]), is_implicit_VR=False, is_little_endian=True)
        return cls(data, [(str(one), str(other)) for one, other in json.loads(parts[1])], instance, number)

    def applies(self, item: Dataset) -> bool:
        """Return whether an item of the state is for this frame; one that names no image is for all (PS3.3 C.11.8)."""
        named = item.get("ReferencedImageSequence")
        return not named or any(self._is_this(one) for one in named)

    def _is_this(self, reference: Dataset) -> bool:
        if reference.get("ReferencedSOPInstanceUID") != self._instance:
            return False
        frames = reference.get("ReferencedFrameNumber")
        if frames is None or frames == "":
            return True
        return self._number in ([int(frames)] if isinstance(frames, int | str) else [int(one) for one in frames])

    def item(self, keyword: str) -> Dataset | None:
        """Return the first item of a sequence that is for this frame."""
        return next((one for one in self.data.get(keyword) or () if self.applies(one)), None)

    @property
    def grey_only(self) -> bool:
        """Whether it is a Grayscale Softcopy Presentation State, which says how grey is made; the colour one does not."""
        return str(self.data.get("SOPClassUID", "")) == GRAYSCALE_STATE

    # --- grey levels -----------------------------------------------------------------------------------------

    def grey(self, image: Image, header: Dataset) -> tuple[Image, Dataset]:
        """Return how the stored values become grey levels: the state's way in place of the image's own."""
        if image.samples != 1 or image.photometric == "PALETTE COLOR":
            raise HubError(
                Category.INCORRECT, "A grayscale presentation state does not go with a colour image.",
                where="presentationUID",
            )  # fmt: skip
        known = Dataset()
        known.update(header)
        for keyword in _REPLACED:
            if keyword in known:
                del known[keyword]
        for keyword in ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", *_REPLACED[-2:]):
            if self.data.get(keyword) not in (None, ""):
                known[keyword] = self.data[keyword]
        voi = self.item("SoftcopyVOILUTSequence")
        if voi is not None:
            known.update(voi)
        if not known.get("VOILUTSequence") and known.get("WindowCenter") in (None, ""):
            # Without a VOI LUT all values there can be are shown, dark to bright (PS3.4 section N.2.2).
            low, high = _span(image, known)
            known.WindowCenter, known.WindowWidth = (low + high) / 2, max(high - low, 1e-6)
            known.VOILUTFunction = "LINEAR_EXACT"
        # Polarity is the state's word too: its Presentation LUT, not the image's Photometric Interpretation.
        return replace(image, photometric="MONOCHROME2"), known

    # --- what lies over the image ----------------------------------------------------------------------------

    @cached_property
    def layers(self) -> Mapping[str, Dataset]:
        """The graphic layers by name (PS3.3 C.10.7)."""
        return {str(one.get("GraphicLayer", "")): one for one in self.data.get("GraphicLayerSequence") or ()}

    def ordered(self, layer: str) -> int:
        """Return the place of a layer; higher ones are drawn over lower ones."""
        found = self.layers.get(layer)
        order = found.get("GraphicLayerOrder") if found is not None else None
        return int(order) if order not in (None, "") else 0

    def colour(self, layer: str) -> tuple[int, int, int]:
        """Return the colour that is recommended for a layer; white where there is none."""
        found = self.layers.get(layer)
        if found is None:
            return (_WHITE, _WHITE, _WHITE)
        lab = found.get("GraphicLayerRecommendedDisplayCIELabValue")
        if lab is not None and len(lab) == 3:
            return _rgb(*(int(one) for one in lab))
        grey = found.get("GraphicLayerRecommendedDisplayGrayscaleValue")
        level = _WHITE if grey in (None, "") else int(grey) >> 8
        return (level, level, level)

    def overlays(self, header: Dataset, image: Image, array: Array) -> Iterator[tuple[str, Array]]:
        """Yield the layer of each overlay that the state activates, and where it is set (PS3.3 C.11.7)."""
        for group in GROUPS:
            activation = self.data.get((group, _ACTIVATION))
            layer = str(activation.value or "").strip() if activation is not None else ""
            if not layer:
                continue
            found = plane(self.data, image, self._number, None, group)
            if found is None:
                found = plane(header, image, self._number, array, group)
            if found is not None:
                yield layer, found

    def covered(self, shown: Array, header: Dataset, image: Image, array: Array) -> Array:
        """Return *shown* with the shutter closed and the overlays that the state activates, each in its layer's colour."""
        closed = self.shutter(image, header, array)
        if closed is not None:
            shown[closed[0]] = closed[1]
        found = sorted(self.overlays(header, image, array), key=lambda one: self.ordered(one[0]))
        colours = [self.colour(layer) for layer, _ in found]
        if shown.ndim == 2 and any(len(set(colour)) > 1 for colour in colours):
            shown = np.stack([shown] * 3, axis=-1)
        for colour, (_, where) in zip(colours, found, strict=True):
            shown[where] = colour if shown.ndim == 3 else colour[0]
        return shown

    def shutter(self, image: Image, header: Dataset, array: Array) -> tuple[Array, int] | None:
        """Return what the display shutter hides and the level it has there, ``None`` where it has none (C.7.6.11, C.7.6.15)."""
        shapes = self.data.get("ShutterShape") or ()
        shapes = [shapes] if isinstance(shapes, str) else list(shapes)
        seen = np.ones((image.rows, image.columns), bool)
        for shape in shapes:
            if shape == "BITMAP":
                group = int(self.data.get("ShutterOverlayGroup") or 0)
                found = plane(self.data, image, self._number, None, group) if group in GROUPS else None
                if found is None and group in GROUPS:
                    found = plane(header, image, self._number, array, group)
                if found is not None:
                    seen &= ~found
            else:
                seen &= self._open(str(shape), image)
        if not shapes:
            return None
        level = self.data.get("ShutterPresentationValue")
        return ~seen, 0 if level in (None, "") else int(level) >> 8

    def _open(self, shape: str, image: Image) -> Array:
        """Return where a shutter of one shape lets see; edges are rows and columns from 1 and are seen themselves."""
        y, x = np.ogrid[1 : image.rows + 1, 1 : image.columns + 1]
        data = self.data
        if shape == "RECTANGULAR":
            left, right = int(data.ShutterLeftVerticalEdge), int(data.ShutterRightVerticalEdge)
            upper, lower = int(data.ShutterUpperHorizontalEdge), int(data.ShutterLowerHorizontalEdge)
            return np.asarray((x >= left) & (x <= right) & (y >= upper) & (y <= lower))
        if shape == "CIRCULAR":
            row, column = (int(one) for one in data.CenterOfCircularShutter)
            return np.asarray((y - row) ** 2 + (x - column) ** 2 <= int(data.RadiusOfCircularShutter) ** 2)
        if shape == "POLYGONAL":
            corners = [int(one) for one in data.VerticesOfThePolygonalShutter]
            mask = Pictures.new("1", (image.columns, image.rows))
            places = [(column - 1, row - 1) for row, column in zip(corners[::2], corners[1::2], strict=True)]
            ImageDraw.Draw(mask).polygon(places, 1, 1)
            return np.asarray(mask)
        raise _not_drawn("a shutter of this shape", "(0018,1600)")

    # --- where it lies ---------------------------------------------------------------------------------------

    def placed(self, made: Pictures.Image, *, magnify: bool) -> tuple[Pictures.Image, Matrix]:
        """Return the displayed area, turned and mirrored as the state says, and how places of the image move with it.

        Args:
            magnify: the size is the state's to say, because the asker named none.
        """
        matrix = np.eye(3)
        area = self.item("DisplayedAreaSelectionSequence")
        if area is not None:
            made, matrix = self._cut(made, area, magnify=magnify)
        turn = int(self.data.get("ImageRotation") or 0) % 360
        if turn % 90:
            raise _not_drawn("a turn that is no quarter", "(0070,0042)")
        for _ in range(turn // 90):
            # A quarter clockwise: what was at the bottom left comes to the top left.
            matrix = np.array([[0, -1, made.height], [1, 0, 0], [0, 0, 1]]) @ matrix
            made = made.transpose(Pictures.Transpose.ROTATE_270)
        if self.data.get("ImageHorizontalFlip") == "Y":
            matrix = np.array([[-1, 0, made.width], [0, 1, 0], [0, 0, 1]]) @ matrix
            made = made.transpose(Pictures.Transpose.FLIP_LEFT_RIGHT)
        return made, matrix

    def _cut(self, made: Pictures.Image, area: Dataset, *, magnify: bool) -> tuple[Pictures.Image, Matrix]:
        # The corners are those after the turn, in columns and rows of the image before it, from 1 (PS3.3 C.10.4).
        one, other = area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner
        left, right = sorted((int(one[0]), int(other[0])))
        top, bottom = sorted((int(one[1]), int(other[1])))
        wide, high = right - left + 1, bottom - top + 1
        tall = _aspect(area)
        scale = float(area.get("PresentationPixelMagnificationRatio") or 1) if magnify else 1.0
        if area.get("PresentationSizeMode") != "MAGNIFY":
            scale = 1.0
        width, height = max(round(wide * scale), 1), max(round(high * tall * scale), 1)
        if wide * high > MAX_AREA or not 0 < width * height <= MAX_AREA:
            raise _not_drawn("a displayed area as large as this", "(0070,005A)")
        made = made.crop((left - 1, top - 1, right, bottom))
        matrix = np.array([[1, 0, 1 - left], [0, 1, 1 - top], [0, 0, 1]], float)
        if (width, height) != (wide, high):
            made = made.resize((width, height), Pictures.Resampling.BICUBIC)
            matrix = np.diag([width / wide, height / high, 1.0]) @ matrix
        return made, matrix


def _aspect(area: Dataset) -> float:
    """Return how tall a pixel is for its width."""
    for keyword in ("PresentationPixelSpacing", "PresentationPixelAspectRatio"):
        given = area.get(keyword)
        if given and len(given) == 2 and float(given[0]) > 0 and float(given[1]) > 0:
            return float(given[0]) / float(given[1])
    return 1.0


def _span(image: Image, known: Dataset) -> tuple[float, float]:
    """Return the least and the greatest value that the modality LUT can give."""
    table = known.get("ModalityLUTSequence")
    if table:
        return 0.0, float((1 << int(table[0].LUTDescriptor[2])) - 1)
    low = -(1 << image.bits_stored - 1) if image.signed else 0
    high = low + (1 << image.bits_stored) - 1
    slope, intercept = float(known.get("RescaleSlope") or 1), float(known.get("RescaleIntercept") or 0)
    one, other = sorted((low * slope + intercept, high * slope + intercept))
    return one, other


def _rgb(lightness: int, a: int, b: int) -> tuple[int, int, int]:
    """Return a PCS value as sRGB (PS3.3 C.10.7.1.1; the white of the profile is D50, IEC 61966-2-1 for the rest)."""
    height = (lightness / 65535 * 100 + 16) / 116
    parts = (height + (a / 65535 * 255 - 128) / 500, height, height - (b / 65535 * 255 - 128) / 200)
    white = (0.9642, 1.0, 0.8249)
    x, y, z = (
        w * (part**3 if part > 6 / 29 else 3 * (6 / 29) ** 2 * (part - 4 / 29))
        for part, w in zip(parts, white, strict=True)
    )
    linear = (
        3.1338561 * x - 1.6168667 * y - 0.4906146 * z,
        -0.9787684 * x + 1.9161415 * y + 0.0334540 * z,
        0.0719453 * x - 0.2289914 * y + 1.4052427 * z,
    )
    shown = (
        12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055 for c in (min(max(c, 0), 1) for c in linear)
    )
    red, green, blue = (round(one * 255) for one in shown)
    return red, green, blue


def _not_drawn(what: str, where: str) -> HubError:
    return HubError(
        Category.UNSUPPORTED, f"A presentation state with {what} is not drawn here.", where=where,
        remedy="Retrieve the presentation state and the image, and show them in a viewer.", status=406,
    )  # fmt: skip
