"""What is found wrong with a message that is to leave: its places, and nothing of its content."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fhir_mappings.hl7v2.outbound.validation import findings
from tests.fhir_mappings.hl7v2.outbound import samples as s


@pytest.mark.parametrize("version", ["2.3", "2.3.1", "2.4", "2.5.1", "2.6"])
def test_what_the_hub_builds_is_fit_to_be_sent(version: str) -> None:
    target = replace(s.KN, dialect=replace(s.KN.dialect, version_out=version))
    for make in (s.report, s.order, s.referral, s.answer, s.booking, s.demographics, s.merge, s.document):
        assert findings(make(target)) == ()


def test_a_missing_field_is_named_with_its_place() -> None:
    text = "MSH|^~\\&|A|B|C|D|20250611||ORU^R01|1|P|2.4\rPID|1||||郑伟\rOBR|1\rZZ1|anything\r"
    assert findings(text) == (
        "PID (segment 2): Missing required child PID.PID_3",
        "OBR (segment 3): Missing required child OBR.OBR_4",
    )


def test_nothing_of_the_content_is_told() -> None:
    told = findings("MSH|^~\\&|A|B|C|D|20250611||ORU^R01|1|P|9.9\rPID|1||||郑伟\r")
    assert len(told) == 1
    assert "郑伟" not in told[0]
