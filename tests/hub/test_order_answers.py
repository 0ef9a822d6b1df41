"""What fillers answer to orders (ORR, ORL, ORG, ORI, OSU) moves the work of the order; HL7 v2 table 0119."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.json import loads
from hub.access import UNRESTRICTED
from hub.boot import Services
from hub.search import parse
from tests.support.services import running

#: KN orders at the laboratory QM, two tests of one specimen, with an earlier result of another laboratory.
ORDER = (
    "MSH|^~\\&|HIS|KNYY|YIXIE|QMJY|20250611100000||OML^O21|KNOML1|P|2.4\r"
    "PID|1||0000020002^^^^IDCard~990001195507080264^^^^IdentifyNO||李秀英||19550708|F\r"
    "ORC|NW|KN31|||||||20250611100000|||0231^刘敏\r"
    "OBR|1|KN31||LAB001^电解质四项^L|||20250611103000||||||CKD5期|||0231^刘敏\r"
    "SPM|1|KNSP1||SER^血清^HL70487\r"
    "ORC|NW|KN32|||||||20250611100000|||0231^刘敏\r"
    "OBR|2|KN32||LAB014^肝功能^L|||20250611103000||||||CKD5期|||0231^刘敏\r"
).encode("gb18030")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as services:
        yield services


def search(hub: Services, kind: str, **pairs: str) -> list[dict[str, Any]]:
    query = parse(kind, list(pairs.items()))
    return [loads(one.body) for one in hub.database.read(lambda tx: tx.records.search(query, UNRESTRICTED)).matches]


def answer(event: str, control_id: str, *segments: str, code: str = "AA", at: str = "20250611110000") -> bytes:
    """Return what the laboratory says to ORDER."""
    return "\r".join(
        [
            f"MSH|^~\\&|LIS|QMJY|YIXIE|HUB|{at}||{event}|{control_id}|P|2.5.1||||||UNICODE UTF-8",
            f"MSA|{code}|KNOML1",
            *segments,
            "",
        ]
    ).encode()


def taken(hub: Services, message: bytes) -> str:
    answered = hub.messages.receive(message, "127.0.0.1:5000")
    assert answered is not None
    return answered.decode("gb18030", errors="replace")


def steps(hub: Services) -> dict[str, str]:
    """Where the work of each order stands, by its placer number."""
    found = {}
    for task in search(hub, "Task", code="lab-outsourcing"):
        found[task["identifier"][0]["value"]] = task["businessStatus"]["coding"][0]["code"]
    return found


def test_each_order_of_a_message_is_work_of_its_own(hub: Services) -> None:
    assert "MSA|AA" in taken(hub, ORDER)
    assert steps(hub) == {"KN31": "ordered", "KN32": "ordered"}


@pytest.mark.parametrize("event", ["ORL^O22^ORL_O22", "ORR^O02^ORR_O02", "ORG^O20^ORG_O20"])
def test_a_refusal_ends_the_work_of_the_order_it_names(hub: Services, event: str) -> None:
    taken(hub, ORDER)
    assert "MSA|AA" in taken(hub, answer(event, "A1", "ORC|UA|KN31|QM1|||||||||||||QNS^标本量不足^L"))
    assert steps(hub) == {"KN31": "specimen-rejected", "KN32": "ordered"}
    [task] = [one for one in search(hub, "Task", code="lab-outsourcing") if one["status"] == "rejected"]
    assert task["statusReason"]["text"] == "标本量不足"
    # The order itself stays what its placer made it.
    [request] = search(hub, "ServiceRequest", identifier="KN31")
    assert request["status"] == "active"


def test_a_refusal_without_a_reason_is_taken(hub: Services) -> None:
    taken(hub, ORDER)
    assert "MSA|AA" in taken(hub, answer("ORL^O22^ORL_O22", "A1", "ORC|UA|KN31|QM1"))
    assert steps(hub)["KN31"] == "specimen-rejected"


def test_an_acceptance_and_a_failure_of_the_way_leave_the_work_where_it_is(hub: Services) -> None:
    taken(hub, ORDER)
    assert "MSA|AA" in taken(hub, answer("ORL^O22^ORL_O22", "A1", "ORC|OK|KN31|QM1"))
    assert "MSA|AA" in taken(hub, answer("ORL^O22^ORL_O22", "A2", "ORC|UA|KN32|QM2", code="AE"))
    assert steps(hub) == {"KN31": "ordered", "KN32": "ordered"}


def test_an_answer_makes_neither_order_nor_patient_of_the_answering_side(hub: Services) -> None:
    taken(hub, ORDER)
    requests, patients = search(hub, "ServiceRequest"), search(hub, "Patient")
    pid = "PID|1||QM77^^^QMJY^MR||李秀英||19550708|F"
    assert "MSA|AA" in taken(hub, answer("ORL^O22^ORL_O22", "A1", pid, "ORC|OK|KN31|QM1"))
    assert search(hub, "ServiceRequest") == requests
    assert search(hub, "Patient") == patients


def test_the_same_refusal_again_changes_nothing(hub: Services) -> None:
    taken(hub, ORDER)
    taken(hub, answer("ORL^O22^ORL_O22", "A1", "ORC|UA|KN31|QM1|||||||||||||QNS^标本量不足^L"))
    before = search(hub, "Task")
    assert "MSA|AA" in taken(hub, answer("ORL^O22^ORL_O22", "A2", "ORC|UA|KN31|QM1|||||||||||||QNS^标本量不足^L"))
    assert search(hub, "Task") == before


def test_an_answer_of_a_stranger_to_the_work_moves_nothing(hub: Services) -> None:
    taken(hub, ORDER)
    foreign = answer("ORL^O22^ORL_O22", "A1", "ORC|UA|KN31|X1").replace(b"|LIS|QMJY|", b"|HIS|YLYY|")
    assert "MSA|AA" in taken(hub, foreign)
    assert steps(hub) == {"KN31": "ordered", "KN32": "ordered"}


def own(event: str, control_id: str, *segments: str) -> bytes:
    """Return what a department of KN answers to its own hospital's order."""
    head = f"MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611120000||{event}|{control_id}|P|2.4"
    return "\r".join([head, *segments, ""]).encode("gb18030")


@pytest.mark.parametrize(
    ("control", "order_status", "status"),
    [
        ("CR", "", "revoked"),
        ("OC", "", "revoked"),
        ("OH", "", "on-hold"),
        ("SC", "CM", "completed"),
        ("SC", "IP", "active"),
        ("UA", "", "active"),
        ("DE", "", "active"),
    ],
)
def test_the_answer_of_an_own_department_is_told_of_the_own_order(
    hub: Services, control: str, order_status: str, status: str
) -> None:
    order = ORDER.replace(b"|QMJY|", b"|HUB|")
    assert "MSA|AA" in taken(hub, order)
    said = own("ORR^O02", "A1", "MSA|AA|KNOML1", f"ORC|{control}|KN31|RIS1||{order_status}")
    assert "MSA|AA" in taken(hub, said)
    [request] = search(hub, "ServiceRequest", identifier="KN31")
    assert request["status"] == status
    assert "RIS1" in {one["value"] for one in request["identifier"]}


def test_an_answer_that_names_no_order_is_refused_by_its_place(hub: Services) -> None:
    said = taken(hub, answer("ORL^O22^ORL_O22", "A1"))
    assert "MSA|AE" in said
    assert "100" in said.split("ERR|")[1]
    # One that only says that the order could not be taken is kept.
    assert "MSA|AA" in taken(hub, answer("ORL^O22^ORL_O22", "A2", code="AR"))
