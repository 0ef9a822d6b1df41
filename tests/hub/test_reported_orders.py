"""Orders behind results: kept where none came, and done when their report is final (HL7 v2 chapter 7.3.1, table 0119 RE)."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from fhir_mappings.json import loads
from hub.access import UNRESTRICTED
from hub.ports import Database
from hub.search import parse
from tests.flows.test_referral_and_lab import LAB_ORDER
from tests.support.services import running
from tests.support.v2 import Json, V2Hub, msh, pid

ORDER = ("ORC|NW|P1|||||^^^^^S||20250611070000|||0231^刘敏", "OBR|1|P1||CT01^胸部CT^L|||||||||发热")


@pytest.fixture
def hub(sqlite_database: Database) -> V2Hub:
    return V2Hub(sqlite_database)


def order(*segments: str, sent: str = "20250611070000", control_id: str = "O1") -> str:
    return "\r".join([msh("ORM^O01", control_id, sent=sent, f12="2.4"), pid(), *(segments or ORDER), ""])


def result(status: str, *, service: str = "CT01^胸部CT^L", order_status: str = "", control_id: str = "R1") -> str:
    return "\r".join(
        [
            msh("ORU^R01", control_id, sent="20250611090000", f12="2.4"),
            pid(),
            f"ORC|RE|P1|F1||{order_status}",
            f"OBR|1|P1|F1|{service}|||20250611083000||||||发热|||0231^刘敏||||||20250611090000||CT|{status}",
            f"OBX|1|TX|IMP^诊断意见^L||未见异常||||||{status}",
            "",
        ]
    )


def status(hub: V2Hub) -> str:
    return str(hub.one("ServiceRequest")["status"])


@pytest.mark.parametrize(
    ("report", "order_status", "expected"),
    [
        ("F", "", "completed"),
        ("F", "CM", "completed"),
        ("C", "", "completed"),
        ("F", "A", "active"),
        ("F", "IP", "active"),
        ("P", "", "active"),
        ("P", "CM", "active"),
        ("X", "", "active"),
    ],
)
@pytest.mark.parametrize("order_came", [True, False])
def test_a_final_report_ends_its_order(
    hub: V2Hub, order_came: bool, report: str, order_status: str, expected: str
) -> None:
    if order_came:
        assert hub.code(order()) == "AA"
    assert hub.code(result(report, order_status=order_status)) == "AA"
    assert status(hub) == expected


SEVERAL = ("ORC|NW|P1", *(f"OBR|{n}|P1||{code}^{code}^L" for n, code in enumerate(("GLU", "K", "NA"), 1)))


def panel(control_id: str, **services: str) -> str:
    """A result with an OBR of each of *services* under the one number; the values are OBR-25."""
    groups = [
        segment
        for code, told in services.items()
        for segment in (
            "ORC|RE|P1|F1",
            f"OBR|1|P1|F1|{code}^{code}^L{'|' * 18}20250611090000|||{told}",
            f"OBX|1|NM|{code}^{code}^L||4.1|mmol/L|||||{told}",
        )
    ]
    return "\r".join([msh("ORU^R01", control_id, sent="20250611090000", f12="2.4"), pid(), *groups, ""])


def states(hub: V2Hub) -> dict[str, str]:
    return {one["code"]["coding"][0]["code"]: one["status"] for one in hub.all("ServiceRequest")}


@pytest.mark.parametrize(
    ("reports", "ended"),
    [
        ([{"GLU": "F", "K": "F", "NA": "F"}], {"GLU", "K", "NA"}),
        ([{"K": "F"}, {"NA": "F"}], {"K", "NA"}),
        ([{"NA": "F", "GLU": "F"}], {"GLU", "NA"}),
        ([{"GLU": "F", "K": "P"}], {"GLU"}),
        ([{"K": "P", "GLU": "F"}, {"K": "F"}], {"GLU", "K"}),
        ([{"CA": "F"}], set()),
    ],
)
def test_of_several_orders_under_one_number_those_end_whose_report_is_final(
    hub: V2Hub, reports: list[dict[str, str]], ended: set[str]
) -> None:
    assert hub.code(order(*SEVERAL)) == "AA"
    assert states(hub) == dict.fromkeys(("GLU", "K", "NA"), "active")
    for n, services in enumerate(reports):
        assert hub.code(panel(f"R{n}", **services)) == "AA"
    assert states(hub) == {code: "completed" if code in ended else "active" for code in ("GLU", "K", "NA")}


def test_results_without_orders_make_one_order_of_their_number(hub: V2Hub) -> None:
    assert hub.code(panel("R1", GLU="F", K="P")) == "AA"
    assert states(hub) == {"GLU": "active"}


@pytest.mark.parametrize("arrival", list(permutations(("order", "P", "F"))), ids="-".join)
def test_an_order_ends_the_same_whatever_comes_first(hub: V2Hub, arrival: tuple[str, ...]) -> None:
    for step in arrival:
        assert hub.code(order() if step == "order" else result(step, control_id=f"R{step}")) == "AA"
    request = hub.one("ServiceRequest")
    assert (request["status"], request["priority"], request["authoredOn"]) == (
        "completed",
        "stat",
        "2025-06-11T07:00:00+08:00",
    )


def test_the_same_report_twice_makes_no_new_version_of_the_order(hub: V2Hub) -> None:
    hub.code(order())
    hub.code(result("F"))
    before = hub.one("ServiceRequest")["meta"]["versionId"]
    hub.code(result("F", control_id="R2"))
    assert hub.one("ServiceRequest")["meta"]["versionId"] == before == "2"


def test_a_report_of_one_service_leaves_the_other_under_the_same_number_open(hub: V2Hub) -> None:
    """A scanner's worklist must not lose the abdomen because the chest is reported."""
    hub.code(order(*ORDER, "ORC|NW|P1", "OBR|2|P1||CT02^腹部CT^L"))
    hub.code(result("F", service="CT02^腹部CT^L"))
    open_ones = {one["code"]["text"] for one in hub.all("ServiceRequest") if one["status"] == "active"}
    assert "胸部CT" in open_ones


def test_a_cancelled_order_stays_cancelled_when_its_report_comes(hub: V2Hub) -> None:
    hub.code(order())
    hub.code(order("ORC|OC|P1", ORDER[1], sent="20250611080000", control_id="O2"))
    hub.code(result("F"))
    assert status(hub) == "revoked"


def test_one_report_that_is_not_final_keeps_the_order_of_several_open(hub: V2Hub) -> None:
    both = result("F").rstrip("\r").split("\r") + result("P", service="CT02^腹部CT^L").split("\r")[2:]
    assert hub.code("\r".join(both)) == "AA"
    assert status(hub) == "active"


def test_an_order_that_never_came_is_known_by_its_report(hub: V2Hub) -> None:
    """Hospitals that send results only would otherwise never tell who asked for them, and why."""
    hub.code(result("F"))
    request: Json = hub.one("ServiceRequest")
    assert request["requester"]["display"] == "刘敏"
    assert request["reasonCode"] == [{"text": "发热"}]
    assert request["category"][0]["coding"][0]["code"] == "CT"
    assert {one["type"]["coding"][0]["code"] for one in request["identifier"]} == {"PLAC", "FILL"}


@pytest.mark.parametrize(("receiver", "expected"), [(b"QMJY", "active"), (b"HUB", "completed")])
def test_an_order_that_another_hospital_works_on_is_left_to_that_work(
    tmp_path: Path, receiver: bytes, expected: str
) -> None:
    """The asker's own quick test answers its own order only; sent away, the order ends when the workflow says so."""
    head, *rest = LAB_ORDER.replace(b"|QMJY|", b"|%s|" % receiver).split(b"\r")
    orc, obr = (next(one for one in rest if one.startswith(name)).split(b"|") for name in (b"ORC", b"OBR"))
    patient = next(one for one in rest if one.startswith(b"PID"))
    report = b"\r".join(
        [
            head.replace(b"ORM^O01", b"ORU^R01").replace(b"|P|2.4", b"R|P|2.4"),
            patient,
            b"OBR|1|" + orc[2] + b"|F1|" + obr[4] + b"|||20250611120000" + b"|" * 15 + b"20250611130000|||F",
            b"OBX|1|ST|K^K^L||4.1||||||F",
            b"",
        ]
    )
    with running(tmp_path) as hub:
        for one in (head + b"\r" + b"\r".join(rest), report):
            answer = hub.messages.receive(one, "127.0.0.1:5000")
            assert answer is not None
            assert b"MSA|AA" in answer or b"MSA|CA" in answer
        query = parse("ServiceRequest", [])
        [request] = hub.database.read(lambda tx: tx.records.search(query, UNRESTRICTED)).matches
        assert loads(request.body)["status"] == expected
