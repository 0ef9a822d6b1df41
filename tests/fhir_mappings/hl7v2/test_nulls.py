"""``""`` clears what an earlier message had set, an absent field leaves it (HL7 v2 chapter 2.5.3.2): every field of ORC, OBR, TQ1, SPM."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_mappings.hl7v2.base import Translation
from fhir_mappings.hl7v2.segments import obr, orc, spm
from fhir_mappings.hl7v2.status import apply
from tests.fhir_mappings.hl7v2.test_orders import P, row
from tests.fhir_mappings.hl7v2.test_translate import said, upserts

START = datetime(2025, 6, 11, tzinfo=UTC)

ORC = {1: "NW", 2: "P1"}
OBR = {1: "1", 2: "P1", 4: "CT01^胸部CT^L"}
TQ1 = {1: "1"}
SPM = {1: "1", 2: "S1"}
BASE = {"ORC": ORC, "TQ1": TQ1, "OBR": OBR, "SPM": SPM}

#: (segment, field) -> what it says. A valued field is in the resource, a null one leaves it as if nothing had ever been said.
VALUES: dict[tuple[str, int], str] = {
    ("ORC", 4): "G1",
    ("ORC", 12): "0231^刘敏",
    ("ORC", 14): "^PRN^PH^^^0871^5550100",
    ("ORC", 16): "R1^设备检修^L",
    ("ORC", 28): "R",
    ("ORC", 29): "I^住院^L",
    ("OBR", 5): "S",
    ("OBR", 6): "20250612080000",
    ("OBR", 13): "咳嗽",
    ("OBR", 16): "0231^刘敏",
    ("OBR", 17): "^PRN^PH^^^0871^5550100",
    ("OBR", 24): "RAD",
    ("OBR", 29): "P0",
    ("OBR", 31): "R05^咳嗽^L",
    ("OBR", 36): "20250613080000",
    ("OBR", 46): "X1^侧位^L",
    ("OBR", 47): "X2^增强^L",
    ("TQ1", 2): "3",
    ("TQ1", 3): "BID",
    ("TQ1", 7): "20250612080000",
    ("TQ1", 9): "S",
    ("SPM", 3): "S0",
    ("SPM", 4): "SER^血清^HL70487",
    ("SPM", 7): "VENIP^静脉采血^L",
    ("SPM", 8): "LA^左臂^L",
    ("SPM", 11): "P^病人^HL70369",
    ("SPM", 12): "5^mL",
    ("SPM", 14): "溶血",
    ("SPM", 17): "20250611073000",
    ("SPM", 18): "20250611080000",
    ("SPM", 20): "Y",
    ("SPM", 24): "CLOT^凝块^L",
    ("SPM", 30): "ACC1",
}
#: Numbers are united and never taken back, because results may have come under them; OBR-4 is required.
_KEPT = {("OBR", 4), ("ORC", 33), ("ORC", 38), ("OBR", 53), ("SPM", 2), ("SPM", 31), ("SPM", 32)}


def message(segment: str = "", number: int = 0, value: str = "") -> Translation:
    rows = []
    for name, cells in BASE.items():
        valued = {**cells, number: value} if name == segment else cells
        rows.append(row(name, **{f"f{at}": text for at, text in valued.items()}))
    return said("OML^O21", P, *rows)


def after(*messages: Translation, kind: str) -> dict[str, Any]:
    """Return the resource of *kind* after *messages*, one hour apart."""
    stored: dict[str, Any] | None = None
    at: datetime | None = None
    for ordinal, one in enumerate(messages):
        now = START + timedelta(hours=ordinal)
        change = [item for item in upserts(one, kind) if not item.create_only][-1]
        merged = apply(stored, change, stored_asserted_at=at, asserted_at=now)
        stored, at = dict(merged.resource), now
    assert stored is not None
    return stored


def test_every_row_of_the_tables_is_asked_for() -> None:
    rows = {
        *(("ORC", one.number) for one in orc.REQUEST_ROWS),
        *(("OBR", one.number) for one in obr.REQUEST_ROWS),
        *(("SPM", one.number) for one in spm.ROWS),
    }
    assert rows - _KEPT <= VALUES.keys()


@pytest.mark.parametrize(("segment", "number"), VALUES)
def test_a_null_clears_and_an_absent_field_leaves(segment: str, number: int) -> None:
    kind = "Specimen" if segment == "SPM" else "ServiceRequest"
    plain, valued = message(), message(segment, number, VALUES[segment, number])
    nothing, something = after(plain, kind=kind), after(plain, valued, kind=kind)
    assert something != nothing
    assert after(plain, valued, plain, kind=kind) == something
    assert after(plain, valued, message(segment, number, '""'), kind=kind) == nothing


def test_the_null_of_one_field_does_not_take_what_another_states() -> None:
    number = "^PRN^PH^^^0871^5550100"
    both = said(
        "OMG^O19", P, row("ORC", f1="NW", f2="P1", f14='""'), row("OBR", f1="1", f2="P1", f4="CT^胸部^L", f17=number)
    )
    assert after(both, kind="ServiceRequest")["extension"][0]["valueContactPoint"]
    assert after(both, both, kind="ServiceRequest")["extension"][0]["valueContactPoint"]
