"""A table that cannot be run stops the hub."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hub.errors import Category, HubError
from hub.workflows import WORKFLOWS, Workflow
from hub.workflows.checks import check, faults
from hub.workflows.effect_kinds import CreateTask, Notify, Send
from hub.workflows.table import Role, State, Transition

READING = WORKFLOWS["remote-reading"]


def with_transition(transition: Transition) -> Workflow:
    return replace(READING, transitions=(*READING.transitions, transition))


def move(event: str = "x", sources: tuple[str, ...] = ("draft",), **change: object) -> Transition:
    given = {"to": None, "by": ("requester",), "title_zh": "某", "title_en": "x", **change}
    return Transition(event=event, sources=sources, **given)  # type: ignore[arg-type]


def states(**more: State) -> Workflow:
    return replace(READING, states={**READING.states, **more})


@pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=WORKFLOWS)
def test_the_shipped_tables_can_be_run(workflow: Workflow) -> None:
    assert faults(workflow) == ()


@pytest.mark.parametrize(
    ("workflow", "says"),
    [
        (states(lost=State(task_status="ready", business_status="writing")), "'lost' cannot be reached"),
        (
            replace(
                states(pit=State(task_status="ready", business_status="writing")),
                transitions=(*READING.transitions, move(to="pit")),
            ),
            "'pit' is a dead end",
        ),
        (states(twin=State(task_status="draft", business_status="draft")), "2 states share"),
        (states(odd=State(task_status="ready", business_status="odd")), "unknown to imaging-step"),
        (states(end=State(task_status="failed", business_status="refused")), "'end' must be terminal"),
        (with_transition(move(to="nowhere")), "undeclared state 'nowhere'"),
        (with_transition(move(sources=("nowhere",))), "undeclared state 'nowhere'"),
        (with_transition(move(by=("nobody",))), "undeclared role 'nobody'"),
        (with_transition(move(by=())), "open to nobody"),
        (with_transition(move(event="submit")), "declared 2 times"),
        (with_transition(move(reasons="whim")), "undeclared reason list 'whim'"),
        (with_transition(move(effects=(Notify(role="nobody"),))), "undeclared role 'nobody'"),
        (with_transition(move(effects=(Send(message="fax", to_role="desk"),))), "undeclared message 'fax'"),
        (
            with_transition(move(effects=(CreateTask(code="whim", owner_role="desk", requester_role="desk"),))),
            "unknown code 'whim'",
        ),
        (with_transition(move(restarts=("whim",))), "undeclared timer 'whim'"),
        (with_transition(move(sources=("refused",))), "after_end"),
        (with_transition(move(sources=("refused",), to="writing", after_end=True)), "reopens"),
        (replace(READING, timers=(replace(READING.timers[0], event="whim"),)), "fires 'whim'"),
        (replace(READING, timers=(READING.timers[0], READING.timers[0])), "declared twice"),
        (replace(READING, initial="whim"), "initial state 'whim'"),
        (replace(READING, submit="whim"), "must lead from"),
        (replace(READING, visibility=(replace(READING.visibility[0], role="nobody"),)), "undeclared role 'nobody'"),
        (replace(READING, edits=(replace(READING.edits[0], states=("whim",)),)), "undeclared state 'whim'"),
        (replace(READING, code="whim"), "not in the CodeSystem"),
        (replace(READING, service=""), "the service of the owner"),
    ],
)
def test_a_broken_table_is_refused_with_what_is_wrong(workflow: Workflow, says: str) -> None:
    with pytest.raises(HubError) as caught:
        check(workflow)
    assert caught.value.category is Category.FAULT
    assert says in caught.value.message


def test_a_function_that_no_token_carries_is_found() -> None:
    desk = replace(READING.roles["desk"], functions=frozenset({"whim"}))
    assert any("'whim'" in fault for fault in faults(replace(READING, roles={**READING.roles, "desk": desk})))


def test_a_role_that_a_table_forgets_is_found() -> None:
    roles: dict[str, Role] = {name: role for name, role in READING.roles.items() if name != "reviewer"}
    assert any("'reviewer'" in fault for fault in faults(replace(READING, roles=roles)))
