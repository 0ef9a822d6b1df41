"""The change feed over HTTP: read to its end and on from there."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from hub.boot import Services
from tests.support.images import QH, STUDY, ct, receive


def read(http: httpx.Client, since: int = 0, **query: Any) -> tuple[list[dict[str, Any]], int]:
    """Return all that is behind *since*, and the number to go on with."""
    found = []
    while True:
        answer = http.get("/changefeed", params={"since": since, **query})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["changes"]
        since = page["since"]
        if not page["more"]:
            return found, since


def test_a_reader_gets_each_change_once(hub: Services, http: httpx.Client) -> None:
    for number in (1, 2):
        receive(hub, ct(number))
    receive(hub, ct(1, study=f"{STUDY}.7"), QH)
    first, since = read(http, limit=1)
    assert first[0] == {
        "sequence": first[0]["sequence"],
        "timestamp": "2025-06-11T02:00:00.000Z",
        "action": "create",
        "state": "current",
        "institution": "KN",
        "studyInstanceUid": STUDY,
        "seriesInstanceUid": f"{STUDY}.1",
        "sopInstanceUid": f"{STUDY}.1.1",
    }
    assert [one["sopInstanceUid"] for one in first] == [f"{STUDY}.1.1", f"{STUDY}.1.2"]
    assert read(http, since) == ([], since)
    http.delete(f"/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.2", params={"reason": "错误"})
    (gone,), _ = read(http, since)
    assert (gone["action"], gone["sopInstanceUid"], gone["state"]) == ("delete", f"{STUDY}.1.2", "deleted")
    assert http.get("/changefeed/latest").json() == gone


def test_metadata_comes_when_it_is_asked_for(hub: Services, http: httpx.Client) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2))
    http.delete(f"/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.2", params={"reason": "错误"})
    found, _ = read(http, includemetadata="true")
    assert [one["metadata"] is not None for one in found] == [True, False, False]
    assert found[0]["metadata"]["00080018"]["Value"] == [f"{STUDY}.1.1"]
    assert http.get("/changefeed/latest", params={"includemetadata": "true"}).json()["metadata"] is None


def test_who_sees_nothing_is_told_nothing(hub: Services, http: httpx.Client) -> None:
    receive(hub, ct(1))
    for token in ("qh", "patient", "operator"):
        headers = {"Authorization": f"Bearer {token}"}
        assert http.get("/changefeed", headers=headers).json()["changes"] == []
        assert http.get("/changefeed/latest", headers=headers).status_code == 204
    assert http.get("/changefeed", headers={"Authorization": ""}).status_code == 401


@pytest.mark.parametrize(
    "query",
    ["since=-1", f"since={'9' * 40}", "since=x", "limit=0", "limit=1001", "limit=1_0", "includemetadata=1", "offset=3"],
)
def test_parameters_that_cannot_be_used_are_named(http: httpx.Client, query: str) -> None:
    answer = http.get(f"/changefeed?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.text
