"""Writes the sample documents C0003 to C0053 from ``kinds.py``: ``python -m sample_data.cda.make``; the same bytes every time.

HL7 CDA R2 as WS/T 500-2016 writes it, with what hospitals really leave in it: empty ``setId`` and parent ids, ``NA`` for a number that
is unknown, the number of a prescription or an order beside those of the patient, names of elements without their DE number.
C0001, C0002, C0006 and C0007 were written by hand and are not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from fhir_mappings.cda.types import NAMES
from sample_data.cda.kinds import KINDS, SECTIONS, Below, Code, Deed, Drug, Kind, Lab, Picture, Table

HERE = Path(__file__).parent

_HOUSES = {
    "YL": ("12990001TEAT00015E", "云岭示范市中心医院（测试）", "C101", "冯国强", "UTF-8"),
    "KN": ("52990002TEAT00023K", "云岭示范县康宁医院（测试）", "0231", "刘敏", "GBK"),
    "QH": ("91990003TEAT00031U", "青禾骨科医院（测试）", "NA", "何川", "GB18030"),
}
#: Name, resident number of the region 990001 that does not exist, sex, birth, and whether the patient stays in hospital.
_PEOPLE = {
    "zheng": ("郑伟", "990001197602290170", "1", "19760229", False),
    "li": ("李秀英", "990001195507080264", "2", "19550708", True),
    "zhou": ("周建国", "990001195910015710", "1", "19591001", True),
    "sun": ("孙小梅", "", "2", "19930512", True),
    "wu": ("吴长海", "", "1", "19480211", True),
}
_NUMBERS = {"sun": "99000119930512004", "wu": "99000119480211013"}
_SIGNERS = {
    "senior": ("C015", "宋洁", "上级医师"),
    "assistant": ("NA", "唐勇", "第一助手"),
    "pharmacist": ("Y001", "彭静", "处方审核药剂师"),
    "dispenser": ("Y002", "郝亮", "处方调配药剂师"),
    "nurse": ("0310", "谢芳", "责任护士"),
    "checker": ("H002", "马莉", "核对护士"),
    "scrub": ("H003", "苏倩", "器械护士"),
    "midwife": ("Z001", "夏青", "助产士"),
    "anaesthetist": ("M001", "高远", "麻醉医师"),
    "successor": ("C201", "罗燕", "接班医师"),
    "consultant": ("C202", "常青", "会诊医师"),
    "coder": ("B001", "汪洋", "编码员"),
}
_DE = "2.16.156.10011.2.2.1"
_ICD10, _ICD9 = "2.16.156.10011.2.3.3.11", "2.16.156.10011.2.3.3.12"
_LOINC = "2.16.840.1.113883.6.1"
#: Day of June 2025 on which a document was written, where what it tells fixes it: a consent precedes its operation, a report follows it.
_DAYS = {
    **dict.fromkeys(("C0003", "C0004"), 11),
    **dict.fromkeys(
        ("C0005", "C0010", "C0014", "C0023", "C0026", "C0027", "C0030", "C0034", "C0035", "C0037", "C0046", "C0047"), 12
    ),
    **dict.fromkeys(("C0011", "C0012", "C0015", "C0019", "C0036", "C0044", "C0045", "C0048", "C0050"), 13),
    **dict.fromkeys(("C0016", "C0038"), 14),
    "C0041": 15,
    **dict.fromkeys(("C0025", "C0032", "C0033", "C0049", "C0053"), 19),
    "C0043": 26,
}
#: A picture of one point.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def resident_number(person: str) -> str:
    """Return the resident number of a person with its check digit (GB 11643, ISO 7064 MOD 11-2)."""
    given = _PEOPLE[person][1]
    if given:
        return given
    digits = _NUMBERS[person]
    total = sum(int(digit) * (1 << (17 - at)) % 11 for at, digit in enumerate(digits))
    return digits + "10X98765432"[total % 11]


def files() -> Iterator[tuple[Path, bytes]]:
    """Yield where each document stands, and its bytes."""
    for code in KINDS:
        kind = KINDS[code]
        path = HERE / code / f"{kind.house.lower()}_{kind.name}.xml"
        encoding = _encoding(code, kind)
        head = f'<?xml version="1.0" encoding="{encoding}"?>\n' if encoding else ""
        yield path, (head + document(code, kind)).encode(encoding or "utf-8")


def _encoding(code: str, kind: Kind) -> str:
    """GBK and GB 18030 in turn at KN; one document says nothing of its encoding, which XML reads as UTF-8."""
    declared = _HOUSES[kind.house][4]
    if code == "C0043":
        return ""
    return "GB18030" if declared == "GBK" and int(code[1:]) % 2 else declared


def document(code: str, kind: Kind) -> str:
    """Return the text of one document, its XML declaration left out."""
    title = NAMES[code]
    written = f"202506{_DAYS.get(code, 12 + int(code[1:]) % 8):02d}1{int(code[1:]) % 10}3000"
    parent = f"{kind.house}-{code}-0" if kind.replaces else ""
    return "".join(
        (
            '<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n',
            '<realmCode code="CN"/><typeId root="2.16.840.1.113883.1.3" extension="POCD_MT000040"/>',
            f'<templateId root="2.16.156.10011.2.1.1.{20 + int(code[1:])}"/>\n',
            f'<id root="2.16.156.10011.1.1" extension="{kind.house}-{code}-1"/>',
            f'<code code="{code}" codeSystem="2.16.156.10011.2.4" codeSystemName="卫生信息共享文档规范编码体系"/>',
            f'<title>{title}</title>\n<effectiveTime value="{written}"/>',
            '<confidentialityCode code="N" codeSystem="2.16.840.1.113883.5.25" displayName="正常访问保密级别"/>',
            '<languageCode code="zh-CN"/><setId/><versionNumber/>\n',
            _patient(kind),
            _author(kind, written),
            _informant(code),
            _custodian(kind),
            _signed("legalAuthenticator", written, _HOUSES[kind.house][2], _HOUSES[kind.house][3], "经治医师"),
            "".join(_signer(one, kind, written) for one in kind.signers),
            _contact(kind),
            _order(code),
            # WS/T 500 prints the element in every template; it is empty where nothing is replaced.
            '<relatedDocument typeCode="RPLC"><parentDocument>',
            f'<id root="2.16.156.10011.1.1" extension="{parent}"/>' if parent else "<id/>",
            "<setId/><versionNumber/></parentDocument></relatedDocument>\n",
            _visit(kind),
            "<component><structuredBody>\n",
            "".join(_section(key, parts) for key, parts in kind.body),
            "</structuredBody></component></ClinicalDocument>\n",
        )
    )


def _stay(kind: Kind) -> tuple[str, str]:
    """Return (root, number) of the patient's visit at the house: one person has one number at one house."""
    inside = _PEOPLE[kind.person][4]
    number = {"zheng": "MZ20250611001", "li": "2007", "zhou": "2008", "sun": "2009", "wu": "2010"}[kind.person]
    return ("2.16.156.10011.1.12", f"ZY2025061{number}") if inside else ("2.16.156.10011.1.11", number)


def _patient(kind: Kind) -> str:
    name, _, sex, born, _ = _PEOPLE[kind.person]
    root, number = _stay(kind)
    more = f'<id root="{kind.number[0]}" extension="{kind.number[1]}"/>' if kind.number else ""
    other = "2.16.156.10011.1.11" if root.endswith("12") else "2.16.156.10011.1.12"
    words = "男性" if sex == "1" else "女性"
    return (
        '<recordTarget typeCode="RCT" contextControlCode="OP"><patientRole classCode="PAT">'
        f'{more}<id root="{other}" extension="NA"/><id root="{root}" extension="{number}"/>'
        '<addr use="H"><state>云岭示范省</state><city>云岭示范市</city><county>云岭示范县</county></addr><telecom value="NA"/>'
        f'<patient classCode="PSN" determinerCode="INSTANCE"><id root="2.16.156.10011.1.3" extension="{resident_number(kind.person)}"/>'
        f'<name>{name}</name><administrativeGenderCode code="{sex}" codeSystem="2.16.156.10011.2.3.3.4" displayName="{words}"/>'
        f'<birthTime value="{born}"/><maritalStatusCode nullFlavor="UNK"/></patient>'
        '<providerOrganization><id root="2.16.156.10011.1.26"/><name>综合门诊</name></providerOrganization>'
        "</patientRole></recordTarget>\n"
    )


def _author(kind: Kind, written: str) -> str:
    license_, house, number, name, _ = _HOUSES[kind.house]
    return (
        f'<author typeCode="AUT"><time value="{written}"/><assignedAuthor classCode="ASSIGNED">'
        f'<id root="2.16.156.10011.1.7" extension="{number}"/><assignedPerson><name>{name}</name></assignedPerson>'
        f'<representedOrganization><id root="2.16.156.10011.1.5" extension="{license_}"/><name>{house}</name>'
        "</representedOrganization></assignedAuthor></author>\n"
    )


def _custodian(kind: Kind) -> str:
    license_, house, *_ = _HOUSES[kind.house]
    return (
        '<custodian typeCode="CST"><assignedCustodian classCode="ASSIGNED"><representedCustodianOrganization classCode="ORG">'
        f'<id root="2.16.156.10011.1.5" extension="{license_}"/><name>{house}</name>'
        "</representedCustodianOrganization></assignedCustodian></custodian>\n"
    )


def _signed(element: str, written: str, number: str, name: str, role: str) -> str:
    return (
        f'<{element}><time value="{written}"/><signatureCode/><assignedEntity><id root="2.16.156.10011.1.4" extension="{number}"/>'
        f'<code displayName="{role}"/><assignedPerson><name>{name}</name></assignedPerson></assignedEntity></{element}>\n'
    )


def _signer(one: str, kind: Kind, written: str) -> str:
    if one in _SIGNERS:
        return _signed("authenticator", written, *_SIGNERS[one])
    if one == "patient":
        name, code = _PEOPLE[kind.person][0], ""
    else:
        name, code = "周晓云", '<code code="20" codeSystem="2.16.156.10011.2.3.3.8" displayName="子"/>'
    return (
        f'<authenticator><time value="{written}"/><signatureCode/><assignedEntity><id root="2.16.156.10011.1.3" extension="NA"/>'
        f"{code}<assignedPerson><name>{name}</name></assignedPerson></assignedEntity></authenticator>\n"
    )


def _informant(code: str) -> str:
    """Who told the history, in the records of an admission."""
    if code not in {"C0023", "C0034", "C0035", "C0036"}:
        return ""
    return (
        '<informant><relatedEntity classCode="AGNT"><code code="20" codeSystem="2.16.156.10011.2.3.3.8" displayName="子"/>'
        "<relationshipHolder><name>周晓云</name></relationshipHolder></relatedEntity></informant>\n"
    )


def _contact(kind: Kind) -> str:
    if kind.name not in {"front_page", "chinese_front_page", "admission", "admission_assessment"}:
        return ""
    return (
        '<participant typeCode="NOT"><associatedEntity classCode="ECON"><code code="20" codeSystem="2.16.156.10011.2.3.3.8" displayName="子"/>'
        '<telecom value="12000000009"/><associatedPerson><name>周晓云</name></associatedPerson></associatedEntity></participant>\n'
    )


def _order(code: str) -> str:
    if code not in {"C0008", "C0013", "C0045"}:
        return ""
    return f'<inFulfillmentOf><order><id root="2.16.156.10011.1.24" extension="SQ-{code}"/></order></inFulfillmentOf>\n'


def _visit(kind: Kind) -> str:
    root, number = _stay(kind)
    kind_of = "3" if root.endswith("12") else "1"
    department = "妇产科" if kind.person == "sun" else "普外科" if kind.house == "KN" else "心血管内科"
    lasted = (
        '<low value="20250612080000"/>'
        if kind_of == "3"
        else '<low value="20250611080000"/><high value="20250611103000"/>'
    )
    return (
        f'<componentOf><encompassingEncounter><id root="{root}" extension="{number}"/>'
        f'<code code="{kind_of}" codeSystem="2.16.156.10011.2.3.1.271"/><effectiveTime>{lasted}</effectiveTime>'
        "<location><healthCareFacility><serviceProviderOrganization><asOrganizationPartOf><wholeOrganization>"
        '<id root="2.16.156.10011.1.22" extension="12"/><name>12床</name><asOrganizationPartOf><wholeOrganization>'
        f'<id root="2.16.156.10011.1.26" extension="{department}"/><name>{department}</name>'
        "</wholeOrganization></asOrganizationPartOf></wholeOrganization></asOrganizationPartOf></serviceProviderOrganization>"
        "</healthCareFacility></location></encompassingEncounter></componentOf>\n"
    )


# --- sections ---------------------------------------------------------------------------------------------------


def _section(key: str, parts: tuple[Any, ...]) -> str:
    loinc, heading = SECTIONS[key]
    code = f'<code code="{loinc}" codeSystem="{_LOINC}" codeSystemName="LOINC" displayName="{heading}"/>'
    if not loinc:
        code = f'<code displayName="{heading}章节"/>'
    shown = "".join(_narrative(one) for one in parts)
    inside = "".join(_section(one.key, one.parts) for one in parts if isinstance(one, Below))
    entries = "".join(f"<entry>{made}</entry>" for one in parts if (made := _entry(one)))
    text = f"<text>{shown}</text>" if shown else "<text/>"
    return f"<component><section>{code}<title>{heading}</title>{text}{entries}{inside}</section></component>\n"


def _narrative(one: Any) -> str:
    if isinstance(one, Table):
        head = "".join(f"<th>{escape(cell)}</th>" for cell in one.head)
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in one.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    if isinstance(one, Picture):
        return (
            f'<renderMultiMedia referencedObject="{one.id}"><caption>{escape(one.caption)}</caption></renderMultiMedia>'
        )
    return ""


def _observation(name: str, value: str, more: str = "") -> str:
    label, _, number = name.partition("@")
    code = f'code="{number}" codeSystem="{_DE}" codeSystemName="卫生信息数据元目录" ' if number else ""
    return f'<observation classCode="OBS" moodCode="EVN"><code {code}displayName={quoteattr(label)}/>{value}{more}</observation>'


def _entry(one: Any) -> str:
    match one:
        case Table() | Below():
            return ""
        case Picture():
            return (
                f'<observationMedia classCode="OBS" moodCode="EVN" ID="{one.id}">'
                f'<value mediaType="image/png" representation="B64">{PNG}</value></observationMedia>'
            )
        case Code():
            return _observation(
                one.name,
                f'<value xsi:type="CD" code="{one.code}" codeSystem="{_ICD10}" codeSystemName="ICD-10" displayName="{one.display}"/>',
            )
        case Deed():
            return (
                f'<procedure classCode="PROC" moodCode="{one.mood}"><code code="{one.code}" codeSystem="{_ICD9}" '
                f'codeSystemName="ICD-9-CM-3" displayName="{one.display}"/><effectiveTime value="{one.when}"/></procedure>'
            )
        case Drug():
            return _drug(one)
        case Lab():
            return (
                f'<organizer classCode="BATTERY" moodCode="EVN"><statusCode/><component><observation classCode="OBS" moodCode="EVN">'
                f'<code code="{one.loinc}" codeSystem="{_LOINC}" displayName="{one.name}"/>'
                f'<value xsi:type="PQ" value="{one.value}" unit="{one.unit}"/>'
                f'<interpretationCode code="{one.flag}" codeSystem="2.16.840.1.113883.5.83"/><referenceRange><observationRange>'
                f'<value xsi:type="IVL_PQ"><low value="{one.low}" unit="{one.unit}"/><high value="{one.high}" unit="{one.unit}"/></value>'
                "</observationRange></referenceRange></observation></component></organizer>"
            )
        case (name, value, "BL"):
            return _observation(name, f'<value xsi:type="BL" value="{value}"/>')
        case (name, value, "元"):
            return _observation(name, f'<value xsi:type="MO" value="{value}" currency="元"/>')
        case (name, value, unit):
            return _observation(name, f'<value xsi:type="PQ" value="{value}" unit="{unit}"/>')
        case (name, value):
            return _observation(name, f'<value xsi:type="ST">{escape(value)}</value>')
    raise TypeError(one)


def _drug(one: Drug) -> str:
    total = _observation(
        "药物使用总剂量@DE06.00.135.00", f'<value xsi:type="PQ" value="{one.total}" unit="{one.unit}"/>'
    )
    return (
        '<substanceAdministration classCode="SBADM" moodCode="EVN"><text/>'
        f'<routeCode code="{one.route[0]}" codeSystem="2.16.156.10011.2.3.1.158" displayName="{one.route[1]}"/>'
        f'<doseQuantity value="{one.dose}" unit="{one.unit}"/><rateQuantity><translation displayName="{one.often}"/></rateQuantity>'
        f"<consumable><manufacturedProduct><manufacturedLabeledDrug><code/><name>{one.name}</name></manufacturedLabeledDrug>"
        f'</manufacturedProduct></consumable><entryRelationship typeCode="COMP">{total}</entryRelationship></substanceAdministration>'
    )


def main() -> None:
    for path, raw in files():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw)


if __name__ == "__main__":
    main()
