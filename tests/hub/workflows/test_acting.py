"""Who a door's asker is in a workflow."""

from __future__ import annotations

import pytest

from hub import actor as asking
from hub.errors import HubError
from hub.ports import MemberPractitioner
from hub.workflows import acting, allowed_events
from tests.support.workflows import Play

LIU = MemberPractitioner(
    member="KN", code="0231", practitioner_id="liu-min", role_id="liu-min-KN", name="刘敏", roles=("physician",)
)


def test_a_person_is_the_practitioner_and_shows_as_the_role() -> None:
    found = acting(asking.Actor(institution="KN", practitioner="0231", roles=frozenset({"physician"})), LIU)
    assert (found.practitioner, found.reference) == ("Practitioner/liu-min", "PractitionerRole/liu-min-KN")
    assert not found.hub


@pytest.mark.parametrize(
    ("asker", "allowed"),
    [
        (asking.Actor(institution="KN"), ("withdraw", "modify", "hold", "release-hold")),
        (asking.Actor(institution="KN", patient="p1", roles=frozenset({"patient"})), ()),
        (asking.Actor(institution="KN", roles=frozenset({"auditor"})), ()),
        (
            asking.Actor(institution="YL"),
            ("receive", "assign", "import-final", "refuse", "decline-modify", "decline-hold", "decline-release"),
        ),
        (asking.Actor(institution="YL", roles=frozenset({"writer"})), ()),
        (asking.HUB, ()),
    ],
)
def test_only_staff_and_systems_of_the_parties_move_work(
    reading: Play, asker: asking.Actor, allowed: tuple[str, ...]
) -> None:
    actor = acting(asker, None)
    assert allowed_events(reading.workflow, reading.instance, actor) == allowed
    with pytest.raises(HubError):
        reading.do("overdue", actor)
