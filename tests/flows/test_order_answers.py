"""An order by OMG^O19 is answered by ORG^O20 when the laboratory takes it on, and its result comes home by ORU^R01."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.members import SETTING_URL
from tests.flows.conftest import consortium
from tests.flows.his import HIS, segment, send_frames
from tests.flows.hub_process import HubProcess, eventually
from tests.flows.test_referral_and_lab import LAB_ORDER, accepted, result

ORDER = LAB_ORDER.replace(b"ORM^O01", b"OMG^O19^OMG_O19").replace(b"|P|2.4|", b"|P|2.5.1|")


@pytest.fixture
def answering(tmp_path: Path, kn_his: HIS) -> Iterator[HubProcess]:
    """A running hub in which the county hospital asks for answers to its orders."""
    hub = HubProcess(tmp_path)
    hub.run("migrate")
    resources = consortium(**{"KN/mllp": f"mllp://127.0.0.1:{kn_his.port}"})
    for one in resources:
        if one["resourceType"] == "Endpoint" and "KN/mllp" in {item["value"] for item in one.get("identifier", ())}:
            parts = [{"url": "name", "valueString": "order-answers"}, {"url": "value", "valueString": "true"}]
            one["extension"] = [*one.get("extension", ()), {"url": SETTING_URL, "extension": parts}]
    path = tmp_path / "members.json"
    entries = [{"resource": one} for one in resources]
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}), "utf-8")
    hub.run("members", "import", str(path))
    hub.start()
    yield hub
    hub.stop()


def test_an_order_is_answered_when_it_is_taken_on_and_its_result_comes_home(answering: HubProcess, kn_his: HIS) -> None:
    mllp = answering.ports["mllp"]
    assert accepted(send_frames(mllp, ORDER))
    qm = answering.asker("QM")
    [task] = eventually(lambda: qm.search("/fhir/Task?code=lab-outsourcing"), what="the order reaches the laboratory")
    assert kn_his.messages("ORG") == []

    qm.move(task["id"], "receive")

    [answer] = kn_his.wait_for(1, "ORG^O20")
    assert segment(answer, "MSH")[11] == "2.5.1"
    assert segment(answer, "MSA")[1:3] == ["AA", "KN20250611LAB01"]
    assert segment(answer, "ORC")[1:3] == ["OK", "KN20250611031"]
    assert "李秀英" in segment(answer, "PID")[5]

    assert accepted(send_frames(mllp, result("QM1", "F", "4.10", at="20250611142000")))
    [report] = kn_his.wait_for(1, "ORU^R01")
    assert segment(report, "OBR")[2] == "KN20250611031"
    done = eventually(
        lambda: (found := qm.get(f"/fhir/Task/{task['id']}"))["status"] == "completed" and found,
        what="the order is done",
    )
    assert done["businessStatus"]["coding"][0]["code"] == "final"
    assert len(kn_his.messages("ORG")) == 1
