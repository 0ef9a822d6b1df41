"""Small synthetic studies as the modalities of a county hospital send them; every person is invented."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    SegmentationStorage,
    UltrasoundMultiFrameImageStorage,
)

ROOT = "1.2.826.0.1.3680043.10.2020"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study: what the study list shows of it, and its files."""

    uid: str
    name: str
    patient_id: str
    modality: str
    date: str
    files: Sequence[bytes]


def _header(number: int, modality: str, name: str, patient_id: str, date: str, description: str) -> dict[str, Any]:
    uid = f"{ROOT}.{number}"
    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "StudyInstanceUID": uid,
        "SeriesInstanceUID": f"{uid}.1",
        "StudyDate": date,
        "StudyTime": "093015",
        "AccessionNumber": f"KN{number:06d}",
        "Modality": modality,
        "PatientName": name,
        "PatientID": patient_id,
        "PatientBirthDate": "19600101",
        "PatientSex": "F" if modality == "MG" else "M",
        "StudyDescription": description,
        "SeriesDescription": description,
        "SeriesNumber": 1,
    }


def _part10(values: dict[str, Any], syntax: str, number: int, sop_class: str) -> bytes:
    dataset = Dataset()
    pixels = values.pop("PixelData", None)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = f"{values['SeriesInstanceUID']}.{number}"
    dataset.InstanceNumber = number
    if pixels is not None:
        dataset.PixelData = pixels
        dataset["PixelData"].VR = "OB" if values["BitsAllocated"] <= 8 else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == JPEG2000Lossless else syntax
    if syntax == JPEG2000Lossless:
        dataset.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    elif syntax == JPEGBaseline8Bit:
        dataset["PixelData"].is_undefined_length = True
    dataset.preamble = b"\0" * 128
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _grey(array: np.ndarray[Any, Any], bits: int) -> dict[str, Any]:
    rows, columns = array.shape
    return {
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": 16,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelData": array.astype("<u2").tobytes(),
    }


def _disc(size: int, x: float, y: float, radius: float) -> np.ndarray[Any, Any]:
    down, across = np.mgrid[0:size, 0:size]
    return (across - x * size) ** 2 + (down - y * size) ** 2 <= (radius * size) ** 2


def chest_ct(
    *,
    number: int = 1,
    slices: int = 24,
    size: int = 128,
    patient: str = "ZHENG^WEI=郑^伟",
    patient_id: str = "10086",
) -> Study:
    """Return a CT of a body with two lungs, and a nodule that grows from slice to slice."""
    header = _header(number, "CT", patient, patient_id, "20250611", "胸部CT平扫")
    files = []
    for index in range(slices):
        picture = np.zeros((size, size))
        picture[_disc(size, 0.5, 0.5, 0.46)] = 1064
        picture[_disc(size, 0.3, 0.5, 0.16) | _disc(size, 0.7, 0.5, 0.16)] = 200
        picture[_disc(size, 0.3, 0.5, 0.01 + 0.1 * index / slices)] = 1100
        picture[_disc(size, 0.5, 0.78, 0.06)] = 1700
        place = {
            "ImagePositionPatient": [-160.0, -160.0, index * 5.0],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [320 / size, 320 / size],
            "SliceThickness": 5,
            "FrameOfReferenceUID": f"{header['StudyInstanceUID']}.9",
            "RescaleIntercept": -1024,
            "RescaleSlope": 1,
            "WindowCenter": -200,
            "WindowWidth": 1600,
        }
        files.append(
            _part10({**header, **place, **_grey(picture, 12)}, ExplicitVRLittleEndian, index + 1, CTImageStorage)
        )
    return Study(
        uid=header["StudyInstanceUID"], name="郑^伟", patient_id=patient_id, modality="CT", date="20250611", files=files
    )


def segmentation(ct: Study, *, size: int = 128) -> bytes:
    """Return the segmentation (PS3.3 A.51) of the nodule in every slice of *ct*, as a second series of its study."""
    header = _header(1, "SEG", "ZHENG^WEI=郑^伟", "10086", ct.date, "胸部CT平扫")
    header |= {"SeriesInstanceUID": f"{ct.uid}.2", "SeriesNumber": 2, "SeriesDescription": "结节分割"}
    count = len(ct.files)
    tissue = {"CodeValue": "85756007", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Tissue"}
    segment = {
        "SegmentNumber": 1,
        "SegmentLabel": "Nodule",
        "SegmentAlgorithmType": "MANUAL",
        "SegmentedPropertyCategoryCodeSequence": [_item(tissue)],
        "SegmentedPropertyTypeCodeSequence": [_item(tissue)],
        "RecommendedDisplayCIELabValue": [40000, 45000, 45000],
    }
    frames, slices = [], []
    for index in range(count):
        source = _item({"ReferencedSOPClassUID": CTImageStorage, "ReferencedSOPInstanceUID": f"{ct.uid}.1.{index + 1}"})
        slices.append(source)
        frame = {
            "FrameContentSequence": [_item({"DimensionIndexValues": [1, index + 1]})],
            "PlanePositionSequence": [_item({"ImagePositionPatient": [-160.0, -160.0, index * 5.0]})],
            "SegmentIdentificationSequence": [_item({"ReferencedSegmentNumber": 1})],
            "DerivationImageSequence": [_item({"SourceImageSequence": [source]})],
        }
        frames.append(_item(frame))
    spacing = {"PixelSpacing": [320 / size, 320 / size], "SliceThickness": 5, "SpacingBetweenSlices": 5}
    shared = {
        "PixelMeasuresSequence": [_item(spacing)],
        "PlaneOrientationSequence": [_item({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]})],
    }
    masks = [_disc(size, 0.3, 0.5, 0.01 + 0.1 * index / count) for index in range(count)]
    referenced = {"SeriesInstanceUID": f"{ct.uid}.1", "ReferencedInstanceSequence": slices}
    values = {
        "FrameOfReferenceUID": f"{ct.uid}.9",
        "SegmentationType": "BINARY",
        "ContentLabel": "SEG",
        "ImageType": ["DERIVED", "PRIMARY"],
        "Rows": size,
        "Columns": size,
        "NumberOfFrames": count,
        "BitsAllocated": 1,
        "BitsStored": 1,
        "HighBit": 0,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "SegmentSequence": [_item(segment)],
        "ReferencedSeriesSequence": [_item(referenced)],
        "SharedFunctionalGroupsSequence": [_item(shared)],
        "PerFrameFunctionalGroupsSequence": frames,
        "DimensionOrganizationSequence": [_item({"DimensionOrganizationUID": f"{ct.uid}.8"})],
        "PixelData": np.packbits(np.stack(masks), bitorder="little").tobytes(),
    }
    return _part10({**header, **values}, ExplicitVRLittleEndian, 1, SegmentationStorage)


def _item(values: dict[str, Any]) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def cardiac_us(*, frames: int = 12, size: int = 128) -> Study:
    """Return a colour ultrasound whose disc moves from frame to frame, in JPEG as the machines send it."""
    header = _header(2, "US", "ZHOU^JIANGUO=周^建国", "20011", "20250612", "心脏彩超")
    pictures = []
    for index in range(frames):
        picture = np.full((size, size, 3), 20, dtype=np.uint8)
        picture[_disc(size, 0.2 + 0.6 * index / frames, 0.5, 0.15)] = (220, 60, 30)
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "JPEG", quality=90, subsampling=1)
        pictures.append(out.getvalue())
    values = {
        "Rows": size,
        "Columns": size,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 3,
        "PlanarConfiguration": 0,
        "PhotometricInterpretation": "YBR_FULL_422",
        "NumberOfFrames": frames,
        "FrameTime": 40,
        "LossyImageCompression": "01",
        "PixelData": encapsulate(pictures),
    }
    file = _part10({**header, **values}, JPEGBaseline8Bit, 1, UltrasoundMultiFrameImageStorage)
    return Study(
        uid=header["StudyInstanceUID"], name="周^建国", patient_id="20011", modality="US", date="20250612", files=[file]
    )


def mammogram(*, size: int = 256) -> Study:
    """Return a mammogram in JPEG 2000."""
    header = _header(3, "MG", "LI^XIUYING=李^秀英", "30022", "20250613", "乳腺X线摄影")
    picture = np.zeros((size, size))
    picture[_disc(size, 0.0, 0.5, 0.6)] = 1800
    picture[_disc(size, 0.25, 0.45, 0.08)] = 3600
    more = {
        "ImageLaterality": "L",
        "ViewPosition": "CC",
        "BodyPartExamined": "BREAST",
        "PresentationIntentType": "FOR PRESENTATION",
        "ImagerPixelSpacing": [0.1, 0.1],
        "WindowCenter": 2048,
        "WindowWidth": 4096,
        "ImageType": ["ORIGINAL", "PRIMARY"],
    }
    file = _part10(
        {**header, **more, **_grey(picture, 12)},
        JPEG2000Lossless,
        1,
        DigitalMammographyXRayImageStorageForPresentation,
    )
    return Study(
        uid=header["StudyInstanceUID"], name="李^秀英", patient_id="30022", modality="MG", date="20250613", files=[file]
    )


def plain_film(number: int, *, size: int = 16) -> Study:
    """Return a small radiograph; the higher its *number* (100 to 128), the later its day in February 2025."""
    date = f"202502{number - 99:02d}"
    header = _header(number, "DX", f"PAIPIAN^{number}=拍^片", f"D{number}", date, "胸部正位片") | {
        "StudyTime": "140500"
    }
    picture = np.full((size, size), 500)
    files = [
        _part10({**header, **_grey(picture, 12)}, ExplicitVRLittleEndian, 1, DigitalXRayImageStorageForPresentation)
    ]
    return Study(
        uid=header["StudyInstanceUID"], name="拍^片", patient_id=f"D{number}", modality="DX", date=date, files=files
    )


def report_pdf() -> Study:
    """Return an encapsulated PDF."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfgen import canvas

    header = _header(4, "DOC", "WANG^FANG=王^芳", "40033", "20250614", "检验报告")
    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    out = io.BytesIO()
    page = canvas.Canvas(out, pagesize=(300, 200))
    page.setFont("STSong-Light", 24)
    page.drawString(40, 120, "检验报告 REPORT")
    page.setFillColorRGB(0.1, 0.4, 0.8)
    page.rect(40, 40, 220, 40, fill=1)
    page.save()
    data = out.getvalue()
    values = {
        "MIMETypeOfEncapsulatedDocument": "application/pdf",
        "DocumentTitle": "检验报告",
        "BurnedInAnnotation": "YES",
        "EncapsulatedDocument": data + b"\0" * (len(data) % 2),
        "EncapsulatedDocumentLength": len(data),
    }
    file = _part10({**header, **values}, ExplicitVRLittleEndian, 1, EncapsulatedPDFStorage)
    return Study(
        uid=header["StudyInstanceUID"], name="王^芳", patient_id="40033", modality="DOC", date="20250614", files=[file]
    )


def stow_body(files: Sequence[bytes]) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a STOW-RS request that stores *files*."""
    parts = b"".join(b"--yixie\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n" for data in files)
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=yixie'}
    return headers, parts + b"--yixie--\r\n"
