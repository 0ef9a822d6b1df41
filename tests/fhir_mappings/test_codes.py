"""The code maps: every row says where it comes from, and what they emit is a code of its FHIR value set."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import fhir_mappings.codes
from fhir_mappings import codes

_FILES = sorted(Path(fhir_mappings.codes.__file__).parent.glob("*.csv"))

_VALUES = {
    "administrative_sex": {"male", "female", "other", "unknown"},
    "observation_status": {
        "registered",
        "preliminary",
        "final",
        "amended",
        "corrected",
        "cancelled",
        "entered-in-error",
    },
    "report_status": {"registered", "partial", "preliminary", "final", "amended", "corrected", "cancelled"},
    "order_control": {"active", "on-hold", "revoked", "completed", "entered-in-error"},
    "order_status": {"active", "on-hold", "revoked", "completed", "entered-in-error"},
    "referral_status": {"active", "revoked"},
    "priority": {"routine", "urgent", "asap", "stat"},
    "encounter_event": {"planned", "in-progress", "finished", "cancelled"},
    "allergy_category": {"food", "medication", "environment", "biologic"},
    "allergy_criticality": {"low", "high", "unable-to-assess"},
    "document_status": {"preliminary", "final"},
    "document_availability": {"current", "superseded", "entered-in-error"},
}


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_every_row_has_a_target_and_a_source(path: Path) -> None:
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert rows
    for row in rows:
        assert row["code"] == row["code"].strip()
        assert row["target"]
        assert row["system"].startswith("http")
        assert row["source"]
    assert len({row["code"] for row in rows}) == len(rows)


@pytest.mark.parametrize("name", sorted(_VALUES))
def test_targets_are_codes_of_their_value_set(name: str) -> None:
    assert {row.target for row in codes.table(name).values()} <= _VALUES[name]


#: HL7 table 0119, as the v2-to-FHIR map OrderControlCode lists it, and the status that each code gives a request.
_ORDER_CONTROL = {
    **dict.fromkeys(("NW", "OK", "RL", "OE", "OR", "RO", "RQ", "PR", "AF", "PY", "XO", "XX", "XR"), "active"),
    **dict.fromkeys(("HD", "HR", "OH"), "on-hold"),
    **dict.fromkeys(("DC", "DR", "OD", "CR", "OC", "DF"), "revoked"),
    "FU": "completed",
    "DE": "entered-in-error",
    # A request to cancel changes nothing until it is answered.
    "CA": None,
    # These number, echo, answer or refill an order, report on it, or speak of another one; the order stays as it is.
    **dict.fromkeys(("CH", "PA", "CN", "CP", "LI", "UN", "MC", "NA", "SN", "RE", "RR", "SC", "SR", "SS"), None),
    **dict.fromkeys(("UA", "UC", "UD", "UF", "UH", "UM", "UR", "UX"), None),
    **dict.fromkeys(("OF", "OP", "RF", "RP", "RU"), None),
}


def test_every_order_control_code_has_its_row_or_its_reason_for_none() -> None:
    found = {code: codes.lookup("order_control", code) for code in _ORDER_CONTROL}
    assert {code: row.target if row else None for code, row in found.items()} == _ORDER_CONTROL
    assert set(codes.table("order_control")) <= set(_ORDER_CONTROL)


def test_lookup_ignores_case_and_space_and_guesses_nothing() -> None:
    found = codes.lookup("administrative_sex", " m ")
    assert found is not None
    assert found.target == "male"
    assert codes.lookup("administrative_sex", "X") is None


def test_a_table_that_does_not_exist_is_our_fault() -> None:
    with pytest.raises(FileNotFoundError):
        codes.table("no_such_table")
