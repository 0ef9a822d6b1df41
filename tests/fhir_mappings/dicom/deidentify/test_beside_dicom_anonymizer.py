"""The same objects through another implementation of PS3.15: whatever it takes away, ours takes away too.

dicom-anonymizer 2.1 with its table of the edition 2026c. It is an oracle for the Basic Profile only; it has no options.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pydicom
import pytest
from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    EnhancedMRImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    PositronEmissionTomographyImageStorage,
    RTPlanStorage,
)

from fhir_mappings.dicom.deidentify.engine import Copy, Profile, prepare
from fhir_mappings.dicom.deidentify.keys import ProjectKey
from fhir_mappings.dicom.deidentify.table import rows
from fhir_mappings.dicom.elements import implicit_vr
from tests.support.images import ct

EDITION = "dicomfields_2026c"
TABLE = dicom_anonymization_database_selector(EDITION)
#: What ours keeps and it does not, each with its reason.
DELIBERATE = {
    0x00080018: "the UID is another one in both",
    0x0020000D: "the UID is another one in both",
    0x0020000E: "the UID is another one in both",
    0x00100010: "Z allows a dummy: the pseudonym",
    0x00100020: "Z/D allows a dummy: the pseudonym",
    0x00081140: "X/Z/U*: the references stay and are mapped",
    0x00082112: "X/Z/U*: the references stay and are mapped",
    0x00120062: "the copy says that it is de-identified",
    0x00120063: "the copy says how",
    0x00120064: "the copy says how",
    0x00280303: "the copy says what became of its dates",
}
_VALUES: dict[str, Any] = {
    "AE": "SECRET", "AS": "047Y", "CS": "SECRET", "DA": "20250611", "DS": "12.5", "DT": "20250611093015", "IS": "125",
    "LO": "SECRET TEXT", "LT": "SECRET TEXT", "PN": "SECRET^TEXT", "SH": "SECRET", "ST": "SECRET TEXT", "TM": "093015",
    "UC": "SECRET TEXT", "UR": "http://example.invalid/secret", "UT": "SECRET TEXT", "UI": "1.2.3.4.5.6.7", "FD": 12.5,
    "FL": 12.5, "SL": 125, "SS": 125, "UL": 125, "US": 125, "OB": b"secret", "OW": b"secret", "UN": b"secret",
}  # fmt: skip


def listed() -> Iterator[int]:
    """Yield the tags of the table that a data set can hold and the dictionary knows."""
    for tag in rows():
        if "X" in tag[:4]:
            continue
        if implicit_vr(int(tag, 16)) != "UN":
            yield int(tag, 16)


def everything(SOPClassUID: str) -> bytes:
    """Return an object that has every attribute of the table."""
    dataset = pydicom.dcmread(io.BytesIO(ct(SOPClassUID=SOPClassUID)))
    for tag in listed():
        vr = implicit_vr(tag)
        if tag in {0x00080018, 0x0020000D, 0x0020000E} or tag >> 16 == 0xFFFA or tag == 0x00420011:
            continue
        if vr == "SQ":
            inner = Dataset()
            inner.add(DataElement(0x00080100, "SH", "SECRET"))
            inner.add(DataElement(0x00080104, "LO", "SECRET TEXT"))
            inner.add(DataElement(0x00081155, "UI", "1.2.3.4.5.6.7"))
            dataset.add(DataElement(tag, "SQ", Sequence([inner])))
        else:
            dataset.add(DataElement(tag, vr, _VALUES[vr]))
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def test_the_table_is_the_same_table() -> None:
    actions = {
        "D_TAGS": "D", "Z_TAGS": "Z", "X_TAGS": "X", "U_TAGS": "U", "Z_D_TAGS": "Z/D", "X_Z_TAGS": "X/Z",
        "X_D_TAGS": "X/D", "X_Z_D_TAGS": "X/Z/D", "X_Z_U_STAR_TAGS": "X/Z/U*",
    }  # fmt: skip
    theirs = {
        f"{tag[0]:04X}{tag[1]:04X}": action
        for name, action in actions.items()
        for tag in TABLE[name]
        # Command and file meta elements and directories are in no data set that is exported.
        if len(tag) == 2 and tag[0] >= 8
    }
    assert theirs == {tag: row.basic for tag, row in rows().items() if "X" not in tag[:4]}


# Its own use of the DICOM toolkit, not ours.
@pytest.mark.filterwarnings("ignore:.*DataElement_from_raw:DeprecationWarning")
@pytest.mark.parametrize(
    "SOPClassUID",
    [
        CTImageStorage,
        EnhancedMRImageStorage,
        PositronEmissionTomographyImageStorage,
        DigitalMammographyXRayImageStorageForPresentation,
        GrayscaleSoftcopyPresentationStateStorage,
        RTPlanStorage,
    ],
)
def test_what_it_takes_away_ours_takes_away_too(SOPClassUID: str) -> None:
    data = everything(SOPClassUID)
    original, theirs = (pydicom.dcmread(io.BytesIO(data)) for _ in range(2))
    anonymize_dataset(theirs, base_rules_gen=lambda: initialize_actions(EDITION))
    made = prepare(io.BytesIO(data), profile=Profile(), key=ProjectKey(bytes(32)), owner="KN")
    assert isinstance(made, Copy)
    ours = pydicom.dcmread(io.BytesIO(b"".join(made.chunks())))
    taken = [element for element in original if element.tag not in theirs or theirs[element.tag].value != element.value]
    assert len(taken) > 550
    kept = {
        element.tag: element.keyword
        for element in taken
        if element.tag not in DELIBERATE and element.tag in ours and ours[element.tag].value == element.value
    }
    assert kept == {}
    assert b"SECRET" not in b"".join(prepare_again(data))


def prepare_again(data: bytes) -> Iterator[bytes]:
    made = prepare(io.BytesIO(data), profile=Profile(), key=ProjectKey(bytes(32)), owner="KN")
    assert isinstance(made, Copy)
    yield from made.chunks()
