"""A clinical document inside an MDM: its sections come along, the message says whose it is, and a wrong patient is refused."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.base import Attachment, Translation, Upsert
from fhir_mappings.hl7v2.escapes import STANDARD, escape
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate
from tests.fhir_mappings.hl7v2.golden import context
from tests.support.v2 import msh

SAMPLE = (Path(__file__).parents[3] / "sample_data" / "cda" / "C0001" / "kn_summary.xml").read_bytes()


def sent(
    obx: str,
    resident: str = "990001197602290170",
    *,
    pid: str = "",
    txa: str = "TXA|1||TX|20250611093000||||||||DOC1|||||LA",
    visit: str = "V1",
    event: str = "T02",
) -> Translation:
    text = "\r".join(
        [
            msh(f"MDM^{event}", "1"),
            f"EVN|{event}|20250611093000",
            pid or f"PID|1||10086^^^^IDCard~{resident}^^^^IdentifyNO||郑伟||19760229|M",
            *([f"PV1|1|O{'|' * 17}{visit}"] if visit else []),
            txa,
            obx,
            "",
        ]
    )
    return translate(parse(text), context("KN"))


def encapsulated(xml: str) -> str:
    return f"OBX|1|ED|CDA||^text^XML^Base64^{base64.b64encode(xml.encode('gb18030')).decode()}||||||F"


def with_header(header: str = "", entry: str = "") -> str:
    """The sample with *header* before its body and *entry* in its first section."""
    xml = SAMPLE.decode("gb18030")
    return xml.replace("<component><structuredBody>", f"{header}<component><structuredBody>", 1).replace(
        "<text/>", f"<text/>{entry}", 1
    )


def one(translation: Translation, kind: str) -> dict[str, Any]:
    (found,) = (
        change.resource
        for change in translation.changes
        if isinstance(change, Upsert) and change.resource["resourceType"] == kind and not change.update_only
    )
    return found


ENCAPSULATED = f"OBX|1|ED|CDA^病历概要||^text^XML^Base64^{base64.b64encode(SAMPLE).decode()}||||||F"
AS_TEXT = f"OBX|1|FT|CDA^病历概要||{escape(SAMPLE.decode('gb18030').replace(chr(10), ' '), STANDARD)}||||||F"


@pytest.mark.parametrize("obx", [ENCAPSULATED, AS_TEXT], ids=["ED", "FT"])
def test_the_sections_become_a_composition_of_the_messages_patient_and_visit(obx: str) -> None:
    translation = sent(obx)
    composition, document = one(translation, "Composition"), one(translation, "DocumentReference")
    assert composition["subject"] == document["subject"] == {"reference": f"Patient/{translation.patient_id}"}
    assert composition["encounter"] == document["context"]["encounter"][0]
    assert [section["title"] for section in composition["section"]] == ["主要健康问题", "过敏史", "生命体征"]
    assert {"reference": f"Composition/{composition['id']}"} in document["context"]["related"]
    assert document["masterIdentifier"]["value"] == "DOC1"


def test_the_bytes_stay_as_they_were_sent() -> None:
    kept = [change.data for change in sent(ENCAPSULATED).changes if isinstance(change, Attachment)]
    assert kept == [SAMPLE]


def test_a_document_about_another_person_is_refused_with_the_message() -> None:
    with pytest.raises(MalformedError) as caught:
        sent(ENCAPSULATED, resident="990001196803150313")
    assert (caught.value.code, caught.value.where) == (204, "OBX-5 of segment 6")


def test_a_document_that_cannot_be_read_stays_an_attachment_with_a_warning() -> None:
    hostile = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + SAMPLE
    translation = sent(f"OBX|1|ED|CDA||^text^XML^Base64^{base64.b64encode(hostile).decode()}||||||F")
    assert [issue.code for issue in translation.issues if issue.severity == "warning"] == ["structure"]
    assert [change.data for change in translation.changes if isinstance(change, Attachment)] == [hostile]
    assert all(
        change.resource["resourceType"] != "Composition" for change in translation.changes if isinstance(change, Upsert)
    )


RELATED = (
    '<relatedDocument typeCode="RPLC"><parentDocument>'
    '<id root="2.16.156.10011.1.1" extension="KN-C0001-0"/></parentDocument></relatedDocument>'
)
VISIT = (
    '<componentOf><encompassingEncounter><id root="2.16.156.10011.1.11" extension="V9"/>'
    '<effectiveTime><low value="20250611080000"/><high value="20250611100000"/></effectiveTime>'
    '<location><healthCareFacility><serviceProviderOrganization><id root="2.16.156.10011.1.26" extension="12"/>'
    "<name>呼吸内科</name></serviceProviderOrganization></healthCareFacility></location>"
    "</encompassingEncounter></componentOf>"
)
HEADER = RELATED + VISIT


def test_the_header_says_what_the_message_does_not() -> None:
    document = one(sent(encapsulated(with_header(HEADER))), "DocumentReference")
    assert document["author"][0]["display"] == "刘敏"
    assert document["authenticator"]["display"] == "刘敏"
    assert document["custodian"]["identifier"]["value"] == "52990002TEAT00023K"
    assert (document["description"], document["type"]["coding"][0]["code"]) == ("病历概要", "C0001")
    assert document["securityLabel"][0]["coding"][0]["code"] == "N"
    assert [number["value"] for number in document["identifier"]] == ["KN-C0001-1"]
    assert document["context"]["period"]["end"] == "2025-06-11T10:00:00+08:00"
    assert document["context"]["practiceSetting"] == {"text": "呼吸内科"}
    assert document["masterIdentifier"]["value"] == "DOC1"


def test_what_the_message_says_or_nulls_stays_as_it_says() -> None:
    txa = 'TXA|1|CN^会诊|TX|20250611093000|||||0777^王强|""||DOC1||||F9|DI|R|||||||说明'
    document = one(sent(encapsulated(with_header(HEADER)), txa=txa), "DocumentReference")
    assert [author["display"] for author in document["author"]] == ["王强"]
    assert "authenticator" not in document
    assert document["type"]["text"] == "会诊"
    assert document["docStatus"] == "preliminary"
    assert [label["coding"][0]["code"] for label in document["securityLabel"]] == ["R"]
    assert document["description"] == "说明"
    assert [number["value"] for number in document["identifier"]] == ["F9", "KN-C0001-1"]


def test_a_keeper_that_stands_in_for_an_author_is_none() -> None:
    xml = with_header()
    begin, _, rest = xml.partition("<author ")
    document = one(sent(encapsulated(begin + rest.partition("</author>")[2])), "DocumentReference")
    assert "author" not in document
    assert "custodian" in document


def test_a_document_that_replaces_another_supersedes_it() -> None:
    translation = sent(encapsulated(with_header(HEADER)))
    documents = [
        change
        for change in translation.changes
        if isinstance(change, Upsert) and change.resource["resourceType"] == "DocumentReference"
    ]
    (relation,) = documents[-1].resource["relatesTo"]
    assert (relation["code"], relation["target"]["identifier"]["value"]) == ("replaces", "KN-C0001-0")
    (parent,) = [change for change in documents if change.update_only]
    assert (f"DocumentReference/{parent.resource['id']}", parent.resource["status"]) == (
        relation["target"]["reference"],
        "superseded",
    )


def test_the_parent_that_the_message_names_stands_alone() -> None:
    txa = "TXA|1||TX|20250611093000||||||||DOC1|DOC0||||LA"
    translation = sent(encapsulated(with_header(HEADER)), txa=txa, event="T10")
    stated = [
        change.resource
        for change in translation.changes
        if isinstance(change, Upsert) and change.resource["resourceType"] == "DocumentReference"
    ]
    assert [relation["target"]["identifier"]["value"] for relation in stated[-1]["relatesTo"]] == ["DOC0"]
    assert len(stated) == 2


def test_the_visit_of_the_document_counts_where_the_message_names_none() -> None:
    xml = encapsulated(with_header(HEADER))
    translation = sent(xml, visit="")
    encounter = one(translation, "Encounter")
    reference = [{"reference": f"Encounter/{encounter['id']}"}]
    assert encounter["identifier"][0]["value"] == "V9"
    assert encounter["subject"] == {"reference": f"Patient/{translation.patient_id}"}
    assert one(translation, "DocumentReference")["context"]["encounter"] == reference
    assert one(translation, "Composition")["encounter"] == reference[0]
    assert one(sent(xml), "Encounter")["identifier"][0]["value"] == "V1"


def test_pictures_inside_its_sections_become_attachments_of_the_messages_document() -> None:
    picture = b"\x89PNG\r\n\x1a\n"
    entry = (
        '<entry><observationMedia ID="p"><value mediaType="image/png" representation="B64">'
        f"{base64.b64encode(picture).decode()}</value></observationMedia></entry>"
    )
    translation = sent(encapsulated(with_header(entry=entry)))
    document = one(translation, "DocumentReference")
    kept = [change for change in translation.changes if isinstance(change, Attachment)]
    assert [change.data for change in kept][1:] == [picture]
    assert {change.context for change in kept} == {f"DocumentReference/{document['id']}"}
    shown = document["content"][1]["attachment"]
    assert (shown["contentType"], shown["title"], shown["url"]) == ("image/png", "p", f"Binary/{kept[1].binary_id}")


@pytest.mark.parametrize(
    ("pid", "what"),
    [
        ("PID|1||MZ999^^^^Outpatient||郑伟||19760229|M", "number"),
        ("PID|1||10086^^^^IDCard||郑伟||19680315|M", "birth date"),
        ("PID|1||MZ999^^^^Outpatient||郑伟||19680315|M", "number and birth date"),
    ],
)
def test_where_the_two_name_different_patients_the_message_decides_and_says_so(pid: str, what: str) -> None:
    translation = sent(encapsulated(with_header(HEADER)), pid=pid, visit="")
    (issue,) = [issue for issue in translation.issues if issue.code == "conflict"]
    assert (issue.severity, issue.where) == ("warning", "OBX-5 of segment 5")
    assert f"by {what};" in issue.message
    document = one(translation, "DocumentReference")
    assert document["subject"] == {"reference": f"Patient/{translation.patient_id}"}
    # Nothing is taken over that may be another patient's.
    assert "relatesTo" not in document
    assert document["context"].keys() == {"related"}
    assert all(
        change.resource["resourceType"] != "Encounter" for change in translation.changes if isinstance(change, Upsert)
    )


@pytest.mark.parametrize(
    "pid",
    [
        "PID|1||MZ20250611001^^^^Outpatient||郑伟||19760229|M",
        "PID|1||10086^^^^IDCard||郑伟||1976|M",
        "PID|1||10086^^^^IDCard||郑伟||||",
    ],
)
def test_what_one_of_them_leaves_unsaid_is_no_difference(pid: str) -> None:
    translation = sent(encapsulated(with_header(HEADER)), pid=pid)
    assert not [issue for issue in translation.issues if issue.code == "conflict"]
    assert "relatesTo" in one(translation, "DocumentReference")
