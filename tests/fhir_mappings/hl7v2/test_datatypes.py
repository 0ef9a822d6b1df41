"""Data types of the standard and of the Chinese dialect."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.dialects import DIALECTS, HIS_CN, STANDARD
from fhir_mappings.hl7v2.escapes import STANDARD as DELIMITERS
from fhir_mappings.hl7v2.tokenizer import Repetition
from fhir_mappings.identifiers import RESIDENT_ID, resource_id

BASE = "https://yixiehub.example/fhir"
RECEIVED = datetime(2025, 6, 11, tzinfo=UTC)
KN = MappingContext(institution="KN", dialect=HIS_CN, received_at=RECEIVED)
QM = MappingContext(
    institution="QM", dialect=STANDARD.varied({"authorities": {"KN": "KN", "KNYY": "KN"}}), received_at=RECEIVED
)


def rep(raw: str) -> Repetition:
    return Repetition(raw, DELIMITERS)


def test_the_card_number_is_the_hospitals_and_the_identity_number_is_national() -> None:
    card = datatypes.cx_identifier(rep("0000312799^^^^IDCard"), KN)
    assert card is not None
    assert (card["system"], card["value"]) == (f"{BASE}/NamingSystem/KN/patient-id", "0000312799")
    ward = datatypes.cx_identifier(rep("0000291199^^^^PatientNO"), KN)
    assert ward is not None
    assert (ward["system"], ward["type"]["text"]) == (f"{BASE}/NamingSystem/KN/inpatient-no", "住院号")
    national = datatypes.cx_identifier(rep("990001194802120447^^^^IdentifyNO"), KN)
    assert national is not None
    assert (national["system"], national["value"]) == (RESIDENT_ID, "990001194802120447")
    assert national["extension"] == [{"url": f"{BASE}/StructureDefinition/identifier-validation", "valueCode": "ok"}]


def test_a_wrong_identity_number_is_kept_and_flagged() -> None:
    made = datatypes.national_id_identifier("990001196803150314", KN)
    assert made is not None
    assert (made["value"], made["extension"][0]["valueCode"]) == ("990001196803150314", "checksum")
    other_sex = datatypes.national_id_identifier("990001196803150313", KN, sex="female")
    assert other_sex is not None
    assert other_sex["extension"][0]["valueCode"] == "sex-mismatch"


def test_a_fifteen_digit_number_is_emitted_with_eighteen_and_as_sent() -> None:
    made = datatypes.national_id_identifier("990001680315031", KN)
    assert made is not None
    assert made["value"] == "990001196803150313"
    assert made["extension"][1]["valueString"] == "990001680315031"


def test_the_same_patient_number_gives_the_same_id_at_every_door() -> None:
    key = datatypes.cx_key(rep("0000010086^^^^IDCard"), KN)
    assert key is not None
    kind, authority, value = key
    from_v2 = KN.id("Patient", authority, datatypes.patient_key(value))
    from_dicom = resource_id("KN", "patient-id", "Patient", datatypes.patient_key("10086"))
    assert (kind, from_v2) == ("patient-id", from_dicom)
    assert from_v2 != resource_id("QH", "patient-id", "Patient", "10086")


def test_another_hospitals_number_stays_in_that_hospitals_system() -> None:
    made = datatypes.cx_identifier(rep("P20250611002^^^KN^PatientNO"), QM)
    assert made is not None
    assert made["system"] == f"{BASE}/NamingSystem/KN/inpatient-no"
    own = datatypes.cx_key(rep("P20250611002^^^^PatientNO"), QM)
    foreign = datatypes.cx_key(rep("P20250611002^^^KNYY^PatientNO"), QM)
    assert own is not None
    assert foreign is not None
    assert own[1] == "inpatient-no"
    assert foreign[1] == f"{BASE}/NamingSystem/KN/inpatient-no"


def test_an_unknown_authority_stays_inside_the_sender() -> None:
    made = datatypes.cx_identifier(rep("1^^^000000&&^PI"), QM)
    assert made is not None
    assert made["system"] == f"{BASE}/NamingSystem/QM/000000/patient-id"


@pytest.mark.parametrize(
    ("authority", "system"),
    [
        ("KN&2.16.156.1.2&ISO", "urn:oid:2.16.156.1.2"),
        ("&2.16.840.1.113883.2.23.1.19.1&ISO", RESIDENT_ID),
        ("&878488BB-2A29-5784-BE52-A91108DA69A9&UUID", "urn:uuid:878488bb-2a29-5784-be52-a91108da69a9"),
        ("&https://id.example/mrn&URI", "https://id.example/mrn"),
        ("&his.example&DNS", f"{BASE}/NamingSystem/KN/dns%3Ahis.example/patient-id"),
    ],
)
def test_universal_ids_become_uris(authority: str, system: str) -> None:
    made = datatypes.cx_identifier(rep(f"990001196803150313^^^{authority}^PI"), KN)
    assert made is not None
    assert made["system"] == system


def test_absent_and_null_numbers_are_none() -> None:
    for raw in ("", "^^^^IDCard", '""', '""^^^^IDCard', " ^^^^UPID"):
        assert datatypes.cx_identifier(rep(raw), KN) is None
        assert datatypes.cx_key(rep(raw), KN) is None


def test_pid_2_is_the_patient_number_and_a_visit_number_is_a_visit() -> None:
    second = datatypes.patient_number_identifier(rep("0000312799"), KN)
    assert second is not None
    assert second["system"] == f"{BASE}/NamingSystem/KN/patient-id"
    visit = datatypes.visit_identifier(rep("MZ20250611001^^^^PI"), KN)
    assert (visit["system"], visit["type"]["coding"][0]["code"]) == (f"{BASE}/NamingSystem/KN/visit", "VN")


def test_order_numbers_carry_their_role() -> None:
    placer = datatypes.ei_identifier(rep("KN20250611001"), KN, "placer-order")
    assert placer is not None
    assert placer["type"]["coding"][0]["code"] == "PLAC"
    assert placer["system"] == f"{BASE}/NamingSystem/KN/placer-order"
    of_kn = datatypes.ei_identifier(rep("KN20250611001^KN"), QM, "placer-order")
    assert of_kn is not None
    assert of_kn["system"] == f"{BASE}/NamingSystem/KN/placer-order"


IDE = {"url": "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation", "valueCode": "IDE"}
ABC = {"url": "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation", "valueCode": "ABC"}


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("郑伟", [{"text": "郑伟"}]),
        ("^郑伟", [{"text": "郑伟"}]),
        ("欧阳明月", [{"text": "欧阳明月"}]),
        ("买买提·艾力", [{"text": "买买提·艾力"}]),
        ("张　伟", [{"text": "张伟"}]),
        ("ZHANG WEI", [{"text": "ZHANG WEI"}]),
        ("ZHAOGUILAN^赵桂兰", [{"extension": [IDE], "text": "赵桂兰"}, {"extension": [ABC], "text": "ZHAOGUILAN"}]),
        ("赵桂兰^ZHAO GUI LAN", [{"extension": [IDE], "text": "赵桂兰"}, {"extension": [ABC], "text": "ZHAO GUI LAN"}]),
        ("欧阳^明月", [{"text": "欧阳明月", "family": "欧阳", "given": ["明月"]}]),
        ("郑伟^^^^^^L", [{"use": "official", "text": "郑伟"}]),
        ("", []),
        ('""', []),
        ("^^^^^^L", []),
    ],
)
def test_names_of_the_chinese_dialect(written: str, names: list[dict[str, Any]]) -> None:
    assert datatypes.xpn_human_names(rep(written), KN) == names
    assert datatypes.xpn_human_name(rep(written), KN) == (names[0] if names else None)


def test_names_of_the_standard_keep_family_and_given() -> None:
    assert datatypes.xpn_human_names(rep("Smith&van^John^Q^Jr^Dr^MD^L^A"), QM) == [
        {
            "extension": [ABC],
            "use": "official",
            "text": "John Q Smith",
            "family": "Smith",
            "given": ["John", "Q"],
            "prefix": ["Dr"],
            "suffix": ["Jr MD"],
        }
    ]
    assert datatypes.xpn_human_names(rep("李秀英"), QM) == [{"text": "李秀英"}]


def test_practitioners_with_numbers_are_resources_and_names_alone_are_displays() -> None:
    person = datatypes.xcn_practitioner(rep("0231^刘敏"), KN)
    assert person is not None
    assert person["name"] == [{"text": "刘敏"}]
    assert person["identifier"][0]["system"] == f"{BASE}/NamingSystem/KN/practitioner"
    assert datatypes.xcn_practitioner_ref(rep("0231^刘敏"), KN) == {
        "reference": f"Practitioner/{person['id']}",
        "display": "刘敏",
    }
    assert datatypes.xcn_practitioner(rep("^刘敏"), KN) is None
    assert datatypes.xcn_practitioner_ref(rep("^刘敏"), KN) == {"display": "刘敏"}
    assert datatypes.xcn_practitioner(rep("刘敏"), KN) is None
    assert datatypes.xcn_practitioner_ref(rep("刘敏"), KN) == {"display": "刘敏"}
    assert datatypes.xcn_practitioner_ref(rep(""), KN) is None


def test_signatories_are_read_from_subcomponents_and_from_the_common_mistake() -> None:
    right = datatypes.ndl_practitioner(rep("C002&韩磊"), KN)
    wrong = datatypes.ndl_practitioner(rep("C002^韩磊"), KN)
    assert right is not None
    assert right == wrong
    assert right["name"] == [{"text": "韩磊"}]
    assert datatypes.ndl_practitioner_ref(rep("C002&韩磊^20250611101500"), KN) == {
        "reference": f"Practitioner/{right['id']}",
        "display": "韩磊",
    }


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("12000000008", "12000000008"),
        ("^^PH^^^^12000000008", "12000000008"),
        ("^^^^^^^^12000000008", "12000000008"),
        ("12000000008^^PH^^^^12000000008", "12000000008"),
        ("^^CP^^^^^^^^^12000000008", "12000000008"),
        ("^PRN^PH^^86^0990^1234567^8", "+86 09901234567 ext. 8"),
    ],
)
def test_phone_numbers_are_found_wherever_they_stand(written: str, value: str) -> None:
    point = datatypes.xtn_contact_point(rep(written), KN)
    assert point is not None
    assert (point["system"], point["value"]) == ("phone", value)


def test_contact_points_say_use_and_kind() -> None:
    assert datatypes.xtn_contact_points(rep("^PRN^CP^a@b.example^^^12000000008"), KN) == [
        {"system": "phone", "value": "12000000008", "use": "mobile"},
        {"system": "email", "value": "a@b.example", "use": "home"},
    ]
    assert datatypes.xtn_contact_points(rep("a@b.example"), KN) == [{"system": "email", "value": "a@b.example"}]
    assert datatypes.xtn_contact_points(rep("12000000008^WPN^FX"), KN) == [
        {"system": "fax", "value": "12000000008", "use": "work"}
    ]
    assert datatypes.xtn_contact_points(rep(""), KN) == []
    assert datatypes.xtn_contact_point(rep('""'), KN) is None


def test_addresses_read_from_large_to_small_in_chinese() -> None:
    assert datatypes.xad_address(rep("云岭示范县文化路1号^^^^990002^^H"), KN) == {
        "use": "home",
        "text": "云岭示范县文化路1号",
        "line": ["云岭示范县文化路1号"],
        "postalCode": "990002",
    }
    assert datatypes.xad_address(rep("文化路1号^^云岭示范市^示范省^^CHN^M^^示范县"), KN) == {
        "type": "postal",
        "text": "示范省云岭示范市示范县文化路1号",
        "line": ["文化路1号"],
        "city": "云岭示范市",
        "district": "示范县",
        "state": "示范省",
        "country": "CHN",
    }
    assert datatypes.xad_address(rep("^^^^^^H"), KN) is None


@pytest.mark.parametrize(
    ("written", "concept"),
    [
        (
            "2823-3^钾^LN",
            {"coding": [{"system": "http://loinc.org", "code": "2823-3", "display": "钾"}], "text": "钾"},
        ),
        (
            "^^^K01^血钾",
            {"coding": [{"system": f"{BASE}/CodeSystem/KN/local", "code": "K01", "display": "血钾"}], "text": "血钾"},
        ),
        (
            "2823-3^Potassium^LN^K01^血钾^L",
            {
                "coding": [
                    {"system": "http://loinc.org", "code": "2823-3", "display": "Potassium"},
                    {"system": f"{BASE}/CodeSystem/KN/local", "code": "K01", "display": "血钾"},
                ],
                "text": "Potassium",
            },
        ),
        (
            "R05^咳嗽^ICD10^^^^2.0",
            {
                "coding": [
                    {"system": "urn:oid:2.16.156.10011.2.3.3.11", "version": "2.0", "code": "R05", "display": "咳嗽"}
                ],
                "text": "咳嗽",
            },
        ),
        ("^肺炎", {"text": "肺炎"}),
        ("胸部CT", {"text": "胸部CT"}),
        ("M^已婚^HL70002", {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0002", "code": "M", "display": "已婚"}], "text": "已婚"}),
        ("X^y^院内码", {"coding": [{"system": f"{BASE}/CodeSystem/KN/%E9%99%A2%E5%86%85%E7%A0%81", "code": "X", "display": "y"}], "text": "y"}),
        ("", None),
        ('""', None),
    ],
)  # fmt: skip
def test_codes_keep_every_coding(written: str, concept: dict[str, Any] | None) -> None:
    assert datatypes.cwe_codeable_concept(rep(written), KN) == concept


def test_places_form_a_chain_and_departments_come_from_the_dialect() -> None:
    chain = datatypes.pl_locations(rep("3W^301^02^YLYY^^^A^3"), QM)
    assert [location["name"] for location in chain] == ["YLYY", "A", "3W", "3", "301", "02"]
    assert "partOf" not in chain[0]
    for outer, inner in pairwise(chain):
        assert inner["partOf"] == {"reference": f"Location/{outer['id']}"}
    department = datatypes.pl_reference(rep("^^^0201^呼吸内科"), KN)
    assert department is not None
    assert department["display"] == "呼吸内科"
    assert datatypes.pl_reference(rep(""), KN) is None


@pytest.mark.parametrize("dialect", list(DIALECTS))
@given(raw=st.text(alphabet=st.sampled_from('a1张^&\\F"@ ·-.2'), max_size=40))
@settings(max_examples=120, deadline=None)
def test_no_data_type_fails_on_what_a_sender_writes(dialect: str, raw: str) -> None:
    ctx = MappingContext(institution="KN", dialect=DIALECTS[dialect], received_at=RECEIVED)
    value = rep(raw)
    made = [
        datatypes.cx_identifier(value, ctx),
        *datatypes.xpn_human_names(value, ctx),
        datatypes.xcn_practitioner(value, ctx),
        datatypes.xcn_practitioner_ref(value, ctx),
        datatypes.ndl_practitioner(value, ctx),
        datatypes.ndl_practitioner_ref(value, ctx),
        datatypes.xad_address(value, ctx),
        *datatypes.xtn_contact_points(value, ctx),
        datatypes.cwe_codeable_concept(value, ctx),
        datatypes.ei_identifier(value, ctx, "accession"),
        *datatypes.pl_locations(value, ctx),
        datatypes.nm_quantity(raw, value, ctx),
        datatypes.reference_range(raw, value, ctx),
    ]
    datatypes.sn_value(value, value, ctx)
    datatypes.cx_key(value, ctx)
    empty = ("", None, [], {})
    for piece in made:
        assert piece is None or all(item not in empty for item in piece.values())
