"""An order on its way is held, released, changed and replaced by v2: the performer hears of it, the placer is answered (table 0119)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.hl7v2.outbound.orr_o02 import ANSWERS
from hub.errors import HubError
from tests.hub.dispatch.test_order_answers import KN, NUMBER, Laboratory, order, settings
from tests.support.services import running
from tests.support.v2 import msh

#: What is commanded -> (ORC-1 that the laboratory gets, ORC-1 of yes, ORC-1 of no).
COMMANDS = {"HD": ("HD", "HR", "UH"), "RL": ("RL", "OR", "UR"), "XO": ("XO", "XR", "UX"), "RP": ("XO", "RQ", "UM")}
STATUS = {"HD": "on-hold", "RL": "active", "XO": "active", "RP": "active"}


@pytest.fixture
def hub(tmp_path: Path, database_url: str) -> Iterator[Laboratory]:
    with running(tmp_path, url=database_url) as services:
        services.directory.load(settings(order_answers="true"))
        found = Laboratory(services)
        found.receive(order())
        found.news()
        yield found


def heard(hub: Laboratory, message: str) -> str:
    """Return MSA-1 of the answer of the hub to *message*."""
    answer = hub.services.messages.receive(message.encode("gb18030"), "127.0.0.1:5000")
    assert answer is not None
    return answer.decode("gb18030").partition("MSA|")[2][:2]


def told(hub: Laboratory, to: str) -> list[Any]:
    return [message for where, message in hub.news("O") if where == f"{to}/mllp"]


def request(hub: Laboratory) -> dict[str, Any]:
    [found] = hub.all("ServiceRequest", identifier=NUMBER)
    return found


def flags(hub: Laboratory) -> bool:
    [task] = hub.all("Task", code="lab-outsourcing")
    return "on-hold" in str(task.get("extension"))


def said(hub: Laboratory, control: str, control_id: str, answer: str) -> str:
    """Return MSA-1 of what the laboratory hears when it answers *control* of KN by *answer*."""
    lines = [
        msh("ORR^O02", control_id, sent="20250611110000", facility="QMJY", f6="HUB", f12="2.5.1"),
        f"MSA|AA|{control}",
        f"ORC|{answer}|{NUMBER}|QM1|||||||||||||^机器故障",
        "",
    ]
    return heard(hub, "\r".join(lines))


def begin(hub: Laboratory) -> None:
    hub.move("receive")
    hub.move("start")
    hub.news()


@pytest.mark.parametrize("control", COMMANDS)
@pytest.mark.parametrize("form", ANSWERS)
def test_what_is_not_begun_is_changed_and_both_sides_hear_of_it(hub: Laboratory, control: str, form: str) -> None:
    passed_on, yes, _ = COMMANDS[control]
    hub.receive(order("KN-2", control, event=form))

    messages = hub.news("O")
    to_lab = [one for where, one in messages if where == "QM/mllp"]
    to_placer = [one for where, one in messages if where == "KN/mllp"]
    assert [(one.get("ORC-1"), one.get("ORC-2")) for one in to_lab] == [(passed_on, NUMBER)]
    assert [
        (f"{one.get('MSH-9.1')}^{one.get('MSH-9.2')}", one.get("MSA-2"), one.get("ORC-1")) for one in to_placer
    ] == [(ANSWERS[form], "KN-2", yes)]
    assert request(hub)["status"] == STATUS[control]
    assert flags(hub) is (control == "HD")


@pytest.mark.parametrize("control", ["HD", "XO", "RP"])
def test_what_is_begun_is_refused_with_the_reason_and_stays_as_it_is(hub: Laboratory, control: str) -> None:
    begin(hub)
    before = request(hub)
    hub.receive(order("KN-2", control).replace("LAB001^电解质四项", "LAB009^血气"))

    [one] = told(hub, "KN")
    assert (one.get("ORC-1"), one.get("MSA-1"), one.get("MSA-2")) == (COMMANDS[control][2], "AA", "KN-2")
    assert (one.get("ERR-3"), one.get("ERR-2.1")) == ("206", "ORC")
    assert "testing" in one.get("ORC-16.2")
    assert request(hub) == before
    assert not flags(hub)


@pytest.mark.parametrize("control", ["HD", "XO"])
def test_who_reads_no_answers_hears_of_the_refusal_in_the_acknowledgement(hub: Laboratory, control: str) -> None:
    begin(hub)
    hub.services.directory.load(settings())
    before = request(hub)

    assert heard(hub, order("KN-2", control)) == "AE"
    assert request(hub) == before


def test_an_order_that_is_over_is_neither_held_nor_released(hub: Laboratory) -> None:
    hub.move("cancel", KN)
    hub.news()
    hub.receive(order("KN-2", "HD"), order("KN-3", "RL"))

    assert [one.get("ORC-1") for one in told(hub, "KN")] == ["UH", "UR"]
    assert request(hub)["status"] == "revoked"


def test_the_laboratory_does_not_begin_what_is_held(hub: Laboratory) -> None:
    hub.move("receive")
    hub.receive(order("KN-2", "HD"))
    with pytest.raises(HubError, match="on hold"):
        hub.move("start")

    hub.receive(order("KN-3", "RL"))

    hub.move("start")
    assert request(hub)["status"] == "active"


def test_a_change_leaves_a_held_order_held(hub: Laboratory) -> None:
    hub.receive(order("KN-2", "HD"), order("KN-3", "XO").replace("LAB001^电解质四项", "LAB009^血气"))

    assert (request(hub)["status"], request(hub)["code"]["coding"][0]["code"]) == ("on-hold", "LAB009")
    assert flags(hub)


def test_each_message_is_answered_when_a_hold_is_asked_for_twice(hub: Laboratory) -> None:
    hub.receive(order("KN-2", "HD"), order("KN-3", "HD"))

    messages = hub.news("O")
    assert [one.get("MSA-2") for where, one in messages if where == "KN/mllp"] == ["KN-2", "KN-3"]
    assert [one.get("ORC-1") for where, one in messages if where == "QM/mllp"] == ["HD"]


def test_a_laboratory_that_cannot_hold_is_heard_by_who_asked(hub: Laboratory) -> None:
    hub.receive(order("KN-2", "HD"))
    hub.news()

    assert said(hub, "KN-2", "QM-1", "UH") == "AA"

    [one] = told(hub, "KN")
    assert (one.get("ORC-1"), one.get("MSA-2"), one.get("ORC-16.2")) == ("UH", "KN-2", "机器故障")
    assert request(hub)["status"] == "active"
    assert not flags(hub)


@pytest.mark.parametrize(("control", "answer", "kept"), [("XO", "UX", False), ("RP", "UM", False), ("RL", "UR", True)])
def test_what_the_laboratory_declines_is_told(hub: Laboratory, control: str, answer: str, kept: bool) -> None:
    hub.receive(order("KN-2", control))
    hub.news()

    assert said(hub, "KN-2", "QM-1", answer) == "AA"

    [one] = told(hub, "KN")
    assert (one.get("ORC-1"), one.get("MSA-2"), one.get("ORC-16.2")) == (answer, "KN-2", "机器故障")
    assert flags(hub) is kept


@pytest.mark.parametrize(("control", "answer"), [("HD", "HR"), ("RL", "OR"), ("XO", "XR"), ("RP", "RQ")])
def test_a_laboratory_that_does_as_asked_moves_nothing(hub: Laboratory, control: str, answer: str) -> None:
    hub.receive(order("KN-2", control))
    hub.news()
    before = hub.all("Task", code="lab-outsourcing")

    assert said(hub, "KN-2", "QM-1", answer) == "AA"

    assert told(hub, "KN") == []
    assert hub.all("Task", code="lab-outsourcing") == before


def test_an_order_without_work_between_institutions_is_held_as_before(hub: Laboratory) -> None:
    hub.receive(order("KN-2", "NW").replace(NUMBER, "KN-OWN").replace("QMJY", "HUB"))
    hub.receive(order("KN-3", "HD").replace(NUMBER, "KN-OWN").replace("QMJY", "HUB"))

    [found] = hub.all("ServiceRequest", identifier="KN-OWN")
    assert found["status"] == "on-hold"
