"""How a Task may begin."""

from __future__ import annotations

from typing import Any

import pytest

from hub.errors import Category, HubError
from hub.workflows import OpenGrant, parties_of, references, workflow_for
from tests.support.workflows import DESK, LIU, STRANGER, entry, make

IMAGES = [entry("ImagingStudy/is1")]


@pytest.mark.parametrize("status", ["received", "accepted", "in-progress", "completed", "cancelled", None])
def test_a_task_is_created_as_draft_or_requested(status: str | None) -> None:
    with pytest.raises(HubError, match="draft or requested"):
        make("remote-reading").create(LIU, status=status, input=IMAGES)


def test_a_draft_is_seen_by_the_requester_alone() -> None:
    play = make("remote-reading")
    decision = play.create(LIU, status="draft")
    assert play.state == "draft"
    assert [e.institution for e in decision.effects if isinstance(e, OpenGrant)] == ["KN"]


@pytest.mark.parametrize("actor", [DESK, STRANGER])
def test_nobody_requests_in_anothers_name(actor: Any) -> None:
    with pytest.raises(HubError) as caught:
        make("remote-reading").create(actor, input=IMAGES)
    assert caught.value.category is Category.FORBIDDEN


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"input": []}, "must hold ImagingStudy"),
        ({"input": [entry("ImagingStudy/foreign")]}, "not a resource of the sender's institution"),
        ({"input": [entry("ImagingStudy/nowhere")]}, "not a resource of the sender's institution"),
        ({"input": [entry("https://elsewhere.example/fhir/ImagingStudy/1")]}, "as Type/id"),
        ({"input": IMAGES, "output": IMAGES}, "no output yet"),
        ({"input": IMAGES, "focus": {"reference": "ServiceRequest/other"}}, "Task.focus"),
        ({"input": IMAGES, "for": {"reference": "Patient/other"}}, "Task.for"),
        ({"input": IMAGES, "owner": None}, "Task.owner must name"),
        (
            {"input": IMAGES, "extension": [{"url": "https://yixiehub.example/fhir/StructureDefinition/task-party"}]},
            "hub alone",
        ),
    ],
)
def test_a_request_that_lacks_something_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(HubError, match=says) as caught:
        make("remote-reading").create(LIU, **change)
    assert caught.value.status == 422


def test_images_that_are_not_there_yet_or_anothers_are_refused() -> None:
    play = make("remote-reading")
    play.hold("ImagingStudy/is1", "KN", status="registered", subject={"reference": "Patient/p1"})
    with pytest.raises(HubError, match="status available"):
        play.create(LIU, input=IMAGES)
    play.hold("ImagingStudy/is1", "KN", status="available", subject={"reference": "Patient/p2"})
    with pytest.raises(HubError, match="not of the Patient"):
        play.create(LIU, input=IMAGES)


def test_a_revoked_request_is_not_sent() -> None:
    play = make("remote-reading")
    play.request["status"] = "revoked"
    with pytest.raises(HubError, match="draft, active or on-hold"):
        play.create(LIU, input=IMAGES)


def test_what_is_missing_but_not_required_is_told() -> None:
    decision = make("remote-reading").create(LIU, input=IMAGES)
    assert [w.code for w in decision.warnings] == ["summary_given", "consent_given"]


def test_the_task_remembers_parties_and_table() -> None:
    play = make("remote-reading")
    play.create(LIU, input=IMAGES)
    assert parties_of(play.task) == {"requester": "KN", "owner": "YL"}
    assert play.task["instantiatesCanonical"] == "https://yixiehub.example/fhir/ActivityDefinition/remote-reading|1"
    assert workflow_for(play.task) is play.workflow
    assert references(play.task) == {"ServiceRequest/sr1", "Patient/p1", "ImagingStudy/is1"}


def test_other_codings_of_the_task_are_kept() -> None:
    play = make("remote-reading")
    fulfill = {"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "fulfill"}
    ours = {"system": "https://yixiehub.example/fhir/CodeSystem/workflow", "code": "remote-reading"}
    play.create(LIU, input=IMAGES, code={"coding": [fulfill, ours]})
    assert [c["code"] for c in play.task["code"]["coding"]] == ["remote-reading", "fulfill"]


def test_a_task_without_our_code_has_no_table() -> None:
    assert workflow_for({"resourceType": "Task", "code": {"coding": [{"code": "fulfill"}]}}) is None
