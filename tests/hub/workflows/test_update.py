"""Ordinary updates are judged by the same tables as events."""

from __future__ import annotations

from typing import Any

import pytest

from hub.errors import Category, HubError
from hub.workflows import CloseGrant, OpenGrant, Party
from tests.support.workflows import DESK, HAN, LIU, SONG, SONG_PARTY, STRANGER, Play, entry, make, reason

IMAGES = [entry("ImagingStudy/is1")]


def test_a_changed_status_means_the_event_that_leads_there(reading: Play) -> None:
    assert reading.put(DESK, **reading.step("received", "submitted")).event == "receive"
    assert reading.put(LIU, status="cancelled", businessStatus=None).event == "withdraw"


def test_a_new_owner_means_assign_and_none_means_claim(reading: Play) -> None:
    assign = reading.put(
        DESK, SONG_PARTY, owner={"reference": SONG_PARTY.reference}, **reading.step("accepted", "assigned")
    )
    assert assign.event == "assign"
    again = Party(reference="PractitionerRole/han-YL", institution="YL", practitioner="Practitioner/han-lei")
    moved = reading.put(DESK, again, owner={"reference": again.reference})
    assert (moved.event, moved.new_state) == ("assign", "assigned")
    reading.do("release", DESK)
    assert reading.put(SONG, **reading.step("accepted", "assigned")).event == "claim"


def test_the_same_guards_hold(reading: Play) -> None:
    reading.do("claim", SONG)
    reading.put(SONG, **reading.step("in-progress", "writing"))
    with pytest.raises(HubError, match="must hold DiagnosticReport"):
        reading.put(SONG, **reading.step("in-progress", "preliminary"))
    report = entry(reading.report("preliminary"))
    reading.put(SONG, output=[report], **reading.step("in-progress", "preliminary"))
    with pytest.raises(HubError, match="statusReason is required"):
        reading.put(HAN, **reading.step("in-progress", "returned"))
    with pytest.raises(HubError, match="No event open to this sender"):
        reading.put(SONG, **reading.step("completed", "final"))
    assert reading.put(HAN, **reading.step("completed", "final")).event == "final"


def test_a_jump_is_refused_with_the_allowed_events(reading: Play) -> None:
    with pytest.raises(HubError) as caught:
        reading.put(DESK, **reading.step("completed", "final"))
    assert caught.value.category is Category.CONFLICT
    assert caught.value.remedy == (
        "Allowed events: receive, assign, refuse, decline-modify, decline-hold, decline-release."
    )


@pytest.mark.parametrize(
    "change",
    [
        {"focus": {"reference": "ServiceRequest/other"}},
        {"for": {"reference": "Patient/other"}},
        {"requester": {"reference": "Organization/QH"}},
        {"code": {"text": "x"}},
        {"intent": "plan"},
        {"identifier": [{"value": "1"}]},
        {"extension": None},
        {"instantiatesCanonical": None},
    ],
)
@pytest.mark.parametrize("actor", [LIU, DESK])
def test_what_the_work_is_never_changes(reading: Play, change: dict[str, Any], actor: Any) -> None:
    with pytest.raises(HubError, match="never change") as caught:
        reading.put(actor, **change)
    assert caught.value.status == 422


def test_parties_add_notes_and_the_requester_adds_inputs(reading: Play) -> None:
    reading.put(DESK, note=[{"text": "稍候"}])
    reading.hold("ImagingStudy/is2", "KN", status="available", subject={"reference": "Patient/p1"})
    decision = reading.put(LIU, input=[*IMAGES, entry("ImagingStudy/is2")])
    assert decision.event == ""
    assert [e.institution for e in decision.effects if isinstance(e, OpenGrant)] == ["KN", "YL"]
    assert [n["text"] for n in reading.task["note"]] == ["稍候"]


@pytest.mark.parametrize(
    ("actor", "change"),
    [
        (DESK, {"priority": "stat"}),
        (LIU, {"restriction": {"period": {"end": "2030-01-01T00:00:00Z"}}}),
        (LIU, {"input": []}),
        (LIU, {"input": [*IMAGES, entry("ImagingStudy/foreign")]}),
        (LIU, {"output": [entry("DocumentReference/doc-KN")]}),
        (DESK, {"input": [*IMAGES, entry("DocumentReference/doc-YL")]}),
        (LIU, {"owner": {"reference": "Organization/QH"}}),
        (LIU, {"statusReason": reason()}),
        (STRANGER, {"note": [{"text": "x"}]}),
        (DESK, {"note": [{"text": "x", "authorReference": {"reference": "Practitioner/han-lei"}}]}),
    ],
)
def test_other_edits_are_refused(reading: Play, actor: Any, change: dict[str, Any]) -> None:
    before = reading.task
    with pytest.raises(HubError):
        reading.put(actor, **change)
    assert reading.task == before


def test_a_draft_is_the_requesters_to_shape() -> None:
    play = make("remote-reading")
    play.create(LIU, status="draft", owner=None, input=[entry("DocumentReference/doc-KN")])
    with pytest.raises(HubError):
        play.put(DESK, description="x")
    yj = Party(reference="Organization/YJ", institution="YJ")
    decision = play.put(LIU, yj, owner={"reference": yj.reference}, input=IMAGES, **play.step("requested", "submitted"))
    assert decision.event == "submit"
    assert [e.institution for e in decision.effects if isinstance(e, OpenGrant)] == ["YJ"]


def test_a_draft_does_not_open_what_is_not_ones_own() -> None:
    play = make("remote-reading")
    play.create(LIU, status="draft")
    with pytest.raises(HubError, match="not a resource of the sender's institution"):
        play.put(LIU, input=[entry("ImagingStudy/foreign")])


def test_an_update_that_changes_nothing_moves_nothing(reading: Play) -> None:
    decision = reading.put(LIU)
    assert (decision.event, decision.effects) == ("", ())


def test_a_withdrawal_by_update_closes_the_view(reading: Play) -> None:
    decision = reading.put(LIU, **reading.step("cancelled", "withdrawn"))
    assert [e.until for e in decision.effects if isinstance(e, CloseGrant)] == [reading.now]


def test_an_unknown_pair_is_not_a_state(reading: Play) -> None:
    with pytest.raises(HubError, match="No event open"):
        reading.put(DESK, **reading.step("received", "final"))
