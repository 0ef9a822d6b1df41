"""Outsourced laboratory work: specimen, results, alarms, corrections."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from hub.errors import HubError
from hub.workflows import CreateTask, Send, SetStatus, event_for_message
from tests.support.workflows import LIU, QM_SYSTEM, Play, entry, reason


def potassium(lab: Play, value: str, flag: str, status: str = "final") -> None:
    lab.hold(
        "Observation/k",
        "QM",
        status=status,
        valueQuantity={"value": Decimal(value), "unit": "mmol/L"},
        interpretation=[{"coding": [{"code": flag}]}],
    )


def report(lab: Play, status: str) -> dict[str, Any]:
    return entry(lab.report(status, "QM", result=[{"reference": "Observation/k"}]))


def alarms(lab: Play) -> list[CreateTask]:
    assert lab.last is not None
    return [e for e in lab.last.effects if isinstance(e, CreateTask) and e.code == "critical-value"]


def test_the_specimen_is_followed_to_the_final_report(lab: Play) -> None:
    with pytest.raises(HubError, match="must hold Specimen"):
        lab.do("collect", LIU)
    lab.do("collect", LIU, inputs=(entry("Specimen/sp1"),))
    lab.do("pack", LIU)
    lab.do("pick-up", QM_SYSTEM)
    lab.do("receive", QM_SYSTEM)
    lab.do("start", QM_SYSTEM)
    lab.do("verify", QM_SYSTEM)
    potassium(lab, "4.10", "N")
    final = lab.do("final", QM_SYSTEM, outputs=(report(lab, "final"),))
    assert [(e.message, e.control, e.institution) for e in final.effects if isinstance(e, Send)] == [
        ("oru_r01", "F", "KN")
    ]
    assert alarms(lab) == []


def test_a_laboratory_that_answers_only_by_message_is_understood(lab: Play) -> None:
    potassium(lab, "6.90", "HH")
    event = event_for_message(lab.workflow, lab.instance, "report.final", QM_SYSTEM)
    assert event == "final"
    lab.do(event, QM_SYSTEM, outputs=(report(lab, "final"),))
    (alarm,) = alarms(lab)
    assert (alarm.owner, alarm.requester, alarm.priority, alarm.focus) == ("KN", "QM", "stat", "DiagnosticReport/dr1")
    assert alarm.key == "Task/t1|critical-value|Observation/k=6.90"


def test_the_same_critical_value_is_one_alarm_and_a_corrected_one_another(lab: Play) -> None:
    potassium(lab, "6.90", "HH", "preliminary")
    lab.do("preliminary", QM_SYSTEM, outputs=(report(lab, "preliminary"),))
    first = alarms(lab)
    potassium(lab, "6.90", "HH")
    report(lab, "final")
    lab.do("final", QM_SYSTEM)
    assert [a.key for a in alarms(lab)] == [a.key for a in first]
    potassium(lab, "6.70", "HH", "corrected")
    report(lab, "corrected")
    corrected = lab.do("correct", QM_SYSTEM)
    assert [e.control for e in corrected.effects if isinstance(e, Send)] == ["C"]
    assert alarms(lab)[0].key != first[0].key


def test_a_late_partial_result_means_nothing_after_the_final_one(lab: Play) -> None:
    potassium(lab, "4.10", "N")
    lab.do("final", QM_SYSTEM, outputs=(report(lab, "final"),))
    assert event_for_message(lab.workflow, lab.instance, "report.preliminary", QM_SYSTEM) is None
    assert event_for_message(lab.workflow, lab.instance, "report.corrected", QM_SYSTEM) == "correct"
    assert event_for_message(lab.workflow, lab.instance, "report.final", QM_SYSTEM) == "reissue"
    with pytest.raises(HubError):
        lab.do("preliminary", QM_SYSTEM)


def test_a_final_report_has_final_results_only(lab: Play) -> None:
    potassium(lab, "4.10", "N", "preliminary")
    with pytest.raises(HubError, match="final or cancelled"):
        lab.do("final", QM_SYSTEM, outputs=(report(lab, "final"),))
    potassium(lab, "4.10", "N")
    with pytest.raises(HubError, match="must have status final"):
        lab.do("final", QM_SYSTEM, outputs=(report(lab, "preliminary"),))


def test_an_unfit_specimen_is_rejected_with_its_reason_and_collected_again(lab: Play) -> None:
    lab.do("collect", LIU, inputs=(entry("Specimen/sp1"),))
    lab.do("receive", QM_SYSTEM)
    decision = lab.do("reject-specimen", QM_SYSTEM, reason=reason("溶血"))
    assert lab.task["status"] == "rejected"
    assert SetStatus(resource_type="Specimen", status="unsatisfactory", reference="Specimen/sp1") in decision.effects
    assert [e.code for e in decision.effects if isinstance(e, CreateTask)] == ["recollect"]


def test_the_requester_cancels_before_testing_and_asks_afterwards(lab: Play) -> None:
    assert event_for_message(lab.workflow, lab.instance, "order.cancel", LIU) == "cancel"
    lab.do("receive", QM_SYSTEM)
    lab.do("start", QM_SYSTEM)
    assert event_for_message(lab.workflow, lab.instance, "order.cancel", LIU) == "ask-cancel"
    lab.do("ask-cancel", LIU, reason=reason())
    lab.do("confirm-cancel", QM_SYSTEM)
    assert lab.state == "cancelled"


def test_only_the_laboratory_reports(lab: Play) -> None:
    with pytest.raises(HubError, match="not open to this sender"):
        lab.do("final", LIU)
