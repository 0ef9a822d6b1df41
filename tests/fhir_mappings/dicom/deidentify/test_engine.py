"""De-identified copies: what is gone, what follows, what is left out (PS3.15 annex E)."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    UltrasoundImageStorage,
)

from fhir_mappings.dicom.deidentify import holding
from fhir_mappings.dicom.deidentify.engine import Copy, LeftOut, Profile, prepare
from fhir_mappings.dicom.deidentify.keys import ProjectKey
from fhir_mappings.dicom.deidentify.table import Options
from fhir_mappings.dicom.scanner import scan
from tests.support.dicom import CT_IMAGE_STORAGE, Tags, Value, ct_tags, encode, part10
from tests.support.dicom import ROOT as SYNTHETIC
from tests.support.images import STUDY, ct

KEY = ProjectKey(bytes(range(32)))
OTHER = ProjectKey(bytes(32))
EVERYTHING = Options(
    modified_dates=True, patient=True, device=True, institution=True, safe_private=True, descriptors=True,
    structured_content=True, graphics=True,
)  # fmt: skip


def copied(data: bytes, *, key: ProjectKey = KEY, owner: str = "KN", take: Any = (), **options: bool) -> bytes:
    """Return the copy of *data* as bytes."""
    made = prepare(
        io.BytesIO(data), profile=Profile(options=Options(**options), take=frozenset(take)), key=key, owner=owner
    )
    assert isinstance(made, Copy), made
    out = b"".join(made.chunks())
    # The copy is whole by the same proof that received objects must pass.
    scan(io.BytesIO(out))
    return out


def read(data: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def left_out(data: bytes, **profile: Any) -> str:
    made = prepare(io.BytesIO(data), profile=Profile(**profile), key=KEY, owner="KN")
    assert isinstance(made, LeftOut)
    return made.reason


def encoded(syntax: str, more: Tags | None = None) -> bytes:
    """Return a CT in that transfer syntax, by an encoder that is not under test."""
    tags = ct_tags(patient_id="KN10086", more=more)
    return part10(
        encode(tags, syntax), sop_class=CT_IMAGE_STORAGE, sop_instance=f"{SYNTHETIC}.1.1.1", transfer_syntax=syntax
    )


def item(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


# --- the profile -------------------------------------------------------------------------------------------------


def test_the_basic_profile_leaves_a_valid_object_without_its_patient() -> None:
    copy = read(copied(ct(AccessionNumber="A2025001", InstitutionName="岚山县人民医院", PatientAge="049Y")))
    assert copy.PatientID.startswith("P")
    assert copy.PatientName == f"ANON^{copy.PatientID}"
    assert (copy.AccessionNumber, copy.PatientBirthDate, copy.PatientSex, copy.StudyDate) == ("", "", "", "")
    assert {"InstitutionName", "PatientAge", "StudyDescription", "SeriesDescription"} & set(copy.dir()) == set()
    assert (copy.Modality, copy.BodyPartExamined, copy.Rows) == ("CT", "CHEST", 16)


def test_the_copy_says_how_it_was_made() -> None:
    copy = read(copied(ct(), modified_dates=True, descriptors=True))
    assert copy.PatientIdentityRemoved == "YES"
    assert copy.DeidentificationMethod == "PS3.15 2026c annex E"
    assert [one.CodeValue for one in copy.DeidentificationMethodCodeSequence] == ["113100", "113105", "113107"]
    assert copy.LongitudinalTemporalInformationModified == "MODIFIED"
    assert read(copied(ct())).LongitudinalTemporalInformationModified == "REMOVED"
    assert read(copied(ct(), full_dates=True)).LongitudinalTemporalInformationModified == "UNMODIFIED"


def test_the_same_object_gives_the_same_bytes() -> None:
    assert copied(ct()) == copied(ct())


def test_references_follow_the_uids_they_name() -> None:
    first, second = ct(1), ct(2, ReferencedImageSequence=[item(ReferencedSOPInstanceUID=f"{STUDY}.1.1")])
    one, other = read(copied(first)), read(copied(second))
    assert one.SOPInstanceUID == other.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    assert one.StudyInstanceUID == other.StudyInstanceUID
    assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
    assert one.SOPClassUID == read(first).SOPClassUID


def test_another_project_has_other_uids_and_pseudonyms() -> None:
    one, other = read(copied(ct())), read(copied(ct(), key=OTHER))
    assert one.StudyInstanceUID != other.StudyInstanceUID
    assert one.PatientID != other.PatientID


def test_the_same_number_at_another_institution_is_another_patient() -> None:
    assert read(copied(ct())).PatientID != read(copied(ct(), owner="QH")).PatientID


def test_every_date_of_a_patient_moves_by_the_same_whole_days() -> None:
    data = ct(SeriesDate="20250613", AcquisitionDateTime="20250612103000.5+0800")
    copy, original = read(copied(data, modified_dates=True)), read(data)
    from datetime import date

    def day(text: str) -> date:
        return date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:8]}")

    moved = day(copy.StudyDate) - day(original.StudyDate)
    assert moved.days < 0
    assert day(copy.SeriesDate) - day(original.SeriesDate) == moved
    assert day(copy.AcquisitionDateTime) - day(original.AcquisitionDateTime) == moved
    assert copy.AcquisitionDateTime[8:] == "103000.5+0800"
    assert copy.StudyTime == original.StudyTime
    assert copy.PatientBirthDate == ""


def test_full_dates_stay_but_not_the_birth_date() -> None:
    copy = read(copied(ct(), full_dates=True))
    assert (copy.StudyDate, copy.StudyTime, copy.PatientBirthDate) == ("20250611", "093015", "")


def test_options_keep_what_they_say() -> None:
    data = ct(InstitutionName="岚山县人民医院", PatientAge="049Y", DeviceSerialNumber="SN77", StationName="CT01")
    assert read(copied(data, institution=True)).InstitutionName == "岚山县人民医院"
    kept = read(copied(data, patient=True))
    assert (kept.PatientAge, kept.PatientSex) == ("049Y", "M")
    kept = read(copied(data, device=True))
    assert (kept.DeviceSerialNumber, kept.StationName) == ("SN77", "CT01")
    assert read(copied(data, uids=True)).SOPInstanceUID == f"{STUDY}.1.1"


def test_descriptors_are_cleaned_of_what_the_object_knows() -> None:
    data = ct(
        StudyDescription="胸部CT平扫 郑伟 10086 2025-06-11",
        SeriesDescription="ZHENG WEI lung 13912345678 医生:李大明",
        RequestedProcedureDescription="复查 110101197602291234",
    )
    copy = read(copied(data, descriptors=True))
    assert copy.StudyDescription == "胸部CT平扫 *** *** ***"
    assert copy.SeriesDescription == "*** lung *** 医生:***"
    assert copy.RequestedProcedureDescription == "复查 ***"


@pytest.mark.parametrize(
    ("label", "codec"), [("GB18030", "gb18030"), ("ISO_IR 100", "gbk"), ("ISO_IR 192", "utf-8"), ("", "gbk")]
)
def test_chinese_text_is_read_by_its_bytes_and_written_as_utf_8(label: str, codec: str) -> None:
    dataset = read(ct(PatientName=None, StudyDescription=None, SpecificCharacterSet=label or None))
    dataset.add_new(0x00100010, "PN", "ZHENG^WEI=郑^伟".encode(codec))
    dataset.add_new(0x00081030, "LO", "胸部平扫，郑伟复查".encode(codec))
    inner = Dataset()
    inner.add_new(0x00080104, "LO", "郑伟的胸部".encode(codec))
    dataset.AnatomicRegionSequence = Sequence([inner])
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    copy = read(copied(out.getvalue(), descriptors=True))
    assert copy.SpecificCharacterSet == "ISO_IR 192"
    assert copy.StudyDescription == "胸部平扫，***复查"
    assert copy.AnatomicRegionSequence[0].CodeMeaning == "***的胸部"


def test_private_elements_go_unless_they_are_known_numbers() -> None:
    dataset = read(ct())
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x0B, "LO", "郑伟")
    dataset.private_block(0x0029, "YIXIE TEST", create=True).add_new(1, "LO", "ZHENG WEI")
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    assert not [one for one in read(copied(out.getvalue())) if one.tag.is_private]
    kept = [one.value for one in read(copied(out.getvalue(), safe_private=True)) if one.tag.is_private]
    assert kept == ["SIEMENS MR HEADER", 1000]


# --- transfer syntaxes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_pixels_are_the_same_bytes_in_every_native_syntax(syntax: str) -> None:
    data = encoded(syntax, {0x00082112: ("SQ", [{0x00081155: ("UI", f"{STUDY}.9")}])})
    copy = read(copied(data))
    assert copy.PixelData == read(data).PixelData
    deflated = syntax == DeflatedExplicitVRLittleEndian
    assert copy.file_meta.TransferSyntaxUID == (ExplicitVRLittleEndian if deflated else syntax)
    assert copy.SourceImageSequence[0].ReferencedSOPInstanceUID == KEY.uid(f"{STUDY}.9")
    assert b"KN10086" not in copied(data)
    assert "郑伟".encode("gbk") not in copied(data)


def test_fragments_are_the_same_bytes() -> None:
    data = ct(frames=2, compressed=[b"\xff\x4f\xff\x51" + bytes(100), b"\xff\x4f\xff\x51" + bytes(90)])
    copy = read(copied(data))
    assert copy.PixelData == read(data).PixelData
    assert copy.file_meta.TransferSyntaxUID == JPEG2000Lossless


class _Hollow(io.RawIOBase):
    """A header, then pixels of zeros that are made when they are read."""

    def __init__(self, head: bytes, size: int) -> None:
        self._head, self._size, self._at = head, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset if whence == 0 else self._size + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        piece = self._head[self._at : self._at + count]
        buffer[: len(piece)] = piece
        buffer[len(piece) : count] = bytes(count - len(piece))
        self._at += count
        return count


def test_a_large_object_is_copied_in_flat_memory() -> None:
    pixels = 256 << 20
    data = ct()
    at = data.rindex(b"\xe0\x7f\x10\x00OW")
    stream = io.BufferedReader(_Hollow(data[: at + 8] + pixels.to_bytes(4, "little"), at + 12 + pixels))
    tracemalloc.start()
    made = prepare(stream, profile=Profile(), key=KEY, owner="KN")
    assert isinstance(made, Copy)
    written = sum(map(len, made.chunks()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written > pixels
    assert peak < 16 << 20


# --- what is left out --------------------------------------------------------------------------------------------


def test_pixels_that_may_name_the_patient_are_held_back() -> None:
    burned = ct(BurnedInAnnotation="YES")
    ultrasound = ct(SOPClassUID=UltrasoundImageStorage, Modality="US")
    assert left_out(burned) == holding.BURNED_IN
    assert left_out(ultrasound) == holding.LIKELY
    assert left_out(ct(Modality="XA", ImageType=["DERIVED", "SECONDARY"])) == holding.LIKELY
    assert left_out(ct(ConversionType="WSD")) == holding.LIKELY
    assert left_out(ct(RecognizableVisualFeatures="YES")) == holding.RECOGNIZABLE
    assert left_out(ct(), hold_unknown=True) == holding.UNKNOWN
    assert read(copied(ct(SOPClassUID=UltrasoundImageStorage, Modality="US", BurnedInAnnotation="NO")))
    assert read(copied(burned, take={holding.BURNED_IN})).PatientIdentityRemoved == "NO"


def test_a_document_is_held_back() -> None:
    dataset = ct(SOPClassUID=EncapsulatedPDFStorage, EncapsulatedDocument=b"%PDF-1.4 KN10086  ")
    assert left_out(dataset) == holding.DOCUMENT
    copy = read(copied(dataset, take={holding.DOCUMENT}))
    assert (copy.EncapsulatedDocument, copy.PatientIdentityRemoved) == (b"%PDF-1.4 KN10086  ", "NO")


def test_what_breaks_the_standard_is_left_out() -> None:
    assert left_out(ct()[:-10]) == holding.MALFORMED


def test_an_object_with_thousands_of_references_is_searched_for_anything_like_a_uid() -> None:
    references = [item(ReferencedSOPInstanceUID=f"{STUDY}.7.{number}") for number in range(300)]
    data = ct(ReferencedImageSequence=references, ContentDescription=f"see {STUDY}.7.299 of 1.2.840.10008.5.1.4.1.1.2")
    copy = read(copied(data))
    assert copy.ContentDescription == "see *** of 1.2.840.10008.5.1.4.1.1.2"


def test_an_object_that_names_thousands_is_left_out() -> None:
    names = [item(PersonName=f"NAME{number}^X") for number in range(3000)]
    assert left_out(ct(ReferencedImageSequence=names)) == holding.TOO_MANY


def report() -> bytes:
    """Return a structured report that names people in its tree."""

    def entry(kind: str, **values: Any) -> Dataset:
        return item(RelationshipType="CONTAINS", ValueType=kind, **values)

    tree = [
        entry("PNAME", PersonName="李^大明"),
        entry("TEXT", TextValue="患者郑伟，13912345678，2025年6月11日复查，肺部无异常。"),
        entry("DATE", Date="20250611"),
        entry("UIDREF", UID=f"{STUDY}.1.1"),
        entry("CONTAINER", ContentSequence=[entry("TEXT", TextValue="李大明签名")]),
    ]
    return ct(
        SOPClassUID=BasicTextSRStorage, Modality="SR", ValueType="CONTAINER", ContentSequence=tree,
        VerifyingObserverSequence=[item(VerifyingObserverName="李^大明", VerifyingOrganization="岚山县人民医院")],
    )  # fmt: skip


def test_a_report_is_left_out_unless_its_content_may_be_cleaned() -> None:
    assert left_out(report()) == holding.REPORT
    out = copied(report(), structured_content=True, modified_dates=True)
    tree = read(out).ContentSequence
    assert tree[0].PersonName == "ANONYMIZED"
    assert tree[1].TextValue == "患者***，***，***复查，肺部无异常。"
    assert tree[2].Date not in {"20250611", ""}
    assert KEY.uid(f"{STUDY}.1.1") == tree[3].UID
    assert tree[4].ContentSequence[0].TextValue == "***签名"
    assert read(out).VerifyingObserverSequence[0].VerifyingObserverName == "ANONYMIZED"


# --- nothing survives --------------------------------------------------------------------------------------------

_HAN = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=1, max_size=2)
#: No word of the standard begins so.
_PINYIN = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=3, max_size=6).map("QX{}".format)
#: Not the date that stands for dates.
_NUMBER = st.text("0123456789", min_size=8, max_size=12).filter(lambda text: text != "19000101")
#: Where a name or a number may stand although it should not: listed and unlisted, text and bytes, private, nested.
_PLACES = (
    "StudyDescription", "SeriesDescription", "ImageComments", "ProtocolName", "ContentLabel", "BodyPartExamined",
    "ConvolutionKernel", "ManufacturerModelName", "ContentDescription", "SoftwareVersions", "TextValue", "PatientComments",
)  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    han=st.tuples(_HAN, _HAN),
    pinyin=st.tuples(_PINYIN, _PINYIN),
    number=_NUMBER,
    accession=_NUMBER,
    places=st.lists(st.sampled_from(_PLACES), unique=True, max_size=6),
    codec=st.sampled_from(["utf-8", "gb18030"]),
    options=st.sampled_from([Options(), Options(modified_dates=True), EVERYTHING]),
    syntax=st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]),
)
def test_no_identifier_survives_anywhere_in_the_bytes(
    han: tuple[str, str],
    pinyin: tuple[str, str],
    number: str,
    accession: str,
    places: list[str],
    codec: str,
    options: Options,
    syntax: str,
) -> None:
    name = "".join(han)
    secrets = f"{name} {' '.join(pinyin)} {number} {accession} 2025-06-11 20250611 {SYNTHETIC}.1.1.1".encode(codec)
    hidden: dict[int, tuple[str, Value]] = {
        0x00281201: ("OW", secrets + bytes(len(secrets) % 2)),
        0x00290010: ("LO", "HIDDEN"),
        0x00291001: ("UN", secrets),
    }
    for keyword in places:
        tag = tag_for_keyword(keyword)
        assert tag is not None
        hidden[tag] = (dictionary_VR(tag), secrets)
    inner = {0x00081155: ("UI", f"{SYNTHETIC}.1.1.1"), 0x00080020: ("DA", "20250611"), **hidden}
    tags = ct_tags(
        patient_id=number,
        patient_name=f"{'^'.join(pinyin)}={'^'.join(han)}".encode(codec),
        charset=b"ISO_IR 192" if codec == "utf-8" else b"GB18030",
        more={
            **hidden,
            0x00080050: ("SH", accession),
            0x00081140: ("SQ", [inner]),
            0x00089215: ("SQ", [{0x00089124: ("SQ", [inner]), **inner}]),
        },
    )
    data = part10(
        encode(tags, syntax, undefined=True),
        sop_class=CT_IMAGE_STORAGE,
        sop_instance=f"{SYNTHETIC}.1.1.1",
        transfer_syntax=syntax,
    )
    made = prepare(io.BytesIO(data), profile=Profile(options=options), key=KEY, owner="KN")
    assert isinstance(made, Copy)
    out = b"".join(made.chunks())
    scan(io.BytesIO(out))
    for text in (name, *pinyin, "".join(pinyin), number, accession, "20250611", "2025-06-11", SYNTHETIC):
        for form in (text.encode(one) for one in ("utf-8", "gb18030", "gbk")):
            assert form not in out, text


def test_the_deflated_original_is_really_deflated() -> None:
    data = encoded(DeflatedExplicitVRLittleEndian)
    offset = scan(io.BytesIO(data)).meta[-1]
    assert zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[offset.offset + offset.length :])
