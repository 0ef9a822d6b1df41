"""Which acknowledgements a message asks for (MSH-15, MSH-16; HL7 v2 chapter 2.9.3, table 0155)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fhir_mappings.hl7v2.outbound.target import Acknowledgements, start
from tests.fhir_mappings.hl7v2.outbound.samples import KN, NOW


def asked(message: str, acknowledgements: Acknowledgements) -> list[str]:
    target = replace(KN, acknowledgements=acknowledgements)
    header = start(target, message, control_id="1", now=NOW).to_text().split("\r")[0].split("|")
    return header[14:16]


@pytest.mark.parametrize(
    "message",
    ["REF^I12^REF_I12", "REF^I14^REF_I12", "ORM^O01^ORM_O01", "OML^O21^OML_O21", "OMG^O19^OMG_O19", "OMI^O23^OMI_O23"],
)
def test_a_request_asks_the_application_too(message: str) -> None:
    assert asked(message, "") == ["AL", "AL"]


def test_a_booking_asks_the_application_too() -> None:
    assert asked("SIU^S12^SIU_S12", "") == ["AL", "AL"]


@pytest.mark.parametrize("message", ["ORU^R01^ORU_R01", "ADT^A08^ADT_A01", "MDM^T02^MDM_T02", "RRI^I12^RRI_I12"])
def test_what_only_tells_asks_for_its_receipt(message: str) -> None:
    assert asked(message, "") == ["AL", "NE"]


@pytest.mark.parametrize("message", ["REF^I12^REF_I12", "ORU^R01^ORU_R01", "RRI^I12^RRI_I12"])
def test_original_mode_leaves_both_empty(message: str) -> None:
    assert asked(message, "original") == ["", ""]


def test_a_partner_may_be_asked_for_its_receipt_alone() -> None:
    assert asked("REF^I12^REF_I12", "accept") == ["AL", "NE"]


def test_a_partner_may_be_asked_for_both_of_everything_but_answers() -> None:
    assert asked("ORU^R01^ORU_R01", "both") == ["AL", "AL"]
    assert asked("ORR^O02^ORR_O02", "both") == ["AL", "NE"]
    assert asked("RRI^I12^RRI_I12", "both") == ["AL", "NE"]
