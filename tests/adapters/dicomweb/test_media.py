"""Studies as file sets with a DICOMDIR (PS3.3 annex F, PS3.10 section 8), read by pydicom and by DCMTK."""

from __future__ import annotations

import io
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread, fileset
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import UID_dictionary

from adapters.dicomweb import media
from adapters.dicomweb.directory_records import KEYS, record, record_type
from hub.boot import Services
from storage.sql.schema import audit
from tests.adapters.dicomweb.test_dicomweb import MULTIPART, PATH, rows
from tests.support.images import ROOT, STUDY, ct, receive
from tests.support.pixels import ramp, sample

ASKED = {"accept": "application/zip", "dicomdir": "true"}
RAW = "1.2.840.10008.5.1.4.1.1.66"
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"


def unpacked(answer: httpx.Response, folder: Path) -> Path:
    """Unpack the file set of *answer* below *folder* and return its directory."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as found:
        assert found.testzip() is None
        assert found.namelist()[0] == "DICOMDIR"
        found.extractall(folder)
    return folder / "DICOMDIR"


def instances(directory: Path) -> list[fileset.FileInstance]:
    """Return what pydicom finds in the file set of *directory*."""
    found = FileSet(directory)
    # Its folder for what is to be written is never needed here, and left to itself it goes with a warning.
    found._stage["t"].cleanup()
    return list(found)


def records(directory: Path) -> list[Dataset]:
    return list(dcmread(directory).DirectoryRecordSequence)


def test_a_study_comes_as_a_file_set_that_pydicom_reads(http: httpx.Client, hub: Services, tmp_path: Path) -> None:
    sent = [ct(1), ct(2), ct(1, series=2), ct(3)]
    for one in sent:
        receive(hub, one)
    found = instances(unpacked(http.get(f"/studies/{STUDY}", params=ASKED), tmp_path))
    assert sorted(Path(one.path).read_bytes() for one in found) == sorted(sent)
    for one in found:
        read = dcmread(one.path)
        assert one.ReferencedSOPInstanceUIDInFile == read.SOPInstanceUID
        assert one.ReferencedTransferSyntaxUIDInFile == read.file_meta.TransferSyntaxUID
        steps = [str(step) for step in one.ReferencedFileID]
        assert Path(tmp_path, *steps) == Path(one.path)
        assert all(re.fullmatch(r"[A-Z0-9_]{1,8}", step) for step in steps)
    kinds = [one.DirectoryRecordType for one in records(tmp_path / "DICOMDIR")]
    assert kinds == ["PATIENT", "STUDY", "SERIES", "IMAGE", "IMAGE", "IMAGE", "SERIES", "IMAGE"]


def test_chinese_names_are_right_whatever_the_sender_called_its_characters(
    http: httpx.Client, hub: Services, tmp_path: Path
) -> None:
    receive(hub, ct(SpecificCharacterSet="GB18030"))
    made = records(unpacked(http.get(f"/studies/{STUDY}", params=ASKED), tmp_path))
    assert str(made[0].PatientName.ideographic) == "郑^伟"
    assert made[1].StudyDescription == "胸部CT平扫"
    # Said in each record whose text needs it, and in no other (PS3.3 section F.4).
    assert [one.get("SpecificCharacterSet") for one in made] == ["ISO_IR 192", "ISO_IR 192", None, None]


@pytest.mark.tool("dcmdump", "dcmmkdir")
def test_dcmtk_takes_the_directory_and_adds_to_it(http: httpx.Client, hub: Services, tmp_path: Path) -> None:
    for one in (ct(1), ct(2), ct(1, series=2)):
        receive(hub, one)
    directory = unpacked(http.get(f"/studies/{STUDY}", params=ASKED), tmp_path)
    shown = run("dcmdump", "--quiet", "+U8", "--search", "0004,1430", "DICOMDIR", folder=tmp_path)
    assert re.findall(r"CS \[(\w+)\]", shown) == ["PATIENT", "STUDY", "SERIES", "IMAGE", "IMAGE", "SERIES", "IMAGE"]
    (tmp_path / "DICOM" / "MORE").write_bytes(ct(3))
    # It reads the whole tree, follows each place in it, checks every file that is named, and writes it again.
    profile = ("+D", "DICOMDIR", "--append", "--invent", "--general-purpose")
    run("dcmmkdir", *profile, "DICOM/MORE", folder=tmp_path)
    made = instances(directory)
    assert len(made) == 4
    assert {str(one.PatientID) for one in made} == {"10086"}


@pytest.mark.tool("dcmmkdir")
def test_dcmtk_makes_the_same_records_of_the_same_files(http: httpx.Client, hub: Services, tmp_path: Path) -> None:
    for one in (ct(1, StudyID="S1", AccessionNumber="A1"), ct(2, StudyID="S1", AccessionNumber="A1")):
        receive(hub, one)
    directory = unpacked(http.get(f"/studies/{STUDY}", params=ASKED), tmp_path)
    run("dcmmkdir", "+D", "OTHER", "--recurse", "--general-purpose", "DICOM", folder=tmp_path)
    ours, theirs = records(directory), records(tmp_path / "OTHER")
    assert len(ours) == len(theirs) == 5
    for one, other in zip(ours, theirs, strict=True):
        # Theirs is in the characters of the files, so names compare as text; places differ with the lengths.
        compared = {element.keyword for element in other if element.tag.group != 4} - {"SpecificCharacterSet"}
        assert {key: str(one.get(key)) for key in compared} == {key: str(other.get(key)) for key in compared}
        for key in ("DirectoryRecordType", "ReferencedFileID", "ReferencedSOPInstanceUIDInFile"):
            assert one.get(key) == other.get(key)


def test_files_made_in_another_transfer_syntax_are_named_so(http: httpx.Client, hub: Services, tmp_path: Path) -> None:
    receive(hub, sample(ramp()))
    study = http.get("/studies").json()[0]["0020000D"]["Value"][0]
    lossless = "1.2.840.10008.1.2.4.80"
    asked = {**ASKED, "accept": f"application/zip; transfer-syntax={lossless}"}
    (made,) = instances(unpacked(http.get(f"/studies/{study}", params=asked), tmp_path))
    assert made.ReferencedTransferSyntaxUIDInFile == dcmread(made.path).file_meta.TransferSyntaxUID == lossless


@pytest.mark.tool("dcmdump")
def test_what_objects_lack_is_made_up_so_that_readers_take_the_disc(
    http: httpx.Client, hub: Services, tmp_path: Path
) -> None:
    bare = {"PatientID": None, "StudyDate": None, "StudyTime": None, "SeriesNumber": None, "InstanceNumber": None}
    receive(hub, ct(1, **bare))
    receive(hub, ct(1, series=2, SOPClassUID=RAW, Modality="OT", Rows=None, Columns=None, **bare))
    made = records(unpacked(http.get(f"/studies/{STUDY}", params=ASKED), tmp_path))
    patient, study, first, image, second, raw = made
    assert (patient.PatientID, study.StudyDate, study.StudyTime, study.StudyID) == (STUDY, "19000101", "000000", "1")
    assert [first.SeriesNumber, second.SeriesNumber] == [1, 2]
    assert (image.InstanceNumber, raw.DirectoryRecordType, raw.ContentDate) == (1, "RAW DATA", "19000101")
    run("dcmdump", "DICOMDIR", folder=tmp_path)
    assert len(instances(tmp_path / "DICOMDIR")) == 2


def test_a_report_is_told_by_its_title_and_state(http: httpx.Client, hub: Services, tmp_path: Path) -> None:
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "18748-4", "LN", "影像报告"
    modifier, finding = Dataset(), Dataset()
    modifier.RelationshipType, modifier.ValueType = "HAS CONCEPT MOD", "CODE"
    finding.RelationshipType, finding.ValueType, finding.TextValue = "CONTAINS", "TEXT", "双肺未见异常"
    receive(
        hub,
        ct(
            SOPClassUID=REPORT,
            Modality="SR",
            CompletionFlag="COMPLETE",
            VerificationFlag="VERIFIED",
            ContentDate="20250611",
            ContentTime="101500",
            ConceptNameCodeSequence=[title],
            ContentSequence=[modifier, finding],
        ),
    )
    made = records(unpacked(http.get(f"/studies/{STUDY}", params=ASKED), tmp_path))[-1]
    assert (made.DirectoryRecordType, made.CompletionFlag, made.VerificationFlag) == (
        "SR DOCUMENT",
        "COMPLETE",
        "VERIFIED",
    )
    assert made.ConceptNameCodeSequence[0].CodeMeaning == "影像报告"
    assert [one.RelationshipType for one in made.ContentSequence] == ["HAS CONCEPT MOD"]


def test_every_storage_class_has_the_record_that_pydicom_gives_it() -> None:
    known = {uid: said for uid, said in UID_dictionary.items() if uid.startswith("1.2.840.10008.5.1.4.1.1.")}
    compared = 0
    for uid, (name, kind, *_) in known.items():
        if kind != "SOP Class" or "Storage" not in name or "Retired" in name:
            continue
        other = Dataset()
        other.SOPClassUID = uid
        if ".104." in uid:
            other.EncapsulatedDocument = b"00"
        theirs = fileset._four_level_record_type(other)
        ours = record_type(uid, {})
        if theirs == "IMAGE" and ours != "IMAGE":
            # Newer classes than pydicom's table, in families that PS3.3 table F.4-1 gives whole.
            assert uid.rpartition(".1.1.")[2].partition(".")[0] in {"9", "11", "78", "88", "481"}, (name, ours)
        else:
            assert ours == theirs, name
        compared += 1
    assert compared > 100
    assert set(KEYS) - {"PATIENT", "STUDY", "SERIES"} <= set(fileset.DIRECTORY_RECORDERS)


def test_records_have_the_keys_that_pydicom_demands() -> None:
    for kind in KEYS:
        whole = {tag: {"vr": vr, "Value": [_some(vr)]} for tag, vr, _ in KEYS[kind]}
        full = Dataset.from_json(record(kind, whole, 1))
        # Raises where a key of type 1 is missing from ours.
        wanted = fileset.DIRECTORY_RECORDERS[kind](full)
        assert {element.tag for element in wanted} <= {element.tag for element in full}, kind


def _some(vr: str) -> Any:
    if vr == "SQ":
        return {"0040A010": {"vr": "CS", "Value": ["HAS CONCEPT MOD"]}}
    return {"Alphabetic": "A"} if vr == "PN" else 1 if vr in {"US", "UL", "IS"} else "20250611" if vr == "DA" else "1"


def test_a_private_object_without_an_image_lies_beside_the_directory(
    http: httpx.Client, hub: Services, tmp_path: Path
) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2, SOPClassUID=f"{ROOT}.77", Rows=None, Columns=None))
    found = instances(unpacked(http.get(f"/studies/{STUDY}", params=ASKED), tmp_path))
    assert [Path(one.path).name for one in found] == ["I00001"]
    assert (tmp_path / "DICOM/S0001/I00002").read_bytes().startswith(b"\0" * 128 + b"DICM")


def test_a_directory_is_asked_for_in_a_zip_file_only(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    for parameters, status in (
        ({"dicomdir": "true"}, 406),
        ({"dicomdir": "true", "accept": MULTIPART}, 406),
        ({"dicomdir": "yes", "accept": "application/zip"}, 400),
    ):
        assert http.get(PATH, params=parameters).status_code == status, parameters
    without = http.get(PATH, params={**ASKED, "dicomdir": "false"})
    assert zipfile.ZipFile(io.BytesIO(without.content)).namelist() == ["DICOM/S0001/I00001.dcm"]
    refused = http.get(f"/studies/{STUDY}", params=ASKED, headers={"Authorization": "Bearer qh"})
    assert refused.status_code == 404


def test_one_line_of_the_audit_tells_of_it(http: httpx.Client, hub: Services) -> None:
    for number in (1, 2):
        receive(hub, ct(number))
    before = len(rows(hub, audit))
    assert http.get(f"/studies/{STUDY}", params=ASKED).status_code == 200
    (line,) = rows(hub, audit)[before:]
    assert line.subtype == "WADO-RS"


def test_an_image_that_goes_while_it_is_read_is_told_and_not_left_out(
    http: httpx.Client, hub: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        receive(hub, ct(number))
    real = media.directory

    def late(files: Any) -> bytes:
        monkeypatch.setattr("hub.series_metadata._with_headers", lambda _tx, **_: ())
        return real(files)

    monkeypatch.setattr(media, "directory", late)
    answer = http.get(f"/studies/{STUDY}", params=ASKED)
    assert (answer.status_code, answer.headers["content-type"]) == (503, answer.headers["content-type"])
    assert "changed" in answer.text


def run(*command: str, folder: Path) -> str:
    """Return what a program of DCMTK says that does its work in *folder*."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"^[EF]:", done.stderr, re.MULTILINE), done.stderr
    return done.stdout
