"""OSQ^Q06: an asker hears where the orders in its reach stand, and nothing of any other; each answer is audited."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import ValidationError
from hl7apy.parser import parse_message

from fhir_mappings.hl7v2.outbound.validation import CONDITIONAL
from fhir_mappings.hl7v2.tokenizer import Message, parse
from hub.actor import Actor
from hub.members import SETTING_URL
from hub.ports import Database
from tests.hub.dispatch.test_news import Consortium, members
from tests.hub.dispatch.test_order_answers import PEER
from tests.support.services import running
from tests.support.v2 import msh

QM = Actor(institution="QM", practitioner="Q003", roles=frozenset({"system"}))
PATIENT, OTHER = "0000020002", "0000020003"


def order(number: str, *, patient: str = PATIENT, to: str = "QMJY", control: str = "NW", control_id: str = "") -> str:
    lines = [
        msh("ORM^O01", control_id or f"{control}{number}", sent="20250611100000", f6=to, f12="2.4"),
        f"PID|1||{patient}^^^^IDCard||李秀英||19550708|F",
        f"ORC|{control}|{number}|||||||20250611100000|||0231^刘敏",
        f"OBR|1|{number}||LAB001^电解质四项^L|||20250611103000",
    ]
    return "\r".join([*lines, ""])


def opened(*codes: str) -> list[dict[str, Any]]:
    """Return the consortium, where the v2 endpoints of *codes* may ask for orders."""
    resources = members(dict.fromkeys(("KN", "QM", "YL"), ""))
    parts = [{"url": "name", "valueString": "order-queries"}, {"url": "value", "valueString": "true"}]
    for one in resources:
        names = {item["value"] for item in one.get("identifier", ())}
        if one["resourceType"] == "Endpoint" and names & {f"{code}/mllp" for code in codes}:
            one["extension"] = [*one.get("extension", ()), {"url": SETTING_URL, "extension": parts}]
    return resources


class Asked(Consortium):
    def text(
        self,
        who: str = "",
        number: str = "",
        *,
        facility: str = "KNYY",
        subject: str = "ORD",
        version: str = "2.4",
        rest: str = "",
    ) -> str:
        """Return the answer to the question of *facility* for the orders *number* of the patient *who*."""
        application = {"KNYY": "HIS", "QMJY": "LIS", "YLYY": "HIS"}[facility]
        head = f"MSH|^~\\&|{application}|{facility}|YIXIE|HUB|20250612080000||OSQ^Q06|Q1|P|{version}"
        qrd = f"QRD|20250612080000|R|I|Q1|||10^RD|{who}|{subject}|{number}"
        charset = "gb18030" if facility == "KNYY" else "utf-8"
        raw = "\r".join([head, qrd, *([rest] if rest else []), ""]).encode(charset)
        answered = self.services.messages.receive(raw, PEER)
        assert answered is not None
        return answered.decode(charset)

    def question(self, who: str = "", number: str = "", **how: str) -> Message:
        return parse(self.text(who, number, **how))


def told(answer: Message) -> list[tuple[str, str]]:
    """Return (ORC-2, ORC-5) of every order of *answer*."""
    assert answer.get("MSA-1") == "AA", answer.get("ERR-8") or answer.get("ERR-1")
    assert {one.get(1) for one in answer.all("ORC")} == {"SR"}
    return sorted((one.get(2), one.get(5)) for one in answer.all("ORC"))


def refused(answer: Message) -> tuple[str, bool]:
    """Return MSA-1, and whether anything of a patient or an order is in *answer*."""
    return answer.get("MSA-1"), any(answer.first(name) is not None for name in ("PID", "ORC", "OBR"))


@pytest.fixture
def hub(tmp_path: Path, database_url: str) -> Iterator[Asked]:
    with running(tmp_path, url=database_url) as services:
        services.directory.load(opened("KN", "QM", "YL"))
        yield Asked(services)


def test_the_orders_of_a_patient_are_told_with_where_they_stand(hub: Asked) -> None:
    hub.receive(order("K1"), order("K2"), order("K3", patient=OTHER), order("K2", control="CA"))

    answer = hub.question(PATIENT)

    assert f"{answer.get('MSH-9.1')}^{answer.get('MSH-9.2')}" == "OSR^Q06"
    assert (answer.get("MSA-2"), answer.get("QRD-8"), answer.get("PID-5")) == ("Q1", PATIENT, "李秀英")
    assert told(answer) == [("K1", "IP"), ("K2", "CA")]
    assert answer.get("OBR-4") == "LAB001"


@pytest.mark.parametrize("number", ["K1", "^K1", "K1~K2", "K1^HIS"])
def test_an_order_is_asked_for_by_its_number(hub: Asked, number: str) -> None:
    hub.receive(order("K1"), order("K2"), order("K3"))
    assert [one for one, _ in told(hub.question("", number))] == (["K1", "K2"] if "~" in number else ["K1"])


def test_a_laboratory_hears_of_the_orders_that_its_work_shows_it(hub: Asked) -> None:
    hub.receive(order("K1"), order("K2", to="HUB"))
    [task] = hub.all("Task", code="lab-outsourcing")
    hub.services.database.write(lambda tx: hub.services.tasks.transition(tx, task["id"], "receive", QM))

    assert told(hub.question("", "K1", facility="QMJY")) == [("K1", "IP")]
    assert refused(hub.question("", "K2", facility="QMJY")) == ("AE", False)


def test_what_is_out_of_reach_is_answered_as_what_is_not_there(hub: Asked) -> None:
    hub.receive(order("K1"))
    foreign, absent = (hub.question("", number, facility="YLYY") for number in ("K1", "K9"))
    assert refused(foreign) == refused(absent) == ("AE", False)
    assert foreign.get("ERR-1") == absent.get("ERR-1")
    assert refused(hub.question(PATIENT, facility="YLYY")) == ("AE", False)


def test_orders_of_several_patients_are_not_put_under_one(hub: Asked) -> None:
    hub.receive(order("K1"), order("K3", patient=OTHER))
    assert refused(hub.question("", "K1~K3")) == ("AE", False)
    assert told(hub.question(PATIENT, "K1~K3")) == [("K1", "IP")]


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ({}, "101"),
        ({"who": PATIENT, "subject": "RES"}, "103"),
        ({"who": PATIENT, "rest": "QRF|LAB|20250601"}, "103"),
        ({"who": PATIENT, "rest": "DSC|1"}, "103"),
        ({"who": PATIENT, "version": "2.7"}, "203"),
        ({"number": "~".join(f"N{place}" for place in range(21))}, "102"),
    ],
)
def test_a_question_that_is_not_answered_says_why(hub: Asked, question: dict[str, str], code: str) -> None:
    hub.receive(order("K1"))
    answer = hub.question(**{"version": "2.5", **question})
    assert refused(answer) == ("AR" if code == "203" else "AE", False)
    assert answer.get("ERR-3") == code


def test_a_feed_that_was_not_opened_for_it_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as services:
        services.directory.load(opened("QM"))
        hub = Asked(services)
        hub.receive(order("K1"))
        assert refused(hub.question(PATIENT)) == ("AR", False)


def test_each_answer_is_audited_with_whose_data_went_out_and_is_not_kept(hub: Asked) -> None:
    hub.receive(order("K1"))
    [patient] = hub.all("Patient")
    hub.question(PATIENT)

    database: Database = hub.services.database
    [entry] = database.read(lambda tx: tx.journal.search({"message_type": "OSQ^Q06"}, limit=10))
    assert (entry.state, entry.ack) == ("done", None)
    events = database.read(lambda tx: tx.audit.search({}, institution=None, limit=50, before=None))
    [line] = [one for one in events if any(code["code"] == "OSQ^Q06" for code in one.get("subtype", ()))]
    assert f"Patient/{patient['id']}" in str(line["entity"])


@pytest.mark.parametrize("version", ["2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6"])
def test_every_segment_of_an_answer_is_valid_for_hl7apy(hub: Asked, version: str) -> None:
    hub.receive(order("K1"), order("K2"))
    text = hub.text(PATIENT, "K1~K2", version=version)
    answer = parse(text)
    assert answer.get("MSH-12") == version
    assert [one.name for one in answer.segments] == ["MSH", "MSA", "QRD", "PID", "ORC", "OBR", "ORC", "OBR"]
    for one in parse_message(text, validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False).children:
        try:
            one.validate()
        except ValidationError as error:
            if not any(f"Missing required child {name}" in str(error) for name in CONDITIONAL.get(version, ())):
                raise
