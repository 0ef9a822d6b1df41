"""Merged patients over HTTP: who sees what of them, and who settles them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.boot import Services
from hub.imaging_ids import number_record_id
from tests.adapters.ops.test_routes import Asker
from tests.support.images import FakeClock
from tests.support.services import running

SAMPLES = Path(__file__).parents[3] / "sample_data" / "hl7"
FORMER = number_record_id("KN", "0000312700")
SETTLE = f"/ops/merges/{FORMER}/settle"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path, clock=FakeClock()) as services:
        for name in ("ADT_A39/kn_a40_merge.hl7", "ADT_A37/kn_a37_unlink.hl7"):
            answer = services.messages.receive((SAMPLES / name).read_bytes(), "127.0.0.1:1", institution_hint="KN")
            assert answer is not None
            assert b"MSA|CA|" in answer
        yield services


def test_an_institution_sees_its_numbers_the_operator_ids_and_others_nothing(hub: Services) -> None:
    operator, kn, qh = Asker(hub, "YY", "operator"), Asker(hub, "KN", "admin"), Asker(hub, "QH", "admin")
    (mine,) = kn.get("/ops/merges")["merges"]
    (bare,) = operator.get("/ops/merges")["merges"]
    assert mine["former_numbers"] == ["0000312700"]
    assert bare == {**mine, "former_numbers": [], "survivor_numbers": []}
    assert qh.get("/ops/merges")["merges"] == []
    Asker(hub, "KN", "doctor").get("/ops/merges", status=403)
    assert kn.get(f"/ops/merges/{FORMER}")["former_numbers"] == ["0000312700"]
    assert operator.get(f"/ops/merges/{FORMER}")["former_numbers"] == []
    qh.get(f"/ops/merges/{FORMER}", status=404)
    qh.post(SETTLE, {"decision": "undo", "reason": "x"}, status=404)


def test_a_merge_is_settled_with_a_reason_and_the_second_time_nothing_changes(hub: Services) -> None:
    kn = Asker(hub, "KN", "admin")
    (item,) = kn.get("/ops/merges")["merges"]
    kn.post(SETTLE, {"decision": "perhaps", "reason": "x"}, status=400)
    kn.post(SETTLE, {"decision": "undo"}, status=400)
    kn.post(SETTLE, {"decision": "undo", "reason": " "}, status=400)
    done = kn.post(SETTLE, {"decision": "undo", "reason": "号码有误"})
    assert [one["seq"] for one in done["replayed"]] == item["messages"]
    assert f"Patient/{FORMER}" in done["changed"]
    assert kn.get("/ops/merges")["merges"] == []
    assert kn.get(f"/ops/merges/{FORMER}")["merged"] is False
    again = kn.post(SETTLE, {"decision": "undo", "reason": "号码有误"})
    assert (again["changed"], again["replayed"]) == ([], [])
    kn.post(SETTLE, {"decision": "keep", "reason": "x"}, status=409)
