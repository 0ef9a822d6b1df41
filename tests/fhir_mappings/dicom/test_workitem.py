"""A workitem becomes a valid Task and comes back as it went in; its key is known again and not told."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from fhir_mappings.definitions.check import check
from fhir_mappings.dicom import workitem as mapping
from fhir_mappings.errors import MappingError
from tests.support.workitems import KEY, UID, performed, stopped, text, workitem

NOW = "2026-11-23T01:00:00.000Z"


def task(attributes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return mapping.task(
        attributes,
        **{"id": "w1", "uid": UID, "institution": "KN", "authored": NOW, "now": NOW, "patient": "Patient/p1", **more},
    )


@pytest.mark.parametrize(
    ("state", "status"),
    [("SCHEDULED", "requested"), ("IN PROGRESS", "in-progress"), ("COMPLETED", "completed"), ("CANCELED", "cancelled")],
)
def test_a_workitem_is_a_valid_task_in_every_state(state: str, status: str) -> None:
    attributes = workitem(x00741000=text("CS", state)) | performed() | stopped()
    made = task(attributes, lock=mapping.lock_of(UID, KEY), requester="Organization/kn", owner="Organization/yl")
    assert check(json.loads(json.dumps(made)), resource_type="Task") == []
    assert (made["status"], made["priority"], made["code"]["text"]) == (status, "urgent", "胸部CT肺结节检测")
    assert made["executionPeriod"]["start"] == "2026-11-23T09:01:00+08:00"
    assert [one["value"] for one in made["identifier"]] == [f"urn:oid:{UID}", "1.2.826.0.1.99.1", "A1"]
    assert made.get("statusReason") == ({"text": "患者已出院"} if state == "CANCELED" else None)


def test_the_data_set_comes_back_as_it_went_in() -> None:
    attributes = mapping.normal(workitem())
    assert mapping.attributes_of(task(attributes)) == attributes
    assert attributes["00741202"]["Value"] == ["影像后处理"]
    assert attributes["00100010"]["Value"] == [{"Alphabetic": "Zheng^Wei", "Ideographic": "郑^伟"}]
    assert mapping.attributes_of({"resourceType": "Task"}) == {}


def test_the_transaction_uid_is_known_again_and_does_not_stand_in_the_task() -> None:
    made = task(workitem(), lock=mapping.lock_of(UID, KEY))
    assert mapping.stored_lock(made) == mapping.lock_of(UID, KEY)
    assert mapping.stored_lock(made) != mapping.lock_of(f"{UID}.1", KEY)
    assert mapping.lock_of(UID, KEY) != mapping.lock_of(UID, f"{KEY}1")
    assert KEY not in json.dumps(made)
    assert mapping.stored_lock(task(workitem())) == ""


def test_the_final_states_need_what_the_table_says() -> None:
    assert mapping.missing_for("COMPLETED", performed()) == ""
    assert mapping.missing_for("CANCELED", stopped()) == ""
    assert mapping.missing_for("COMPLETED", stopped()) == "00741216"
    assert mapping.missing_for("CANCELED", performed()) == "00741002>00404052"
    for tag in ("00404019", "00404028", "00404033", "00404050", "00404051"):
        item = {name: one for name, one in performed()["00741216"]["Value"][0].items() if name != tag}
        assert mapping.missing_for("COMPLETED", {"00741216": text("SQ", item)}) == f"00741216>{tag}"


DEEP: Any = {}
for _ in range(50):
    DEEP = {"00741216": {"vr": "SQ", "Value": [DEEP]}}


@pytest.mark.parametrize(
    "dataset",
    [
        None,
        "text",
        [],
        {"PatientName": text("PN")},
        {"00100010": "Zheng"},
        {"00100010": {"Value": ["x"]}},
        {"00100010": {"vr": "PN", "Value": "x"}},
        {"00100010": {"vr": "P1", "Value": []}},
        {"00100010": {"vr": "PN", "BulkDataURI": "file:///etc/passwd"}},
        {"00280010": text("US", "many")},
        {"00280010": text("US", 1 << 40)},
        {"00280010": {"vr": "OB", "InlineBinary": 7}},
        {"00280009": text("AT", "zz")},
        {"00000002": text("UI", "1.2")},
        {"00020010": text("UI", "1.2")},
        {"00741216": {"vr": "SQ", "Value": ["x"]}},
        {"00741204": {"vr": "UT", "Value": ["x" * (2 << 20)]}},
        DEEP,
    ],
)
def test_what_is_no_data_set_is_refused_in_the_words_of_the_standard(dataset: Any) -> None:
    with pytest.raises(MappingError):
        mapping.normal(dataset)


@pytest.mark.parametrize(
    "content", [None, 7, "*", b"{", b"7", b'{"00100010":7}', b'{"00741002":{"vr":"SQ","Value":[7]}}']
)
def test_an_extension_that_holds_no_data_set_is_none(content: Any) -> None:
    value = base64.b64encode(content).decode() if isinstance(content, bytes) else content
    broken = {"resourceType": "Task", "extension": [{"url": mapping.EXTENSION, "valueBase64Binary": value}]}
    assert mapping.attributes_of(broken) == {}


def test_tags_may_be_written_in_small_letters() -> None:
    assert mapping.normal({"0040a370": {"vr": "SQ", "Value": []}}) == {"0040A370": {"vr": "SQ"}}


def test_values_are_found_in_every_item() -> None:
    assert list(mapping.values(workitem(), ("0040A370", "00080050"))) == ["A1"]
    assert list(mapping.values(workitem(), ("00100010",))) == ["Zheng^Wei", "郑^伟"]
    assert list(mapping.values(workitem(), ("00100020", "00080050"))) == []
