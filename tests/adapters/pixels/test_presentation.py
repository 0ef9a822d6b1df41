"""Pictures in the way of a presentation state, against DCMTK and against what the standard says in numbers."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pictures

from adapters.pixels.look import Look
from adapters.pixels.pool import Pool
from adapters.pixels.stored import StoredPixels
from hub.errors import HubError
from tests.adapters.pixels.test_overlay import CROSS, packed, with_overlay
from tests.support.pixels import pool, ramp, sample
from tests.support.states import COLOUR, IMAGE, annotation, area, item, layer, polyline, state

DARK = np.zeros((100, 160), np.uint16)


@pytest.fixture(scope="module")
def children() -> Iterator[Pool]:
    one = pool()
    yield one
    one.close()


def shown(data: bytes, told: bytes, children: Pool, number: int = 1, **look: Any) -> Any:
    with StoredPixels(io.BytesIO(told), max_frame_bytes=1 << 24) as one:
        parts = one.presentation(lambda text: text)
    with StoredPixels(io.BytesIO(data), max_frame_bytes=1 << 24) as stored:
        made = stored.picture(children, number, Look(**{"media_type": "image/png", **look}), parts)
    return np.asarray(Pictures.open(io.BytesIO(made)))


def by_dcmtk(data: bytes, told: bytes, folder: Path) -> Any:
    for name, content in (("image.dcm", data), ("state.dcm", told)):
        (folder / name).write_bytes(content)
    command = ["dcmp2pgm", "-p", str(folder / "state.dcm"), str(folder / "image.dcm"), str(folder / "out.pgm")]
    subprocess.run(command, check=True, capture_output=True)
    return np.asarray(Pictures.open(folder / "out.pgm"))


def voi(center: float, width: float, **more: Any) -> Any:
    return item(WindowCenter=center, WindowWidth=width, **more)


def lut(entries: list[int], first: int, bits: int, **more: Any) -> Any:
    made = item(**more)
    made.add_new(0x00283002, "US", [len(entries), first, bits])
    made.add_new(0x00283006, "OW", b"".join(one.to_bytes(2, "little") for one in entries))
    return made


WHOLE = area(1, 1, 48, 40)
BASE: dict[str, Any] = {"PresentationLUTShape": "IDENTITY", "DisplayedAreaSelectionSequence": [WHOLE]}
CASES: dict[str, dict[str, Any]] = {
    "window": {"SoftcopyVOILUTSequence": [voi(1000, 800)]},
    "no voi": {},
    "inverse": {"SoftcopyVOILUTSequence": [voi(1000, 800)], "PresentationLUTShape": "INVERSE"},
    "modality": {
        "RescaleSlope": 2, "RescaleIntercept": -500, "RescaleType": "US", "SoftcopyVOILUTSequence": [voi(1000, 3000)],
    },
    "voi lut": {"SoftcopyVOILUTSequence": [item(VOILUTSequence=[lut([one * 60 for one in range(1000)], 500, 16)])]},
    "presentation lut": {
        "PresentationLUTSequence": [lut([one * one // 256 for one in range(256)], 0, 8)], "PresentationLUTShape": None,
        "SoftcopyVOILUTSequence": [voi(2000, 4000)],
    },
    "turned": {"ImageRotation": 90, "ImageHorizontalFlip": "N", "SoftcopyVOILUTSequence": [voi(2000, 4000)]},
    "upside down": {"ImageRotation": 180, "ImageHorizontalFlip": "N"},
    "turned and mirrored": {"ImageRotation": 270, "ImageHorizontalFlip": "Y"},
    "mirrored": {"ImageRotation": 0, "ImageHorizontalFlip": "Y"},
}  # fmt: skip


@pytest.mark.tool("dcmp2pgm")
@pytest.mark.parametrize("case", CASES)
def test_grey_levels_and_turns_are_those_of_dcmtk(case: str, children: Pool, tmp_path: Path) -> None:
    values = {name: value for name, value in {**BASE, **CASES[case]}.items() if value is not None}
    data, told = sample(ramp(), WindowCenter=5, WindowWidth=3, RescaleSlope=7, RescaleIntercept=1), state(**values)
    ours, theirs = shown(data, told, children), by_dcmtk(data, told, tmp_path)
    assert ours.shape == theirs.shape
    # Levels are rounded at different places of the two pipelines.
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 2
    assert np.ptp(ours) > 50


def test_a_shutter_hides_what_lies_outside_and_has_its_own_level(children: Pool) -> None:
    data = sample(ramp())
    plain = shown(data, state(**BASE), children)
    y, x = np.mgrid[1:41, 1:49]
    edges = {
        "ShutterLeftVerticalEdge": 5, "ShutterRightVerticalEdge": 40, "ShutterUpperHorizontalEdge": 3,
        "ShutterLowerHorizontalEdge": 30,
    }  # fmt: skip
    seen = (x >= 5) & (x <= 40) & (y >= 3) & (y <= 30)
    circle = {"CenterOfCircularShutter": [20, 24], "RadiusOfCircularShutter": 12}
    disc = (y - 20) ** 2 + (x - 24) ** 2 <= 144
    corner = {"VerticesOfThePolygonalShutter": [5, 5, 5, 15, 25, 15, 25, 5]}
    box = (x >= 5) & (x <= 15) & (y >= 5) & (y <= 25)
    for values, inside, level in (
        ({"ShutterShape": "RECTANGULAR", **edges}, seen, 0),
        ({"ShutterShape": "CIRCULAR", "ShutterPresentationValue": 0x8000, **circle}, disc, 128),
        ({"ShutterShape": "POLYGONAL", **corner}, box, 0),
        ({"ShutterShape": ["RECTANGULAR", "CIRCULAR"], **edges, **circle}, seen & disc, 0),
    ):
        found = shown(data, state(**BASE, **values), children)
        assert np.array_equal(found, np.where(inside, plain, level))


def test_a_bitmap_shutter_is_an_overlay_that_hides(children: Pool) -> None:
    own = {
        "x60040010": ("US", 3), "x60040011": ("US", 3), "x60040040": ("CS", "G"), "x60040050": ("SS", [4, 6]),
        "x60040100": ("US", 1), "x60040102": ("US", 0), "x60043000": ("OW", packed(CROSS)),
    }  # fmt: skip
    data = sample(ramp())
    told = state(**BASE, **own, ShutterShape="BITMAP", ShutterOverlayGroup=0x6004, ShutterPresentationValue=0xFFFF)
    expected = np.array(shown(data, state(**BASE), children))
    expected[3:6, 5:8][CROSS > 0] = 255
    assert np.array_equal(shown(data, told, children), expected)


def test_the_image_that_is_white_at_its_lowest_has_its_polarity_from_the_state(children: Pool) -> None:
    values = {**BASE, "SoftcopyVOILUTSequence": [voi(2000, 4000)]}
    plain = shown(sample(ramp()), state(**values), children)
    for shape, expected in (("IDENTITY", plain), ("INVERSE", 255 - plain)):
        values["PresentationLUTShape"] = shape
        found = shown(sample(ramp(), PhotometricInterpretation="MONOCHROME1"), state(**values), children)
        assert np.array_equal(found, expected)


def test_items_for_other_images_or_frames_are_passed_over(children: Pool) -> None:
    def only(uid: str, frames: list[int] | None = None) -> list[Any]:
        one = item(ReferencedSOPClassUID="1.2", ReferencedSOPInstanceUID=uid)
        if frames:
            one.ReferencedFrameNumber = frames
        return [one]

    windows = [
        voi(1, 2, ReferencedImageSequence=only("1.2.3")),
        voi(100, 50, ReferencedImageSequence=only(IMAGE, [2])),
        voi(2000, 4000, ReferencedImageSequence=only(IMAGE)),
    ]
    told = state(**BASE, SoftcopyVOILUTSequence=windows)
    data = sample(ramp(3), frames=3)
    wide = shown(data, state(**BASE, SoftcopyVOILUTSequence=[voi(2000, 4000)]), children, 3)
    narrow = shown(data, state(**BASE, SoftcopyVOILUTSequence=[voi(100, 50)]), children, 2)
    assert np.array_equal(shown(data, told, children, 3), wide)
    assert np.array_equal(shown(data, told, children, 2), narrow)


def test_the_displayed_area_cuts_widens_and_stretches(children: Pool) -> None:
    data = sample(ramp())
    plain = shown(data, state(**BASE), children)

    def with_area(one: Any, **more: Any) -> Any:
        return shown(data, state(**{**BASE, "DisplayedAreaSelectionSequence": [one], **more}), children)

    assert np.array_equal(with_area(area(3, 5, 20, 30)), plain[4:30, 2:20])
    wide = with_area(area(-1, 0, 50, 41))
    assert wide.shape == (42, 52)
    assert np.array_equal(wide[1:41, 2:50], plain)
    assert wide[0].max() == wide[:, :2].max() == 0
    # Turned by a quarter, the top left of what is seen is the bottom left of the image.
    turned = with_area(area(1, 40, 48, 1), ImageRotation=90, ImageHorizontalFlip="N")
    assert np.array_equal(turned, np.rot90(plain, -1))
    assert with_area(area(1, 1, 48, 40, PresentationPixelAspectRatio=[2, 1])).shape == (80, 48)
    big = area(1, 1, 48, 40, PresentationSizeMode="MAGNIFY", PresentationPixelMagnificationRatio=3.0)
    assert with_area(big).shape == (120, 144)
    with pytest.raises(HubError):
        with_area(area(-100000, 1, 100000, 100000))


def test_overlays_are_shown_only_where_the_state_activates_them(children: Pool) -> None:
    data = with_overlay(sample(np.zeros((13, 11), np.uint16)), CROSS, e0050=("SS", [4, 6]))
    values = {**BASE, "DisplayedAreaSelectionSequence": [area(1, 1, 11, 13)]}
    assert shown(data, state(**values), children).max() == 0
    grey = [layer("MARKS", GraphicLayerRecommendedDisplayGrayscaleValue=0x9000)]
    told = state(**values, x60001001=("CS", "MARKS"), GraphicLayerSequence=grey)
    expected = np.zeros((13, 11), int)
    expected[3:6, 5:8] = CROSS * 0x90
    assert np.array_equal(shown(data, told, children), expected)
    # The state's own plane is shown in place of the image's.
    own = {
        "x60000010": ("US", 1), "x60000011": ("US", 2), "x60000040": ("CS", "G"), "x60000050": ("SS", [1, 1]),
        "x60000100": ("US", 1), "x60000102": ("US", 0), "x60003000": ("OW", packed([[1, 1]])),
    }  # fmt: skip
    told = state(**values, **own, x60001001=("CS", "MARKS"), GraphicLayerSequence=grey)
    assert np.argwhere(shown(data, told, children)).tolist() == [[0, 0], [0, 1]]


def annotated(children: Pool, *graphics: Any, texts: Any = (), look: Any = None, **more: Any) -> Any:
    one = annotation()
    if graphics:
        one.GraphicObjectSequence = list(graphics)
    if texts:
        one.TextObjectSequence = list(texts)
    values = {
        **BASE, "DisplayedAreaSelectionSequence": [area(1, 1, 160, 100)], "GraphicLayerSequence": [layer("L")],
        "GraphicAnnotationSequence": [one], **more,
    }  # fmt: skip
    return shown(sample(DARK), state(**values), children, **(look or {}))


def extent(found: Any) -> tuple[int, int, int, int]:
    """Return the first and last row and column that are lit."""
    lit = np.argwhere(found > 100)
    (top, left), (bottom, right) = lit.min(axis=0), lit.max(axis=0)
    return int(top), int(bottom), int(left), int(right)


@pytest.mark.parametrize(
    ("graphic", "expected"),
    [
        (polyline([20, 10, 60, 10, 60, 50]), (10, 50, 20, 60)),
        (polyline([0.125, 0.1, 0.375, 0.1, 0.375, 0.5], units="DISPLAY"), (10, 50, 20, 60)),
        (polyline([80, 50, 100, 50], kind="CIRCLE"), (30, 70, 60, 100)),
        (polyline([40, 50, 120, 50, 80, 30, 80, 70], kind="ELLIPSE"), (30, 70, 40, 120)),
        (polyline([20, 20, 40, 40, 60, 20], kind="INTERPOLATED"), (20, 40, 20, 60)),
        (polyline([80, 50], kind="POINT"), (47, 53, 77, 83)),
    ],
)
def test_graphics_lie_where_they_say(graphic: Any, expected: tuple[int, ...], children: Pool) -> None:
    found = annotated(children, graphic)
    assert np.abs(np.array(extent(found)) - expected).max() <= 1


def test_graphics_turn_with_the_image_and_scale_with_the_picture(children: Pool) -> None:
    line = polyline([20, 10, 60, 10])
    turned = annotated(children, line, ImageRotation=90, ImageHorizontalFlip="N")
    assert np.abs(np.array(extent(turned)) - (20, 60, 90, 90)).max() <= 1
    double = annotated(children, line, look={"size": (320.0, 200.0)})
    assert np.abs(np.array(extent(double)) - (20, 20, 40, 120)).max() <= 1
    cut = annotated(children, line, look={"source": (10.0, 5.0, 100.0, 50.0)})
    assert np.abs(np.array(extent(cut)) - (5, 5, 10, 50)).max() <= 1
    mirrored = annotated(children, line, look={"source": (0.0, 0.0, -160.0, 100.0)})
    assert np.abs(np.array(extent(mirrored)) - (10, 10, 100, 140)).max() <= 1


def test_closed_and_filled_graphics_are_filled(children: Pool) -> None:
    box = [20.0, 20.0, 60.0, 20.0, 60.0, 60.0, 20.0, 60.0, 20.0, 20.0]
    assert annotated(children, polyline(box, filled="Y"))[40, 40] == 255
    assert annotated(children, polyline(box))[40, 40] == 0


def test_layers_have_their_colour_and_higher_ones_lie_above(children: Pool) -> None:
    box = [20.0, 20.0, 60.0, 20.0, 60.0, 60.0, 20.0, 60.0, 20.0, 20.0]
    # Pure red and a grey; L* a* b* of sRGB red under D50 is 54.29, 80.80, 69.89.
    red = [round(54.29 / 100 * 65535), round((80.80 + 128) / 255 * 65535), round((69.89 + 128) / 255 * 65535)]
    layers = [
        layer("TOP", 2, GraphicLayerRecommendedDisplayCIELabValue=red),
        layer("LOW", 1, GraphicLayerRecommendedDisplayGrayscaleValue=0x8000),
    ]
    both = [annotation(layer=name, GraphicObjectSequence=[polyline(box, filled="Y")]) for name in ("TOP", "LOW")]
    found = annotated(children, GraphicLayerSequence=layers, GraphicAnnotationSequence=both)
    assert np.abs(found[40, 40].astype(int) - (255, 0, 0)).max() <= 4


def test_chinese_text_fills_its_box_and_stays_upright(children: Pool) -> None:
    text = item(
        UnformattedTextValue="左肺结节",
        BoundingBoxAnnotationUnits="PIXEL",
        BoundingBoxTopLeftHandCorner=[30.0, 20.0],
        BoundingBoxBottomRightHandCorner=[130.0, 50.0],
        BoundingBoxTextHorizontalJustification="LEFT",
    )
    top, bottom, left, right = extent(annotated(children, texts=[text]))
    assert 18 <= top < bottom <= 52
    assert 28 <= left < right <= 132
    turned = annotated(children, texts=[text], ImageRotation=90, ImageHorizontalFlip="N")
    top, bottom, left, right = extent(turned)
    # The box is now tall and narrow: columns 50 to 80, rows 30 to 130; the line of text is still wider than high.
    assert 48 <= left < right
    assert 28 <= top < bottom <= 132
    assert right - left > bottom - top
    other = item(**{one.keyword: one.value for one in text})
    other.UnformattedTextValue = "右肺结节"
    assert not np.array_equal(annotated(children, texts=[text]), annotated(children, texts=[other]))


def test_an_anchor_is_tied_to_its_text_by_a_line(children: Pool) -> None:
    text = item(
        UnformattedTextValue="A", BoundingBoxAnnotationUnits="PIXEL", BoundingBoxTopLeftHandCorner=[30.0, 20.0],
        BoundingBoxBottomRightHandCorner=[50.0, 40.0], AnchorPointAnnotationUnits="PIXEL", AnchorPoint=[90.0, 90.0],
        AnchorPointVisibility="Y",
    )  # fmt: skip
    assert extent(annotated(children, texts=[text]))[1::2] >= (88, 88)
    text.AnchorPointVisibility = "N"
    assert extent(annotated(children, texts=[text]))[1] < 50


def test_a_colour_state_turns_and_annotates_a_colour_image(children: Pool) -> None:
    pixels = ramp(samples=3)
    told = state(sop_class=COLOUR, DisplayedAreaSelectionSequence=[WHOLE], ImageRotation=180, ImageHorizontalFlip="N")
    assert np.array_equal(shown(sample(pixels), told, children), pixels[::-1, ::-1])
    with pytest.raises(HubError) as caught:
        shown(sample(pixels), state(**BASE), children)
    assert caught.value.where == "presentationUID"


@pytest.mark.parametrize(
    "values",
    [
        {"MaskSubtractionSequence": [item(MaskOperation="AVG_SUB")]},
        {"ImageRotation": 45},
        {"ShutterShape": "STAR"},
        {"GraphicAnnotationSequence": [annotation(GraphicObjectSequence=[polyline([1.0, 1.0], units="MATRIX")])]},
        {"GraphicAnnotationSequence": [annotation(GraphicObjectSequence=[polyline([1.0, 1.0, 2.0], kind="SPIRAL")])]},
        {"GraphicAnnotationSequence": [annotation(GraphicObjectSequence=[polyline([1.0, float("nan")])])]},
        {"GraphicAnnotationSequence": [annotation(GraphicObjectSequence=[polyline([1.0] * 100_002)] * 2)]},
        {"ShutterShape": "CIRCULAR"},
    ],
)  # fmt: skip
def test_what_is_not_drawn_is_refused_and_not_left_out(values: dict[str, Any], children: Pool) -> None:
    with pytest.raises(HubError) as caught:
        shown(sample(ramp()), state(**{**BASE, **values}), children)
    assert caught.value.status == 406
