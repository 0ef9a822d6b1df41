"""The Native DICOM Model: said again in XML, read back the same, and never dangerous to read."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pydicom
import pytest

from fhir_mappings.dicom.header import read_header
from fhir_mappings.dicom.xml_model import NAMESPACE, XmlLimits, read, write
from fhir_mappings.errors import MalformedError
from fhir_mappings.json import loads
from tests.support.images import ct

DATASET: dict[str, Any] = {
    "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
    "00080008": {"vr": "CS", "Value": ["ORIGINAL", None, "AXIAL"]},
    "00080090": {"vr": "PN"},
    "00081140": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}, {}]},
    "00090010": {"vr": "LO", "Value": ["MAKER & SON"]},
    "00091001": {"vr": "LO", "Value": ['a < b & "c"']},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "ZHENG^WEI^^Dr", "Ideographic": "郑^伟"}]},
    "00104000": {"vr": "LT", "Value": ["one\r\n two \\ three "]},
    "00189074": {"vr": "FD", "Value": [1.5, "NaN", "-Infinity"]},
    "00280010": {"vr": "US", "Value": [512]},
    "00281050": {"vr": "DS", "Value": [Decimal("40.50"), -3]},
    "00281101": {"vr": "US"},
    "00420011": {"vr": "OB", "InlineBinary": "AAEC"},
    "7FE00010": {"vr": "OW", "BulkDataURI": "http://hub/x?a=1&b=2"},
}


def attribute(content: str = "", tag: str = "00100020", vr: str = "LO", **more: str) -> bytes:
    """Return a document with one attribute."""
    words = "".join(f' {name}="{value}"' for name, value in more.items())
    return f'<NativeDicomModel><DicomAttribute tag="{tag}" vr="{vr}"{words}>{content}</DicomAttribute></NativeDicomModel>'.encode()


def dcmtk(name: str) -> str:
    """Return DCMTK's tool; the DICOM library installs scripts of the same names beside Python."""
    ours = Path(sys.prefix, "bin")
    path = os.pathsep.join(one for one in os.environ.get("PATH", "").split(os.pathsep) if Path(one) != ours)
    found = shutil.which(name, path=path)
    assert found is not None
    return found


def test_what_is_written_is_read_back_the_same() -> None:
    assert read(write(DATASET)) == DATASET


def test_attributes_are_named_by_tag_vr_keyword_and_private_creator() -> None:
    text = write(DATASET).decode()
    assert text.startswith(f'<?xml version="1.0" encoding="UTF-8"?>\n<NativeDicomModel xmlns="{NAMESPACE}"')
    assert '<DicomAttribute tag="00280010" vr="US" keyword="Rows"><Value number="1">512</Value>' in text
    assert '<DicomAttribute tag="00091001" vr="LO" privateCreator="MAKER &amp; SON">' in text
    assert "<Alphabetic><FamilyName>ZHENG</FamilyName><GivenName>WEI</GivenName><NamePrefix>Dr</NamePrefix>" in text
    assert '<Value number="1">ORIGINAL</Value><Value number="3">AXIAL</Value>' in text


def test_characters_that_xml_cannot_hold_are_replaced() -> None:
    written = write({"00104000": {"vr": "LT", "Value": ["a\x0cb\x1b"]}})
    assert read(written)["00104000"]["Value"] == ["a�b�"]


def test_names_with_more_than_five_components_are_kept() -> None:
    name = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B^C^D^E^F"}]}}
    assert read(write(name)) == name


def test_a_namespace_and_a_prefix_may_be_there_or_not() -> None:
    with_prefix = f'<d:NativeDicomModel xmlns:d="{NAMESPACE}"><d:DicomAttribute tag="00100020" vr="LO"><d:Value number="1">7</d:Value></d:DicomAttribute></d:NativeDicomModel>'
    assert read(with_prefix.encode()) == read(attribute('<Value number="1">7</Value>'))


def test_a_private_attribute_without_a_block_gets_its_creators_block() -> None:
    expected = {"00090010": {"vr": "LO", "Value": ["ACME"]}, "00091001": {"vr": "LO", "Value": ["x"]}}
    value = '<Value number="1">x</Value>'
    assert read(attribute(value, tag="00090001", privateCreator="ACME")) == expected
    assert read(attribute(value, tag="00091001", privateCreator="ACME")) == expected


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"plain",
        b"<NativeDicomModel>",
        b"<Other/>",
        b"<!DOCTYPE x><NativeDicomModel/>",
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><NativeDicomModel>&b;</NativeDicomModel>',
        b'<!DOCTYPE x SYSTEM "http://elsewhere/x.dtd"><NativeDicomModel/>',
        b"<NativeDicomModel>&undeclared;</NativeDicomModel>",
        b'<?xml version="1.0" encoding="nonsense"?><NativeDicomModel/>',
        attribute(tag="10020"),
        attribute(tag="GGGG0020"),
        attribute(vr="lo"),
        attribute("<Value>7</Value>"),
        attribute('<Value number="0">7</Value>'),
        attribute('<Value number="9999999">7</Value>'),
        attribute('<Value number="1">7</Value><Value number="1">8</Value>'),
        attribute('<Item number="1"/>'),
        attribute('<Value number="1">x</Value>', vr="PN"),
        attribute('<Script number="1">x</Script>'),
        b"<NativeDicomModel>" + attribute()[18:-19] * 2 + b"</NativeDicomModel>",
    ],
)  # fmt: skip
def test_what_is_not_of_the_model_or_dangerous_is_refused(document: bytes) -> None:
    with pytest.raises(MalformedError):
        read(document)


def test_depth_elements_and_size_are_bounded() -> None:
    nested = (
        b"".join(b'<DicomAttribute tag="00081140" vr="SQ"><Item number="1">' for _ in range(100))
        + b"</Item></DicomAttribute>" * 100
    )
    with pytest.raises(MalformedError, match="deeply"):
        read(b"<NativeDicomModel>" + nested + b"</NativeDicomModel>")
    with pytest.raises(MalformedError, match="too many"):
        read(write(DATASET), limits=XmlLimits(elements=10))
    with pytest.raises(MalformedError, match="larger"):
        read(write(DATASET), limits=XmlLimits(document_bytes=100))


def test_the_header_of_an_image_survives_the_way_through_xml() -> None:
    header = loads(read_header(io.BytesIO(ct(WindowCenter="40.0", ImageType=["ORIGINAL", "PRIMARY"]))).attributes)
    assert read(write(header)) == header


@pytest.mark.tool("dcm2xml")
def test_what_dcmtk_writes_is_read(tmp_path: Path) -> None:
    source = tmp_path / "source.dcm"
    item = pydicom.Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    source.write_bytes(ct(ReferencedImageSequence=[item], PatientWeight="61.5"))
    native = subprocess.run([dcmtk("dcm2xml"), "-nat", source], capture_output=True, check=True, timeout=60).stdout
    native = b"".join(line for line in native.splitlines(keepends=True) if b"<!DOCTYPE" not in line)
    ours = loads(read_header(io.BytesIO(source.read_bytes())).attributes)
    theirs = read(native)
    for tag in ("00100010", "00100020", "00101030", "00081030", "00081140", "00280010", "0020000D"):
        assert theirs[tag] == ours[tag], tag
