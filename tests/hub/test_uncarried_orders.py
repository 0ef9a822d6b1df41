"""An order that no workflow carries is called off by the word of who placed it (ORC-1 ``CA``)."""

from __future__ import annotations

import pytest

from hub.ports import Database
from tests.support.v2 import V2Hub, msh, pid

NEW, LATER, EARLIER = "20250611083000", "20250611090000", "20250611080000"


@pytest.fixture
def hub(sqlite_database: Database) -> V2Hub:
    return V2Hub(sqlite_database)


def order(control: str, control_id: str, sent: str, number: str = "P1", *, whole: bool = True) -> str:
    """Return an order for a CT, or a command that names it by its number alone."""
    segments = [f"ORC|{control}|{number}", *([f"OBR|1|{number}||CT^胸部CT^L"] if whole else [])]
    return "\r".join([msh("ORM^O01", control_id, sent=sent, f12="2.4"), pid(), *segments, ""])


def result(control_id: str, sent: str) -> str:
    """Return the final report on the order P1."""
    segments = [f"OBR|1|P1|F1|CT^胸部CT^L|||{sent}|||||||||||||||{sent}||CT|F", "OBX|1|TX|R^报告^L||未见异常||||||F"]
    return "\r".join([msh("ORU^R01", control_id, sent=sent, f12="2.4"), pid(), *segments, ""])


def states(hub: V2Hub) -> dict[str, str]:
    return {one["identifier"][0]["value"]: one["status"] for one in hub.all("ServiceRequest")}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("sent", [NEW, LATER])
def test_a_cancelled_order_is_revoked(hub: V2Hub, sent: str, whole: bool) -> None:
    assert hub.code(order("NW", "1", NEW)) == hub.code(order("NW", "2", NEW, "P2")) == "AA"
    assert hub.code(order("CA", "3", sent, whole=whole)) == "AA"
    assert states(hub) == {"P1": "revoked", "P2": "active"}
    assert [one["code"]["text"] for one in hub.all("ServiceRequest")] == ["胸部CT"] * 2


def test_a_cancellation_that_is_older_than_the_order_changes_nothing(hub: V2Hub) -> None:
    assert hub.code(order("NW", "1", NEW)) == "AA"
    assert hub.code(order("CA", "2", EARLIER)) == "AA"
    assert states(hub) == {"P1": "active"}


def test_what_has_been_reported_is_not_called_off(hub: V2Hub) -> None:
    assert hub.code(order("NW", "1", NEW)) == hub.code(result("2", LATER)) == "AA"
    before = states(hub)
    assert hub.code(order("CA", "3", "20250611100000")) == "AA"
    assert states(hub) == before
    assert "revoked" not in before.values()
