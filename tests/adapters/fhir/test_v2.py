"""HL7 v2 over HTTP in all its forms: whoever sends, what is kept is what came, and the answer has the form of the question."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.http.app import build
from fhir_mappings import markup
from fhir_mappings.hl7v2.batch import split
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.wrapping import SOAP_1_1, SOAP_1_2
from hub.actor import HUB, Actor
from hub.arrival import Arrival
from hub.boot import Services
from hub.errors import Category, HubError
from hub.ports import Entry
from tests.support import images
from tests.support.http import Client, client_of
from tests.support.quotas import with_intake
from tests.support.services import running
from tests.support.v2 import Ticking, adt

ROW: dict[str, Any] = {
    "orgCode": "YLYY",
    "patientId": "R1",
    "patientName": "郑伟",
    "patientSex": "男",
    "accessionNumber": "CT1",
    "modality": "CT",
    "state": "登记完成",
    "updateTime": "2025-06-12 08:30:00",
}


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as one:
        yield one


@pytest.fixture
def kn(services: Services) -> Client:
    return client_of(build(services), services, Actor(institution="KN"))


@pytest.fixture
def yl(services: Services) -> Client:
    return client_of(build(services), services, Actor(institution="YL"))


def journal(services: Services) -> list[Entry]:
    return list(services.database.read(lambda tx: tx.journal.search({"door": "hl7-http"}, limit=100)))


def soap(text: str, space: str = SOAP_1_1, encoding: str = "UTF-8") -> bytes:
    return (
        f'<?xml version="1.0" encoding="{encoding}"?><s:Envelope xmlns:s="{space}"><s:Body><Send xmlns="urn:his">'
        f"<message><![CDATA[{text}]]></message></Send></s:Body></s:Envelope>"
    ).encode({"UTF-8": "utf-8", "GBK": "gb18030"}[encoding])


def result(content: bytes) -> str:
    response = markup.read(markup.decode(content).text).children[0].children[0]
    assert response.name == "SendResponse"
    return response.children[0].text


@pytest.mark.parametrize(("space", "media"), [(SOAP_1_1, "text/xml"), (SOAP_1_2, "application/soap+xml")])
@pytest.mark.parametrize("encoding", ["UTF-8", "GBK"])
def test_a_message_in_an_envelope_is_applied_and_kept_with_its_envelope(
    services: Services, kn: Client, space: str, media: str, encoding: str
) -> None:
    raw = soap(adt("A01", "1"), space, encoding)
    # KN's feed is one in GBK, which an envelope in UTF-8 overrules.
    answer = kn.post("/hl7", content=raw, headers={"Content-Type": "text/xml; charset=iso-8859-1"})
    again = kn.post("/hl7", content=raw)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(media)
    ack = parse(result(answer.content))
    assert (ack.get("MSA-1"), ack.get("MSA-2")) == ("AA", "1")
    assert again.content == answer.content
    (entry,) = journal(services)
    assert (entry.body, entry.state, entry.institution) == (raw, "done", "KN")
    assert [one["name"][0]["text"] for one in kn.search("/fhir/Patient")] == ["郑伟"]


def test_a_message_in_an_envelope_is_replayed_from_what_came(services: Services, kn: Client) -> None:
    kn.post("/hl7", content=soap(adt("A01", "1")))
    services.messages.replay(journal(services)[0].seq, HUB)
    assert journal(services)[0].state == "done"


def test_a_row_under_a_strange_code_is_told_so_in_the_words_of_rows(services: Services, kn: Client) -> None:
    """KN's feed is one of its HIS (MSH-3), so that its rows need an Endpoint of their own; no row has an MSH to look at."""
    answer = kn.post("/hl7", json={**ROW, "orgCode": "KNYY"})
    assert (answer.status_code, answer.json()["code"]) == (422, "AR")
    assert "orgCode" in answer.json()["message"]
    assert "MSH" not in answer.json()["message"]


def test_a_list_of_rows_is_refused_as_json(services: Services, yl: Client) -> None:
    answer = yl.post("/hl7", json=[ROW, ROW])
    assert answer.status_code == 400
    assert "one JSON object" in answer.json()["issue"][0]["diagnostics"]
    assert journal(services)[0].state == "refused"


def test_a_refusal_goes_back_in_the_envelope(services: Services, kn: Client) -> None:
    answer = kn.post("/hl7", content=soap(adt("A99", "1")))
    assert (answer.status_code, parse(result(answer.content)).get("MSA-1")) == (200, "AR")
    assert journal(services)[0].state == "refused"


def test_another_members_message_is_a_strangers(services: Services, yl: Client) -> None:
    answer = yl.post("/hl7", content=soap(adt("A01", "1")))
    assert parse(result(answer.content)).get("MSA-1") == "AR"
    assert yl.search("/fhir/Patient") == []


@pytest.mark.parametrize(("space", "status", "code"), [(SOAP_1_1, 500, "Client"), (SOAP_1_2, 400, "Sender")])
def test_an_envelope_without_a_message_is_kept_and_answered_with_a_fault(
    services: Services, kn: Client, space: str, status: int, code: str
) -> None:
    raw = soap("hello", space)
    answer = kn.post("/hl7", content=raw)
    assert answer.status_code == status
    assert f"soap:{code}".encode() in answer.content
    assert [(one.state, one.body) for one in journal(services)] == [("refused", raw)]


BHS = "BHS|^~\\&|HIS|KNYY|YIXIE|HUB|20250611080000||||B1\r"
TWO = adt("A01", "1") + adt("A01", "2", number="20001", name="李秀英", visit="V2")


def acks_in(answer: str) -> list[tuple[str, str]]:
    (part,) = split(answer.encode()).batches
    acks = [parse(one.decode()) for one in part.messages]
    return [(ack.get("MSA-1"), ack.get("MSA-2")) for ack in acks]


@pytest.mark.parametrize(("space", "media"), [(SOAP_1_1, "text/xml"), (SOAP_1_2, "application/soap+xml")])
@pytest.mark.parametrize("encoding", ["UTF-8", "GBK"])
def test_a_batch_in_an_envelope_is_each_of_its_messages_and_answered_by_a_batch_in_one(
    services: Services, kn: Client, space: str, media: str, encoding: str
) -> None:
    # KN's feed is one in GBK, which an envelope in UTF-8 overrules.
    raw = soap(BHS + TWO + adt("A99", "3") + "BTS|3\r", space, encoding)
    answer = kn.post("/hl7", content=raw, headers={"Content-Type": media})
    again = kn.post("/hl7", content=raw)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(media)
    assert acks_in(result(answer.content)) == [("AA", "1"), ("AA", "2"), ("AR", "3")]
    assert acks_in(result(again.content)) == acks_in(result(answer.content))
    assert sorted((one.control_id, one.state) for one in journal(services)) == [
        ("1", "done"), ("2", "done"), ("3", "refused"),
    ]  # fmt: skip
    names = {one["name"][0]["text"] for one in kn.search("/fhir/Patient")}
    assert names == {"郑伟", "李秀英"}


def test_a_message_of_a_batch_in_an_envelope_is_replayed_by_itself(services: Services, kn: Client) -> None:
    kn.post("/hl7", content=soap(BHS + TWO + "BTS|2\r"))
    for one in journal(services):
        assert [found.get("MSH-10") for found in [parse(decode_message(one.body or b"").text)]] == [one.control_id]
        services.messages.replay(one.seq, HUB)
    assert {one.state for one in journal(services)} == {"done"}


@pytest.mark.parametrize(
    "text", [BHS + TWO + "BTS|3\r", BHS + TWO, BHS.replace("BHS", "FHS") + BHS + TWO + "BTS|2\rFTS|2\r"]
)
def test_a_batch_in_an_envelope_that_is_not_whole_is_kept_with_it_and_refused_as_one(
    services: Services, kn: Client, text: str
) -> None:
    raw = soap(text)
    answer = kn.post("/hl7", content=raw)
    ack = parse(result(answer.content))
    assert (answer.status_code, ack.get("MSA-1"), ack.get("MSA-2")) == (200, "AE", "B1")
    assert [(one.state, one.body, one.message_type) for one in journal(services)] == [("refused", raw, text[:3])]
    assert kn.search("/fhir/Patient") == []


def test_the_batch_of_another_member_in_an_envelope_is_a_strangers(services: Services, yl: Client) -> None:
    answer = yl.post("/hl7", content=soap(BHS + TWO + "BTS|2\r"))
    assert parse(result(answer.content)).get("MSA-1") == "AR"
    assert [one.state for one in journal(services)] == ["refused"]
    assert yl.search("/fhir/Patient") == []


def test_two_batches_in_one_envelope_are_refused_with_what_to_do(services: Services, kn: Client) -> None:
    one = f"<message><![CDATA[{BHS}{adt('A01', '1')}BTS|1\r]]></message>"
    raw = soap("").replace(b"<message><![CDATA[]]></message>", (one + one).encode())
    answer = kn.post("/hl7", content=raw)
    assert answer.status_code == 500
    assert "more than one message" in answer.text
    assert [(one.state, one.body) for one in journal(services)] == [("refused", raw)]


@pytest.mark.parametrize("charset", ["utf-8", "gb18030"])
def test_a_bare_batch_is_answered_by_a_batch(services: Services, kn: Client, charset: str) -> None:
    raw = (BHS + TWO + "BTS|2\r").encode(charset)
    answer, again = (kn.post("/hl7", content=raw) for _ in range(2))
    assert answer.headers["content-type"].startswith("x-application/hl7-v2+er7")
    for one in (answer, again):
        assert acks_in(one.content.decode("gb18030")) == [("AA", "1"), ("AA", "2")]
    assert len(journal(services)) == 2


@pytest.mark.parametrize("form", [soap, lambda text: text.encode("gb18030")])
def test_a_batch_cut_short_by_trouble_is_finished_when_it_comes_again(
    services: Services, kn: Client, monkeypatch: pytest.MonkeyPatch, form: Callable[[str], bytes]
) -> None:
    raw = form(BHS + TWO + "BTS|2\r")
    append, seen = services.messages._process, []

    def failing(arrival: Arrival) -> bytes | None:
        seen.append(arrival.field("MSH-10"))
        if seen == ["1", "2"]:
            raise HubError(Category.UNAVAILABLE, "The database does not answer.")
        return append(arrival)

    monkeypatch.setattr(services.messages, "_process", failing)
    assert kn.post("/hl7", content=raw).status_code == 503
    assert [one.control_id for one in journal(services)] == ["1"]
    answer = kn.post("/hl7", content=raw)
    text = result(answer.content) if form is soap else answer.content.decode("gb18030")
    assert acks_in(text) == [("AA", "1"), ("AA", "2")]
    assert sorted(one.control_id for one in journal(services)) == ["1", "2"]


def test_a_bomb_is_refused_before_anything_of_it_is_expanded(kn: Client) -> None:
    lines = "".join(f'<!ENTITY e{n + 1} "&e{n};&e{n};&e{n};&e{n};&e{n};&e{n};&e{n};&e{n};">' for n in range(20))
    answer = kn.post("/hl7", content=f'<!DOCTYPE a [<!ENTITY e0 "x">{lines}]><a>&e20;</a>'.encode())
    assert answer.status_code == 400
    assert "document type" in answer.text


def test_a_fault_keeps_the_status_of_a_missing_token(services: Services) -> None:
    answer = client_of(build(services), services, None).post("/hl7", content=soap(adt("A01", "1")))
    assert answer.status_code == 401
    assert b"Fault" in answer.content
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert journal(services) == []


def test_a_row_is_the_state_of_a_study_and_is_answered_with_what_is_missing(services: Services, yl: Client) -> None:
    answer = yl.post("/hl7", json=ROW)
    assert (answer.status_code, answer.json()["success"], answer.json()["code"]) == (200, True, "AA")
    assert "idCard" in answer.json()["missing"]
    (entry,) = journal(services)
    assert "missing:idCard" in entry.flags.split()
    assert json.loads(entry.body or b"") == ROW
    (order,) = yl.search("/fhir/ServiceRequest")
    assert "CT1" in [one["value"] for one in order["identifier"]]
    assert yl.search("/fhir/Task") == []


def test_a_reported_row_is_a_final_report_of_the_same_order(yl: Client) -> None:
    yl.post("/hl7", json=ROW)
    reported = {
        "state": "报告完成", "updateTime": "2025-06-12 09:30:00", "reportFindings": "双肺纹理清晰",
        "reportImpression": "未见异常", "writer": "宋洁", "reviewer": "韩磊", "studyUid": "1.2.3.4",
    }  # fmt: skip
    answer = yl.post("/hl7", json={**ROW, **reported})
    assert answer.json()["code"] == "AA"
    (report,) = yl.search("/fhir/DiagnosticReport")
    assert (report["status"], report["conclusion"]) == ("final", "未见异常")
    assert report["resultsInterpreter"][0]["display"] == "韩磊"
    assert len(yl.search("/fhir/ServiceRequest")) == 1


@pytest.mark.parametrize("changes", [{"patientName": ""}, {"state": "?"}])
def test_a_row_that_lacks_what_it_must_have_is_refused_by_name(
    services: Services, yl: Client, changes: dict[str, str]
) -> None:
    answer = yl.post("/hl7", json={**ROW, **changes})
    assert answer.status_code == 400
    assert next(iter(changes)) in answer.text
    assert journal(services)[0].state == "refused"


def test_a_row_of_another_institution_is_refused(kn: Client) -> None:
    answer = kn.post("/hl7", json=ROW)
    assert (answer.status_code, answer.json()["success"]) == (422, False)
    assert answer.json()["message"]


# --- quotas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["slow", "refuse"])
def test_beyond_its_quota_a_member_is_answered_429_and_nothing_is_kept(
    services: Services, kn: Client, yl: Client, over: str
) -> None:
    clock = with_intake(services, "KN", f"messages-per-minute=2 over={over}")
    first = [kn.post("/hl7", content=adt("A01", str(n), number=str(n), visit=str(n)).encode()) for n in (1, 2)]
    assert [parse(one.text).get("MSA-1") for one in first] == ["AA", "AA"]

    refused = kn.post("/hl7", content=adt("A08", "3").encode())
    ack = parse(refused.text)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
    assert (ack.get("MSA-1"), ack.get("MSA-2"), ack.get("ERR-1.4.1")) == ("AE", "3", "207")
    in_soap = kn.post("/hl7", content=soap(adt("A08", "3")))
    assert (in_soap.status_code, in_soap.headers["retry-after"], b"Fault" in in_soap.content) == (429, "30", True)
    row = kn.post("/hl7", json=ROW)
    assert (row.status_code, row.json()["issue"][0]["code"]) == (429, "throttled")
    batch = kn.post("/hl7", content=(BHS + TWO + "BTS|2\r").encode())
    assert (batch.status_code, batch.headers["retry-after"]) == (429, "30")
    assert len(journal(services)) == 2
    # Another member has its own.
    assert yl.post("/hl7", json=ROW).json()["code"] == "AA"

    clock.now += 30
    assert parse(kn.post("/hl7", content=adt("A08", "3").encode()).text).get("MSA-1") == "AA"


def test_a_batch_uses_up_as_much_as_its_messages(services: Services, kn: Client) -> None:
    with_intake(services, "KN", "messages-per-minute=4")
    raw = (BHS + TWO + "BTS|2\r").encode()
    assert [kn.post("/hl7", content=raw).status_code for _ in range(3)] == [200, 200, 429]


def test_once_the_bytes_of_a_day_are_used_up_the_answer_names_midnight(tmp_path: Path) -> None:
    with running(tmp_path, clock=Ticking(NOON)) as services:
        with_intake(services, "KN", "bytes-per-day=10")
        kn = client_of(build(services), services, Actor(institution="KN"))
        assert kn.post("/hl7", content=adt("A01", "1").encode()).status_code == 200
        # What was known of the day's bytes is known for a while; a process that has not asked yet sees them.
        other = client_of(build(services), services, Actor(institution="KN"))
        refused = other.post("/hl7", content=adt("A08", "2").encode())
        assert refused.status_code == 429
        assert 11 * 3600 < int(refused.headers["retry-after"]) <= 12 * 3600


# --- reconciliation ----------------------------------------------------------------------------------------------

NOON = datetime(2025, 6, 12, 4, tzinfo=UTC)


@pytest.fixture
def noon(tmp_path: Path) -> Iterator[Services]:
    """Services at whose clock it is noon of 12 June 2025 in China."""
    with running(tmp_path, clock=Ticking(NOON)) as one:
        yield one


def image(services: Services, number: int, day: str = "20250612", institution: str = "YL", **more: str) -> str:
    uid = f"{images.ROOT}.{number}"
    images.receive(services, images.ct(study=uid, StudyDate=day, **more), Actor(institution=institution))
    return uid


def told(client: Client, number: int, state: str = "检查完成", **changes: str) -> None:
    row = {**ROW, "studyUid": f"{images.ROOT}.{number}", "accessionNumber": f"A{number}", "state": state, **changes}
    assert client.post("/hl7", json=row).status_code == 200


def test_a_day_is_reconciled_both_ways(noon: Services) -> None:
    client = client_of(build(noon), noon, Actor(institution="YL"))
    for number in (1, 2, 3):
        told(client, number)
    told(client, 3, "报告完成", updateTime="2025-06-12 09:30:00")
    told(client, 4, "登记完成")
    image(noon, 1)
    # Made the day before, so counted there; but it is here, which is what matters.
    image(noon, 2, "20250611")
    silent = image(noon, 5, AccessionNumber="A5")
    image(noon, 6, institution="KN")

    answer = client.get("/hl7/reconcile", params={"date": "2025-06-12"}).json()

    assert answer == {
        "date": "2025-06-12",
        "announced": {"total": 4, "登记完成": 1, "检查完成": 2, "报告完成": 1},
        "received": {"total": 2},
        "missingImages": [{"studyUid": f"{images.ROOT}.3", "accessionNumber": "A3", "state": "报告完成"}],
        "missingRows": [{"studyUid": silent, "accessionNumber": "A5"}],
    }
    lines = noon.database.read(lambda tx: list(tx.audit.search({}, institution=None, limit=100, before=None)))
    assert "reconcile" in json.dumps(lines, default=str)


def test_an_institution_reconciles_only_what_is_its_own(noon: Services) -> None:
    client = client_of(build(noon), noon, Actor(institution="YL"))
    told(client, 1)
    image(noon, 1)
    other = client_of(build(noon), noon, Actor(institution="QH"))
    answer = other.get("/hl7/reconcile?date=2025-06-12").json()
    assert (answer["announced"], answer["received"]) == ({"total": 0}, {"total": 0})
    assert client.get("/hl7/reconcile?date=2025-06-11").json()["announced"] == {"total": 0}


def test_who_may_not_see_studies_reconciles_none(noon: Services) -> None:
    for actor in (Actor(institution="YY", roles=frozenset({"operator"})),):
        assert client_of(build(noon), noon, actor).get("/hl7/reconcile?date=2025-06-12").status_code == 403
    assert client_of(build(noon), noon, None).get("/hl7/reconcile?date=2025-06-12").status_code == 401


@pytest.mark.parametrize("query", ["", "?date=today", "?date=2025-06-12&all=1"])
def test_a_day_that_is_none_is_refused(yl: Client, query: str) -> None:
    assert yl.get(f"/hl7/reconcile{query}").status_code == 400
