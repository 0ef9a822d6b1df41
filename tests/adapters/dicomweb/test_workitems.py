"""UPS-RS: status codes and Warning headers of PS3.18 chapter 11."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from adapters.dicomweb import workitems
from fhir_mappings.dicom import xml_model
from hub.boot import Services
from hub.ports import Member, MemberEndpoint
from tests.adapters.dicomweb.conftest import Tokens
from tests.support.workitems import KEY, UID, Json, performed, state, text, workitem

JSON = {"Content-Type": "application/dicom+json"}
XML = {"Content-Type": "application/dicom+xml"}
ONE = f"/workitems/{UID}"
YL = {"Authorization": "Bearer yl"}
QH = {"Authorization": "Bearer qh"}


class Directory(Tokens):
    """Knows the station of YL besides."""

    def all_endpoints(self) -> list[MemberEndpoint]:
        """Return YL's endpoint."""
        return [MemberEndpoint(id="YL/dicom", member="YL", kind="dicom", ae_title="YL_CENTER")]

    def members(self) -> list[Member]:
        """Return no members."""
        return []


@pytest.fixture(autouse=True)
def directory(hub: Services) -> None:
    hub.__dict__["directory"] = Directory()


def body(content: Json) -> dict[str, Any]:
    return {"content": json.dumps([content]).encode(), "headers": JSON}


def create(http: httpx.Client, uid: str = UID, **more: Any) -> httpx.Response:
    return http.post(f"/workitems?{uid}", **body(workitem(**more)))


def change(http: httpx.Client, content: Json, **headers: str) -> httpx.Response:
    return http.put(f"{ONE}/state", content=json.dumps([content]).encode(), headers={**JSON, **headers})


def warning(answer: httpx.Response) -> str:
    return answer.headers.get("warning", "").partition("/dicom-web: ")[2]


def test_an_item_is_created_read_claimed_and_completed(http: httpx.Client, door: str) -> None:
    made = create(http)
    assert (made.status_code, made.content, warning(made)) == (201, b"", "")
    assert made.headers["location"] == f"{door}{ONE}"
    (found,) = http.get(made.headers["location"]).json()
    assert found["00741204"]["Value"] == ["胸部CT肺结节检测"]
    assert found["00080018"]["Value"] == [UID]
    claimed = change(http, state("IN PROGRESS"), **YL)
    assert (claimed.status_code, claimed.content) == (200, b"")
    assert http.post(f"{ONE}?{KEY}", **body(performed())).status_code == 200
    assert http.post(f"{ONE}?transaction-uid={KEY}", **body({"00741200": text("CS", "LOW")})).status_code == 200
    assert change(http, state("COMPLETED")).status_code == 200
    again = change(http, state("COMPLETED"))
    assert (again.status_code, warning(again)) == (200, "The UPS is already in the requested state of COMPLETED.")
    (found,) = http.get(ONE, headers=YL).json()
    assert found["00741000"]["Value"] == ["COMPLETED"]
    assert "00081195" not in found


def test_what_is_refused_says_why(http: httpx.Client) -> None:
    assert create(http).status_code == 201
    assert create(http).status_code == 409
    missing, inconsistent = "The Transaction UID is missing.", workitems._INCONSISTENT

    def update(uid: str = "") -> httpx.Response:
        return http.post(f"{ONE}?{uid}" if uid else ONE, **body(performed()))

    for answer, status, said in (
        (change(http, state("IN PROGRESS", "")), 400, missing),
        (change(http, state("SCHEDULED")), 400, inconsistent),
        (change(http, state("COMPLETED")), 409, inconsistent),
        (update(KEY), 409, workitems._UNCLAIMED),
        (change(http, state("IN PROGRESS")), 200, ""),
        (change(http, state("IN PROGRESS")), 409, inconsistent),
        (change(http, state("IN PROGRESS", "2.25.1")), 400, "The Transaction UID is incorrect."),
        (update(), 400, missing),
        (update("2.25.1"), 400, "The Transaction UID is incorrect."),
        (change(http, state("COMPLETED")), 409, inconsistent),
        (http.post(f"{ONE}/cancelrequest"), 409, "The performer of the workitem cannot be contacted."),
        (update(KEY), 200, ""),
        (change(http, state("COMPLETED")), 200, ""),
        (update(KEY), 400, inconsistent),
        (change(http, state("CANCELED")), 409, inconsistent),
        (http.post(f"{ONE}/cancelrequest"), 409, inconsistent),
    ):
        assert (answer.status_code, warning(answer)) == (status, said), answer.text


def test_an_item_that_nobody_claimed_is_cancelled_on_request(http: httpx.Client) -> None:
    assert create(http).status_code == 201
    first = http.post(f"{ONE}/cancelrequest", **body({"00741238": text("LT", "患者已出院")}))
    assert (first.status_code, first.content, warning(first)) == (202, b"", "")
    again = http.post(f"{ONE}/cancelrequest")
    assert (again.status_code, warning(again)) == (202, "The UPS is already in the requested state of CANCELED.")
    (found,) = http.get(ONE).json()
    assert found["00741002"]["Value"][0]["00741238"]["Value"] == ["患者已出院"]


def test_the_uid_may_be_given_in_three_ways_or_left_to_the_hub(http: httpx.Client) -> None:
    for target, content in (
        ("/workitems?1.2.3.1", workitem()),
        ("/workitems?workitem=1.2.3.2", workitem()),
        ("/workitems", workitem(x00080018=text("UI", "1.2.3.3"))),
    ):
        assert http.post(target, **body(content)).headers["location"].endswith(("1.2.3.1", "1.2.3.2", "1.2.3.3"))
    assert "/workitems/2.25." in http.post("/workitems", **body(workitem())).headers["location"]
    assert http.post("/workitems?workitem=1.2.x", **body(workitem())).status_code == 400


def test_what_the_hub_adds_is_said(http: httpx.Client) -> None:
    made = create(http, x00741202=None)
    assert (made.status_code, warning(made)) == (201, "The Workitem was created with modifications.")


def test_others_learn_nothing_and_change_nothing(http: httpx.Client) -> None:
    assert create(http).status_code == 201
    assert http.get(ONE, headers=QH).status_code == 404
    assert change(http, state("IN PROGRESS"), **QH).status_code == 404
    assert http.post(ONE, content=json.dumps([performed()]), headers={**JSON, **QH}).status_code == 404
    assert http.get("/workitems", headers=QH).status_code == 204
    assert http.get("/workitems", headers=YL).status_code == 200
    for method, path in (("GET", ONE), ("GET", "/workitems"), ("POST", "/workitems"), ("PUT", f"{ONE}/state")):
        assert http.request(method, path, headers={"Authorization": ""}).status_code == 401
    for token in ("patient", "operator"):
        answer = http.post("/workitems", content=b"[{}]", headers={**JSON, "Authorization": f"Bearer {token}"})
        assert answer.status_code == 403


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", JSON, 400),
        (b"{", JSON, 400),
        (b"[]", JSON, 400),
        (b"[{},{}]", JSON, 400),
        (b"[7]", JSON, 400),
        (b"[{}]", JSON, 400),
        (b"[" * 100_000, JSON, 400),
        (b"<x/>", XML, 400),
        (b"[{}]", {"Content-Type": "text/plain"}, 415),
        (b"[" + b" " * (5 << 20) + b"{}]", JSON, 413),
    ],
)
def test_a_body_that_is_no_workitem_is_refused(
    http: httpx.Client, content: bytes, headers: dict[str, str], status: int
) -> None:
    assert http.post(f"/workitems?{UID}", content=content, headers=headers).status_code == status
    assert http.get(ONE).status_code == 404


def test_an_item_comes_and_goes_as_xml(http: httpx.Client) -> None:
    made = http.post(f"/workitems?{UID}", content=xml_model.write(workitem()), headers=XML)
    assert made.status_code == 201
    answer = http.get(ONE, headers={"Accept": "application/dicom+xml"})
    assert answer.headers["content-type"] == "application/dicom+xml"
    assert xml_model.read(answer.content)["00741202"]["Value"] == ["影像后处理"]
    assert http.get(ONE, headers={"Accept": "image/png"}).status_code == 406


def test_items_are_found_by_what_they_say(http: httpx.Client) -> None:
    for number in range(1, 4):
        assert create(http, f"1.2.9.{number}", x00100020=text("LO", f"1008{number}")).status_code == 201

    def found(query: str) -> list[str]:
        answer = http.get(f"/workitems?{query}")
        assert answer.status_code in {200, 204, 206}, answer.text
        rows = answer.json() if answer.content else []
        return sorted(row["00080018"]["Value"][0][-1] for row in rows)

    everything = ["1", "2", "3"]
    assert found("includefield=SOPInstanceUID") == everything
    for query in (
        "ProcedureStepState=SCHEDULED&00080018=1.2.9.1,1.2.9.2,1.2.9.3",
        "ScheduledStationNameCodeSequence.CodeValue=YL_CENTER",
        "ScheduledProcedureStepStartDateTime=20261123-",
        "ReferencedRequestSequence.AccessionNumber=A1",
        "StudyInstanceUID=1.2.826.0.1.99.1",
        "PatientName=郑*",
        "PatientName=zheng&fuzzymatching=true",
    ):
        assert found(f"{query}&includefield=00080018") == everything, query
    assert found("PatientID=10082&includefield=00080018") == ["2"]
    for query in ("ProcedureStepState=COMPLETED", "ProcedureStepState=DONE", "PatientID=10086", "00741204=CT"):
        assert found(query) == []
    answer = http.get("/workitems?limit=2&includefield=00080018")
    assert (answer.status_code, len(answer.json())) == (206, 2)
    assert warning(answer) == "There are additional results that can be requested."
    assert len(http.get("/workitems?limit=2&offset=2").json()) == 1
    (row,) = http.get("/workitems?limit=2&offset=2").json()
    assert "00741216" not in row
    (row,) = http.get("/workitems?limit=2&offset=2&includefield=all").json()
    assert row["00404021"] == {"vr": "SQ"}


@pytest.mark.parametrize(
    "query",
    [
        "limit=x",
        "offset=999999",
        "fuzzymatching=perhaps",
        "NoSuchKeyword=1",
        "ReferencedRequestSequence=1",
        "TransactionUID=1.2",
        "PatientID.AccessionNumber=1",
        "ScheduledProcedureStepStartDateTime=tomorrow",
        "a.b.c.d.e.f.g.h.i.j=1",
        "StudyInstanceUID=x",
    ],
)
def test_a_question_that_makes_no_sense_is_400(http: httpx.Client, query: str) -> None:
    assert http.get(f"/workitems?{query}").status_code == 400


def test_what_is_listed_is_what_is_there(http: httpx.Client) -> None:
    resources = http.options("/workitems", headers={"Accept": "application/json"}).json()["resources"]
    (methods,) = [one["methods"] for one in resources]
    assert [one["name"] for one in methods] == ["GET", "POST"]
    one = f"{ONE}/subscribers/KN_PACS"
    assert http.options(one).headers["allow"] == "DELETE, OPTIONS, POST"
    assert http.options(f"{one}/suspend").headers["allow"] == "OPTIONS, POST"
    assert http.options(f"{ONE}/state").headers["allow"] == "OPTIONS, PUT"
