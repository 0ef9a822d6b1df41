"""JSON Patch as RFC 6902 has it, its errors told apart, and the resource untouched by what fails."""

from __future__ import annotations

from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest

from fhir_mappings.json import dumps, loads
from hub.errors import HubError
from hub.patch import MAX_OPERATIONS, apply_patch

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p",
    "active": True,
    "name": [{"text": "郑伟"}, {"text": "ZHENG WEI", "given": ["WEI"]}],
    "multipleBirthInteger": 1,
}


def patched(*operations: Any, max_bytes: int = 1 << 20) -> dict[str, Any]:
    return apply_patch(PATIENT, list(operations), max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("operation", "path", "value"),
    [
        ({"op": "add", "path": "/gender", "value": "male"}, ("gender",), "male"),
        ({"op": "add", "path": "/active", "value": False}, ("active",), False),
        ({"op": "add", "path": "/name/0", "value": {"text": "x"}}, ("name", 0, "text"), "x"),
        ({"op": "add", "path": "/name/-", "value": {"text": "x"}}, ("name", 2, "text"), "x"),
        ({"op": "replace", "path": "/name/1/given/0", "value": "W"}, ("name", 1, "given", 0), "W"),
        ({"op": "remove", "path": "/name/0"}, ("name", 0, "text"), "ZHENG WEI"),
        ({"op": "move", "from": "/name/1", "path": "/name/0"}, ("name", 0, "text"), "ZHENG WEI"),
        ({"op": "copy", "from": "/name/0/text", "path": "/name/1/text"}, ("name", 1, "text"), "郑伟"),
        ({"op": "test", "path": "/name/0/text", "value": "郑伟"}, ("name", 0, "text"), "郑伟"),
    ],
)
def test_each_operation_does_what_the_rfc_says(operation: Any, path: tuple[Any, ...], value: Any) -> None:
    found: Any = patched(operation)
    for step in path:
        found = found[step]

    assert found == value


def test_a_number_keeps_its_decimals() -> None:
    resource = loads(b'{"resourceType":"Observation","valueQuantity":{"value":6.90}}')
    operations = loads(
        b'[{"op":"test","path":"/valueQuantity/value","value":6.90},{"op":"add","path":"/status","value":"final"}]'
    )

    result = apply_patch(resource, operations, max_bytes=1 << 20)

    assert result["valueQuantity"]["value"] == Decimal("6.90")
    assert b"6.90" in dumps(result)


@pytest.mark.parametrize(
    ("operations", "status", "where"),
    [
        ("x", 400, "body"),
        ({}, 400, "body"),
        ([], 400, "body"),
        ([1], 400, "patch[0]"),
        ([{"op": "add", "path": "/gender"}], 400, "patch[0]"),
        ([{"op": "move", "path": "/gender"}], 400, "patch[0]"),
        ([{"op": "merge", "path": "/gender", "value": 1}], 400, "patch[0]"),
        ([{"op": "remove", "path": "/gender"}], 422, "patch[0]"),
        ([{"op": "replace", "path": "/gender", "value": "male"}], 422, "patch[0]"),
        ([{"op": "add", "path": "/name/9", "value": {}}], 422, "patch[0]"),
        ([{"op": "add", "path": "/no/such/place", "value": 1}], 422, "patch[0]"),
        ([{"op": "add", "path": "gender", "value": "male"}], 422, "patch[0]"),
        ([{"op": "add", "path": 7, "value": "male"}], 400, "patch[0]"),
        ([{"op": "add", "path": "/name/01", "value": {}}], 422, "patch[0]"),
        ([{"op": "move", "from": "/name", "path": "/name/0/x"}], 422, "patch[0]"),
        ([{"op": "copy", "from": "/nothing", "path": "/gender"}], 422, "patch[0]"),
        ([{"op": "remove", "path": ""}], 422, "patch[0]"),
        ([{"op": ["add"], "path": "/gender", "value": "male"}], 400, "patch[0]"),
        ([{"op": "add", "path": "/gender", "value": "male"}, {"op": "test", "path": "/active", "value": False}], 422, "patch[1]"),
        # JSON's true is not the number 1 (RFC 6902 section 4.6).
        ([{"op": "test", "path": "/active", "value": 1}], 422, "patch[0]"),
        ([{"op": "test", "path": "/multipleBirthInteger", "value": True}], 422, "patch[0]"),
        ([{"op": "test", "path": "/active", "value": True}] * (MAX_OPERATIONS + 1), 413, "body"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_place(operations: Any, status: int, where: str) -> None:
    before = deepcopy(PATIENT)

    with pytest.raises(HubError) as caught:
        apply_patch(PATIENT, operations, max_bytes=1 << 20)

    assert (caught.value.status, caught.value.where) == (status, where)
    assert before == PATIENT


def test_a_patch_that_doubles_itself_ends_before_memory_does() -> None:
    # Each operation puts a copy of the whole list at the list's own end.
    doubling = [{"op": "copy", "from": "/name", "path": "/name/-"}] * 60

    with pytest.raises(HubError) as caught:
        patched(*doubling, max_bytes=100_000)

    assert caught.value.status == 413
