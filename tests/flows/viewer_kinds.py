"""Studies of the kinds that stand beside a plain CT or film: reports, key images, curves, enhanced images."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    TwelveLeadECGWaveformStorage,
)

from tests.flows.viewer_cards import _file, _quarters, _scaled
from tests.flows.viewer_studies import Study, _disc, _grey, _header, _item, _part10, chest_ct


def _beside(ct: Study, number: int, modality: str, description: str) -> dict[str, Any]:
    """Return the header of series *number* of the study of *ct*."""
    header = _header(int(ct.uid.rpartition(".")[2]), modality, f"ZHENG^WEI={ct.name}", ct.patient_id, ct.date, "")
    return header | {
        "StudyDescription": "胸部CT平扫",
        "SeriesInstanceUID": f"{ct.uid}.{number}",
        "SeriesNumber": number,
        "SeriesDescription": description,
        "ContentDate": ct.date,
        "ContentTime": "101500",
    }


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    return _item({"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning})


def _evidence(ct: Study, *numbers: int) -> Dataset:
    images = [
        _item({"ReferencedSOPClassUID": CTImageStorage, "ReferencedSOPInstanceUID": f"{ct.uid}.1.{one}"})
        for one in numbers
    ]
    series = _item({"SeriesInstanceUID": f"{ct.uid}.1", "ReferencedSOPSequence": images})
    return _item({"StudyInstanceUID": ct.uid, "ReferencedSeriesSequence": [series]})


def _image(ct: Study, number: int) -> Dataset:
    image = _item({"ReferencedSOPClassUID": CTImageStorage, "ReferencedSOPInstanceUID": f"{ct.uid}.1.{number}"})
    return _item({"RelationshipType": "CONTAINS", "ValueType": "IMAGE", "ReferencedSOPSequence": [image]})


def _text(code: Dataset, text: str) -> Dataset:
    values = {"RelationshipType": "CONTAINS", "ValueType": "TEXT", "ConceptNameCodeSequence": [code]}
    return _item({**values, "TextValue": text})


FINDINGS = "右肺上叶见一约8mm磨玻璃结节，边界清。"


def structured_report(ct: Study) -> bytes:
    """Return a Basic Text SR (PS3.3 A.35.1) in Chinese about *ct*."""
    values = {
        "CompletionFlag": "COMPLETE",
        "VerificationFlag": "UNVERIFIED",
        "ReferencedPerformedProcedureStepSequence": [],
        "PerformedProcedureCodeSequence": [],
        "CurrentRequestedProcedureEvidenceSequence": [_evidence(ct, 1)],
        "ValueType": "CONTAINER",
        "ContinuityOfContent": "SEPARATE",
        "ConceptNameCodeSequence": [_code("18748-4", "LN", "影像诊断报告")],
        "ContentSequence": [_text(_code("121071", "DCM", "影像所见"), FINDINGS), _image(ct, 1)],
    }
    return _file({**_beside(ct, 3, "SR", "诊断报告"), **values}, BasicTextSRStorage)


def key_images(ct: Study) -> bytes:
    """Return a Key Object Selection (PS3.3 A.35.4) of one slice of *ct*."""
    values = {
        "ReferencedPerformedProcedureStepSequence": [],
        "CurrentRequestedProcedureEvidenceSequence": [_evidence(ct, 2)],
        "ValueType": "CONTAINER",
        "ContinuityOfContent": "SEPARATE",
        "ConceptNameCodeSequence": [_code("113000", "DCM", "Of Interest")],
        "ContentTemplateSequence": [_item({"MappingResource": "DCMR", "TemplateIdentifier": "2010"})],
        "ContentSequence": [_text(_code("113012", "DCM", "Key Object Description"), "关键图像"), _image(ct, 2)],
    }
    return _file({**_beside(ct, 4, "KO", "关键图像"), **values}, KeyObjectSelectionDocumentStorage)


def presentation_state(ct: Study) -> bytes:
    """Return a Grayscale Softcopy Presentation State (PS3.3 A.33.1) with another window for one slice of *ct*."""
    image = _item({"ReferencedSOPClassUID": CTImageStorage, "ReferencedSOPInstanceUID": f"{ct.uid}.1.1"})
    area = {
        "DisplayedAreaTopLeftHandCorner": [1, 1],
        "DisplayedAreaBottomRightHandCorner": [128, 128],
        "PresentationSizeMode": "SCALE TO FIT",
        "PresentationPixelAspectRatio": [1, 1],
        "ReferencedImageSequence": [image],
    }
    values = {
        "PresentationCreationDate": ct.date,
        "PresentationCreationTime": "101500",
        "ContentLabel": "LUNG",
        "ContentDescription": "肺窗",
        "ContentCreatorName": "LI^HUA=李^华",
        "ReferencedSeriesSequence": [_item({"SeriesInstanceUID": f"{ct.uid}.1", "ReferencedImageSequence": [image]})],
        "DisplayedAreaSelectionSequence": [_item(area)],
        "SoftcopyVOILUTSequence": [_item({"WindowCenter": -600, "WindowWidth": 1500})],
        "PresentationLUTShape": "IDENTITY",
    }
    return _file({**_beside(ct, 5, "PR", "肺窗显示状态"), **values}, GrayscaleSoftcopyPresentationStateStorage)


def bone_series(ct: Study, *, slices: int = 3, size: int = 128) -> list[bytes]:
    """Return a second series of *ct* with a window for bone, in which the body is dark."""
    files = []
    for index in range(slices):
        picture = np.zeros((size, size))
        picture[_disc(size, 0.5, 0.5, 0.46)] = 1064
        picture[_disc(size, 0.5, 0.78, 0.06)] = 1700
        place = {
            "ImagePositionPatient": [-160.0, -160.0, index * 5.0],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [320 / size, 320 / size],
            "SliceThickness": 5,
            "FrameOfReferenceUID": f"{ct.uid}.9",
            "RescaleIntercept": -1024,
            "RescaleSlope": 1,
            "WindowCenter": 500,
            "WindowWidth": 600,
        }
        files.append(
            _part10(
                {**_beside(ct, 6, "CT", "骨窗"), **place, **_grey(picture, 12)},
                ExplicitVRLittleEndian,
                index + 1,
                CTImageStorage,
            )
        )
    return files


def enhanced_ct(*, frames: int = 5, size: int = 64) -> Study:
    """Return an Enhanced CT (PS3.3 A.38.1): its geometry, rescale and window are in functional groups."""
    header = _header(52, "CT", "QIAN^JIN=钱^进", "52052", "20250616", "增强型多帧CT")
    frame_of_reference = f"{header['StudyInstanceUID']}.9"
    pictures, groups = [], []
    for index in range(frames):
        pictures.append(_quarters(size, _scaled((32, 96, 160, 224), 2047)))
        group = {
            "FrameContentSequence": [
                _item({"StackID": "1", "InStackPositionNumber": index + 1, "DimensionIndexValues": [1, index + 1]})
            ],
            "PlanePositionSequence": [_item({"ImagePositionPatient": [0, 0, index * 2.5]})],
        }
        groups.append(_item(group))
    kinds = {
        "FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        "PixelPresentation": "MONOCHROME",
        "VolumetricProperties": "VOLUME",
        "VolumeBasedCalculationTechnique": "NONE",
    }
    rescale = {"RescaleIntercept": -1024, "RescaleSlope": 1, "RescaleType": "HU"}
    shared = {
        "PixelMeasuresSequence": [_item({"PixelSpacing": [2, 2], "SliceThickness": 2.5, "SpacingBetweenSlices": 2.5})],
        "PlaneOrientationSequence": [_item({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]})],
        "FrameVOILUTSequence": [_item({"WindowCenter": 0, "WindowWidth": 2048})],
        "PixelValueTransformationSequence": [_item(rescale)],
        "CTImageFrameTypeSequence": [_item(kinds)],
    }
    organization = f"{header['StudyInstanceUID']}.8"
    values = {
        **_grey(pictures[0], 12),
        **{name: value for name, value in kinds.items() if name != "FrameType"},
        "ImageType": kinds["FrameType"],
        "NumberOfFrames": frames,
        "FrameOfReferenceUID": frame_of_reference,
        "SharedFunctionalGroupsSequence": [_item(shared)],
        "PerFrameFunctionalGroupsSequence": groups,
        "DimensionOrganizationSequence": [_item({"DimensionOrganizationUID": organization})],
        "PixelData": np.stack(pictures).astype("<u2").tobytes(),
    }
    return Study(
        uid=header["StudyInstanceUID"],
        name="钱^进",
        patient_id="52052",
        modality="CT",
        date="20250616",
        files=[_file({**header, **values}, EnhancedCTImageStorage)],
    )


def ecg() -> Study:
    """Return a resting ECG of twelve leads (PS3.3 A.34.3): one second of a slow wave."""
    header = _header(53, "ECG", "SUN^XINDIAN=孙^心电", "53053", "20250617", "常规心电图")
    rate, leads = 500, ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    wave = (1000 * np.sin(np.arange(rate) / rate * 4 * np.pi)).astype("<i2")
    channels = [
        _item(
            {
                "ChannelSourceSequence": [_code(f"5.6.3-9-{number}", "SCPECG", f"Lead {lead}")],
                "ChannelSensitivity": 1,
                "ChannelSensitivityUnitsSequence": [_code("uV", "UCUM", "microvolt")],
                "ChannelSensitivityCorrectionFactor": 1,
                "ChannelBaseline": 0,
                "WaveformBitsStored": 16,
            }
        )
        for number, lead in enumerate(leads, 1)
    ]
    group = {
        "MultiplexGroupTimeOffset": 0,
        "WaveformOriginality": "ORIGINAL",
        "NumberOfWaveformChannels": len(leads),
        "NumberOfWaveformSamples": rate,
        "SamplingFrequency": rate,
        "ChannelDefinitionSequence": channels,
        "WaveformBitsAllocated": 16,
        "WaveformSampleInterpretation": "SS",
        "WaveformData": np.repeat(wave, len(leads)).tobytes(),
    }
    values = {"AcquisitionContextSequence": [], "WaveformSequence": [_item(group)]}
    return Study(
        uid=header["StudyInstanceUID"],
        name="孙^心电",
        patient_id="53053",
        modality="ECG",
        date="20250617",
        files=[_file({**header, **values}, TwelveLeadECGWaveformStorage)],
    )


def documented_ct() -> Study:
    """Return a CT of two series, with a report, a key image and a presentation state beside them."""
    ct = chest_ct(number=51, slices=3)
    files = [*ct.files, structured_report(ct), key_images(ct), presentation_state(ct), *bone_series(ct)]
    return Study(uid=ct.uid, name=ct.name, patient_id=ct.patient_id, modality="CT", date=ct.date, files=files)
