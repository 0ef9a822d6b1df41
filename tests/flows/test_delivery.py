"""A hospital's HIS is away: what is meant for it waits in order, others are served, and the operator decides what is stuck."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import import_members
from tests.flows.his import HIS, segment, send_frames
from tests.flows.hub_process import HubProcess, eventually
from tests.flows.test_referral_and_lab import LAB_ORDER, accepted, result

ORDERS = 3


def order(number: int) -> bytes:
    """Return KN's order *number*, for one patient, that asks for no message back but the report."""
    text = LAB_ORDER.replace(b"KN20250611LAB01", b"KNLAB%d" % number).replace(b"KN20250611031", b"KNORDER%d" % number)
    return text.replace(b"|AL|AL|CHN", b"|AL|NE|CHN")


def report(number: int) -> bytes:
    text = result(f"QMRES{number}", "F", f"6.9{number}", at=f"2025061114{number}000")
    text = text.replace(b"KN20250611031", b"KNORDER%d" % number).replace(b"QM250611777", b"QMFILLER%d" % number)
    return text.replace(b"|AL|AL|CHN", b"|AL|NE|CHN")


@pytest.fixture
def qm_lis() -> Iterator[HIS]:
    """The laboratory's LIS, which stays."""
    lis = HIS(charset="utf-8")
    yield lis
    lis.close()


@pytest.fixture
def hub(tmp_path: Path, kn_his: HIS, qm_lis: HIS) -> Iterator[HubProcess]:
    one = HubProcess(tmp_path, queue_alert_s="1", retry_first_s="0.2", retry_longest_s="0.5")
    one.run("migrate")
    addresses = {name: f"mllp://127.0.0.1:{his.port}" for name, his in (("KN/mllp", kn_his), ("QM/mllp", qm_lis))}
    import_members(one, **addresses)
    one.start()
    yield one
    one.stop()


def waiting(hub: HubProcess, state: str = "pending") -> list[dict[str, Any]]:
    return [json.loads(line) for line in hub.run("queue", "list", "--state", state, "--json").splitlines()]


def alerts(hub: HubProcess) -> list[dict[str, Any]]:
    operator = hub.asker("YY", role="operator")
    found = operator.search("/fhir/Communication?category=alert&_sort=sent")
    return [one for one in found if "KN/mllp" in str(one["identifier"])]


def test_a_partner_that_is_away_gets_everything_in_order_when_it_is_back(
    hub: HubProcess, kn_his: HIS, qm_lis: HIS
) -> None:
    port = kn_his.port
    kn_his.close()
    for number in range(ORDERS):
        assert accepted(send_frames(hub.ports["mllp"], order(number), report(number)))
    # The laboratory gets its orders though the hospital's lane stands.
    orders = qm_lis.wait_for(ORDERS, "ORM^O01")
    # KN wrote GBK with an empty MSH-18; the laboratory reads UTF-8.
    assert {segment(one, "PID")[5] for one in orders} == {"李秀英"}
    assert [segment(one, "ORC")[2] for one in orders] == [f"KNORDER{number}" for number in range(ORDERS)]

    [told] = eventually(lambda: alerts(hub) or None, what="the operator is told")
    assert told["recipient"]
    [destination] = [
        one for one in json.loads(hub.run("queue", "list", "--json"))["destinations"] if one["destination"] == "KN/mllp"
    ]
    assert destination["depth"] >= ORDERS
    assert destination["oldest_s"] >= 1
    assert destination["last_error"]
    # A restart in between loses nothing either.
    hub.kill()
    hub.start()
    assert len(waiting(hub)) >= ORDERS

    back = HIS(charset="gb18030", port=port)
    try:
        results = back.wait_for(ORDERS, "ORU^R01")
        values = [segment(one, "OBX")[5] for one in results]
        assert values == sorted(values)
        assert len(values) == ORDERS
        eventually(lambda: not waiting(hub), what="the queue is empty")
        first, cleared = eventually(lambda: found if len(found := alerts(hub)) == 2 else None, what="the alert clears")
        assert cleared["inResponseTo"] == [{"reference": f"Communication/{first['id']}"}]
    finally:
        back.close()


def test_what_the_partner_refuses_parks_its_patient_until_somebody_decides(hub: HubProcess, kn_his: HIS) -> None:
    kn_his.answers = ["AR"]
    for number in range(2):
        assert accepted(send_frames(hub.ports["mllp"], order(number), report(number)))
    [dead] = eventually(lambda: waiting(hub, "dead") or None, what="the refused result is a dead letter")
    assert len(kn_his.messages("ORU^R01")) == 1, "what is behind it waits"

    # Paused, a replay stays where it is; resumed, it goes, and what waited behind it follows.
    hub.run("queue", "pause", "KN/mllp")
    hub.run("queue", "replay", str(dead["id"]))
    assert [one["state"] for one in waiting(hub) if one["id"] == dead["id"]] == ["pending"]
    assert len(kn_his.messages("ORU^R01")) == 1
    hub.run("queue", "resume", "KN/mllp")
    results = kn_his.wait_for(3, "ORU^R01")
    assert [segment(one, "OBX")[5] for one in results] == ["6.90", "6.90", "6.91"]
    assert results[0] == results[1], "the same message again, byte for byte"
