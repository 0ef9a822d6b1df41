"""All 53 kinds of WS/T 500: there is a sample of each, the script writes it, and nothing that it says is lost on the way."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from fhir_mappings.cda import types
from fhir_mappings.hl7v2.base import Attachment, Upsert
from fhir_mappings.identifiers import check_resident_id
from sample_data.cda import kinds, make
from tests.fhir_mappings.cda.golden import clinical_of, samples

_PATHS = [pytest.param(path, id=path.parent.name) for path in samples()]
_WRITTEN_BY_HAND = {"C0001", "C0002", "C0006", "C0007"}
_V3 = "{urn:hl7-org:v3}"


def tree(path: Path) -> ET.Element:
    """The sample read by another reader, which is told the encoding that the declaration names."""
    raw = path.read_bytes()
    named = re.match(rb'<\?xml[^>]*encoding="([^"]+)"', raw)
    text = raw.decode(named.group(1).decode() if named else "utf-8")
    return ET.fromstring(re.sub(r"^<\?xml[^>]*\?>", "", text))


def every(sections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for section in sections for one in (section, *every(section.get("section", [])))]


def titles(element: ET.Element) -> list[Any]:
    """The headings of the sections of a body or section, those inside it behind each."""
    held = [one for part in element.findall(f"{_V3}component") for one in part.findall(f"{_V3}section")]
    return [(one.findtext(f"{_V3}title"), titles(one)) for one in held]


def headings(sections: list[dict[str, Any]]) -> list[Any]:
    return [(one["title"], headings(one.get("section", []))) for one in sections]


def moment_of(element: ET.Element) -> str:
    """The time that stands directly in *element*, to the second."""
    return next(one.get("value", "") for one in element if one.tag == f"{_V3}effectiveTime")


def procedures(root: ET.Element, mood: str) -> list[str]:
    """When each procedure of the body was done (EVN) or is planned (RQO)."""
    return [moment_of(one) for one in root.iter(f"{_V3}procedure") if one.get("moodCode") == mood]


def test_there_is_a_sample_of_every_kind() -> None:
    assert [path.parent.name for path in samples()] == list(types.NAMES)


def test_the_samples_are_what_the_script_writes() -> None:
    written = dict(make.files())
    assert {path.parent.name for path in written} == set(types.NAMES) - _WRITTEN_BY_HAND
    for path, raw in written.items():
        assert path.read_bytes() == raw, f"run python -m sample_data.cda.make: {path.name}"


def test_the_samples_come_in_every_encoding_that_members_send() -> None:
    declared = {(re.match(rb'<\?xml[^>]*encoding="([^"]+)"', path.read_bytes()) or [b"", b""])[1] for path in samples()}
    assert declared == {b"", b"UTF-8", b"GBK", b"GB18030"}


def test_every_resident_number_of_the_samples_is_valid() -> None:
    found = {number for path in samples() for number in clinical_of(path).target.resident_ids}
    assert found >= {make.resident_number(person) for person in ("zheng", "li", "zhou", "sun", "wu")}
    assert all(check_resident_id(number).status == "ok" and number.startswith("990001") for number in found)


@pytest.mark.parametrize("path", _PATHS)
def test_a_sample_tells_what_was_done_before_it_was_written_and_plans_what_comes_after(path: Path) -> None:
    root = tree(path)
    written = moment_of(root)
    # What is said in words to the minute: a birth, a death.
    told = [
        "".join(one) + "00" for one in re.findall(r"(2025)-(\d\d)-(\d\d) (\d\d):(\d\d)", ET.tostring(root, "unicode"))
    ]
    assert [one for one in (*procedures(root, "EVN"), *told) if one > written] == []
    assert [one for one in procedures(root, "RQO") if one < written] == []


def test_nobody_is_prescribed_what_another_sample_says_they_do_not_stand() -> None:
    observed, prescribed = (
        (make.HERE / name).read_bytes().decode("gb18030")
        for name in ("C0003/kn_observation.xml", "C0004/kn_western_prescription.xml")
    )
    assert "青霉素皮试阳性" in observed
    assert make.resident_number("zheng") in observed
    assert make.resident_number("zheng") in prescribed
    # Every penicillin is called so: 阿莫西林, 氨苄西林, 哌拉西林, 青霉素 itself.
    assert not re.search("西林|青霉素", prescribed)


@pytest.mark.parametrize("path", _PATHS)
def test_the_header_says_kind_author_keeper_and_patient(path: Path) -> None:
    clinical, root = clinical_of(path), tree(path)
    (document,) = (
        one.resource
        for one in clinical.translation.changes
        if isinstance(one, Upsert) and one.resource["resourceType"] == "DocumentReference" and not one.update_only
    )
    code = path.parent.name
    assert document["type"]["coding"][0]["code"] == code == clinical.composition["type"]["coding"][0]["code"]
    assert clinical.translation.issues == ()
    author = root.findtext(f"{_V3}author/{_V3}assignedAuthor/{_V3}assignedPerson/{_V3}name")
    assert [one["display"] for one in document["author"]] == [author]
    assert document["custodian"]["display"] == root.findtext(f".//{_V3}representedCustodianOrganization/{_V3}name")
    assert document["subject"] == {"reference": f"Patient/{clinical.target.resource['id']}"}
    signed = [
        one.findtext(f".//{_V3}name")
        for name in ("legalAuthenticator", "authenticator")
        for one in root.findall(f"{_V3}{name}")
    ]
    assert [one["party"]["display"] for one in clinical.composition["attester"]] == signed
    assert document["context"]["related"][0] == {"reference": f"Composition/{clinical.composition['id']}"}


@pytest.mark.parametrize("path", _PATHS)
def test_sections_stand_in_order_and_nested_as_they_were_sent(path: Path) -> None:
    body = tree(path).find(f"{_V3}component/{_V3}structuredBody")
    assert body is not None
    assert headings(clinical_of(path).composition["section"]) == titles(body)


@pytest.mark.parametrize("path", _PATHS)
def test_every_value_name_and_table_cell_of_the_body_reaches_the_reader(path: Path) -> None:
    body = tree(path).find(f"{_V3}component/{_V3}structuredBody")
    assert body is not None
    got = str(clinical_of(path).composition["section"])
    for element in body.iter():
        name = element.tag.removeprefix(_V3)
        if element.get("representation") == "B64":
            continue
        for word in (
            (element.text or "").strip(),
            element.get("value", "") if name in {"value", "doseQuantity"} else "",
            element.get("code", "") if name in {"value", "code"} else "",
            element.get("displayName", ""),
        ):
            assert word in got or word in {"false", "true"}, word


@pytest.mark.parametrize("path", _PATHS)
def test_what_the_document_carries_inside_is_kept_beside_it(path: Path) -> None:
    inside = [base64.b64decode(one.text or "") for one in tree(path).iter() if one.get("representation") == "B64"]
    kept = [one.data for one in clinical_of(path).translation.changes if isinstance(one, Attachment)]
    assert kept == [path.read_bytes(), *inside]


def test_two_kinds_carry_a_picture_that_their_text_names() -> None:
    with_picture = [
        path.parent.name
        for path in samples()
        if any(
            "〔见附件" in one["text"]["div"] for one in every(clinical_of(path).composition["section"]) if "text" in one
        )
    ]
    assert with_picture == ["C0011", "C0020"]
    assert kinds.KINDS["C0011"].house == "KN"
