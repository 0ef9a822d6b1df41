"""A webhook is an Endpoint of the operator's, and of nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from hub.errors import HubError
from hub.members import MEMBER_SYSTEM, distil


def resources(member: str) -> list[dict[str, Any]]:
    return [
        {"resourceType": "Organization", "id": "o", "identifier": [{"system": MEMBER_SYSTEM, "value": member}]},
        {
            "resourceType": "Endpoint",
            "id": "e",
            "status": "active",
            "connectionType": {"code": "webhook"},
            "managingOrganization": {"reference": "Organization/o"},
            "address": "https://alerts.example/hub",
        },
    ]


def test_the_operator_has_webhooks() -> None:
    _, [endpoint], _ = distil(resources("YY"))
    assert (endpoint.id, endpoint.kind, endpoint.address) == ("YY/webhook", "webhook", "https://alerts.example/hub")


def test_a_member_has_none() -> None:
    with pytest.raises(HubError, match="Only the operator"):
        distil(resources("KN"))
