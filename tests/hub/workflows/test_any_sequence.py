"""Whatever is tried, in whatever order and by whom, the tables hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.errors import Category, HubError
from hub.workflows import (
    HUB_ACTOR,
    WORKFLOWS,
    CancelTimer,
    CloseGrant,
    Decision,
    OpenGrant,
    StartTimer,
    allowed_events,
    state_of,
)
from tests.support.workflows import (
    DESK,
    FENG,
    HAN,
    LIU,
    QM_SYSTEM,
    SONG,
    SONG_PARTY,
    STRANGER,
    YL_SYSTEM,
    Play,
    entry,
    make,
    reason,
    role,
)

ACTORS = (LIU, DESK, SONG, HAN, FENG, YL_SYSTEM, QM_SYSTEM, STRANGER, HUB_ACTOR, role(SONG, "reviewer"))
REPORTS = ("preliminary", "final", "amended")


def prepared(code: str) -> tuple[Play, str]:
    performer = "QM" if code == "lab-outsourcing" else "YL"
    play = make(code)
    for status in REPORTS:
        people = [{"reference": "Practitioner/a"}, {"reference": "Practitioner/b"}]
        play.hold(f"DiagnosticReport/{status}", performer, status=status, resultsInterpreter=people)
    play.hold("Appointment/a1", performer, status="booked", start="2025-06-13T09:00:00+08:00")
    play.create(LIU, owner=performer, input=[entry("ImagingStudy/is1")])
    return play, performer


def tried(play: Play, actor: Any, performer: str, report: str) -> dict[str, Any]:
    """Return inputs that satisfy most of what events require."""
    given: dict[str, Any] = {"reason": reason(), "assignee": SONG_PARTY}
    if actor.institution == performer:
        outputs = (
            f"DiagnosticReport/{report}",
            "Appointment/a1",
            f"ServiceRequest/down-{len(play.task.get('output', ()))}",
        )
        play.hold(outputs[-1], performer, basedOn=[{"reference": "ServiceRequest/sr1"}])
        given["outputs"] = tuple(entry(output) for output in outputs)
    elif actor is LIU:
        given["inputs"] = (entry("Specimen/sp1"), entry("DocumentReference/doc-KN"))
    return given


def outcome(move: Callable[..., Decision], *args: Any, **change: Any) -> Decision | HubError:
    """Return the decision, or the error that refused it."""
    try:
        return move(*args, **change)
    except HubError as error:
        return error


@pytest.mark.parametrize("code", WORKFLOWS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_move_ends_in_a_declared_state_or_names_what_is_allowed(code: str, data: st.DataObject) -> None:
    play, performer = prepared(code)
    workflow = play.workflow
    events = sorted({t.event for t in workflow.transitions} | {"no-such-event"})
    assert play.last is not None
    grants = {(e.role, e.scope) for e in play.last.effects if isinstance(e, OpenGrant)}
    timers = {e.name for e in play.last.effects if isinstance(e, StartTimer)}
    for _ in range(data.draw(st.integers(1, 14))):
        actor = data.draw(st.sampled_from(ACTORS))
        allowed = allowed_events(workflow, play.instance, actor)
        # Allowed events are drawn more often, so that the walks reach the far states.
        event = data.draw(st.sampled_from([*allowed, *allowed, *allowed, *events] if allowed else events))
        old, before = state_of(workflow, play.task), play.task
        ended = workflow.states[old].terminal
        given_inputs = tried(play, actor, performer, data.draw(st.sampled_from(REPORTS)))
        decision = outcome(play.do, event, actor, **given_inputs)
        if isinstance(decision, HubError):
            assert decision.category in (Category.CONFLICT, Category.INCORRECT)
            assert decision.status in (409, 422)
            assert decision.issue_code == "business-rule"
            if decision.where in ("event", "Task"):
                assert decision.remedy == f"Allowed events: {', '.join(allowed) or 'none'}."
            assert play.task is before
            continue
        assert event in allowed
        assert decision.old_state == old
        assert state_of(workflow, decision.task) == decision.new_state
        assert not ended or workflow.states[decision.new_state].terminal
        for effect in decision.effects:
            match effect:
                case OpenGrant(role=name, scope=scope):
                    grants.add((name, scope))
                case CloseGrant(role=name, scope=scope):
                    grants.remove((name, scope))
                case StartTimer(name=name, due=due):
                    assert due.tzinfo is not None
                    timers.add(name)
                case CancelTimer(name=name):
                    timers.discard(name)
                case _:
                    pass
        assert grants == {(v.role, v.scope) for v in workflow.visibility if decision.new_state in v.states}
        assert timers <= {t.name for t in workflow.timers if decision.new_state in t.states}
        if workflow.states[decision.new_state].terminal:
            assert timers == set()
            assert {workflow.roles[name].party for name, _ in grants} == {"requester"}


@pytest.mark.parametrize("code", WORKFLOWS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_an_update_never_does_what_an_event_could_not(code: str, data: st.DataObject) -> None:
    play, performer = prepared(code)
    workflow = play.workflow
    for _ in range(data.draw(st.integers(1, 8))):
        actor = data.draw(st.sampled_from(ACTORS))
        if data.draw(st.booleans()):
            allowed = allowed_events(workflow, play.instance, actor)
            if allowed:
                with contextlib.suppress(HubError):
                    inputs = tried(play, actor, performer, data.draw(st.sampled_from(REPORTS)))
                    play.do(data.draw(st.sampled_from(allowed)), actor, **inputs)
            continue
        old = state_of(workflow, play.task)
        allowed = allowed_events(workflow, play.instance, actor)
        target = data.draw(st.sampled_from(sorted(workflow.states)))
        state = workflow.states[target]
        wanted = play.step(state.task_status, state.business_status)
        decision = outcome(play.put, actor, statusReason=reason(), **wanted)
        if isinstance(decision, HubError):
            assert decision.category in (Category.CONFLICT, Category.INCORRECT)
            continue
        assert decision.new_state == target
        if decision.event:
            assert decision.event in allowed
        else:
            assert target == old
