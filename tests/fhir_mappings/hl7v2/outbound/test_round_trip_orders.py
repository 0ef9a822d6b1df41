"""Orders in every form, and the answers to them, from FHIR to v2 and back, with a code of the placer beside a standard one.

OML, OMG and OMI are read by the same table as ORM. Prescriptions (OMP, RDE) and vaccinations (VXU) are taken and never sent, so
there is no way back to try.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_mappings.hl7v2.outbound.order_forms import FORMS, Form, OrderedStudy
from fhir_mappings.hl7v2.outbound.orr_o02 import ANSWERS
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate
from tests.fhir_mappings.hl7v2.outbound import samples as s
from tests.fhir_mappings.hl7v2.outbound.test_round_trip import (
    CODE,
    FEW,
    LINE,
    MOMENT,
    TARGETS,
    back,
    context_of,
    instant,
)

UID = st.lists(st.integers(0, 10**9), min_size=2, max_size=6).map(lambda parts: ".".join(map(str, [1, 2, *parts])))


@pytest.mark.parametrize("form", FORMS)
@FEW
@given(note=LINE, label=LINE, code=CODE, local=CODE, at=MOMENT, number=CODE, uid=UID, target=TARGETS)
def test_an_order_comes_back_as_it_was(
    form: Form, note: str, label: str, code: str, local: str, at: str, number: str, uid: str, target: OutboundTarget
) -> None:
    codings = [
        {"system": "http://loinc.org", "code": code, "display": label},
        {"system": f"{s.BASE}/CodeSystem/KN/local", "code": local, "display": label},
    ]
    request = {
        **s.REQUEST,
        "identifier": [s.identifier("KN", "placer-order", number, "PLAC")],
        "code": {"coding": codings, "text": label},
        "note": [{"text": note}],
        "authoredOn": at,
        "occurrenceDateTime": at,
        "priority": "stat",
    }
    text = s.order(target, request, conditions=[], form=form, studies=[OrderedStudy(uid=uid)])
    [made] = back(text, target)[0]["ServiceRequest"]
    assert made["code"]["coding"] == codings
    assert made["note"][0]["text"] == note
    assert made["priority"] == "stat"
    assert instant(made["authoredOn"]) == instant(at)
    assert number in {one["value"] for one in made["identifier"]}
    if form == "OMI^O23":
        assert parse(text).get("IPC-3") == uid


@pytest.mark.parametrize("asked_by", ANSWERS)
@FEW
@given(reason=LINE, number=CODE, control_id=CODE, target=TARGETS)
def test_an_answer_keeps_the_reason_and_the_numbers(
    asked_by: str, reason: str, number: str, control_id: str, target: OutboundTarget
) -> None:
    request = {**s.REQUEST, "identifier": [s.identifier("KN", "placer-order", number, "PLAC")]}
    text = s.order_answer(target, request, asked_by=asked_by, reason=reason, original_control_id=control_id)
    message = parse(text)
    assert message.get("MSA-2") == control_id
    (event,) = translate(message, context_of(target)).workflow_events
    assert (event.kind, event.placer_number, event.reason) == ("order.rejected", number, reason)
