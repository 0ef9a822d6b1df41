"""Grey levels against the formulas of PS3.3 C.11.2.1, written out once more as plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from adapters.pixels.grey import effective, levels, stored
from tests.adapters.pixels.test_codec import image
from tests.support.pixels import ramp


def header(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def oracle(x: float, center: float, width: float, function: str) -> float:
    if function == "linear":
        if x <= center - 0.5 - (width - 1) / 2:
            return 0
        if x > center - 0.5 + (width - 1) / 2:
            return 255
        return ((x - (center - 0.5)) / (width - 1) + 0.5) * 255
    if function == "linear-exact":
        if x <= center - width / 2:
            return 0
        return 255 if x > center + width / 2 else ((x - center) / width + 0.5) * 255
    return 255 / (1 + math.exp(min(-4 * (x - center) / width, 500)))


@pytest.mark.parametrize("function", ["linear", "linear-exact", "sigmoid"])
@pytest.mark.parametrize(("center", "width"), [(40, 400), (-600, 1500), (0.5, 1), (1000, 3)])
def test_a_window_gives_the_levels_of_the_standard(function: str, center: float, width: float) -> None:
    array = ramp(signed=True)
    found = levels(array, image(array), header(RescaleSlope=2, RescaleIntercept=-100), (center, width, function))
    expected = [[oracle(float(x) * 2 - 100, center, width, function) for x in row] for row in array]
    assert np.abs(found.astype(float) - np.array(expected)).max() <= 0.5 + 1e-3


def test_monochrome1_and_an_inverse_shape_show_the_lowest_value_white() -> None:
    array = ramp()
    plain = levels(array, image(array), header(), (2048, 4096, "linear"))
    for one in (
        levels(array, image(array, "MONOCHROME1"), header(), (2048, 4096, "linear")),
        levels(array, image(array), header(PresentationLUTShape="INVERSE"), (2048, 4096, "linear")),
        levels(array, image(array, "MONOCHROME1"), header(PresentationLUTShape="INVERSE"), (2048, 4096, "linear")),
    ):
        assert np.array_equal(one, 255 - plain)


def test_the_objects_own_window_is_used_and_without_one_all_values_but_padding() -> None:
    array = ramp(signed=True)
    own = header(WindowCenter=[0, 100], WindowWidth=[1000, 2])
    assert np.array_equal(
        levels(array, image(array), own, None), levels(array, image(array), header(), (0, 1000, "linear"))
    )
    array[0, :] = -2000
    padded = levels(array, image(array), header(PixelPaddingValue=-2000), None)
    inside = array[1:]
    assert padded[1:].min() == 0
    assert padded[1:].max() == 255
    assert padded[1, 0] == round((inside[0, 0] - inside.min()) / (inside.max() - inside.min()) * 255)
    flat = np.full((4, 4), 7, np.uint16)
    assert levels(flat, image(flat), header(), None).max() == 0


def test_lookup_tables_clamp_at_their_ends() -> None:
    array = np.array([[0, 9, 10, 11, 12, 99]], np.uint16)
    item = header(LUTDescriptor=[3, 10, 8], LUTData=[0, 128, 255])
    assert levels(array, image(array), header(VOILUTSequence=[item]), None).tolist() == [[0, 0, 0, 128, 255, 255]]
    modality = header(LUTDescriptor=[3, 10, 16], LUTData=[100, 200, 300])
    shown = levels(array, image(array), header(ModalityLUTSequence=[modality]), (200, 201, "linear"))
    assert shown.tolist()[0][0] == shown.tolist()[0][2]
    assert shown.tolist()[0][5] == 255


def test_functional_groups_speak_for_their_frame() -> None:
    def group(center: float) -> Dataset:
        voi = header(WindowCenter=center, WindowWidth=10)
        return header(FrameVOILUTSequence=[voi])

    shared = header(PixelValueTransformationSequence=[header(RescaleSlope=3, RescaleIntercept=1)])
    whole = header(
        WindowCenter=1, SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=[group(5), group(7)]
    )
    found = effective(whole, 2)
    assert (found.WindowCenter, found.RescaleSlope) == (7, 3)
    assert whole.WindowCenter == 1


def test_stored_values_are_taken_out_of_the_allocated_bits() -> None:
    array = np.array([[0xF123, 0x0FFF]], np.uint16)
    assert stored(array, image(array)).tolist() == [[0x123, 0xFFF]]
    signed = np.array([[0x0FFF, 0x0001]], np.int16)
    assert stored(signed, image(signed)).tolist() == [[-1, 1]]
    high = np.array([[0x1230]], np.uint16)
    assert stored(high, image(high, high_bit=15)).tolist() == [[0x123]]
