"""What partners are told of records that change: those whom a grant lets see them, what they ask for, and nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.tokenizer import Message, parse
from fhir_mappings.json import dumps, loads
from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.boot import Services
from hub.envelope import Envelope
from hub.errors import HubError
from hub.members import SETTING_URL
from hub.ports import NewVersion
from hub.search import parse as query
from tests.flows.test_referral_and_lab import LAB_ORDER, REFERRAL
from tests.flows.test_referral_and_lab import result as lab_result
from tests.support.services import consortium, running
from tests.support.v2 import msh

ALL = "ADT^A08 ADT^A40 ORU^R01 MDM^T02 MDM^T08 MDM^T10 MDM^T11"
YL = Actor(institution="YL", practitioner="C101", roles=frozenset({"doctor", "physician", "desk"}))
KN_DESK = Actor(institution="KN", roles=frozenset({"system"}))
NUMBER = "ZY20250612007"


def members(asks: dict[str, str], **more: str) -> list[dict[str, Any]]:
    """Return the consortium; the v2 endpoints of *asks* have an address and ask for those events, others have none."""
    resources = consortium()
    for one in resources:
        code = next((item["value"] for item in one.get("identifier", ())), "").partition("/")[0]
        if one["resourceType"] != "Endpoint" or one["connectionType"]["code"] != "hl7v2-mllp":
            continue
        one["address"] = "mllp://127.0.0.1:9" if code in asks else "urn:none"
        for name, value in {"send": asks[code], **more}.items() if asks.get(code) else ():
            parts = [{"url": "name", "valueString": name}, {"url": "value", "valueString": value}]
            held = [item for item in one.get("extension", ()) if item["extension"][0]["valueString"] != name]
            one["extension"] = [*held, {"url": SETTING_URL, "extension": parts}]
    return resources


class Consortium:
    """A hub with a referral of KN's patient to YL, and what was queued for whom since."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._seen = 0

    def ask(self, **asks: str) -> None:
        self.services.directory.load(members(asks))

    def receive(self, *messages: str | bytes) -> None:
        for one in messages:
            raw = one if isinstance(one, bytes) else one.encode("gb18030")
            answer = self.services.messages.receive(raw, "127.0.0.1:5000")
            assert answer is not None
            assert b"MSA|AA" in answer or b"MSA|CA" in answer, answer

    def all(self, kind: str, **pairs: str) -> list[dict[str, Any]]:
        found = self.services.database.read(
            lambda tx: tx.records.search(query(kind, list(pairs.items())), UNRESTRICTED)
        )
        return [loads(one.body) for one in found.matches]

    def patient(self) -> dict[str, Any]:
        """Return the patient of the referral."""
        [task] = self.all("Task", code="referral")
        return next(one for one in self.all("Patient") if f"Patient/{one['id']}" == task["for"]["reference"])

    def news(self, kind: str = "") -> list[tuple[str, Message]]:
        """Return (destination, message) of what was queued since the last look, oldest first."""
        found = self.services.database.read(lambda tx: tx.outbox.deliveries({}, limit=500))
        fresh = sorted((one for one in found if one.id > self._seen), key=lambda one: one.id)
        self._seen = max((one.id for one in found), default=self._seen)
        made = [(one.destination, parse(decode_message(one.payload).text)) for one in fresh]
        return [(where, message) for where, message in made if message.get("MSH-9").startswith(kind)]

    def put(self, resource: dict[str, Any], actor: Actor = KN_DESK) -> dict[str, Any]:
        """Store *resource* by FHIR, as a new version when it has an id."""
        envelope = Envelope(door="fhir", actor=actor, peer="")
        kind = resource["resourceType"]
        body = {key: value for key, value in resource.items() if key != "meta"}
        service = self.services.resources
        answer = (
            service.update(envelope, kind, body["id"], dumps(body))
            if "id" in body
            else service.create(envelope, kind, dumps(body))
        )
        made: dict[str, Any] = loads(answer.body)
        return made

    def move(self, event: str, actor: Actor = YL, **how: Any) -> None:
        [task] = self.all("Task", code="referral")
        self.services.database.write(lambda tx: self.services.tasks.transition(tx, task["id"], event, actor, **how))

    def audited(self, subtype: str) -> list[Any]:
        lines = self.services.database.read(lambda tx: tx.audit.search({}, institution=None, limit=500, before=None))
        return [one for one in lines if any(part.get("code") == subtype for part in one.get("subtype", ()))]


@pytest.fixture
def hub(tmp_path: Path, database_url: str) -> Iterator[Consortium]:
    with running(tmp_path, url=database_url) as services:
        made = Consortium(services)
        made.ask(YL=ALL, QH=ALL, KN=ALL)
        yield made


def numbers_of(message: Message) -> list[tuple[str, str]]:
    """Return the numbers of PID-3 with the institution that gave each out, as far as the message says it."""
    pid = message.first("PID")
    assert pid is not None
    return [(one.component(1), one.component(4)) for one in pid.field(3).repetitions]


def adt(
    trigger: str, control_id: str, *, name: str = "周建国", number: str = NUMBER, at: str = "20250613080000"
) -> str:
    return "\r".join(
        [
            msh(f"ADT^{trigger}", control_id, sent=at),
            f"EVN|{trigger}|{at}||||{at}",
            f"PID|1||{number}^^^KN^PatientNO||{name}||19591001|M|||||12000000001",
            "PV1|1|N",
            "",
        ]
    )


def merged(control_id: str, survivor: str, dead: str) -> str:
    return "\r".join(
        [
            msh("ADT^A40", control_id, sent="20250613090000"),
            "EVN|A40|20250613090000",
            f"PID|1||{survivor}^^^KN^PatientNO||周建国||19591001|M",
            f"MRG|{dead}^^^KN^PatientNO",
            "",
        ]
    )


def test_a_new_name_reaches_the_receiver_of_an_open_referral_and_nobody_else(hub: Consortium) -> None:
    hub.receive(REFERRAL)
    assert {where for where, _ in hub.news("REF")} == {"YL/mllp"}

    hub.receive(adt("A08", "K1", name="周建囯"))

    [(where, told)] = hub.news()
    assert (where, told.get("MSH-9"), told.get("MSH-9.2"), told.get("EVN-1")) == ("YL/mllp", "ADT", "A08", "A08")
    assert told.get("PID-5") == "周建囯"
    assert numbers_of(told)[0] == (NUMBER, "KN")
    assert len(hub.audited("ADT^A08")) >= 1


def test_without_a_grant_nothing_is_told(hub: Consortium) -> None:
    hub.receive(adt("A31", "K1"), adt("A08", "K2", name="周建囯", at="20250613090000"))
    hub.receive(merged("K3", NUMBER, "OTHER1"))

    assert hub.news() == []


def test_after_the_referral_was_refused_nothing_more_is_told(hub: Consortium) -> None:
    hub.receive(REFERRAL)
    hub.move("review")
    hub.move("reject", reason={"text": "无床"}, note="转至其他医院")
    hub.news()

    hub.receive(adt("A08", "K1", name="周建囯"))

    assert hub.news("ADT") == []


def test_a_partner_gets_the_events_it_asks_for(hub: Consortium) -> None:
    hub.ask(YL="ADT^A31")
    hub.receive(REFERRAL, adt("A08", "K1", name="周建囯"))
    assert [told.get("MSH-9.2") for _, told in hub.news("ADT")] == ["A31"]

    hub.ask(YL="")
    hub.receive(adt("A08", "K2", name="周健国", at="20250614080000"))
    assert hub.news() == []


def test_a_new_destination_gets_what_happens_from_then_on_and_nothing_of_before(hub: Consortium) -> None:
    hub.ask(YL="")
    hub.receive(REFERRAL, adt("A08", "K1", name="周建囯"))
    assert hub.news("ADT") == []

    hub.ask(YL=ALL)
    assert hub.news() == []
    hub.receive(adt("A08", "K2", name="周健国", at="20250614080000"))
    assert [(where, told.get("PID-5")) for where, told in hub.news()] == [("YL/mllp", "周健国")]


@pytest.mark.parametrize("change", [{}, {"telecom": [{"system": "phone", "value": "12000000099"}]}])
def test_what_the_message_would_not_say_is_no_news(hub: Consortium, change: dict[str, Any]) -> None:
    hub.receive(REFERRAL)
    hub.news()

    hub.put({**hub.patient(), **change})

    assert hub.news() == []


def test_a_change_by_fhir_is_told_as_one_by_v2_is(hub: Consortium) -> None:
    hub.receive(REFERRAL)
    hub.news()

    hub.put({**hub.patient(), "birthDate": "1959-10-02", "deceasedDateTime": "2025-06-13T08:00:00+08:00"})

    [(where, told)] = hub.news()
    assert (where, told.get("PID-7"), told.get("PID-29"), told.get("PID-30")) == (
        "YL/mllp",
        "19591002",
        "20250613080000",
        "Y",
    )


def test_a_merge_is_told_with_the_owner_of_either_number(hub: Consortium) -> None:
    hub.receive(REFERRAL)
    hub.news()

    hub.receive(merged("K1", "ZY2", NUMBER))

    [(where, told)] = hub.news()
    assert (where, told.get("MSH-9.2")) == ("YL/mllp", "A40")
    assert numbers_of(told) == [("ZY2", "KN")]
    assert (told.get("MRG-1"), told.get("MRG-1.4"), told.get("PID-5")) == (NUMBER, "KN", "周建国")


def test_of_a_survivor_out_of_reach_only_the_number_is_told(hub: Consortium) -> None:
    other = adt("A31", "K0", name="周别人", number="ZY2").replace(
        "^^^KN^PatientNO", "^^^KN^PatientNO~990001197602290170^^^^IdentifyNO"
    )
    hub.receive(REFERRAL, other)
    hub.news()

    hub.receive(merged("K1", "ZY2", NUMBER))

    [(_, told)] = hub.news()
    assert told.get("PID-5") == "周建国"
    assert numbers_of(told) == [("ZY2", "KN")]


def test_the_receivers_own_number_stands_first_once_a_link_says_it(hub: Consortium) -> None:
    hub.receive(REFERRAL.replace(b"^PatientNO", b"^IDCard"))
    hub.receive(
        "\r".join(
            [
                msh("ADT^A04", "Y1", facility="YLYY"),
                "EVN|A04|20250613070000",
                "PID|1||600777^^^^PI||周建国||19591001|M",
                "PV1|1|O||||||||||||||||V9",
                "",
            ]
        )
    )
    [mine] = [one for one in hub.all("Patient") if one["identifier"][0]["value"] == "600777"]
    identity = hub.services.identity
    identity.state(Actor(institution="YL", roles=frozenset({"desk"})), mine["id"], "KN", NUMBER)
    identity.state(Actor(institution="KN", roles=frozenset({"desk"})), hub.patient()["id"], "YL", "600777")
    hub.news()

    hub.receive(adt("A08", "K1", name="周建囯").replace("^PatientNO", "^IDCard"))

    [(where, told)] = hub.news("ADT")
    assert (where, numbers_of(told)[:2]) == ("YL/mllp", [("600777", ""), (NUMBER, "KN")])


def document(hub: Consortium, **change: Any) -> dict[str, Any]:
    return {
        "resourceType": "DocumentReference",
        "status": "current",
        "docStatus": "final",
        "type": {"coding": [{"system": "urn:oid:2.16.156.10011.2.4", "code": "C0053", "display": "出院小结"}]},
        "subject": {"reference": f"Patient/{hub.patient()['id']}"},
        "content": [
            {
                "attachment": {
                    "contentType": "application/pdf",
                    "title": "出院小结",
                    "data": base64.b64encode(b"%PDF-1.4 x").decode(),
                }
            }
        ],
        **change,
    }


def test_a_document_of_a_record_that_is_open_is_told_edited_and_taken_back(hub: Consortium) -> None:
    hub.receive(REFERRAL)
    hub.move("review")
    hub.move("accept")
    hub.put(document(hub))
    assert hub.news("MDM") == []

    hub.move("arrive")
    draft = hub.put(document(hub, docStatus="preliminary"))
    assert hub.news("MDM") == []
    final = hub.put({**draft, "docStatus": "final"})
    [(where, told)] = hub.news("MDM")
    assert (where, told.get("MSH-9.2"), told.get("TXA-2"), told.get("TXA-17")) == ("YL/mllp", "T02", "C0053", "AU")
    assert told.get("OBX-5.5") == base64.b64encode(b"%PDF-1.4 x").decode()
    assert told.get("TXA-12.2") == "YIXIE"

    hub.put({**final, "description": "第二版"})
    hub.put({**final, "status": "entered-in-error"})
    assert [one.get("MSH-9.2") for _, one in hub.news("MDM")] == ["T08", "T11"]


def test_the_outcome_of_a_referral_reaches_the_referrer_when_it_is_handed_in(hub: Consortium) -> None:
    hub.receive(REFERRAL)
    for event in ("review", "accept", "arrive"):
        hub.move(event)
    outcome = hub.put(document(hub), YL)
    hub.news()

    output = {"type": {"text": "结果"}, "valueReference": {"reference": f"DocumentReference/{outcome['id']}"}}
    hub.move("feedback", outputs=[output])

    [(where, told)] = hub.news("MDM")
    assert (where, told.get("MSH-9.2")) == ("KN/mllp", "T02")
    # KN reads its own number, bare, because it gave it out.
    assert numbers_of(told)[0] == (NUMBER, "")


def result(control_id: str, status: str, at: str) -> str:
    return "\r".join(
        [
            msh("ORU^R01", control_id, sent=at),
            f"PID|1||{NUMBER}^^^KN^PatientNO||周建国||19591001|M",
            f"OBR|1|PL1|FL1|K^钾^L|||20250613070000|||||||||||||||{at}||LAB|{status}",
            f"OBX|1|NM|2823-3^钾^LN||4.10|mmol/L|3.50-5.30|N|||{status}|||20250613070000",
            "",
        ]
    )


def test_a_report_of_a_record_that_is_open_is_told_once_it_is_issued(hub: Consortium) -> None:
    hub.receive(REFERRAL)
    for event in ("review", "accept", "arrive"):
        hub.move(event)
    hub.news()

    hub.receive(result("K1", "P", "20250613080000"))
    assert hub.news("ORU") == []

    hub.receive(result("K2", "F", "20250613090000"), result("K3", "F", "20250613090000"))
    [(where, told)] = hub.news("ORU")
    assert (where, told.get("OBR-25"), told.get("OBX-5"), told.get("OBX-11")) == ("YL/mllp", "F", "4.10", "F")
    # Of the order as it is numbered elsewhere nothing stands bare where the receiver's own number would.
    assert numbers_of(told)[0] == (NUMBER, "KN")


def test_a_report_that_the_workflow_sends_is_not_told_a_second_time(hub: Consortium) -> None:
    hub.ask(KN="ORU^R01", QM="ORU^R01")
    hub.receive(LAB_ORDER, lab_result("QM1", "F", "6.90", at="20250611142000"))

    assert [where for where, _ in hub.news("ORU")] == ["KN/mllp"]


def test_characters_that_the_partner_cannot_write_are_escaped_and_not_lost(hub: Consortium) -> None:
    hub.services.directory.load(members({"YL": "ADT^A08"}, **{"charset-out": "8859/1"}))
    hub.receive(REFERRAL, adt("A08", "K1", name="周珅"))

    found = hub.services.database.read(lambda tx: tx.outbox.deliveries({"destination": "YL/mllp"}, limit=50))
    raw = next(one.payload for one in found if b"ADT^A08" in one.payload)
    assert b"\\XE591A8\\\\XE78F85\\" in raw
    assert parse(raw.decode("iso8859-1")).get("PID-5") == "周珅"


@pytest.mark.parametrize("asked", ["ADT^A08 ADT^A31", "ADT^A01", "adt", "-MDM^T11", "MDM^T02 MDM^T11 -MDM^T11"])
def test_events_that_cannot_be_sent_are_refused_when_members_are_imported(hub: Consortium, asked: str) -> None:
    with pytest.raises(HubError, match="send"):
        hub.ask(YL=asked)


def test_news_that_cannot_be_committed_with_the_change_is_not_queued(hub: Consortium) -> None:
    hub.receive(REFERRAL)
    hub.news()
    patient = hub.patient()

    def work(tx: Any) -> None:
        changed = {**patient, "name": [{"text": "周建囯"}]}
        tx.records.put_many([NewVersion(resource=changed, owner="KN")])
        hub.services.news.changed(tx, [f"Patient/{patient['id']}"], origin="KN", correlation_id="c")
        assert len(tx.outbox.deliveries({"state": "pending"}, limit=50)) > 0
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        hub.services.database.write(work)

    assert hub.news() == []


def test_the_institution_that_speaks_is_not_told_what_it_said(hub: Consortium) -> None:
    hub.receive(REFERRAL)
    hub.news()

    hub.receive(adt("A08", "K1", name="周建囯"))

    assert {where for where, _ in hub.news("ADT")} == {"YL/mllp"}
