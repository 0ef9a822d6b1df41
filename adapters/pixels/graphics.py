"""Texts and graphics of a presentation state, drawn onto the finished picture (PS3.3 C.10.5).

They are drawn last, so that lines stay thin and texts upright and readable whatever the turn and the size. Runs in a child
process only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont
from pydicom.dataset import Dataset

from adapters.pixels.presentation import Matrix, State
from hub.errors import Category, HubError

Place = tuple[float, float]
Colour = int | tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: Points of one state; real ones have hundreds.
MAX_POINTS = 100_000
#: Chords of a circle or ellipse, and between two points of a curve.
_CHORDS, _STEPS = 96, 12
_LEAST_SIZE = 9
_FONT_FOLDER = Path("/usr/share/fonts")
_FONTS = ("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSerifCJK-Regular.ttc", "NotoSerifCJK-Bold.ttc")


@cache
def font(size: int) -> tuple[Font, bool]:
    """Return a font of *size* pixels, and whether it has Han characters."""
    for name in _FONTS:
        for path in sorted(_FONT_FOLDER.rglob(name)):
            return ImageFont.truetype(str(path), size), True
    return ImageFont.load_default(size), False


def draw(made: Pictures.Image, state: State, matrix: Matrix, display: Matrix) -> Pictures.Image:
    """Return *made* with the state's annotations, coloured where a layer is.

    Args:
        matrix: carries places of the image, in pixels from its corner, to the picture.
        display: carries places of the displayed area, as fractions of it, to the picture.
    """
    texts = iter(state.texts)
    found: list[tuple[str, Dataset, list[tuple[str, str]]]] = []
    for item in state.data.get("GraphicAnnotationSequence") or ():
        own = [next(texts, ("", "")) for _ in item.get("TextObjectSequence") or ()]
        if state.applies(item):
            found.append((str(item.get("GraphicLayer", "")), item, own))
    # Stable: within a layer, and between layers of one order, as they stand.
    found.sort(key=lambda one: state.ordered(one[0]))
    colours = {layer: state.colour(layer) for layer, _, _ in found}
    if made.mode == "L" and any(len(set(colour)) > 1 for colour in colours.values()):
        made = made.convert("RGB")
    pen = _Pen(made, matrix, display)
    for layer, item, own in found:
        colour: Colour = colours[layer][0] if made.mode == "L" else colours[layer]
        for graphic in item.get("GraphicObjectSequence") or ():
            pen.graphic(graphic, colour)
        for text, said in zip(item.get("TextObjectSequence") or (), own, strict=True):
            pen.text(text, said, colour)
    return made


class _Pen:
    def __init__(self, made: Pictures.Image, matrix: Matrix, display: Matrix) -> None:
        self._made = made
        self._draw = ImageDraw.Draw(made)
        self._ways = {"PIXEL": matrix, "DISPLAY": display}
        self._width = max(round(min(made.size) / 400), 1)
        self._left = MAX_POINTS

    def _way(self, units: str) -> Callable[[Sequence[Place]], list[Place]]:
        if units not in self._ways:
            raise HubError(
                Category.UNSUPPORTED, "Annotations in these units are not drawn here.", where="(0070,0005)", status=406
            )
        matrix = self._ways[units]

        def way(places: Sequence[Place]) -> list[Place]:
            found = np.column_stack([np.asarray(places, float).reshape(-1, 2), np.ones(len(places))]) @ matrix.T
            # Far outside is outside; numbers beyond all measure would only cost time.
            limit = 20.0 * max(self._made.size)
            return [(float(x), float(y)) for x, y in np.clip(found[:, :2], -limit, limit)]

        return way

    def graphic(self, item: Dataset, colour: Colour) -> None:
        """Draw one graphic object (PS3.3 C.10.5.1.2)."""
        data = [float(one) for one in item.get("GraphicData") or ()]
        self._left -= len(data) // 2
        if self._left < 0 or not all(map(math.isfinite, data)):
            raise HubError(
                Category.UNSUPPORTED, "The graphics of the presentation state cannot be drawn.", where="(0070,0022)",
                status=406,
            )  # fmt: skip
        places = list(zip(data[::2], data[1::2], strict=False))
        kind = str(item.get("GraphicType", ""))
        drawn = self._way(str(item.get("GraphicAnnotationUnits", "PIXEL")))(_outline(kind, places)) if places else []
        if kind == "POINT":
            size = self._width * 3
            for x, y in drawn:
                self._line([(x - size, y), (x + size, y)], colour)
                self._line([(x, y - size), (x, y + size)], colour)
            return
        if len(drawn) < 2:
            return
        closed = kind in {"CIRCLE", "ELLIPSE"} or places[0] == places[-1]
        if item.get("GraphicFilled") == "Y" and closed:
            self._draw.polygon(drawn, colour)
        self._line(drawn, colour)

    def _line(self, places: Sequence[Place], colour: Colour) -> None:
        # Places are corners of pixels, and the library draws by their middles.
        self._draw.line([(x - 0.5, y - 0.5) for x, y in places], colour, self._width, joint="curve")

    def text(self, item: Dataset, said: tuple[str, str], colour: Colour) -> None:
        """Draw one text object, upright: inside its box, or beside its anchor (PS3.3 C.10.5.1.1)."""
        shown = said[0] if font(_LEAST_SIZE)[1] else said[1]
        lines = shown.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        box = self._box(item)
        anchor = item.get("AnchorPoint")
        at = None
        if anchor is not None and len(anchor) == 2:
            (at,) = self._way(str(item.get("AnchorPointAnnotationUnits", "PIXEL")))(
                [(float(anchor[0]), float(anchor[1]))]
            )
        if box is None:
            if at is None:
                return
            size = max(self._made.height // 36, _LEAST_SIZE)
            self._write(lines, (at[0] + size / 2, at[1], at[0] + size / 2, at[1]), size, "LEFT", colour)
        else:
            size = self._fitting(lines, box)
            self._write(lines, box, size, str(item.get("BoundingBoxTextHorizontalJustification", "LEFT")), colour)
        if at is not None and box is not None and item.get("AnchorPointVisibility") == "Y":
            nearest = min(max(at[0], box[0]), box[2]), min(max(at[1], box[1]), box[3])
            self._line([at, nearest], colour)

    def _box(self, item: Dataset) -> tuple[float, float, float, float] | None:
        one, other = item.get("BoundingBoxTopLeftHandCorner"), item.get("BoundingBoxBottomRightHandCorner")
        if one is None or other is None or len(one) != 2 or len(other) != 2:
            return None
        way = self._way(str(item.get("BoundingBoxAnnotationUnits", "PIXEL")))
        (x, y), (u, v) = way([(float(one[0]), float(one[1])), (float(other[0]), float(other[1]))])
        return min(x, u), min(y, v), max(x, u), max(y, v)

    def _fitting(self, lines: Sequence[str], box: tuple[float, float, float, float]) -> int:
        """Return the size at which *lines* fill the box, but never too small to be read."""
        size = int(min((box[3] - box[1]) / (1.3 * len(lines)), self._made.height / 8))
        if size > _LEAST_SIZE:
            widest = max(self._draw.textlength(line, font(size)[0]) for line in lines)
            if widest > box[2] - box[0]:
                size = int(size * (box[2] - box[0]) / widest)
        return max(size, _LEAST_SIZE)

    def _write(
        self, lines: Sequence[str], box: tuple[float, float, float, float], size: int, side: str, colour: Colour
    ) -> None:
        bright = (colour if isinstance(colour, int) else sum(colour) / 3) > 127
        level = 0 if bright else 255
        edge: Colour = level if self._made.mode == "L" else (level, level, level)
        known, _ = font(size)
        for row, line in enumerate(lines):
            room = box[2] - box[0] - self._draw.textlength(line, known)
            left = box[0] + {"RIGHT": room, "CENTER": room / 2}.get(side, 0.0)
            place = (left, box[1] + row * size * 1.3)
            self._draw.text(place, line, colour, known, stroke_width=max(size // 12, 1), stroke_fill=edge)


def _outline(kind: str, places: Sequence[Place]) -> list[Place]:
    """Return the places of a graphic's line in its own units; the turn that follows leaves chords where they are."""
    if kind in {"POINT", "POLYLINE"}:
        return list(places)
    if kind == "INTERPOLATED":
        return list(_curve(places))
    if kind == "CIRCLE" and len(places) == 2:
        (x, y), (u, v) = places
        radius = math.hypot(u - x, v - y)
        return list(_ellipse((x, y), (radius, 0.0), (0.0, radius)))
    if kind == "ELLIPSE" and len(places) == 4:
        (a, b), (c, d), (e, f), (g, h) = places
        return list(_ellipse(((a + c) / 2, (b + d) / 2), ((c - a) / 2, (d - b) / 2), ((g - e) / 2, (h - f) / 2)))
    raise HubError(
        Category.UNSUPPORTED,
        "A graphic of the presentation state is of no known kind.",
        where="(0070,0023)",
        status=406,
    )


def _ellipse(center: Place, one: Place, other: Place) -> Iterator[Place]:
    for step in range(_CHORDS + 1):
        angle = 2 * math.pi * step / _CHORDS
        cos, sin = math.cos(angle), math.sin(angle)
        yield center[0] + one[0] * cos + other[0] * sin, center[1] + one[1] * cos + other[1] * sin


def _curve(places: Sequence[Place]) -> Iterator[Place]:
    """Yield a smooth line through *places* (Catmull-Rom; which curve it is, the standard leaves open)."""
    closed = len(places) > 2 and places[0] == places[-1]
    points = np.asarray(places, float)
    before = points[-2:-1] if closed else points[:1]
    after = points[1:2] if closed else points[-1:]
    whole: Any = np.concatenate([before, points, after])
    for p0, p1, p2, p3 in zip(whole, whole[1:], whole[2:], whole[3:], strict=False):
        for t in np.arange(_STEPS) / _STEPS:
            place = 0.5 * (
                2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
            )
            yield float(place[0]), float(place[1])
    yield places[-1]
