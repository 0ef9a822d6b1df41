"""No state and no event of a table is there in vain: all of them can be had by asking the judge."""

from __future__ import annotations

from copy import copy

import pytest

from hub.errors import HubError
from hub.workflows import WORKFLOWS, allowed_events
from hub.workflows.task import marks, recorded
from tests.hub.workflows.test_any_sequence import ACTORS, REPORTS, prepared, tried
from tests.support.workflows import LIU, Play, entry


def drafted(code: str) -> Play:
    play, performer = prepared(code)
    play.hold("Consent/c1", "KN", status="active", patient={"reference": "Patient/p1"})
    play.create(LIU, owner=performer, status="draft", input=[entry("ImagingStudy/is1"), entry("Consent/c1")])
    return play


def what_matters(play: Play) -> tuple[object, ...]:
    task = play.task
    outputs = sorted(o["valueReference"]["reference"] for o in task.get("output") or ())
    return play.state, marks(task), recorded(task, "writer"), recorded(task, "assignee"), outputs == []


@pytest.mark.parametrize("code", WORKFLOWS)
def test_every_state_and_every_event_can_be_had(code: str) -> None:
    performer = "QM" if code == "lab-outsourcing" else "YL"
    first = drafted(code)
    waiting, known, taken = [first], {what_matters(first)}, set()
    while waiting:
        here = waiting.pop()
        for actor in ACTORS:
            for event in allowed_events(here.workflow, here.instance, actor):
                for report in REPORTS:
                    play = copy(here)
                    given = tried(play, actor, performer, report)
                    if actor is LIU:
                        n = len(play.task["input"])
                        play.hold(f"DocumentReference/n{n}", "KN")
                        given["inputs"] = (*given["inputs"], entry(f"DocumentReference/n{n}"))
                    try:
                        play.do(event, actor, **given)
                    except HubError:
                        continue
                    taken.add((here.state, event))
                    if what_matters(play) not in known:
                        known.add(what_matters(play))
                        waiting.append(play)
    workflow = first.workflow
    assert {state for state, *_ in known} == set(workflow.states)
    declared = {(state, t.event) for t in workflow.transitions for state in t.sources}
    assert declared - taken == set()
