"""Who placed an order by v2 hears what became of it, as the answer to its own message, once, and only if it asks for that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.hl7v2.outbound.orr_o02 import ANSWERS
from hub.actor import Actor
from hub.members import SETTING_URL
from tests.hub.dispatch.test_news import Consortium, members
from tests.support.services import running
from tests.support.v2 import msh

QM = Actor(institution="QM", practitioner="Q003", roles=frozenset({"system"}))
KN = Actor(institution="KN", roles=frozenset({"system", "doctor"}))
NUMBER = "KN20250611031"
PEER = "127.0.0.1:5000"


def order(control_id: str = "KN-NW", control: str = "NW", *, event: str = "OMG^O19", version: str = "2.5.1") -> str:
    lines = [
        msh(event, control_id, sent="20250611100000", f6="QMJY", f12=version),
        "PID|1||0000020002^^^^IDCard||李秀英||19550708|F",
        f"ORC|{control}|{NUMBER}|||||||20250611100000|||0231^刘敏",
        f"OBR|1|{NUMBER}||LAB001^电解质四项^L|||20250611103000",
    ]
    return "\r".join([*lines, *(["IPC|ACC1|RP1^HIS|1.2.3|SPS1"] if event.startswith("OMI") else []), ""])


def settings(**values: str) -> list[dict[str, Any]]:
    """Return the consortium with *values* as settings of KN's v2 endpoint and none for the others."""
    resources = members({"KN": "", "QM": ""})
    for one in resources:
        names = {item["value"] for item in one.get("identifier", ())}
        if one["resourceType"] == "Endpoint" and "KN/mllp" in names:
            for name, value in values.items():
                parts = [{"url": "name", "valueString": name.replace("_", "-")}, {"url": "value", "valueString": value}]
                one["extension"] = [*one.get("extension", ()), {"url": SETTING_URL, "extension": parts}]
    return resources


class Laboratory(Consortium):
    def move(self, event: str, actor: Actor = QM, **how: Any) -> None:
        [task] = self.all("Task", code="lab-outsourcing")
        self.services.database.write(lambda tx: self.services.tasks.transition(tx, task["id"], event, actor, **how))

    def answers(self) -> list[tuple[str, str, str, str]]:
        """Return (event, version, MSA-2, ORC-1) of what was queued for KN since the last look."""
        return [
            (f"{one.get('MSH-9.1')}^{one.get('MSH-9.2')}", one.get("MSH-12"), one.get("MSA-2"), one.get("ORC-1"))
            for where, one in self.news("OR")
            if where == "KN/mllp"
        ]


@pytest.fixture
def hub(tmp_path: Path, database_url: str) -> Iterator[Laboratory]:
    with running(tmp_path, url=database_url) as services:
        services.directory.load(settings(order_answers="true"))
        yield Laboratory(services)


@pytest.mark.parametrize("asked", ANSWERS)
def test_an_order_taken_on_is_answered_in_its_own_form_and_version(hub: Laboratory, asked: str) -> None:
    hub.receive(order(event=asked))
    assert hub.answers() == []

    hub.move("receive")

    assert hub.answers() == [(ANSWERS[asked], "2.5.1", "KN-NW", "OK")]


def test_the_answer_to_an_imaging_order_gives_back_its_procedure(hub: Laboratory) -> None:
    hub.receive(order(event="OMI^O23"))
    hub.news()
    hub.move("receive")

    [(_, told)] = hub.news("ORI")
    assert [told.get(path) for path in ("IPC-1", "IPC-2", "IPC-2.2", "IPC-3", "IPC-4")] == [
        "ACC1", "RP1", "HIS", "1.2.3", "SPS1",
    ]  # fmt: skip


def test_a_refused_order_is_answered_with_the_reason(hub: Laboratory) -> None:
    hub.receive(order())
    hub.news()
    hub.move("reject-specimen", reason={"text": "溶血"})

    [told] = [one for where, one in hub.news("ORG") if where == "KN/mllp"]
    assert (told.get("ORC-1"), told.get("ORC-2"), told.get("ORC-16.2")) == ("UA", NUMBER, "溶血")
    assert told.get("MSA-2") == "KN-NW"


def test_a_cancellation_is_answered_as_the_message_that_asked_for_it(hub: Laboratory) -> None:
    hub.receive(order(), order("KN-CA", "CA", event="ORM^O01", version="2.4"))

    assert hub.answers() == [("ORR^O02", "2.4", "KN-CA", "CR")]


@pytest.mark.parametrize(("decision", "said"), [("confirm-cancel", "CR"), ("decline-cancel", "UC")])
def test_a_cancellation_that_the_laboratory_decides_on_is_answered_then(
    hub: Laboratory, decision: str, said: str
) -> None:
    hub.receive(order())
    hub.move("receive")
    hub.move("start")
    hub.receive(order("KN-CA", "CA"))
    assert [one[3] for one in hub.answers()] == ["OK"]

    hub.move(decision)

    assert hub.answers() == [("ORG^O20", "2.5.1", "KN-CA", said)]


def test_what_was_done_in_the_portal_answers_no_message(hub: Laboratory) -> None:
    hub.receive(order())
    hub.move("cancel", KN)

    assert hub.answers() == []


def test_a_partner_that_does_not_ask_for_answers_gets_none(hub: Laboratory) -> None:
    hub.services.directory.load(settings())
    hub.receive(order())
    hub.move("receive")

    assert hub.answers() == []


def test_the_same_answer_is_given_once(hub: Laboratory) -> None:
    from hub.dispatch import Dispatcher
    from hub.workflows import Send

    hub.receive(order())
    hub.move("receive")
    assert len(hub.answers()) == 1
    services = hub.services
    dispatcher = Dispatcher(services.settings, services.directory, services.objects, services.clock)
    [task] = hub.all("Task", code="lab-outsourcing")
    again = Send(message="orr_o02", to_role="requester", control="OK", institution="KN")

    services.database.write(lambda tx: dispatcher.send(tx, again, task, correlation_id="c"))

    assert hub.answers() == []


def test_an_order_leaves_in_the_form_that_its_filler_takes(hub: Laboratory) -> None:
    resources = settings()
    for one in resources:
        if one["resourceType"] == "Endpoint" and "QM/mllp" in {item["value"] for item in one.get("identifier", ())}:
            for name, value in (("lab-orders", "OML^O21"), ("version-out", "2.5.1")):
                parts = [{"url": "name", "valueString": name}, {"url": "value", "valueString": value}]
                held = [item for item in one.get("extension", ()) if item["extension"][0]["valueString"] != name]
                one["extension"] = [*held, {"url": SETTING_URL, "extension": parts}]
    hub.services.directory.load(resources)
    hub.receive(order(event="ORM^O01", version="2.4"))

    [(where, told)] = hub.news("OML")
    assert (where, told.get("MSH-9.2"), told.get("MSH-9.3")) == ("QM/mllp", "O21", "OML_O21")
    assert (told.get("ORC-1"), told.get("ORC-2"), told.get("OBR-4"), told.get("TQ1-9")) == ("NW", NUMBER, "LAB001", "R")


def several(control_id: str, *controls: str, event: str = "OML^O21", version: str = "2.5.1") -> str:
    """Return one message with an order for each of *controls*, numbered from 1."""
    specimen = ["SPM|1|KNSP1||SER^血清^HL70487"] if event in {"OML^O33", "OML^O35"} else []
    lines = [
        msh(event, control_id, sent="20250611100000", f6="QMJY", f12=version),
        "PID|1||0000020002^^^^IDCard||李秀英||19550708|F",
        *specimen,
    ]
    for number, control in enumerate(controls, start=1):
        if event == "OML^O35":
            lines.append(f"SAC|||TUBE{number}")
        lines += [
            f"ORC|{control}|{NUMBER}-{number}|||||||20250611100000|||0231^刘敏",
            f"OBR|{number}|{NUMBER}-{number}||LAB00{number}^项目{number}^L|||20250611103000",
        ]
    return "\r".join([*lines, ""])


class Orders(Laboratory):
    def move_order(self, number: int, event: str, actor: Actor = QM, **how: Any) -> None:
        [task] = [
            one
            for one in self.all("Task", code="lab-outsourcing")
            if one["identifier"][0]["value"] == f"{NUMBER}-{number}"
        ]
        self.services.database.write(lambda tx: self.services.tasks.transition(tx, task["id"], event, actor, **how))

    def told(self) -> list[tuple[str, str, str, str]]:
        """Return (event, MSA-2, ORC-1, ORC-2) of the answers queued for KN since the last look."""
        return [
            (f"{one.get('MSH-9.1')}^{one.get('MSH-9.2')}", one.get("MSA-2"), one.get("ORC-1"), one.get("ORC-2"))
            for where, one in self.news("OR")
            if where == "KN/mllp"
        ]


@pytest.fixture
def orders(hub: Laboratory) -> Orders:
    return Orders(hub.services)


@pytest.mark.parametrize("event", ["ORM^O01", "OML^O21", "OMG^O19", "OML^O33", "OML^O35"])
def test_every_order_of_a_message_is_answered_with_its_own_number_and_outcome(orders: Orders, event: str) -> None:
    orders.receive(several("KN-NW", "NW", "NW", "NW", event=event))
    orders.news()

    orders.move_order(3, "receive")
    orders.move_order(1, "reject-specimen", reason={"text": "溶血"})
    orders.move_order(2, "receive")

    assert orders.told() == [
        (ANSWERS[event], "KN-NW", "OK", f"{NUMBER}-3"),
        (ANSWERS[event], "KN-NW", "UA", f"{NUMBER}-1"),
        (ANSWERS[event], "KN-NW", "OK", f"{NUMBER}-2"),
    ]


def test_an_order_of_a_container_is_answered_behind_its_specimen_and_its_own_container(orders: Orders) -> None:
    orders.receive(several("KN-NW", "NW", "NW", event="OML^O35"))
    orders.news()
    orders.move_order(2, "receive")

    [(_, told)] = orders.news("ORL")
    assert [one.name for one in told.segments] == ["MSH", "MSA", "PID", "SPM", "SAC", "ORC", "OBR"]
    assert (told.get("SPM-2"), told.get("SPM-4.2"), told.get("SAC-3"), told.get("ORC-2")) == (
        "KNSP1", "血清", "TUBE2", f"{NUMBER}-2",
    )  # fmt: skip


def test_of_orders_cancelled_together_each_is_answered_by_itself_though_one_is_refused(orders: Orders) -> None:
    orders.receive(several("KN-NW", "NW", "NW", "NW"))
    orders.move_order(2, "receive")
    report(orders, f"{NUMBER}-2")
    orders.news()

    orders.receive(several("KN-CA", "CA", "CA", "DC"))

    assert orders.told() == [
        ("ORL^O22", "KN-CA", "CR", f"{NUMBER}-1"),
        ("ORL^O22", "KN-CA", "UC", f"{NUMBER}-2"),
        ("ORL^O22", "KN-CA", "DR", f"{NUMBER}-3"),
    ]
    states = {one["identifier"][0]["value"]: one["status"] for one in orders.all("Task", code="lab-outsourcing")}
    assert states == {f"{NUMBER}-1": "cancelled", f"{NUMBER}-2": "completed", f"{NUMBER}-3": "cancelled"}


def test_a_refusal_of_a_cancellation_says_why_and_leaves_the_order_done(orders: Orders) -> None:
    orders.receive(several("KN-NW", "NW"))
    report(orders, f"{NUMBER}-1")
    orders.news()

    orders.receive(several("KN-DC", "DC"))

    [(_, told)] = orders.news("ORL")
    assert (told.get("MSA-1"), told.get("ORC-1"), told.get("ERR-3")) == ("AA", "UD", "206")
    assert "final" in told.get("ERR-8")
    [request] = orders.all("ServiceRequest", identifier=f"{NUMBER}-1")
    assert request["status"] == "completed"


def test_who_reads_no_answers_hears_of_the_refusal_in_the_acknowledgement(orders: Orders) -> None:
    orders.services.directory.load(settings())
    orders.receive(several("KN-NW", "NW", "NW"))
    report(orders, f"{NUMBER}-2")

    refused = orders.services.messages.receive(several("KN-CA", "CA", "CA").encode("gb18030"), PEER)

    assert refused is not None
    assert b"MSA|AE|KN-CA" in refused
    assert {one["status"] for one in orders.all("Task", code="lab-outsourcing")} == {"requested", "completed"}


def report(orders: Orders, number: str) -> None:
    """Let the laboratory send the final result of the order *number*."""
    lines = [
        f"MSH|^~\\&|LIS|QMJY|YIXIE|HUB|20250611160000||ORU^R01^ORU_R01|QM-{number[-1]}|P|2.5.1||||||UNICODE UTF-8",
        "PID|1||QM77^^^QMJY^MR||李秀英||19550708|F",
        f"ORC|RE|{number}|QM{number[-1]}",
        f"OBR|1|{number}|QM{number[-1]}|LAB001^电解质^L|||20250611103000|||||||||||||||20250611160000|||F",
        "OBX|1|NM|K^钾^L||4.1|mmol/L|3.5-5.3|N|||F",
        "",
    ]
    answered = orders.services.messages.receive("\r".join(lines).encode(), PEER)
    assert answered is not None
    assert b"MSA|AA" in answered
