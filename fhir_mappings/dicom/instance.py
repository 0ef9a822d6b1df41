"""What the index keeps of a SOP Instance (PS3.3); apart from its reader, so that naming it loads no DICOM toolkit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceHeader:
    """What the index keeps of one SOP Instance; text is already normalised (DESIGN rule 9).

    Attributes:
        PatientName: the ideographic group where the sender wrote one, else the alphabetic group.
        PatientNamePinyin: the alphabetic group unless it holds Han characters.
        attributes: DICOM JSON Model (PS3.18 annex F) of the header with bulk data replaced by placeholders, as bytes.
        charset_evidence: how the text was decoded, and whether that contradicts (0008,0005).
        charset_flagged: the label was missing or false, or the text is doubtful; the copy here is a repair.
        pixel_offset: byte offset of the (7FE0,0010) value in the object, or ``None``.
    """

    StudyInstanceUID: str
    SeriesInstanceUID: str
    SOPInstanceUID: str
    SOPClassUID: str
    TransferSyntaxUID: str
    PatientID: str = ""
    IssuerOfPatientID: str = ""
    PatientName: str = ""
    PatientNamePinyin: str = ""
    PatientBirthDate: str = ""
    PatientSex: str = ""
    StudyDate: str = ""
    StudyTime: str = ""
    StudyID: str = ""
    StudyDescription: str = ""
    AccessionNumber: str = ""
    ReferringPhysicianName: str = ""
    Modality: str = ""
    SeriesNumber: str = ""
    SeriesDescription: str = ""
    SeriesDate: str = ""
    SeriesTime: str = ""
    BodyPartExamined: str = ""
    PerformedProcedureStepStartDate: str = ""
    PerformedProcedureStepStartTime: str = ""
    InstanceNumber: str = ""
    Rows: int | None = None
    Columns: int | None = None
    BitsAllocated: int | None = None
    NumberOfFrames: int | None = None
    attributes: bytes = b"{}"
    charset_declared: str = ""
    charset_used: str = ""
    charset_evidence: str = ""
    charset_flagged: bool = False
    pixel_offset: int | None = None
