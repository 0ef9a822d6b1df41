"""From metadata to a file: what is said in JSON is said in the bytes, and nonsense is refused by name."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless

from fhir_mappings.dicom.dataset import Bulk, bulk_uris, declared_transfer_syntax, part10
from fhir_mappings.dicom.header import read_header
from fhir_mappings.errors import MalformedError, UnsupportedError
from fhir_mappings.json import dumps, loads
from tests.support.images import STUDY, ct

IDENTITY: dict[str, Any] = {
    "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
    "00080018": {"vr": "UI", "Value": [f"{STUDY}.1.1"]},
    "0020000D": {"vr": "UI", "Value": [STUDY]},
    "0020000E": {"vr": "UI", "Value": [f"{STUDY}.1"]},
}


def held(*pieces: bytes) -> Sequence[Bulk]:
    """Return *pieces* as bulk data."""
    return [Bulk(length=len(one), content=lambda one=one: [one]) for one in pieces]  # type: ignore[misc]


def made(dataset: Mapping[str, Any], bulk: Mapping[str, Sequence[Bulk]] | None = None, **more: str) -> bytes:
    return b"".join(part10({**IDENTITY, **dataset}, bulk or {}, **more))


def test_the_header_of_the_file_says_what_the_metadata_said() -> None:
    item = pydicom.Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    data = ct(ReferencedImageSequence=[item, pydicom.Dataset()], WindowCenter=["40.50", "300"], PatientWeight="61",
              ImageType=["ORIGINAL", "", "AXIAL"], FrameIncrementPointer=[0x00181063], PatientComments="a\\b ")  # fmt: skip
    header = loads(read_header(io.BytesIO(data)).attributes)
    file = made(header, {"bulk/7FE00010": held(bytes(512))})
    again = read_header(io.BytesIO(file))
    assert loads(again.attributes) == header
    assert (again.charset_used, again.charset_flagged) == ("utf-8", False)
    assert made(header, {"bulk/7FE00010": held(bytes(512))}) == file


def test_numbers_of_every_kind_are_written() -> None:
    dataset = {
        "00089459": {"vr": "FL", "Value": [1.5, "NaN", "-Infinity", Decimal("2.25"), 3]},
        "00189074": {"vr": "FD", "Value": ["Infinity", 0.1]},
        "00280106": {"vr": "SS", "Value": [-5]},
        "00082130": {"vr": "DS", "Value": ["1.50", Decimal("2.50"), 3, None]},
        "00080041": {"vr": "UV", "Value": ["18446744073709551615", 7]},
        "00200013": {"vr": "IS", "Value": [3]},
    }
    written = pydicom.dcmread(io.BytesIO(made(dataset)))
    assert written[0x00280106].value == -5
    assert [str(one) for one in written[0x00082130].value] == ["1.50", "2.50", "3", ""]
    assert list(written[0x00080041].value) == [2**64 - 1, 7]
    header = loads(read_header(io.BytesIO(made(dataset))).attributes)
    assert header["00089459"]["Value"] == [Decimal("1.5"), "NaN", "-Infinity", Decimal("2.25"), Decimal("3.0")]


def test_text_longer_than_its_length_field_is_written_as_unknown() -> None:
    written = made({"00321060": {"vr": "LO", "Value": ["x" * 70_000]}})
    assert read_header(io.BytesIO(written)).SOPInstanceUID == f"{STUDY}.1.1"
    assert b"\x32\x00\x60\x10UN\0\0" in written


def test_compressed_bulk_becomes_one_fragment_a_frame() -> None:
    pixels = {"7FE00010": {"vr": "OW", "BulkDataURI": "p"}}
    file = made(pixels, {"p": held(b"\xff\x4f123", b"\xff\x4f45")}, transfer_syntax=JPEG2000Lossless)
    read = pydicom.dcmread(io.BytesIO(file))
    assert read.file_meta.TransferSyntaxUID == JPEG2000Lossless
    assert list(pydicom.encaps.generate_fragments(read.PixelData)) == [b"", b"\xff\x4f123\0", b"\xff\x4f45"]


def test_several_native_pieces_are_one_value() -> None:
    file = made({"00420011": {"vr": "OB", "BulkDataURI": "d"}}, {"d": held(b"abc", b"de")})
    assert pydicom.dcmread(io.BytesIO(file)).EncapsulatedDocument == b"abcde\0"


def test_bulk_and_transfer_syntax_are_found_in_metadata() -> None:
    dataset = {
        "00081140": {"vr": "SQ", "Value": [{"00420011": {"vr": "OB", "BulkDataURI": "a"}}]},
        "7FE00010": {"vr": "OW", "BulkDataURI": "b"},
        "00020010": {"vr": "UI", "Value": [JPEG2000Lossless]},
    }
    assert list(bulk_uris(dataset)) == ["a", "b"]
    assert declared_transfer_syntax(dataset) == JPEG2000Lossless


@pytest.mark.parametrize(
    "dataset",
    [
        {"00080018": {"vr": "UI"}},
        {"0020000D": {"vr": "UI", "Value": ["a"]}},
        {"nonsense": {"vr": "LO"}},
        {"00100020": []},
        {"00100020": {"Value": ["7"]}},
        {"00100020": {"vr": "ZZ", "Value": ["7"]}},
        {"00100020": {"vr": "LO", "Value": "7"}},
        {"00100020": {"vr": "LO", "Value": [["7"]]}},
        {"00100020": {"vr": "LO", "Value": ["a\\b"]}},
        {"00100020": {"vr": "LO", "Value": ["\ud800"]}},
        {"00100020": {"vr": "LO", "Value": ["7"], "InlineBinary": "AAAA"}},
        {"00100010": {"vr": "PN", "Value": ["ZHENG^WEI"]}},
        {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "A=B"}]}},
        {"00104000": {"vr": "LT", "Value": ["a", "b"]}},
        {"00280010": {"vr": "US", "Value": [70000]}},
        {"00280010": {"vr": "US", "Value": ["x"]}},
        {"00280010": {"vr": "US", "InlineBinary": "AAAA"}},
        {"00280009": {"vr": "AT", "Value": ["0018"]}},
        {"00420011": {"vr": "OB", "Value": [1]}},
        {"00420011": {"vr": "OB", "InlineBinary": "***"}},
        {"00420011": {"vr": "OB", "BulkDataURI": "elsewhere"}},
        {"00420011": {"vr": "OB", "BulkDataURI": 7}},
        {"00081140": {"vr": "SQ", "Value": [7]}},
        {"00081140": {"vr": "SQ", "Value": {}}},
    ],
)  # fmt: skip
def test_broken_metadata_is_refused(dataset: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        made(dataset)


def test_sequences_nested_without_end_are_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(60):
        nested = {"00081140": {"vr": "SQ", "Value": [nested]}}
    with pytest.raises(MalformedError):
        made(nested)
    with pytest.raises(MalformedError):
        list(bulk_uris(nested))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.3", "x"])
def test_transfer_syntaxes_that_are_not_written_are_refused(syntax: str) -> None:
    with pytest.raises(UnsupportedError):
        made({}, transfer_syntax=syntax)


@pytest.mark.tool("dcmdump")
def test_dcmtk_reads_the_file_without_complaint(tmp_path: Path) -> None:
    ours = Path(sys.prefix, "bin")
    path = os.pathsep.join(one for one in os.environ.get("PATH", "").split(os.pathsep) if Path(one) != ours)
    tool = shutil.which("dcmdump", path=path)
    assert tool is not None
    header = loads(dumps(loads(read_header(io.BytesIO(ct())).attributes)))
    file = tmp_path / "made.dcm"
    file.write_bytes(made(header, {"bulk/7FE00010": held(bytes(512))}))
    done = subprocess.run([tool, "+E", "+L", file], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "(0010,0020) LO [10086]" in done.stdout
