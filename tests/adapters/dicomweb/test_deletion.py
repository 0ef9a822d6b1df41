"""DELETE is a mark with a reason, for the images' own institution."""

from __future__ import annotations

import httpx
import pytest

from hub.boot import Services
from hub.deletion import Deletion
from tests.support.images import KN, STUDY, ct, receive

PLACES = {
    "study": f"/studies/{STUDY}",
    "series": f"/studies/{STUDY}/series/{STUDY}.1",
    "instance": f"/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.1",
}


@pytest.mark.parametrize(("level", "left"), [("study", 0), ("series", 1), ("instance", 2)])
def test_what_the_path_names_is_no_longer_found_or_served(
    hub: Services, http: httpx.Client, level: str, left: int
) -> None:
    for one in (ct(1), ct(2), ct(1, series=2)):
        receive(hub, one)
    gone = PLACES[level]
    answer = http.delete(gone, params={"reason": "拍错部位"})
    assert (answer.status_code, answer.json()) == (200, {"deleted": 3 - left})
    assert len(http.get("/instances").json()) == left
    assert http.get(gone, headers={"Accept": "application/dicom"}).status_code == 404
    assert http.get(f"{gone}/metadata").status_code == 404
    assert http.delete(gone, params={"reason": "again"}).status_code == 404
    assert {one.reason for one in Deletion(hub).marks(KN)} == {"拍错部位"}


def test_the_reason_may_come_in_a_header_and_must_come(hub: Services, http: httpx.Client) -> None:
    receive(hub, ct(1))
    for headers in ({}, {"X-Reason": ""}, {"X-Reason": b"\xff\xfe"}):
        refused = http.delete(PLACES["study"], headers=headers)
        assert refused.status_code == 400, headers
    assert len(http.get("/instances").json()) == 1
    assert http.delete(PLACES["study"], headers={"X-Reason": "错误".encode()}).json() == {"deleted": 1}
    assert [one.reason for one in Deletion(hub).marks(KN)] == ["错误"]


def test_others_learn_nothing_and_take_nothing_away(hub: Services, http: httpx.Client) -> None:
    receive(hub, ct(1))
    asked = {"reason": "no"}
    for token in ("qh", "yl", "operator", "patient"):
        headers = {"Authorization": f"Bearer {token}"}
        for place in (PLACES["study"], f"/institutions/KN{PLACES['study']}"):
            assert http.delete(place, params=asked, headers=headers).status_code in {403, 404}, (token, place)
    assert http.delete(PLACES["study"], params=asked, headers={"Authorization": ""}).status_code == 401
    assert http.delete("/studies/1.2.x", params=asked).status_code == 400
    assert len(http.get("/instances").json()) == 1
    assert http.delete(f"/institutions/KN{PLACES['study']}", params=asked).status_code == 200


def test_a_study_on_hold_is_a_conflict(hub: Services, http: httpx.Client) -> None:
    receive(hub, ct(1))
    Deletion(hub).hold(KN, STUDY, reason="诉讼")
    assert http.delete(PLACES["instance"], params={"reason": "no"}).status_code == 409


def test_the_capabilities_say_that_it_is_a_mark(http: httpx.Client) -> None:
    answer = http.options(PLACES["study"], headers={"Accept": "application/json"})
    assert "DELETE" in answer.headers["allow"]
    (resource,) = answer.json()["resources"]
    (method,) = [one for one in resource["methods"] if one["name"] == "DELETE"]
    assert (method["query"], "marks as deleted" in method["note"]) == (["reason"], True)
    assert "<doc>PS3.18 defines no DELETE" in http.options(PLACES["study"]).text
