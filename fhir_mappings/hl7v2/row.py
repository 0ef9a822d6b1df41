"""A study as one flat row, from hospitals that have no HL7: pushed as JSON, or read from a view of their database.

The row says how far a study is (registered, examined, reported). It becomes the v2 message that says the same: ORM^O01
(chapter 4.4.1) before the report, ORU^R01 (chapter 7.3.1) with it; so rows and messages share the tables behind them.
Fields of class A must be there; of class B, those that are missing are told to the sender and marked in the journal.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.builder import FieldValue, MessageBuilder, Repeat, RepetitionValue
from fhir_mappings.prescan import JsonLimits, prescan

#: MSH-3 of the messages made here; MSH-4 is the row's ``orgCode``.
APPLICATION = "ROW"
#: What a sender of rows whose ``orgCode`` is not known is told.
UNKNOWN_FEED = (
    "orgCode 未登记为本机构的推送接口 / orgCode names no feed of rows of this institution. Ask the operator for an "
    "Endpoint whose sending-facility is the orgCode and whose sending-application is empty or ROW."
)
#: Without these a row is refused; of the numbers of the study one is enough.
REQUIRED = ("orgCode", "patientId", "patientName", "patientSex", "modality", "state", "updateTime")
NUMBERS = ("studyUid", "accessionNumber")
#: Without these it is taken and marked. Those of a report are wanted only once there is one.
WANTED = (
    "idCard",
    "birthday",
    "phone",
    "insuranceNo",
    "visitType",
    "dept",
    "doctor",
    "bodyPart",
    "item",
    "clinicalDiagnosis",
)
WANTED_OF_REPORT = ("reportFindings", "reportImpression", "writer", "reviewer", "reviewTime", "positive", "critical")
STATES = {"登记完成": "SC", "检查完成": "IP", "报告完成": "CM"}

_LIMITS = JsonLimits(max_bytes=1 << 20, max_depth=2, max_values=500, max_string_chars=512 * 1024)
_SEX = {"男": "M", "女": "F", "M": "M", "F": "F", "未知": "U", "U": "U", "其他": "O", "O": "O", "1": "M", "2": "F"}
#: Table 0004; a health check is an outpatient's visit.
_VISIT = {"门诊": "O", "住院": "I", "急诊": "E", "体检": "O"}
#: Table 0074 for the modalities that have a section there.
_SECTION = {"CT": "CT", "MR": "NMR", "US": "RUS", "DX": "RAD", "CR": "RAD", "DR": "RAD", "RF": "RAD", "MG": "RAD"}
_TIME = re.compile(r"(\d{4})[-/]?(\d\d)[-/]?(\d\d)(?:[ T]?(\d\d):?(\d\d)(?::?(\d\d))?(?:\.\d+)?)?(Z|[+-]\d\d:?\d\d)?")
_UID = re.compile(r"(?=.{1,64}\Z)(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_YES = {"true": True, "1": True, "是": True, "阳性": True, "false": False, "0": False, "否": False, "阴性": False}


def message(raw: bytes, text: str) -> tuple[str, tuple[str, ...]]:
    """Return the row *text* as a v2 message in ER7, and what of class B is missing.

    The control id is made of *raw*, so the same row is the same message.

    Raises:
        MalformedError: it is no flat JSON object (102), a field of class A is missing (101) or a value cannot be read (102).
    """
    row = _fields(text)
    absent = [name for name in REQUIRED if not row.get(name)]
    if not any(row.get(name) for name in NUMBERS):
        absent.append("studyUid|accessionNumber")
    if absent:
        raise MalformedError(
            f"缺少必填字段 / Required fields are missing: {', '.join(absent)}.",
            where=absent[0],
            remedy="Send them and push the row again.",
            code=101,
        )
    _known(row, "state", STATES)
    _known(row, "patientSex", _SEX)
    if row.get("visitType"):
        _known(row, "visitType", _VISIT)
    if row.get("studyUid") and _UID.fullmatch(row["studyUid"]) is None:
        raise _unreadable("studyUid", "Give a DICOM UID (PS3.5 9.1).")
    reported = row["state"] == "报告完成"
    control = hashlib.sha256(raw).hexdigest()[:20]
    made = _report(row, control) if reported else _order(row, control)
    wanted = WANTED + (WANTED_OF_REPORT if reported else ())
    return made, tuple(name for name in wanted if not row.get(name))


def _fields(text: str) -> dict[str, str]:
    try:
        value = prescan(text.lstrip("\ufeff").encode("utf-8", "replace"), _LIMITS)
    except MalformedError as error:
        raise MalformedError(error.message, where=error.where, remedy=error.remedy, code=102) from error
    if not isinstance(value, Mapping):
        raise _unreadable("body", "Send one JSON object.")
    row: dict[str, str] = {}
    for name, content in value.items():
        if isinstance(content, dict | list):
            raise _unreadable(_name(name), "Send text, numbers, true and false only.")
        row[name] = _plain(content)
    return row


def _plain(content: Any) -> str:
    if content is None:
        return ""
    return str(content).lower() if isinstance(content, bool) else str(content).strip()


def _order(row: Mapping[str, str], control: str) -> str:
    builder = _start(row, "ORM", "O01", control)
    number = _number(row)
    # SC: a status that is told, not an order to anybody; so no workflow begins.
    builder.segment(
        "ORC", {1: "SC", 3: number, 5: STATES[row["state"]], 9: _time(row, "updateTime"), 12: _person(row, "doctor")}
    )
    builder.segment("OBR", _study(row))
    _image(builder, row)
    return builder.to_text()


def _report(row: Mapping[str, str], control: str) -> str:
    builder = _start(row, "ORU", "R01", control)
    fields = _study(row)
    fields[22] = _time(row, "reviewTime") or _time(row, "updateTime")
    fields[25] = "F"
    fields[32] = _signatory(row, "reviewer")
    fields[33] = _signatory(row, "writer")
    builder.segment("OBR", fields)
    positive, critical = _yes(row, "positive"), _yes(row, "critical")
    # Table 0078: AA is what must be told at once, A what is not normal.
    flag = "AA" if critical else "A" if positive else "N" if positive is False else ""
    ordinal = 0
    for name, code, title, mark in (
        ("reportFindings", "59776-5", "影像所见", ""),
        ("reportImpression", "19005-8", "诊断提示", flag),
    ):
        if row.get(name):
            ordinal += 1
            builder.segment("OBX", {1: str(ordinal), 2: "FT", 3: [code, title, "LN"], 5: row[name], 8: mark, 11: "F"})
    _image(builder, row)
    return builder.to_text()


def _start(row: Mapping[str, str], kind: str, event: str, control: str) -> MessageBuilder:
    builder = MessageBuilder()
    structure = [kind, event, f"{kind}_{event}"]
    builder.segment(
        "MSH",
        {
            3: APPLICATION,
            4: row["orgCode"],
            7: _time(row, "updateTime"),
            9: structure,
            10: control,
            11: "P",
            12: "2.5.1",
            18: "UNICODE UTF-8",
        },
    )
    numbers: list[RepetitionValue] = [[row["patientId"], "", "", "", "PI"]]
    numbers += [
        [row[name], "", "", "", kind] for name, kind in (("idCard", "NI"), ("insuranceNo", "SS")) if row.get(name)
    ]
    person: dict[int, FieldValue] = {
        1: "1",
        3: Repeat(numbers),
        5: row["patientName"],
        7: _time(row, "birthday")[:8],
        8: _SEX[row["patientSex"]],
        13: row.get("phone", ""),
    }
    builder.segment("PID", person)
    if row.get("visitType"):
        builder.segment("PV1", {1: "1", 2: _VISIT[row["visitType"]], 3: row.get("dept", "")})
    return builder


def _study(row: Mapping[str, str]) -> dict[int, FieldValue]:
    item = row.get("item") or " ".join(filter(None, (row["modality"], row.get("bodyPart", ""))))
    return {
        1: "1",
        3: _number(row),
        4: [row["modality"] if not row.get("item") else row["item"], item, "L"],
        13: row.get("clinicalDiagnosis", ""),
        15: ["", "", "", row.get("bodyPart", "")] if row.get("bodyPart") else "",
        16: _person(row, "doctor"),
        18: row.get("accessionNumber", ""),
        24: _SECTION.get(row["modality"].upper(), ""),
    }


def _image(builder: MessageBuilder, row: Mapping[str, str]) -> None:
    builder.segment(
        "IPC", {1: row.get("accessionNumber", ""), 2: _number(row), 3: row.get("studyUid", ""), 5: row["modality"]}
    )


def _number(row: Mapping[str, str]) -> str:
    """The number of the study at the hospital: it names order and report alike."""
    return row.get("accessionNumber") or row["studyUid"]


def _person(row: Mapping[str, str], name: str) -> FieldValue:
    return ["", row[name]] if row.get(name) else None


def _signatory(row: Mapping[str, str], name: str) -> FieldValue:
    # NDL-1 is a CNN (chapter 2A.47), whose second component is the family name; a Chinese name stands there whole.
    return [["", row[name]]] if row.get(name) else None


def _yes(row: Mapping[str, str], name: str) -> bool | None:
    value = row.get(name, "").lower()
    if value and value not in _YES:
        raise _unreadable(name, "Give true or false.")
    return _YES.get(value)


def _time(row: Mapping[str, str], name: str) -> str:
    value = row.get(name, "")
    if not value:
        return ""
    found = _TIME.fullmatch(value)
    if found is None:
        raise _unreadable(name, "Give a time like 2025-06-12 08:30:00 or 2025-06-12T08:30:00+08:00.")
    offset = (found[7] or "").replace(":", "").replace("Z", "+0000")
    return "".join(part or "" for part in found.groups()[:6]) + offset


def _known(row: Mapping[str, str], name: str, table: Mapping[str, Any]) -> None:
    if row[name] not in table:
        raise _unreadable(name, f"Give one of {', '.join(table)}.")


def _name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "?", str(name))[:40]


def _unreadable(where: str, remedy: str) -> MalformedError:
    return MalformedError(f"字段 {where} 无法识别 / {where} cannot be read.", where=where, remedy=remedy, code=102)
