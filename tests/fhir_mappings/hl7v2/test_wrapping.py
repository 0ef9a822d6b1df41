"""A message comes out of its wrapping as it would have come alone, and its answer goes back into the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fhir_mappings import markup
from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2 import wrapping
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.tokenizer import Message, parse

ER7 = "MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611||ADT^A01|1|P|2.4\rPID|1||10086^^^^PI||郑伟^a&b\r"
ACK = "MSH|^~\\&|YIXIE|HUB|HIS|KNYY|20250611||ACK^A01^ACK|9|P|2.4\rMSA|AA|1\rERR||PID^1|0^信息^HL70357|I\r"
SOAP = {"1.1": wrapping.SOAP_1_1, "1.2": wrapping.SOAP_1_2}


def envelope(inner: str, version: str = "1.1", encoding: str = "UTF-8") -> bytes:
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?><s:Envelope xmlns:s="{SOAP[version]}"><s:Header/>'
        f"<s:Body>{inner}</s:Body></s:Envelope>"
    )
    return text.encode("gb18030" if encoding != "UTF-8" else "utf-8")


def asmx(text: str) -> str:
    return f'<HIPMessageServer xmlns="urn:hip"><message><![CDATA[{text}]]></message></HIPMessageServer>'


def lines(text: str) -> list[str]:
    return text.replace("\n", "\r").strip("\r").split("\r")


@pytest.mark.parametrize("version", SOAP)
@pytest.mark.parametrize("encoding", ["UTF-8", "GBK", "gb2312"])
def test_er7_in_cdata_comes_out_as_it_is(version: str, encoding: str) -> None:
    raw = envelope(asmx(ER7), version, encoding)
    found = wrapping.unwrap(raw)
    assert lines(found.text) == lines(ER7)
    assert found.soap == SOAP[version]
    assert decode_message(raw, override="GB18030").text == found.text


def test_an_envelope_that_names_the_wrong_encoding_is_read_by_its_bytes() -> None:
    raw = envelope(asmx(ER7)).replace(b"UTF-8", b"GBK")
    assert "郑伟" in wrapping.unwrap(raw).text
    assert decode_message(raw).disagrees


@pytest.mark.parametrize("version", SOAP)
def test_the_answer_is_the_operations_result_in_the_same_envelope(version: str) -> None:
    raw = envelope(asmx(ER7), version, "GBK")
    answer = wrapping.wrap(ACK.encode("gb18030"), wrapping.unwrap(raw))
    root = markup.read(markup.decode(answer).text)
    (body,) = root.children
    (response,) = body.children
    (result,) = response.children
    assert (root.name, root.space, body.name) == ("Envelope", SOAP[version], "Body")
    assert (response.name, response.space) == ("HIPMessageServerResponse", "urn:hip")
    assert (result.name, result.space, result.text) == ("HIPMessageServerResult", "urn:hip", ACK)
    assert b'encoding="GB18030"' in answer


def test_an_unnamed_parameter_is_answered_as_java_services_do() -> None:
    raw = envelope(f'<n:send xmlns:n="urn:x"><arg0>{markup.escape(ER7)}</arg0></n:send>')
    found = wrapping.unwrap(raw)
    assert found.text == ER7
    root = markup.read(wrapping.wrap(ACK.encode(), found).decode())
    result = root.children[0].children[0].children[0]
    assert (result.name, result.space, result.text) == ("return", "", ACK)


def test_a_message_escaped_twice_is_read_as_it_was_meant() -> None:
    raw = envelope(f"<send><arg0>{markup.escape(markup.escape(ER7))}</arg0></send>")
    assert lines(wrapping.unwrap(raw).text) == lines(ER7)


V2XML = (
    '<ADT_A01 xmlns="urn:hl7-org:v2xml"><MSH><MSH.1>|</MSH.1><MSH.2>^~\\&amp;</MSH.2><MSH.3><HD.1>HIS</HD.1></MSH.3>'
    "<MSH.4><HD.1>KNYY</HD.1></MSH.4><MSH.9><MSG.1>ADT</MSG.1><MSG.2>A01</MSG.2></MSH.9><MSH.10>1</MSH.10></MSH>"
    "<PID><PID.3><CX.1>10086</CX.1><CX.4><HD.1>KN</HD.1><HD.2>x|y</HD.2></CX.4><CX.5>PI</CX.5></PID.3>"
    '<PID.3><CX.1>2</CX.1></PID.3><PID.5><XPN.1><FN.1>郑伟</FN.1></XPN.1></PID.5><PID.19>""</PID.19></PID>'
    '<ADT_A01.PROCEDURE><PR1><PR1.4>a<escape V=".br"/>b^c</PR1.4></PR1></ADT_A01.PROCEDURE></ADT_A01>'
)  # fmt: skip


@pytest.mark.parametrize("soap", [True, False])
def test_v2_xml_is_the_same_message_in_er7(soap: bool) -> None:
    raw = envelope(f"<send>{V2XML}</send>") if soap else V2XML.encode()
    message = parse(wrapping.unwrap(raw).text)
    assert [one.name for one in message.segments] == ["MSH", "PID", "PR1"]
    assert [message.get(path) for path in ("MSH-3", "MSH-9.2", "PID-3.1", "PID-3.5", "PID-5.1")] == [
        "HIS", "A01", "10086", "PI", "郑伟",
    ]  # fmt: skip
    pid = message.segments[1]
    assert pid.field(3).repetitions[1].component(1) == "2"
    assert pid.field(3).component(4, 2) == "x|y"
    assert pid.field(19).is_null
    assert message.segments[2].field(4).text() == "a\nb^c"


def test_v2_xml_is_answered_in_v2_xml() -> None:
    root = markup.read(wrapping.wrap(ACK.encode(), wrapping.unwrap(V2XML.encode())).decode())
    assert (root.name, root.space) == ("ACK", "urn:hl7-org:v2xml")
    again = parse(wrapping.unwrap(wrapping.wrap(ACK.encode(), wrapping.unwrap(V2XML.encode()))).text)
    assert [again.get(path) for path in ("MSA-1", "MSA-2", "MSH-4", "ERR-3.2")] == ["AA", "1", "HUB", "信息"]


def test_v2_xml_as_text_in_a_parameter_is_answered_as_text() -> None:
    found = wrapping.unwrap(envelope(f"<send><arg0><![CDATA[{V2XML}]]></arg0></send>"))
    result = markup.read(wrapping.wrap(ACK.encode(), found).decode()).children[0].children[0].children[0]
    assert markup.read(result.text).name == "ACK"


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]>'
FILE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "document",
    [
        "<a>",
        "<a></b>",
        f"{BOMB}<a>&c;</a>",
        f"{FILE}<a>&x;</a>",
        '<!DOCTYPE a SYSTEM "http://127.0.0.1/x.dtd"><a/>',
        "<a>&unknown;</a>",
        "<a>" * 100 + "</a>" * 100,
        "<a>no message</a>",
        f"<a><b>{markup.escape(ER7)}</b><b>{markup.escape(ER7)}</b></a>",
        f'<s:Envelope xmlns:s="{wrapping.SOAP_1_1}"/>',
        V2XML.replace("PID.5>", "PV1.5>"),
        V2XML.replace("PID.5>", "PID.5000>"),
        V2XML.replace("CX.5>", "CX.1>"),
        V2XML.replace("<FN.1>郑伟</FN.1>", "<FN.1><A.1>x</A.1></FN.1>"),
    ],
)
def test_hostile_and_wrong_xml_is_refused(document: str) -> None:
    with pytest.raises(MalformedError) as raised:
        wrapping.unwrap(document.encode())
    assert raised.value.remedy
    # The intake, which must never fail on what is received, gets it as a text that is no message.
    assert not decode_message(document.encode()).text.startswith("MSH")


def test_a_document_with_too_many_elements_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markup, "MAX_ELEMENTS", 5)
    with pytest.raises(MalformedError, match="too many"):
        markup.read("<a>" + "<b/>" * 5 + "</a>")


# --- rows --------------------------------------------------------------------------------------------------------

ROW: dict[str, Any] = {
    "orgCode": "KNYY",
    "patientId": "10086",
    "patientName": "郑伟",
    "patientSex": "男",
    "studyUid": "1.2.3.4",
    "accessionNumber": "CT2025061200087",
    "modality": "CT",
    "state": "报告完成",
    "updateTime": "2025-06-12T08:30:00+08:00",
    "reportFindings": "右侧基底节区见高密度影|^\n边界清",
    "reportImpression": "脑出血",
    "reviewer": "韩磊",
    "critical": True,
}


def row(**changes: Any) -> Message:
    return parse(wrapping.unwrap(json.dumps({**ROW, **changes}).encode()).text)


def test_a_reported_study_is_a_result_with_its_texts_and_signatures() -> None:
    message = row()
    assert message.get("MSH-9.1") == "ORU"
    assert [message.get(path) for path in ("MSH-4", "MSH-7", "PID-3.1", "PID-5", "PID-8", "OBR-18", "OBR-25")] == [
        "KNYY", "20250612083000+0800", "10086", "郑伟", "M", "CT2025061200087", "F",
    ]  # fmt: skip
    findings, impression = message.all("OBX")
    assert findings.field(5).text() == "右侧基底节区见高密度影|^\n边界清"
    assert (impression.get(3), impression.get(5), impression.get(8)) == ("19005-8", "脑出血", "AA")
    assert message.get("IPC-3") == "1.2.3.4"


@pytest.mark.parametrize(("state", "status"), [("登记完成", "SC"), ("检查完成", "IP")])
def test_a_study_without_a_report_is_the_state_of_an_order_and_asks_nobody(state: str, status: str) -> None:
    message = row(state=state)
    assert (message.get("MSH-9.1"), message.get("ORC-1"), message.get("ORC-5")) == ("ORM", "SC", status)
    assert message.all("OBX") == []


def test_what_is_only_wanted_is_named_and_what_is_required_refuses() -> None:
    raw = json.dumps({**ROW, "reviewer": "", "writer": None}).encode()
    missing = decode_message(raw).missing
    assert {"idCard", "reviewer", "writer", "positive"} <= set(missing)
    assert "critical" not in missing
    for name in ("orgCode", "patientId", "patientName", "patientSex", "modality", "state", "updateTime"):
        with pytest.raises(MalformedError, match=name) as raised:
            row(**{name: ""})
        assert raised.value.code == 101
    with pytest.raises(MalformedError, match="accessionNumber"):
        row(studyUid="", accessionNumber="")


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "done"},
        {"patientSex": "?"},
        {"visitType": "x"},
        {"updateTime": "yesterday"},
        {"critical": "perhaps"},
        {"studyUid": "1.02"},
        {"dept": ["a"]},
        {"dept": {"a": "b"}},
    ],
)
def test_a_value_that_cannot_be_read_refuses_the_row_and_names_the_field(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as raised:
        row(**changes)
    assert raised.value.where == next(iter(changes))


def test_a_list_of_rows_is_told_that_one_row_is_taken_at_a_time() -> None:
    raw = json.dumps([ROW, ROW]).encode()
    assert wrapping.kind_of(raw) == "json"
    with pytest.raises(MalformedError) as raised:
        wrapping.unwrap(raw)
    assert (raised.value.where, raised.value.remedy) == ("body", "Send one JSON object.")


@pytest.mark.parametrize("raw", [b"{", b'{"a":1,"a":2}', b"{" * 5000, b'{"a":NaN}', b"{}"])
def test_hostile_rows_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        wrapping.unwrap(raw)


def test_the_same_row_is_the_same_message_and_another_one_is_not() -> None:
    assert row().get("MSH-10") == row().get("MSH-10") != row(dept="急诊").get("MSH-10")
