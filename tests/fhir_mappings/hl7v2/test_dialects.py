"""Dialects are tables that configuration can vary."""

from __future__ import annotations

import pytest

from fhir_mappings.hl7v2.dialects import DIALECTS, HIS_CN, STANDARD, dialect_from


def test_the_card_type_means_something_only_in_the_chinese_dialect() -> None:
    assert HIS_CN.cx_types["IDCard"] == "patient-id"
    assert "IDCard" not in STANDARD.cx_types
    assert HIS_CN.cx_types["IdentifyNO"] == STANDARD.cx_types["IdentifyNO"] == "resident-id"


def test_old_systems_are_answered_in_their_charset_with_an_empty_label() -> None:
    assert (HIS_CN.charset_out, HIS_CN.msh_18_out) == ("gb18030", "")
    assert (STANDARD.charset_out, STANDARD.msh_18_out) == ("utf-8", "UNICODE UTF-8")


def test_configuration_lays_its_changes_over_a_base() -> None:
    made = dialect_from(
        {"base": "his-cn", "name": "kn", "charset_in": "GBK", "cx_types": {"BLH": "inpatient-no"}, "version_out": "2.3"}
    )
    assert (made.name, made.charset_in, made.version_out) == ("kn", "GBK", "2.3")
    assert made.cx_types["BLH"] == "inpatient-no"
    assert made.cx_types["IDCard"] == "patient-id"
    assert DIALECTS["his-cn"].charset_in is None
    assert dialect_from({}) == STANDARD


def test_a_wrong_key_base_or_type_is_named() -> None:
    with pytest.raises(ValueError, match="charset_inn"):
        dialect_from({"charset_inn": "GBK"})
    with pytest.raises(ValueError, match="separted"):
        dialect_from({"dates": "separted"})
    with pytest.raises(ValueError, match="klingon"):
        dialect_from({"base": "klingon"})
    with pytest.raises(TypeError, match="cx_types"):
        dialect_from({"cx_types": "x"})
    with pytest.raises(TypeError, match="version_out"):
        dialect_from({"version_out": 2.4})
