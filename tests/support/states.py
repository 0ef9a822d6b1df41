"""Synthetic softcopy presentation states of the images of the tests."""

from __future__ import annotations

import io
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.support.images import STUDY, ct

GREY = "1.2.840.10008.5.1.4.1.1.11.1"
COLOUR = "1.2.840.10008.5.1.4.1.1.11.2"
SERIES = f"{STUDY}.9"
INSTANCE = f"{STUDY}.9.1"
IMAGE_SERIES = f"{STUDY}.1"
IMAGE = f"{STUDY}.1.1"
_CT = "1.2.840.10008.5.1.4.1.1.2"


def item(**values: Any) -> Dataset:
    """Return a data set with *values* by keyword."""
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def area(left: int, top: int, right: int, bottom: int, **more: Any) -> Dataset:
    """Return a displayed area by the columns and rows of its corners, from 1."""
    values = {"PresentationSizeMode": "SCALE TO FIT", "PresentationPixelAspectRatio": [1, 1], **more}
    return item(
        DisplayedAreaTopLeftHandCorner=[left, top], DisplayedAreaBottomRightHandCorner=[right, bottom], **values
    )


def state(
    *, sop_class: str = GREY, images: tuple[str, ...] = (IMAGE,), frames: list[int] | None = None, **values: Any
) -> bytes:
    """Return a presentation state for *images*; *values* are its own elements, by keyword or as ``x60001001=(VR, value)``."""
    dataset = pydicom.dcmread(io.BytesIO(ct()), stop_before_pixels=True)
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        del dataset[keyword]
    del dataset.SamplesPerPixel, dataset.PhotometricInterpretation
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = INSTANCE
    dataset.SeriesInstanceUID, dataset.Modality, dataset.SeriesNumber = SERIES, "PR", 9
    dataset.ContentLabel, dataset.PresentationCreationDate, dataset.PresentationCreationTime = "TEST", "20250611", "10"
    references = [item(ReferencedSOPClassUID=_CT, ReferencedSOPInstanceUID=one) for one in images]
    if frames is not None:
        for one in references:
            one.ReferencedFrameNumber = frames
    dataset.ReferencedSeriesSequence = [item(SeriesInstanceUID=IMAGE_SERIES, ReferencedImageSequence=references)]
    for name, value in values.items():
        if name[0] == "x":
            dataset.add_new(int(name[1:], 16), *value)
        else:
            setattr(dataset, name, value)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def layer(name: str, order: int = 1, **values: Any) -> Dataset:
    """Return a graphic layer."""
    return item(GraphicLayer=name, GraphicLayerOrder=order, **values)


def polyline(points: list[float], *, kind: str = "POLYLINE", units: str = "PIXEL", filled: str = "N") -> Dataset:
    """Return a graphic object."""
    return item(
        GraphicAnnotationUnits=units,
        GraphicDimensions=2,
        NumberOfGraphicPoints=len(points) // 2,
        GraphicData=points,
        GraphicType=kind,
        GraphicFilled=filled,
    )


def annotation(*, layer: str = "L", **values: Any) -> Dataset:
    """Return a graphic annotation of one layer."""
    return item(GraphicLayer=layer, **values)
