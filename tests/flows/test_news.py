"""A hospital's HIS hears by MLLP that the patient of an open referral has changed, and of no other patient anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.members import SETTING_URL
from tests.flows.conftest import consortium
from tests.flows.his import HIS, segment, send_frames
from tests.flows.hub_process import HubProcess, eventually
from tests.flows.test_referral_and_lab import REFERRAL, accepted

EVENTS = "ADT^A08 ADT^A40 MDM^T02"


def asking(resources: list[dict[str, Any]], *endpoints: str) -> list[dict[str, Any]]:
    """Return *resources* with the endpoints called so asking for :data:`EVENTS`."""
    for one in resources:
        names = {item["value"] for item in one.get("identifier", ())}
        if one["resourceType"] == "Endpoint" and names.intersection(endpoints):
            parts = [{"url": "name", "valueString": "send"}, {"url": "value", "valueString": EVENTS}]
            one["extension"] = [*one.get("extension", ()), {"url": SETTING_URL, "extension": parts}]
    return resources


@pytest.fixture
def yl_his() -> Iterator[HIS]:
    his = HIS(charset="utf-8")
    yield his
    his.close()


@pytest.fixture
def qh_his() -> Iterator[HIS]:
    his = HIS(charset="gb18030")
    yield his
    his.close()


@pytest.fixture
def listening(tmp_path: Path, yl_his: HIS, qh_his: HIS) -> Iterator[HubProcess]:
    """A running hub in which YL and QH ask for the same events."""
    hub = HubProcess(tmp_path)
    hub.run("migrate")
    addresses = {
        "YL/mllp": f"mllp://127.0.0.1:{yl_his.port}",
        "QH/mllp": f"mllp://127.0.0.1:{qh_his.port}",
    }
    resources = asking(consortium(**addresses), "YL/mllp", "QH/mllp")
    path = tmp_path / "members.json"
    entries = [{"resource": one} for one in resources]
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}), "utf-8")
    hub.run("members", "import", str(path))
    hub.start()
    yield hub
    hub.stop()


def adt(trigger: str, control_id: str, number: str, name: str, at: str, *more: str) -> bytes:
    """Return an ADT of the county hospital about the inpatient *number*."""
    lines = [
        f"MSH|^~\\&|HIS|KNYY|YIXIE|HUB|{at}||ADT^{trigger}|{control_id}|P|2.4",
        f"EVN|{trigger}|{at}",
        f"PID|1||{number}^^^KN^PatientNO||{name}||19591001|M",
        *more,
    ]
    return ("\r".join(lines) + "\r").encode("gb18030")


def test_the_receiver_of_a_referral_hears_of_its_patient_and_of_nobody_else(
    listening: HubProcess, yl_his: HIS, qh_his: HIS
) -> None:
    mllp = listening.ports["mllp"]
    # Two patients of the county hospital; one of them is referred to the centre hospital.
    assert accepted(send_frames(mllp, adt("A31", "K1", "ZY9", "吴涛", "20250612080000"), REFERRAL))
    yl = listening.asker("YL", "C101")
    eventually(lambda: yl.search("/fhir/Task?code=referral"), what="the referral reaches YL")

    changes = [
        adt("A08", "K2", "ZY9", "吴焘", "20250613080000", "PV1|1|N"),
        adt("A08", "K3", "ZY20250612007", "周建囯", "20250613080000", "PV1|1|N"),
        adt("A40", "K4", "ZY9", "吴焘", "20250613090000", "MRG|ZY8^^^KN^PatientNO"),
        adt("A40", "K5", "ZY20250619001", "周建囯", "20250613100000", "MRG|ZY20250612007^^^KN^PatientNO"),
    ]
    assert accepted(send_frames(mllp, *changes))

    [merge] = yl_his.wait_for(1, "ADT^A40")
    [update] = yl_his.messages("ADT^A08")
    assert segment(update, "PID")[5] == "周建囯"
    assert segment(update, "PID")[3].split("~")[0].split("^")[:4] == ["ZY20250612007", "", "", "KN"]
    assert segment(merge, "PID")[3].split("^")[:4] == ["ZY20250619001", "", "", "KN"]
    assert segment(merge, "MRG")[1].split("^")[:4] == ["ZY20250612007", "", "", "KN"]
    assert [one[0].split("|")[8] for one in yl_his.messages("ADT")] == ["ADT^A08", "ADT^A40"]
    # The queue of the other hospital is empty, not only slow: nothing was ever put there.
    assert listening.run("queue", "list", "--destination", "QH/mllp", "--json").strip() == ""
    assert qh_his.messages() == []
    assert listening.run("queue", "list", "--destination", "YL/mllp", "--json").strip() != ""
    assert not any("吴" in line for message in yl_his.messages() for line in message)
