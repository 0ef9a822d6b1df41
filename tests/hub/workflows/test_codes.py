"""The CodeSystems that the tables use."""

from __future__ import annotations

from hub.workflows import WORKFLOWS, code_systems
from hub.workflows.codes import REASONS, STEPS, WORKFLOW, concept, is_known


def test_every_code_is_unique_in_its_system() -> None:
    for concepts in (WORKFLOW, *STEPS.values(), *REASONS.values()):
        codes = [code for code, _, _ in concepts]
        assert len(codes) == len(set(codes))


def test_every_step_is_a_state_of_its_workflow() -> None:
    for workflow in WORKFLOWS.values():
        used = {state.business_status for state in workflow.states.values()}
        assert used == {code for code, _, _ in STEPS[workflow.steps]}


def test_the_resources_have_canonical_urls_and_chinese_displays() -> None:
    systems = {system["url"]: system for system in code_systems()}
    step = systems["https://yixiehub.example/fhir/CodeSystem/referral-step"]
    assert step["count"] == len(step["concept"]) == 20
    assert {c["code"]: c["display"] for c in step["concept"]}["not-arrived"] == "未到诊"


def test_an_unknown_code_is_not_known() -> None:
    assert concept("workflow", "referral")["display"] == "双向转诊"
    assert not is_known("workflow", "whim")
    assert not is_known("whim", "referral")
