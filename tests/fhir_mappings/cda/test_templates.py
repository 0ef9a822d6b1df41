"""What hospitals leave in the templates of WS/T 500, and what its kinds live from: none of it may cost the document or its sense."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fhir_mappings.cda import record_target
from fhir_mappings.cda.translate import Clinical, translate
from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.base import Attachment, Upsert
from tests.fhir_mappings.cda.golden import SAMPLES
from tests.fhir_mappings.hl7v2.golden import context

KN = context("KN")
SUMMARY = (SAMPLES / "C0001" / "kn_summary.xml").read_bytes().decode("gb18030")
CONSENT = (SAMPLES / "C0026" / "kn_operation_consent.xml").read_bytes().decode("gb18030")
PRESCRIPTION = (SAMPLES / "C0004" / "kn_western_prescription.xml").read_bytes().decode("gb18030")
ADMISSION = (SAMPLES / "C0034" / "kn_admission.xml").read_bytes().decode("gb18030")


def of(text: str) -> Clinical:
    return translate(text.encode(), KN)


def with_section(inside: str) -> Clinical:
    """The summary with one section, which has *inside* behind its title."""
    made = f"<structuredBody><component><section><title>节</title>{inside}</section></component></structuredBody>"
    return of(re.sub(r"<structuredBody>.*</structuredBody>", made, SUMMARY, flags=re.DOTALL))


def document(clinical: Clinical) -> dict[str, Any]:
    return next(
        one.resource
        for one in clinical.translation.changes
        if isinstance(one, Upsert) and one.resource["resourceType"] == "DocumentReference" and not one.update_only
    )


def entries(clinical: Clinical) -> list[dict[str, Any]]:
    """Each entry of the first section as url -> value."""
    return [
        {part["url"]: next(value for key, value in part.items() if key != "url") for part in one["extension"]}
        for one in clinical.composition["section"][0]["extension"]
    ]


# --- header -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "id_", ["<id/>", '<id root="2.16.156.10011.1.1" extension="NA"/>', '<id nullFlavor="NI"/>', ""]
)
def test_a_parent_that_has_no_id_is_no_parent(id_: str) -> None:
    related = f'<relatedDocument typeCode="RPLC"><parentDocument>{id_}<setId/><versionNumber/></parentDocument></relatedDocument>'
    clinical = of(SUMMARY.replace("<component><structuredBody>", f"{related}<component><structuredBody>", 1))
    assert "relatesTo" not in clinical.composition
    assert "relatesTo" not in document(clinical)


def test_a_replacement_names_the_document_that_it_replaces() -> None:
    clinical = of((SAMPLES / "C0053" / "kn_discharge_summary.xml").read_bytes().decode("gb18030"))
    (relation,) = document(clinical)["relatesTo"]
    assert (relation["code"], relation["target"]["identifier"]["value"]) == ("replaces", "KN-C0053-0")
    (ended,) = (one for one in clinical.translation.changes if isinstance(one, Upsert) and one.update_only)
    assert ended.resource["status"] == "superseded"


def test_the_number_of_a_prescription_or_a_consent_names_no_patient() -> None:
    for text, root, value in ((PRESCRIPTION, ".20", "RX20250611001"), (CONSENT, ".34", "ZQ001")):
        clinical = of(text)
        other = {"system": f"urn:oid:2.16.156.10011.1{root}", "value": value}
        assert {"identifier": other} in document(clinical)["context"]["related"]
        assert value not in str(clinical.target)[: str(clinical.target).index("other_numbers")]
        assert of(text.replace(value, "9")).target.resource["id"] == clinical.target.resource["id"]


def test_the_number_of_the_record_names_the_patient_where_there_is_none_of_the_visit() -> None:
    record = SUMMARY.replace('root="2.16.156.10011.1.11"', 'root="2.16.156.10011.1.13"')
    (first, *_) = of(record).target.resource["identifier"]
    assert (first["type"], first["system"]) == ({"text": "病案号"}, "urn:oid:2.16.156.10011.1.13")
    both = record.replace(
        '<patientRole classCode="PAT">',
        '<patientRole classCode="PAT"><id root="2.16.156.10011.1.12" extension="ZY1"/>',
        1,
    )
    assert of(both).target.resource["id"] == KN.id("Patient", "inpatient-no", "ZY1")
    assert of(record).target.resource["id"] not in {of(both).target.resource["id"], of(SUMMARY).target.resource["id"]}


def test_numbers_of_a_patient_are_not_compared_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    class Counted(dict[str, Any]):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return dict.__eq__(self, other)

        __hash__ = None  # type: ignore[assignment]

    number = record_target._number

    def counted(*given: Any) -> tuple[str, str, dict[str, Any]]:
        kind, authority, made = number(*given)
        return kind, authority, Counted(made)

    monkeypatch.setattr(record_target, "_number", counted)
    ids = "".join(f'<id root="1.2.{one % 300}" extension="{one % 300}"/>' for one in range(600))
    made = of(SUMMARY.replace('<patientRole classCode="PAT">', f'<patientRole classCode="PAT">{ids}', 1)).target
    assert len({(one["system"], one["value"]) for one in made.resource["identifier"]}) == len(
        made.resource["identifier"]
    )
    assert len(made.resource["identifier"]) >= 300
    assert compared < 600


def test_an_unknown_number_is_nobodys() -> None:
    unknown = SUMMARY.replace('extension="0231"', 'extension="NA"')
    assert of(unknown).people == ()
    assert of(unknown).composition["author"] == [{"display": "刘敏"}]
    patient = SUMMARY.replace('extension="MZ20250611001"', 'extension="NA"').replace(
        'extension="990001197602290170"', 'extension="NA"'
    )
    with pytest.raises(MalformedError) as caught:
        of(patient)
    assert caught.value.where == "/ClinicalDocument/recordTarget/patientRole/id"


def test_a_document_whose_number_was_left_empty_is_refused() -> None:
    for id_ in ('<id root="2.16.156.10011.1.1"/>', '<id root="2.16.156.10011.1.1" extension=""/>', "<id/>"):
        with pytest.raises(MalformedError) as caught:
            of(SUMMARY.replace('<id root="2.16.156.10011.1.1" extension="KN-C0001-1"/>', id_))
        assert caught.value.where == "/ClinicalDocument/id"


def test_patient_and_agent_sign_for_themselves_and_each_signature_says_in_which_role() -> None:
    signed = of(CONSENT).composition["attester"]
    assert [(one["mode"], one["party"]["display"]) for one in signed] == [
        ("legal", "刘敏"),
        ("personal", "周建国"),
        ("personal", "周晓云"),
    ]
    roles = [
        one["extension"][0]["valueCodeableConcept"].get("text") for one in of(PRESCRIPTION).composition["attester"]
    ]
    assert roles == ["经治医师", "处方审核药剂师", "处方调配药剂师"]


def test_who_told_the_history_and_whom_to_call_are_kept() -> None:
    clinical = of(ADMISSION)
    (told,) = clinical.composition["extension"]
    assert (told["url"].rpartition("/")[2], told["extension"][0]["valueString"]) == ("cda-informant", "周晓云")
    (contact,) = clinical.target.resource["contact"]
    assert (contact["name"]["text"], contact["telecom"][0]["value"]) == ("周晓云", "12000000009")


def test_the_department_of_the_visit_or_else_of_the_patient_is_the_setting() -> None:
    assert document(of(ADMISSION))["context"]["practiceSetting"] == {"text": "普外科"}
    without = re.sub(r"<componentOf>.*?</componentOf>", "", ADMISSION, flags=re.DOTALL)
    # The organization of the patient has a root without a number, as the templates print it.
    assert document(of(without))["context"]["practiceSetting"] == {"text": "综合门诊"}


def test_the_service_that_is_documented_is_the_event_of_the_composition() -> None:
    service = (
        '<documentationOf><serviceEvent><code code="1" displayName="手术"/><effectiveTime><low value="202506131000"/>'
        "</effectiveTime></serviceEvent></documentationOf>"
    )
    (event,) = of(
        SUMMARY.replace("<component><structuredBody>", f"{service}<component><structuredBody>", 1)
    ).composition["event"]
    assert event["code"][0]["coding"][0]["display"] == "手术"
    assert event["period"]["start"].startswith("2025-06-13T10:00")


# --- entries ----------------------------------------------------------------------------------------------------


def test_a_medicine_keeps_its_name_dose_route_and_frequency() -> None:
    sections = {one["title"]: one for one in of(PRESCRIPTION).composition["section"]}
    first = {part["url"]: part for part in sections["用药"]["extension"][0]["extension"]}
    assert first["code"]["valueCodeableConcept"] == {"text": "阿奇霉素片"}
    assert (str(first["dose"]["valueQuantity"]["value"]), first["dose"]["valueQuantity"]["unit"]) == ("0.5", "g")
    assert first["route"]["valueCodeableConcept"]["coding"][0]["display"] == "口服"
    assert first["frequency"]["valueCodeableConcept"] == {"text": "每日一次"}
    assert "<th>阿奇霉素片</th><td>0.5 g 口服 每日一次</td>" in sections["用药"]["text"]["div"]
    assert "38.60 元" in sections["费用"]["text"]["div"]


def test_an_operation_is_kept_and_a_planned_one_is_told_from_one_done() -> None:
    deed = '<text/><entry><procedure classCode="PROC" moodCode="{}"><code code="47.01" displayName="腹腔镜阑尾切除术"/></procedure></entry>'
    (done,), (planned,) = entries(with_section(deed.format("EVN"))), entries(with_section(deed.format("RQO")))
    assert done == {"code": done["code"]}
    assert planned["mood"] == "RQO"
    assert "计划 (planned)" in with_section(deed.format("RQO")).composition["section"][0]["text"]["div"]
    assert "计划" not in with_section(deed.format("EVN")).composition["section"][0]["text"]["div"]


def test_a_result_keeps_its_reference_range() -> None:
    lab = {one["title"]: one for one in of(ADMISSION).composition["section"]}["实验室检查"]
    assert "<td>14.20 10*9/L (参考 3.5–9.5 10*9/L)</td>" in lab["text"]["div"]


def test_nothing_found_is_a_finding_and_an_empty_field_is_none() -> None:
    said = '<text/><entry><observation><code displayName="术后并发症"/><value xsi:type="ST">{}</value></observation></entry>'
    assert entries(with_section(said.format("无")))[0]["value"] == "无"
    for empty in ("", "-", "/"):
        assert "section" not in with_section(said.format(empty)).composition
    unknown = '<text/><entry><observation><code displayName="血型"/><value xsi:type="CD" nullFlavor="UNK"/></observation></entry>'
    assert "section" not in with_section(unknown).composition


def test_sodium_may_be_called_na() -> None:
    said = '<text/><entry><observation><code code="NA" displayName="钠"/><value xsi:type="PQ" value="140" unit="mmol/L"/></observation></entry>'
    assert entries(with_section(said))[0]["code"]["coding"][0]["code"] == "NA"


# --- what stands inside -----------------------------------------------------------------------------------------

_SHOWN = '<text><renderMultiMedia referencedObject="p"><caption>曲线</caption></renderMultiMedia></text>'
_MEDIA = '<entry><observationMedia ID="p"><value mediaType="image/png" representation="B64">{}</value></observationMedia></entry>'


def test_a_picture_becomes_an_attachment_that_the_text_names() -> None:
    clinical = with_section(_SHOWN + _MEDIA.format("iVBO Rw=="))
    (section,) = clinical.composition["section"]
    assert "〔见附件 p：曲线〕" in section["text"]["div"]
    assert "extension" not in section
    _, attachment = (one["attachment"] for one in document(clinical)["content"])
    assert (attachment["contentType"], attachment["title"], attachment["size"]) == ("image/png", "p", 4)
    _, kept = (one for one in clinical.translation.changes if isinstance(one, Attachment))
    assert kept.data == b"\x89PNG"


def test_words_of_entries_stand_below_a_picture_that_is_all_the_text() -> None:
    said = '<entry><observation><code displayName="方法"/><value xsi:type="ST">全身麻醉</value></observation></entry>'
    (section,) = with_section(_SHOWN + _MEDIA.format("iVBORw==") + said).composition["section"]
    assert section["text"]["status"] == "generated"
    assert section["text"]["div"].index("曲线") < section["text"]["div"].index("全身麻醉")


def test_a_broken_picture_is_told_and_costs_nothing_else() -> None:
    clinical = with_section(_SHOWN + _MEDIA.format("§"))
    assert [issue.code for issue in clinical.translation.issues] == ["invalid"]
    assert len(document(clinical)["content"]) == 1


def test_the_text_names_no_attachment_that_is_not_there() -> None:
    said = "<text>见图。<renderMultiMedia{}/></text>"
    for shown, media in (
        (' referencedObject="p"', _MEDIA.format("§")),
        (' referencedObject="q"', _MEDIA.format("iVBORw==")),
        ("", _MEDIA.replace(' ID="p"', "").format("iVBORw==")),
    ):
        (section,) = with_section(said.format(shown) + media).composition["section"]
        assert section["text"]["div"] == '<div xmlns="http://www.w3.org/1999/xhtml">见图。</div>'


def test_the_caption_of_a_picture_brings_no_markup() -> None:
    hostile = _SHOWN.replace("曲线", "&lt;script&gt;x&lt;/script&gt;")
    (section,) = with_section(hostile + _MEDIA.format("iVBORw==")).composition["section"]
    assert "<script" not in section["text"]["div"]
