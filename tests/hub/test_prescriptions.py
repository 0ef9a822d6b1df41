"""Commands about prescriptions meet what is stored: carried out or refused, each order by itself (HL7 v2 table 0119)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fhir_mappings.hl7v2.tokenizer import Message
from tests.hub.dispatch.test_news import Consortium
from tests.hub.dispatch.test_order_answers import PEER, settings
from tests.support.services import running
from tests.support.v2 import msh

PID = "PID|1||0000020002^^^^IDCard||李秀英||19550708|F"
_minutes = iter(range(10_000))


def message(event: str, control_id: str, *segments: str, version: str = "2.5.1", at: str = "") -> str:
    """Return a message of KN, each later than the one before unless *at* says when."""
    minute = next(_minutes)
    sent = at or f"2025061{1 + minute // 1440}{minute // 60 % 24:02}{minute % 60:02}00"
    return "\r".join([msh(event, control_id, sent=sent, f12=version), PID, *segments, ""])


def prescribed(control: str, *numbers: str, control_id: str = "", event: str = "OMP^O09") -> str:
    """Return *control* for each of *numbers*; what is new or changed names its medicine."""
    lines: list[str] = []
    for number in numbers:
        lines.append(f"ORC|{control}|{number}^HIS")
        if control in {"NW", "XO"}:
            lines += [f"RXO|Y{number}^阿莫西林^L|0.5||g", "RXR|PO^口服^HL70162"]
    return message(event, control_id or f"{control}-{'-'.join(numbers)}", *lines)


def dispensed(number: str, control_id: str = "RDS1") -> str:
    rxd = f"RXD|1|Y{number}^阿莫西林^L|20250611090000|20|粒|||RX{number}"
    return message("RDS^O13", control_id, f"ORC|RE|{number}^HIS|F{number}^YF", rxd, "RXR|PO^口服^HL70162")


def given(number: str, control_id: str = "RAS1") -> str:
    rxa = f"RXA|0|1|20250611090000|20250611090000|Y{number}^阿莫西林^L|0.5|g"
    return message("RAS^O17", control_id, f"ORC|RE|{number}^HIS", rxa, "RXR|PO^口服^HL70162")


class Pharmacy(Consortium):
    def answer(self) -> Message:
        """Return the one answer queued since the last look."""
        [found] = self.answers()
        return found

    def answers(self) -> list[Message]:
        return [one for where, one in self.news() if where == "KN/mllp" and one.first("MSA") is not None]

    def said(self) -> tuple[str, str, list[tuple[str, str]]]:
        """Return MSH-9, MSA-2 and (ORC-1, ORC-2) of each order of the one answer queued since the last look."""
        one = self.answer()
        event = f"{one.get('MSH-9.1')}^{one.get('MSH-9.2')}"
        return event, one.get("MSA-2"), [(orc.get(1), orc.get(2)) for orc in one.all("ORC")]

    def states(self) -> dict[str, str]:
        return {one["identifier"][0]["value"]: one["status"] for one in self.all("MedicationRequest")}


@pytest.fixture
def hub(tmp_path: Path, database_url: str) -> Iterator[Pharmacy]:
    with running(tmp_path, url=database_url) as services:
        services.directory.load(settings(order_answers="true"))
        yield Pharmacy(services)


@pytest.fixture
def unheard(tmp_path: Path) -> Iterator[Pharmacy]:
    """The same, where the sender reads no answers."""
    with running(tmp_path) as services:
        services.directory.load(settings())
        yield Pharmacy(services)


def test_every_prescription_of_a_message_is_answered_in_one_answer(hub: Pharmacy) -> None:
    hub.receive(prescribed("NW", "R1", "R2", "R3", control_id="KN1"))
    assert hub.said() == ("ORP^O10", "KN1", [("OK", "R1"), ("OK", "R2"), ("OK", "R3")])


@pytest.mark.parametrize("numbers", ["P9^HIS|F9^YF", "P1^HIS|F9^YF"])
def test_a_stray_obr_with_other_numbers_hides_no_prescription(hub: Pharmacy, numbers: str) -> None:
    lines = ("ORC|NW|P1^HIS", "RXO|Y1^阿莫西林^L|0.5||g", f"OBR|1|{numbers}|L1^血钾^L")
    hub.receive(message("OMP^O09", "STRAY", *lines))
    assert hub.said() == ("ORP^O10", "STRAY", [("OK", "P1")])


def test_of_prescriptions_cancelled_together_the_dispensed_one_stays(hub: Pharmacy) -> None:
    hub.receive(prescribed("NW", "R1", "R2"), dispensed("R2"))
    hub.news()

    hub.receive(prescribed("CA", "R1", "R2", "R9", control_id="KN-CA"))

    told = hub.answer()
    assert [(orc.get(1), orc.get(2), orc.get(2, 2)) for orc in told.all("ORC")] == [
        ("CR", "R1", "HIS"), ("UC", "R2", "HIS"), ("UC", "R9", "HIS"),
    ]  # fmt: skip
    assert [err.get(3) for err in told.all("ERR")] == ["206", "204"]
    assert "dispensed" in told.all("ERR")[0].get(8)
    assert "dispensed" in told.all("ORC")[1].get(16, 2)
    assert hub.states() == {"R1": "cancelled", "R2": "active"}


def test_what_was_given_is_not_cancelled_and_is_discontinued(hub: Pharmacy) -> None:
    hub.receive(prescribed("NW", "R1"), given("R1"))
    hub.news()

    hub.receive(prescribed("CA", "R1"))
    assert hub.said()[2] == [("UC", "R1")]
    hub.receive(prescribed("DC", "R1"))
    assert hub.said()[2] == [("DR", "R1")]
    assert hub.states() == {"R1": "stopped"}


def test_a_dispense_that_was_cancelled_holds_nothing_up(hub: Pharmacy) -> None:
    hub.receive(prescribed("NW", "R1"), dispensed("R1"))
    hub.receive(dispensed("R1", "RDS2").replace("ORC|RE|", "ORC|CA|"))
    hub.news()

    hub.receive(prescribed("CA", "R1"))

    assert hub.said()[2] == [("CR", "R1")]
    assert hub.states() == {"R1": "cancelled"}


@pytest.mark.parametrize(
    ("before", "command", "said", "status"),
    [
        ((), "HD", "HR", "on-hold"),
        (("HD",), "RL", "OR", "active"),
        ((), "XO", "XR", "active"),
        ((), "RP", "RQ", "stopped"),
        (("CA",), "CA", "CR", "cancelled"),
        (("DC",), "DC", "DR", "stopped"),
        (("DC",), "CA", "UC", "stopped"),
        (("DC",), "HD", "UH", "stopped"),
        (("DC",), "RL", "UR", "stopped"),
        (("DC",), "XO", "UX", "stopped"),
        (("CA",), "RP", "UM", "cancelled"),
    ],
)
def test_each_command_has_its_own_answer(
    hub: Pharmacy, before: tuple[str, ...], command: str, said: str, status: str
) -> None:
    hub.receive(*(prescribed(one, "R1", control_id=f"B{place}") for place, one in enumerate(("NW", *before))))
    hub.news()

    hub.receive(prescribed(command, "R1", control_id="KN-C"))

    assert hub.said() == ("ORP^O10", "KN-C", [(said, "R1")])
    assert hub.states() == {"R1": status}


@pytest.mark.parametrize("command", ["CA", "DC", "HD", "RL"])
def test_a_command_for_an_unknown_prescription_is_refused_and_makes_none(hub: Pharmacy, command: str) -> None:
    hub.receive(prescribed(command, "R9"))
    told = hub.answer()
    assert told.get("ORC-1") in {"UC", "UD", "UH", "UR"}
    assert told.get("ERR-3") == "204"
    assert hub.states() == {}


def test_a_command_that_comes_late_is_not_said_to_be_carried_out(hub: Pharmacy) -> None:
    late = message("OMP^O09", "KN-CA", "ORC|CA|R1", at="20250610080000")
    hub.receive(prescribed("NW", "R1"))
    hub.news()

    hub.receive(late)

    assert hub.said()[2] == [("UC", "R1")]
    assert hub.states() == {"R1": "active"}


def test_a_cancellation_names_the_prescription_by_the_fillers_number(hub: Pharmacy) -> None:
    hub.receive(prescribed("NW", "R1"))
    hub.receive(message("RDE^O11", "RDE1", "ORC|SC|R1^HIS|F1^YF", "RXE||YR1^阿莫西林^L|0.5||g", "RXR|PO"))
    hub.news()

    hub.receive(message("OMP^O09", "KN-CA", "ORC|CA||F1^YF"))

    assert hub.states() == {"R1": "cancelled"}
    assert hub.answer().get("ORC-1") == "CR"


def test_another_hospitals_number_reaches_no_prescription(hub: Pharmacy) -> None:
    hub.receive(prescribed("NW", "R1"))
    foreign = prescribed("CA", "R1", control_id="YL1").replace("|HIS|KNYY|", "|HIS|YLYY|").encode()
    assert hub.services.messages.receive(foreign, PEER) is not None
    assert hub.states() == {"R1": "active"}


@pytest.mark.parametrize(
    ("text", "event"),
    [
        (message("RDE^O11", "M1", "ORC|NW|R1", "RXE||Y^药^L|1||g", "RXR|PO"), "RRE^O12"),
        (message("RDE^O25", "M1", "ORC|NW|R1", "RXE||Y^药^L|1||g", "RXR|PO"), "RRE^O26"),
        (message("RDE^O01", "M1", "ORC|NW|R1", "RXE||Y^药^L|1||g", "RXR|PO", version="2.3.1"), "RRE^O02"),
        (dispensed("R1", "M1"), "RRD^O14"),
        (given("R1", "M1"), "RRA^O18"),
        (message("ORM^O01", "M1", "ORC|NW|R1", "RXO|Y^药^L|1||g", version="2.3.1"), "ORR^O02"),
    ],
)
def test_each_pharmacy_message_is_answered_in_its_own_form_and_version(hub: Pharmacy, text: str, event: str) -> None:
    hub.receive(text)
    told = hub.answer()
    assert (f"{told.get('MSH-9.1')}^{told.get('MSH-9.2')}", told.get("MSA-2")) == (event, "M1")
    assert told.get("MSH-12") == ("2.3.1" if "|2.3.1\r" in text else "2.5.1")
    assert [(one.get(1), one.get(2)) for one in told.all("ORC")] == [("OK", "R1")]


def test_the_same_message_again_is_answered_once(hub: Pharmacy) -> None:
    text = prescribed("NW", "R1")
    hub.receive(text, text)
    assert len(hub.answers()) == 1


def test_who_reads_no_answers_gets_none_and_hears_of_a_refusal_in_the_acknowledgement(unheard: Pharmacy) -> None:
    unheard.receive(prescribed("NW", "R1", "R2"), dispensed("R2"))
    assert unheard.answers() == []

    refused = unheard.services.messages.receive(prescribed("CA", "R1", "R2").encode("gb18030"), PEER)

    assert refused is not None
    told = refused.decode("gb18030")
    assert "MSA|AE" in told
    assert "206" in told.split("ERR|")[1]
    # Nothing of a refused message is applied.
    assert unheard.states() == {"R1": "active", "R2": "active"}


def bare(control: str, *numbers: str, control_id: str = "KN-C") -> str:
    """Return an ORM^O01 that names orders by their numbers alone, as older systems cancel prescriptions."""
    return message("ORM^O01", control_id, *(f"ORC|{control}|{number}^HIS" for number in numbers), version="2.3.1")


@pytest.mark.parametrize(
    ("control", "said", "status"),
    [("CA", "CR", "cancelled"), ("DC", "DR", "stopped"), ("HD", "HR", "on-hold"), ("RL", "OR", "active")],
)
def test_an_orm_that_names_a_prescription_by_its_number_alone_commands_it(
    hub: Pharmacy, control: str, said: str, status: str
) -> None:
    hub.receive(prescribed("NW", "R1", "R2"))
    hub.news()

    hub.receive(bare(control, "R1"))

    assert hub.said() == ("ORR^O02", "KN-C", [(said, "R1")])
    assert hub.states() == {"R1": status, "R2": "active"}
    assert hub.all("ServiceRequest") == []


def test_an_orm_cancels_no_prescription_that_was_dispensed(hub: Pharmacy) -> None:
    hub.receive(prescribed("NW", "R1", "R2"), dispensed("R1"))
    hub.news()
    hub.receive(bare("CA", "R1", "R2"))
    assert hub.said()[2] == [("UC", "R1"), ("CR", "R2")]
    assert hub.states() == {"R1": "active", "R2": "cancelled"}


def test_an_orm_about_a_service_of_the_same_number_commands_the_service(hub: Pharmacy) -> None:
    hub.receive(message("ORM^O01", "S1", "ORC|NW|R1^HIS", "OBR|1|R1^HIS||K^钾^L"), prescribed("NW", "R1"))
    hub.news()
    hub.receive(bare("DC", "R1"))
    assert hub.states() == {"R1": "active"}
    [request] = hub.all("ServiceRequest")
    assert request["status"] == "revoked"
