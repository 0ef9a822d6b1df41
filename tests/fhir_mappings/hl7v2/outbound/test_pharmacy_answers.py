"""Answers to pharmacy messages, judged by hl7apy in the versions that have them, and read back by the hub itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import given
from hypothesis import strategies as st

from fhir_mappings.hl7v2.ack import AckError
from fhir_mappings.hl7v2.base import Upsert
from fhir_mappings.hl7v2.dialects import HIS_CN, STANDARD
from fhir_mappings.hl7v2.escapes import STANDARD as ER7
from fhir_mappings.hl7v2.escapes import escape
from fhir_mappings.hl7v2.outbound.orp_o10 import ANSWERS, CONTROLS, AnsweredOrder, orp_o10
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.tokenizer import Message, parse
from fhir_mappings.hl7v2.translate import MESSAGES, translate
from tests.fhir_mappings.hl7v2.golden import context
from tests.fhir_mappings.hl7v2.outbound import samples as s
from tests.fhir_mappings.hl7v2.outbound.test_round_trip import CODE, FEW, LINE

REFUSED = AckError(location="ORC-1", code=206, text="已发药，不能撤销")
#: The messages of before v2.4, and those after.
OLD = ("RRD^O02", "RRA^O02")
CASES = [
    *((event, version) for event in OLD for version in ("2.3", "2.3.1")),
    ("RRE^O02", "2.3.1"),
    *((event, "2.3.1") for event in ("ORR^O02",)),
    *(
        (event, version)
        for event in ("ORP^O10", "RRE^O12", "RRD^O14", "RRA^O18")
        for version in ("2.4", "2.5", "2.5.1", "2.6")
    ),
    ("RRE^O26", "2.5"),
]


def target(version: str, base: str = "standard") -> OutboundTarget:
    return replace(s.KN, dialect=replace(HIS_CN if base == "his-cn" else STANDARD, version_out=version))


def asked(*lines: str) -> Message:
    return parse("\r".join(["MSH|^~\\&|HIS|KNYY|YXT|HUB|20250611080000||OMP^O09|M1|P|2.5.1", *lines, ""]))


def answer(orders: list[AnsweredOrder], there: OutboundTarget, event: str = "ORP^O10", **changes: Any) -> str:
    options: dict[str, Any] = {
        "asked_by": next(one for one, answered in ANSWERS.items() if answered == event),
        "original_control_id": "M1",
        "original_version": there.dialect.version_out,
        "patient": s.PATIENT,
        **changes,
    }
    return orp_o10(orders, target=there, control_id="YX1", now=s.NOW, **options)


@pytest.mark.parametrize("base", ["standard", "his-cn"])
@pytest.mark.parametrize(("event", "version"), CASES)
def test_every_segment_and_structure_is_valid_for_hl7apy(event: str, version: str, base: str) -> None:
    taken, refused = asked("ORC|NW|R1^HIS|||||^QD", "ORC|CA|R2^HIS|F2^YF||||^QD").all("ORC")
    text = answer([AnsweredOrder(orc=taken), AnsweredOrder(orc=refused, error=REFUSED)], target(version, base), event)
    sent = parse(text)
    assert (f"{sent.get('MSH-9.1')}^{sent.get('MSH-9.2')}", sent.get("MSH-12")) == (event, version)
    flat = parse_message(text, validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False)
    assert [one.name for one in flat.children] == ["MSH", "MSA", "ERR", "PID", "ORC", "ORC"]
    for one in flat.children:
        one.validate()
    cells = text.split("|")
    cells[8] = f"{event}^{'RRE_O12' if event == 'RRE^O26' else event.replace('^', '_')}"
    if not event.startswith("ORR") and version != "2.3":
        # hl7apy takes the alternatives of the choice group of ORR for required all at once, and v2.3 has no MSH-9.3.
        parse_message("|".join(cells), validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=True).validate()


def test_every_answer_that_is_sent_is_taken_too() -> None:
    for event in ANSWERS.values():
        code, _, trigger = event.partition("^")
        assert trigger in MESSAGES[code]


@pytest.mark.parametrize("control", CONTROLS)
def test_each_command_has_a_word_for_done_and_one_for_not(control: str) -> None:
    (orc,) = asked(f"ORC|{control}|R1").all("ORC")
    done, unable = CONTROLS[control]
    assert AnsweredOrder(orc=orc).control == done
    assert AnsweredOrder(orc=orc, error=REFUSED).control == unable


@FEW
@given(numbers=st.lists(CODE, min_size=1, max_size=4, unique=True), text=LINE, refused=st.sets(st.integers(0, 3)))
def test_each_order_comes_back_with_its_own_number_and_outcome(
    numbers: list[str], text: str, refused: set[int]
) -> None:
    there = target("2.5.1")
    orcs = asked(*(f"ORC|CA|{escape(number, ER7)}" for number in numbers)).all("ORC")
    error = replace(REFUSED, text=text)
    orders = [AnsweredOrder(orc=orc, error=error if place in refused else None) for place, orc in enumerate(orcs)]
    back = parse(answer(orders, there))
    assert [(orc.get(1), orc.get(2)) for orc in back.all("ORC")] == [
        ("UC" if place in refused else "CR", number) for place, number in enumerate(numbers)
    ]
    assert [one.get(16, 2) for one in back.all("ORC")] == [
        text if place in refused else "" for place in range(len(numbers))
    ]
    made = translate(back, replace(context("KN"), dialect=there.dialect))
    said = [one for one in made.changes if isinstance(one, Upsert)]
    assert [one.resource.get("status") for one in said] == [
        None if place in refused else "cancelled" for place in range(len(numbers))
    ]
    assert all(one.update_only and one.resource["resourceType"] == "MedicationRequest" for one in said)


@pytest.mark.parametrize("event", ["RRD^O14", "RRA^O18"])
def test_what_is_said_of_a_dispense_leaves_the_prescription_where_it_stands(event: str) -> None:
    (orc,) = asked("ORC|CA|R1|F1").all("ORC")
    made = translate(parse(answer([AnsweredOrder(orc=orc)], target("2.5.1"), event)), context("KN"))
    [said] = [one for one in made.changes if isinstance(one, Upsert)]
    assert "status" not in said.resource
    assert [one["value"] for one in said.resource["identifier"]] == ["R1", "F1"]
