"""Bookings within a referral reach the referrer's diary by SIU: made, moved, cancelled, missed; drafts and strangers do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.dispatch.bookings import booking_event
from tests.flows.test_referral_and_lab import REFERRAL
from tests.hub.dispatch.test_news import YL, Consortium, numbers_of
from tests.support.services import running


@pytest.fixture
def hub(tmp_path: Path, database_url: str) -> Iterator[Consortium]:
    with running(tmp_path, url=database_url) as services:
        made = Consortium(services)
        made.ask(KN="SIU^S12", QH="SIU^S12", YL="SIU^S12")
        made.receive(REFERRAL)
        made.move("review")
        made.move("accept")
        made.news()
        yield made


def appointment(hub: Consortium, **change: Any) -> dict[str, Any]:
    return {
        "resourceType": "Appointment",
        "status": "booked",
        "start": "2025-06-20T09:00:00+08:00",
        "end": "2025-06-20T09:30:00+08:00",
        "participant": [{"actor": {"reference": f"Patient/{hub.patient()['id']}"}, "status": "accepted"}],
        **change,
    }


def booked(hub: Consortium, **change: Any) -> dict[str, Any]:
    made = hub.put(appointment(hub, **change), YL)
    output = {"type": {"text": "预约"}, "valueReference": {"reference": f"Appointment/{made['id']}"}}
    hub.move("book", outputs=[output])
    return made


def told(hub: Consortium) -> list[tuple[str, str]]:
    return [(where, one.get("MSH-9.2")) for where, one in hub.news("SIU")]


def test_a_booking_is_told_when_it_is_handed_in_and_with_what_becomes_of_it(hub: Consortium) -> None:
    made = hub.put(appointment(hub), YL)
    assert told(hub) == []

    output = {"type": {"text": "预约"}, "valueReference": {"reference": f"Appointment/{made['id']}"}}
    hub.move("book", outputs=[output])
    [(where, first)] = hub.news("SIU")
    assert (where, first.get("MSH-9.2"), first.get("SCH-11.4"), first.get("SCH-25")) == (
        "KN/mllp",
        "S12",
        "20250620090000",
        "Booked",
    )
    assert numbers_of(first)[0][0] == "ZY20250612007"

    moved = hub.put({**made, "start": "2025-06-21T09:00:00+08:00", "end": "2025-06-21T09:30:00+08:00"}, YL)
    noted = hub.put({**moved, "comment": "请携带既往片"}, YL)
    hub.put({**noted, "status": "cancelled"}, YL)
    assert told(hub) == [("KN/mllp", "S13"), ("KN/mllp", "S14"), ("KN/mllp", "S15")]


def test_a_booking_that_the_workflow_confirms_is_told_once(hub: Consortium) -> None:
    booked(hub, status="pending")

    assert told(hub) == [("KN/mllp", "S12")]


def test_a_booking_that_ends_with_the_referral_is_told(hub: Consortium) -> None:
    booked(hub)
    hub.news()

    hub.move("arrive")

    assert told(hub) == [("KN/mllp", "S14")]


def test_a_partner_that_asks_for_no_bookings_hears_of_none(hub: Consortium) -> None:
    hub.ask(KN="ADT^A08", QH="SIU^S12", YL="SIU^S12")
    booked(hub)

    assert told(hub) == []


@pytest.mark.parametrize(
    ("known", "status", "event"),
    [
        (None, "booked", "SIU^S12"),
        ("pending", "booked", "SIU^S12"),
        ("booked", "cancelled", "SIU^S15"),
        ("booked", "noshow", "SIU^S26"),
        ("arrived", "entered-in-error", "SIU^S17"),
        ("booked", "arrived", "SIU^S14"),
        ("cancelled", "booked", "SIU^S12"),
        (None, "cancelled", None),
        ("pending", "cancelled", None),
        ("cancelled", "cancelled", None),
        (None, "proposed", None),
    ],
)
def test_the_event_says_what_became_of_the_booking(known: str | None, status: str, event: str | None) -> None:
    assert booking_event({"status": status}, None if known is None else {"status": known}) == event
