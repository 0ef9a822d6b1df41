"""What a clinical document becomes: its header by the keys of v2, its sections readable, and nothing hostile with them."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.cda import types
from fhir_mappings.cda.document import is_document
from fhir_mappings.cda.translate import Clinical, translate
from fhir_mappings.errors import MalformedError, MappingError, UnsupportedError
from fhir_mappings.hl7v2.base import Attachment, Upsert
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate as translate_v2
from tests.fhir_mappings.cda.golden import SAMPLES
from tests.fhir_mappings.hl7v2.golden import context
from tests.support.v2 import msh

KN = context("KN")
SUMMARY = (SAMPLES / "C0001" / "kn_summary.xml").read_bytes().decode("gb18030")
OUTPATIENT = (SAMPLES / "C0002" / "kn_outpatient.xml").read_bytes().decode("gb18030")
LABORATORY = (SAMPLES / "C0007" / "qm_laboratory.xml").read_bytes()


def of(text: str, codec: str = "utf-8") -> Clinical:
    return translate(text.encode(codec), KN)


def resource(clinical: Clinical, kind: str) -> dict[str, Any]:
    found = [
        one.resource
        for one in clinical.translation.changes
        if isinstance(one, Upsert) and one.resource["resourceType"] == kind and not one.update_only
    ]
    assert len(found) == 1
    return found[0]


def divs(clinical: Clinical) -> str:
    return "".join(one["text"]["div"] for one in clinical.composition["section"])


# --- text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", ["GBK", "gb2312", "GB18030", "UTF-8", "iso-8859-1", "none"])
@pytest.mark.parametrize("codec", ["gb18030", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_the_name_is_read_whatever_the_declaration_says(codec: str, declared: str) -> None:
    text = re.sub(
        r"<\?xml[^>]*\?>", "" if declared == "none" else f'<?xml version="1.0" encoding="{declared}"?>', SUMMARY
    )
    clinical = of(text.lstrip(), codec)
    assert clinical.target.resource["name"] == [{"text": "郑伟"}]
    assert is_document(text.lstrip().encode(codec))


def test_only_a_clinical_document_is_taken_for_one() -> None:
    assert is_document(b'<c:ClinicalDocument xmlns:c="urn:hl7-org:v3"/>')
    assert not is_document(b"<ADT_A01/>")
    assert not is_document(b"MSH|^~\\&|<ClinicalDocument>")
    assert not is_document(b"")


# --- header -----------------------------------------------------------------------------------------------------


def test_patient_and_visit_and_author_are_those_of_the_same_hospitals_v2() -> None:
    text = "\r".join(
        [
            msh("ADT^A04", "1"),
            "EVN|A04|20250611080000",
            "PID|1||MZ20250611001^^^^Outpatient||郑伟||19760229|M",
            f"PV1|1|O|||||0231^刘敏{'|' * 12}MZ20250611001",
            "",
        ]
    )
    known = {change.reference for change in translate_v2(parse(text), KN).changes if isinstance(change, Upsert)}
    said = {change.reference for change in of(OUTPATIENT).translation.changes if isinstance(change, Upsert)}
    for kind in ("Patient", "Encounter", "Practitioner"):
        (wanted,) = (one for one in known if one.startswith(f"{kind}/"))
        assert wanted in said


def test_a_document_makes_patient_and_visit_and_never_changes_them() -> None:
    for change in of(OUTPATIENT).translation.changes:
        if isinstance(change, Upsert) and change.resource["resourceType"] in {"Patient", "Encounter", "Practitioner"}:
            assert change.create_only


def test_a_hospital_names_the_root_of_its_own_patient_numbers() -> None:
    own = SUMMARY.replace("2.16.156.10011.1.11", "1.2.156.999.1").replace("MZ20250611001", "10086")
    plain = of(own)
    ctx = context("KN")
    named = translate(
        own.encode(),
        type(ctx)(
            institution="KN",
            dialect=ctx.dialect.varied({"cx_types": {"1.2.156.999.1": "patient-id"}}),
            received_at=ctx.received_at,
        ),
    )
    assert plain.target.resource["identifier"][0]["system"] == "urn:oid:1.2.156.999.1"
    assert named.target.resource["id"] == ctx.id("Patient", "patient-id", "10086")


def test_the_resident_number_does_not_name_the_record_beside_a_number_of_the_hospital() -> None:
    with_both = of(SUMMARY).target
    without = of(re.sub(r'<id root="2\.16\.156\.10011\.1\.11"[^>]*/>', "", SUMMARY)).target
    assert with_both.resource["id"] == KN.id("Patient", "outpatient-no", "MZ20250611001")
    assert without.resource["id"] == KN.id("Patient", "resident-id", "990001197602290170")
    assert with_both.resident_ids == without.resident_ids == {"990001197602290170"}


def test_the_template_says_the_type_where_the_code_does_not() -> None:
    without = re.sub(r"<code code=\"C0001\"[^>]*/>", "", SUMMARY)
    assert of(without).composition["type"]["coding"][0]["code"] == "C0001"
    assert [types.of_template(f"2.16.156.10011.2.1.1.{number}") for number in (20, 21, 73, 74)] == [
        "",
        "C0001",
        "C0053",
        "",
    ]


def test_a_template_that_contradicts_the_code_is_told() -> None:
    clinical = of(SUMMARY.replace("2.1.1.21", "2.1.1.22"))
    assert clinical.composition["type"]["coding"][0]["code"] == "C0001"
    assert [issue.code for issue in clinical.translation.issues] == ["conflict"]


def test_a_replacement_supersedes_its_parent_and_an_addendum_does_not() -> None:
    for code, word, superseded in (("RPLC", "replaces", 1), ("APND", "appends", 0), ("XFRM", "transforms", 0)):
        clinical = translate(LABORATORY.replace(b'"RPLC"', f'"{code}"'.encode()), KN)
        document = resource(clinical, "DocumentReference")
        assert [one["code"] for one in document["relatesTo"]] == [word]
        assert clinical.composition["relatesTo"][0]["code"] == word
        ended = [one for one in clinical.translation.changes if isinstance(one, Upsert) and one.update_only]
        assert len(ended) == superseded
        assert all(one.resource["status"] == "superseded" for one in ended)


def test_an_unsigned_document_is_a_draft() -> None:
    assert of(SUMMARY).composition["status"] == "final"
    unsigned = of(re.sub(r"<legalAuthenticator>.*?</legalAuthenticator>", "", SUMMARY))
    assert unsigned.composition["status"] == resource(unsigned, "DocumentReference")["docStatus"] == "preliminary"


def test_a_guest_authors_number_makes_no_member_of_this_hospitals_staff() -> None:
    guest = SUMMARY.replace(
        '<name>刘敏</name></assignedPerson><representedOrganization><id root="2.16.156.10011.1.5" extension="52990002TEAT00023K"/>',
        '<name>刘敏</name></assignedPerson><representedOrganization><id root="2.16.156.10011.1.5" extension="12990001TEAT00015E"/>',
    )
    assert guest != SUMMARY
    clinical = of(guest)
    assert clinical.people == ()
    assert clinical.composition["author"] == [{"display": "刘敏"}]


# --- sections ---------------------------------------------------------------------------------------------------


def test_an_entry_keeps_code_value_digits_and_judgement() -> None:
    (section,) = translate(LABORATORY, KN).composition["section"]
    parts = {part["url"]: part for part in section["extension"][0]["extension"]}
    assert parts["code"]["valueCodeableConcept"]["coding"][0] == {
        "system": "http://loinc.org",
        "code": "2823-3",
        "display": "钾",
    }
    assert str(parts["value"]["valueQuantity"]["value"]) == str(Decimal("6.70"))
    assert parts["interpretation"]["valueCodeableConcept"]["coding"][0]["code"] == "HH"
    assert "<th>钾</th><td>6.70 mmol/L</td>" in section["text"]["div"]


def test_a_narrative_brings_nothing_that_runs_loads_or_leads_away() -> None:
    hostile = (
        '<text><script xmlns="http://www.w3.org/1999/xhtml">alert(1)</script>'
        '<paragraph onclick="x()" style="background:url(http://x)">前<linkHtml href="javascript:x()">链</linkHtml>'
        '<img src="http://x"/><renderMultiMedia referencedObject="a"/>&lt;script&gt;后</paragraph>'
        '<table><tr><td colspan="2" rowspan="x" onmouseover="x()">格</td></tr></table></text>'
    )
    shown = divs(of(SUMMARY.replace("<text/>", hostile, 1)))
    assert not re.search(r"<(?!/?(div|p|span|table|tbody|tr|th|td|br)\b)", shown)
    assert not re.search(r"(on\w+|style|href|src)=", shown)
    assert '<p>前<span>链</span>&lt;script&gt;后</p><table><tr><td colspan="2">格</td></tr></table>' in shown


def test_sections_inside_sections_stay_inside() -> None:
    nested = "<component><section><title>内</title><text>话</text></section></component></section>"
    first = of(SUMMARY.replace("</section>", nested, 1)).composition["section"][0]
    assert [one["title"] for one in first["section"]] == ["内"]


def test_a_body_that_is_no_xml_is_kept_beside_the_original() -> None:
    body = '<component><nonXMLBody><text mediaType="application/pdf" representation="B64">JVBERi0=</text></nonXMLBody></component>'
    text = re.sub(r"<component><structuredBody>.*</structuredBody></component>", body, SUMMARY, flags=re.DOTALL)
    clinical = of(text)
    kept = [one for one in clinical.translation.changes if isinstance(one, Attachment)]
    assert [(one.content_type, one.data[:5]) for one in kept] == [
        ("application/xml", b"<?xml"),
        ("application/pdf", b"%PDF-"),
    ]
    assert "section" not in clinical.composition
    with pytest.raises(MalformedError, match="Base64"):
        of(text.replace("JVBERi0=", "§§"))


# --- refused ----------------------------------------------------------------------------------------------------

_BOMB = '<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
_XXE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "kind", [_BOMB, _XXE, '<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd">'], ids=["bomb", "xxe", "dtd"]
)
def test_a_document_type_is_refused_unread(kind: str) -> None:
    with pytest.raises(MalformedError, match="document type") as caught:
        of(SUMMARY.replace("<ClinicalDocument", f"{kind}<ClinicalDocument", 1).replace("刘敏", "&b;"))
    assert caught.value.where == "body"
    assert "DTD" in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        SUMMARY.replace("<text/>", f"<text>{'<content>' * 70}x{'</content>' * 70}</text>", 1),
        SUMMARY.replace("<text/>", f"<text>{'<br/>' * 100_001}</text>", 1),
        SUMMARY.replace("<text/>", f"<text>{'x' * (16 << 20)}</text>", 1),
        SUMMARY[:-30],
        SUMMARY.replace("<title>", "<title>\x00", 1),
    ],
    ids=["deep", "many", "large", "cut", "nul"],
)
def test_what_costs_too_much_or_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(MalformedError) as caught:
        of(text)
    assert caught.value.where
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (('<id root="2.16.156.10011.1.1" extension="KN-C0001-1"/>', ""), "/ClinicalDocument/id"),
        (('<effectiveTime value="20250611093000"/>', ""), "/ClinicalDocument/effectiveTime/@value"),
        (("20250611093000", "20251311"), "/ClinicalDocument/effectiveTime/@value"),
        (("recordTarget", "recordTargets"), "/ClinicalDocument/recordTarget"),
        (('extension="MZ20250611001"', ""), ""),
    ],
)
def test_a_header_without_its_parts_is_refused_by_the_place(change: tuple[str, str], where: str) -> None:
    text = SUMMARY.replace(*change)
    assert text != SUMMARY
    if not where:
        text = text.replace('extension="990001197602290170"', "")
        where = "/ClinicalDocument/recordTarget/patientRole/id"
    with pytest.raises(MappingError) as caught:
        of(text)
    assert caught.value.where == where
    assert caught.value.remedy


def test_another_xml_document_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="root"):
        translate(b"<ClinicalDocument/>", KN)


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*/*.xml")), ids=lambda path: path.stem)
def test_a_document_cut_anywhere_never_fails_otherwise_than_by_a_mapping_error(path: Path) -> None:
    raw = path.read_bytes()
    for end in range(0, len(raw), 97):
        with pytest.raises(MappingError):
            translate(raw[:end], KN)
