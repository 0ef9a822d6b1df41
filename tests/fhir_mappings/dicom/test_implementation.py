"""The name that the hub has as an implementation stays what it is in the objects that are stored."""

from __future__ import annotations

from pydicom.uid import UID

from fhir_mappings.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME


def test_the_class_uid_is_the_one_in_stored_objects() -> None:
    assert IMPLEMENTATION_CLASS_UID == "2.25.73514691121450865114181368012817742397"


def test_both_names_are_valid_for_their_vr() -> None:
    assert UID(IMPLEMENTATION_CLASS_UID).is_valid
    assert 0 < len(IMPLEMENTATION_VERSION_NAME) <= 16
