"""Specimens of orders and results: SPM and SAC, or OBR-15 where there is no SPM; judged by hl7apy, and there and back."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import given
from hypothesis import strategies as st

from fhir_mappings.hl7v2.dialects import HIS_CN, STANDARD
from fhir_mappings.hl7v2.outbound.order_forms import Form
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.segments.spm import ROLE
from fhir_mappings.hl7v2.tokenizer import parse
from tests.fhir_mappings.hl7v2.outbound import samples as s
from tests.fhir_mappings.hl7v2.outbound.test_round_trip import CODE, FEW, LINE, MOMENT, back, instant
from tests.fhir_mappings.hl7v2.outbound.test_versions import judge


def coded(code: str, display: str, system: str = "http://terminology.hl7.org/CodeSystem/v2-0487") -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


SERUM: dict[str, Any] = {
    "resourceType": "Specimen",
    "id": "serum",
    "identifier": [
        s.identifier("KN", "placer-specimen", "KNSP1", "PLAC"),
        s.identifier("QM", "filler-specimen", "QMSP1", "FILL"),
    ],
    "extension": [
        {"url": ROLE, "valueCodeableConcept": coded("P", "病人标本", "http://terminology.hl7.org/CodeSystem/v2-0369")}
    ],
    "type": coded("SER", "血清"),
    "status": "available",
    "receivedTime": "2025-06-11T11:00:00+08:00",
    "collection": {
        "collectedPeriod": {"start": "2025-06-11T08:00:00+08:00", "end": "2025-06-11T08:05:00+08:00"},
        "bodySite": coded("LA", "左臂", "http://terminology.hl7.org/CodeSystem/v2-0163"),
        "quantity": {"value": Decimal("5.0"), "unit": "ml"},
    },
    "condition": [coded("HEM", "溶血", "http://terminology.hl7.org/CodeSystem/v2-0493")],
    "container": [
        {
            "identifier": [{"system": f"{s.BASE}/NamingSystem/KN/container", "value": "TUBE1"}],
            "type": coded("PLT", "采血管", "http://example.org/tubes"),
        }
    ],
    "note": [{"text": "晨起空腹"}],
}
UNTYPED = {"resourceType": "Specimen", "id": "x", "identifier": SERUM["identifier"]}


def target(version: str, base: str = "standard") -> OutboundTarget:
    return replace(s.KN, dialect=replace(HIS_CN if base == "his-cn" else STANDARD, version_out=version))


def names(text: str) -> list[str]:
    return [one.name for one in parse(text).segments]


@pytest.mark.parametrize("base", ["standard", "his-cn"])
@pytest.mark.parametrize("version", ["2.4", "2.5", "2.5.1", "2.6"])
@pytest.mark.parametrize("event", ["OML^O21", "OML^O33", "ORU^R01"])
def test_every_segment_and_structure_is_valid_for_hl7apy(event: Form, version: str, base: str) -> None:
    there = target(version, base)
    if event.startswith("ORU"):
        text = s.report(there, specimens=[SERUM, UNTYPED])
    else:
        text = s.order(there, form=event, specimens=[SERUM, UNTYPED])
    sent = parse(text)
    assert f"{sent.get('MSH-9.1')}^{sent.get('MSH-9.2')}" == event
    flat = parse_message(text, validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False)
    for one in flat.children:
        judge(one, sent.get("MSH-12"))
    fields = text.split("|")
    fields[8] = f"{event}^{event.replace('^', '_')}"
    judge(parse_message("|".join(fields), validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=True), version)


def test_the_specimen_stands_where_each_message_has_its_place() -> None:
    there = target("2.5.1")
    assert names(s.order(there, form="OML^O21", specimens=[SERUM], conditions=[]))[-3:] == ["NTE", "SPM", "SAC"]
    assert names(s.order(there, form="OML^O33", specimens=[SERUM]))[1:5] == ["PID", "SPM", "SAC", "ORC"]
    assert names(s.report(there, specimens=[SERUM]))[-1] == "SPM"


@pytest.mark.parametrize(("form", "version"), [("ORM^O01", "2.5.1"), ("OMG^O19", "2.5.1"), ("OML^O21", "2.4")])
def test_where_there_is_no_spm_the_type_stands_in_obr_15(form: Form, version: str) -> None:
    sent = parse(s.order(target(version), form=form, specimens=[SERUM]))
    assert sent.first("SPM") is None
    assert [sent.all("OBR")[0].get(15, 1, part) for part in (1, 2, 3)] == ["SER", "血清", "HL70487"]
    assert sent.get("OBR-14") == "20250611110000"


def test_an_order_without_a_specimen_that_spm_can_describe_is_no_oml_o33() -> None:
    for specimens in ([], [UNTYPED]):
        sent = parse(s.order(target("2.5.1"), form="OML^O33", specimens=specimens))
        assert (sent.get("MSH-9.2"), sent.first("SPM")) == ("O21", None)


@pytest.mark.parametrize("event", ["OML^O21", "OML^O33", "ORU^R01"])
@FEW
@given(
    number=CODE,
    kind=CODE,
    words=LINE,
    role=st.sampled_from("PQBC"),
    taken=MOMENT,
    came=MOMENT,
    status=st.sampled_from(["available", "unavailable"]),
    conditions=st.lists(CODE, max_size=3, unique=True),
    amount=st.decimals(min_value=0, max_value=1000, places=2),
)
def test_a_specimen_comes_back_as_it_was(
    event: str,
    number: str,
    kind: str,
    words: str,
    role: str,
    taken: str,
    came: str,
    status: str,
    conditions: list[str],
    amount: Decimal,
) -> None:
    there = target("2.6")
    specimen = {
        **SERUM,
        "identifier": [s.identifier("KN", "placer-specimen", number, "PLAC")],
        "extension": [{"url": ROLE, "valueCodeableConcept": coded(role, words)}],
        "type": coded(kind, words),
        "status": status,
        "receivedTime": came,
        "collection": {
            "collectedDateTime": taken,
            "bodySite": coded("LA", words),
            "quantity": {"value": amount, "unit": "ml"},
        },
        "condition": [coded(one, words) for one in conditions],
        "note": [{"text": words}],
    }
    if event.startswith("ORU"):
        text = s.report(there, specimens=[specimen])
    else:
        text = s.order(there, form=event, specimens=[specimen], conditions=[])
    [made] = back(text, there)[0]["Specimen"]
    assert [one["value"] for one in made["identifier"]] == [number]
    for element in ("extension", "type", "status", "note"):
        assert made[element] == specimen[element], element
    assert made.get("condition", []) == specimen["condition"]
    assert made["collection"]["bodySite"] == specimen["collection"]["bodySite"]
    assert made["collection"]["quantity"] == {"value": amount, "unit": "ml"}
    assert instant(made["collection"]["collectedDateTime"]) == instant(taken)
    assert instant(made["receivedTime"]) == instant(came)
