"""Storage commitment's data sets: every native syntax, as the DICOM library reads them, and as long as studies are."""

from __future__ import annotations

import tracemalloc
from io import BytesIO

import pytest
from pydicom.uid import UID
from pynetdicom.dsutils import decode

from fhir_mappings.dicom.commitment import MAX_BYTES, MAX_REFERENCES, Information, Reference, read, write
from fhir_mappings.dicom.identifier import EXPLICIT_BIG, IMPLICIT
from fhir_mappings.errors import MalformedError
from tests.support.dicom import CT_IMAGE_STORAGE, EXPLICIT

REPORT = Information(
    TransactionUID="1.2.826.0.1.99.1",
    references=(Reference(CT_IMAGE_STORAGE, "1.2.3"), Reference(CT_IMAGE_STORAGE, "1.2.34")),
    failed=((Reference("1.2.840.10008.5.1.4.1.1.4", "1.2.5"), 0x0112),),
)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, EXPLICIT_BIG])
def test_a_report_reads_back_and_the_library_reads_it_too(syntax: str) -> None:
    data = write(REPORT, syntax)
    assert read(data, syntax) == REPORT
    uid = UID(syntax)
    library = decode(BytesIO(data), uid.is_implicit_VR, uid.is_little_endian)
    assert library.TransactionUID == "1.2.826.0.1.99.1"
    assert [one.ReferencedSOPInstanceUID for one in library.ReferencedSOPSequence] == ["1.2.3", "1.2.34"]
    assert [one.FailureReason for one in library.FailedSOPSequence] == [0x0112]


def test_a_sequence_without_items_is_left_out() -> None:
    data = write(Information(TransactionUID="1.2"), IMPLICIT)
    assert data == b"\x08\x00\x95\x11\x04\0\0\x001.2\0"
    assert read(data, IMPLICIT) == Information(TransactionUID="1.2")


def test_what_is_missing_is_empty() -> None:
    # One item without anything in it.
    data = b"\x08\x00\x99\x11\x08\0\0\0\xfe\xff\x00\xe0\0\0\0\0"
    assert read(data, IMPLICIT) == Information(TransactionUID="", references=(Reference("", ""),))


def test_the_longest_transaction_fits_and_a_longer_one_is_refused() -> None:
    references = tuple(Reference(CT_IMAGE_STORAGE, f"2.25.{10**38 + number}") for number in range(MAX_REFERENCES + 1))
    longest = Information(TransactionUID="1.2", references=references[:-1])
    data = write(longest, EXPLICIT)
    assert len(data) <= MAX_BYTES
    tracemalloc.start()
    assert len(read(data, EXPLICIT).references) == MAX_REFERENCES
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()
    with pytest.raises(MalformedError, match="items"):
        read(write(Information(TransactionUID="1.2", references=references), EXPLICIT), EXPLICIT)
