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


def sent(obx: str, resident: str = "990001197602290170") -> Translation:
    text = "\r".join(
        [
            msh("MDM^T02", "1"),
            "EVN|T02|20250611093000",
            f"PID|1||10086^^^^IDCard~{resident}^^^^IdentifyNO||郑伟||19760229|M",
            f"PV1|1|O{'|' * 17}V1",
            "TXA|1||TX|20250611093000||||||||DOC1|||||LA",
            obx,
            "",
        ]
    )
    return translate(parse(text), context("KN"))


def one(translation: Translation, kind: str) -> dict[str, Any]:
    (found,) = (
        change.resource
        for change in translation.changes
        if isinstance(change, Upsert) and change.resource["resourceType"] == kind
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
