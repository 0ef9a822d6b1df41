"""An imaging order as a Modality Worklist item in the DICOM JSON Model (PS3.4 annex K.6.1.2.2, PS3.3 annexes C.2, C.4.10,
C.4.11).

Every attribute that the hub supports is in the item, empty where it is not known, so that what is missing from it is not
supported. Numbers that do not fit SH, the 16 characters of most of them, are never cut: a cut number would come back on
the images and be nobody's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

from fhir_mappings.dicom import order as orders
from fhir_mappings.identifiers import NAMESPACE, is_uuid, naming_system
from fhir_mappings.text import full_pinyin, has_han

Json = dict[str, Any]

_SH, _LO = 16, 64
#: Modalities in the order in which one is chosen where an order allows several.
_PREFERRED = ("PT", "CT", "MR", "DX", "CR", "US", "MG", "XA", "RF", "NM", "ES", "ECG")
_PRIORITIES = {"stat": "STAT", "asap": "HIGH", "urgent": "HIGH", "routine": "ROUTINE"}
_SEXES = {"male": "M", "female": "F", "other": "O"}
_SCHEMES = {"http://loinc.org": "LN", "http://snomed.info/sct": "SCT", "http://dicom.nema.org/resources/ontology/DCM": "DCM"}  # fmt: skip
#: Answers to LOINC 82810-3 Pregnancy status, in LOINC and SNOMED CT -> Pregnancy Status (0010,21C0).
_PREGNANCY = {
    "LA26683-5": 1,
    "60001007": 1,
    "146799005": 2,
    "152231000119106": 2,
    "LA15173-0": 3,
    "77386006": 3,
    "LA4489-6": 4,
    "261665006": 4,
}
#: Surnames of two characters that are still borne, and readings that only surnames have.
_COMPOUND = frozenset(
    [
        "欧阳",
        "太史",
        "端木",
        "上官",
        "司马",
        "东方",
        "独孤",
        "南宫",
        "万俟",
        "闻人",
        "夏侯",
        "诸葛",
        "尉迟",
        "公羊",
        "赫连",
        "澹台",
        "皇甫",
        "宗政",
        "濮阳",
        "公冶",
        "太叔",
        "申屠",
        "公孙",
        "慕容",
        "仲孙",
        "钟离",
        "长孙",
        "宇文",
        "司徒",
        "鲜于",
        "司空",
        "令狐",
        "单于",
        "呼延",
        "轩辕",
        "百里",
        "东郭",
        "西门",
        "拓跋",
    ]
)
_READINGS = {
    "万俟": "moqi", "单于": "chanyu", "尉迟": "yuchi", "澹台": "tantai", "长孙": "zhangsun", "曾": "zeng", "单": "shan",
    "仇": "qiu", "解": "xie", "区": "ou", "查": "zha", "盖": "ge", "翟": "zhai", "朴": "piao", "缪": "miao", "冼": "xian",
    "员": "yun", "覃": "qin", "种": "chong", "秘": "bi", "折": "she", "乐": "yue", "尉": "yu", "召": "shao",
    "繁": "po", "祭": "zhai", "那": "na", "幺": "yao", "逄": "pang",
}  # fmt: skip


def study_uid(order: Mapping[str, Any]) -> str:
    """Return the Study Instance UID of the images that *order* asks for: what it says, else one made of its id.

    The id of an order is a UUID and so is the UID (PS3.5 annex B.2), which makes it the same for ever, and lets
    :func:`order_id` find the order of a study.
    """
    for identifier in order.get("identifier") or ():
        value = str(identifier.get("value", ""))
        if identifier.get("system") == "urn:dicom:uid" and value.startswith("urn:oid:"):
            return value.removeprefix("urn:oid:")
    id_ = str(order["id"])
    return f"2.25.{(UUID(id_) if is_uuid(id_) else uuid5(NAMESPACE, f'ServiceRequest/{id_}')).int}"


def order_id(StudyInstanceUID: str) -> str | None:
    """Return the id of the order that a UID of :func:`study_uid` was made of, where it can be one."""
    number = StudyInstanceUID.removeprefix("2.25.")
    if number == StudyInstanceUID or not (number.isascii() and number.isdigit()) or int(number) >> 128:
        return None
    return str(UUID(int=int(number)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What an item says besides its order, as far as it is known.

    Attributes:
        institution: who asks; its numbers of the patient go before those of others.
        owner: whose order it is.
        station: the AE title of the station that is to do it.
        modality: the one that is asked for, where the order allows several.
    """

    institution: str
    owner: str
    station: str
    time_zone: str
    base: str
    modality: str = ""
    patient: Mapping[str, Any] | None = None
    encounter: Mapping[str, Any] | None = None
    requester: Mapping[str, Any] | None = None
    performer: Mapping[str, Any] | None = None
    allergies: Sequence[Mapping[str, Any]] = ()
    pregnancy: Mapping[str, Any] | None = None


def modality(order: Mapping[str, Any], wanted: str = "") -> str:
    """Return the modality of *order*: *wanted* where the order allows it, ``""`` where it asks for no imaging."""
    allowed = orders.modalities(order)
    if wanted in allowed:
        return wanted
    return next((one for one in _PREFERRED if one in allowed), min(allowed, default=""))


def item(order: Mapping[str, Any], around: Around) -> Json:
    """Return *order* as a worklist item."""
    number = _short(orders.numbers(order), str(order["id"]))
    kind = modality(order, around.modality)
    # What the placer numbered itself; the number of the order stands for what nobody else has numbered.
    procedure, step_id = (
        _fitting(orders.scheduled(order, one, kind)) or number
        for one in (orders.REQUESTED_PROCEDURE, orders.SCHEDULED_STEP)
    )
    description = _text(order.get("code"))
    codes = _codes(order.get("code"), around)
    day, hour = _scheduled(order, around.time_zone)
    requester = _name_of(around.requester) or _person((order.get("requester") or {}).get("display", ""))
    reasons = [_text(one) for one in order.get("reasonCode") or () if _text(one)]
    step = {
        "00080060": _value("CS", kind),
        "00321070": _value("LO", ""),
        "00400001": _value("AE", around.station),
        "00400002": _value("DA", day),
        "00400003": _value("TM", hour),
        "00400006": _name_of(around.performer) or {"vr": "PN"},
        "00400007": _value("LO", description[:_LO]),
        "00400008": codes,
        "00400009": _value("SH", step_id),
        "00400010": _value("SH", ""),
        "00400011": _value("SH", ""),
        "00400012": _value("LO", ""),
        "00400020": _value("CS", "SCHEDULED"),
    }
    return {
        **_patient(around),
        "00080050": _value("SH", _fitting(orders.numbers(order))),
        "00080090": requester or {"vr": "PN"},
        "00081110": {"vr": "SQ"},
        "00081120": {"vr": "SQ"},
        "0020000D": _value("UI", study_uid(order)),
        "00321032": requester or {"vr": "PN"},
        "00321033": _value("LO", ""),
        "00321060": _value("LO", description[:_LO]),
        "00321064": codes,
        "00380010": _value("LO", _visit(around.encounter)),
        "00380050": _value("LO", ""),
        "00380300": _value("LO", _place(around.encounter)),
        "00380500": _value("LO", ""),
        "00400100": {"vr": "SQ", "Value": [step]},
        "00401001": _value("SH", procedure),
        "00401002": _value("LO", "; ".join(reasons)[:_LO]),
        "00401003": _value("SH", _PRIORITIES.get(str(order.get("priority", "")), "ROUTINE")),
        "00401004": _value("LO", ""),
        "00402016": _value("LO", _numbered(order, "placer-order")),
        "00402017": _value("LO", _numbered(order, "filler-order")),
        "00403001": _value("LO", ""),
    }


def _patient(around: Around) -> Json:
    patient = around.patient or {}
    number, issuer = _patient_number(patient, around)
    allergies = [text for one in around.allergies if (text := _text(one.get("code"))[:_LO])]
    status = next((_PREGNANCY[code] for code in _coded(around.pregnancy) if code in _PREGNANCY), None)
    return {
        "00100010": _name_of(patient) or {"vr": "PN"},
        "00100020": _value("LO", number),
        "00100021": _value("LO", issuer),
        "00100030": _value("DA", str(patient.get("birthDate", "")).replace("-", "") if _whole_day(patient) else ""),
        "00100040": _value("CS", _SEXES.get(str(patient.get("gender", "")), "")),
        "00101030": {"vr": "DS"},
        "00102000": _value("LO", ""),
        "00102110": {"vr": "LO", "Value": allergies} if allergies else {"vr": "LO"},
        "001021C0": _value("US", status),
    }


def _patient_number(patient: Mapping[str, Any], around: Around) -> tuple[str, str]:
    """Return the number that the asking institution has for the patient, else its owner's, and whose it is."""
    for institution in dict.fromkeys((around.institution, around.owner)):
        system = naming_system(institution, "patient-id", base=around.base)
        for identifier in patient.get("identifier") or ():
            if identifier.get("system") == system and identifier.get("value"):
                return str(identifier["value"]), institution
    return "", ""


def _whole_day(patient: Mapping[str, Any]) -> bool:
    return len(str(patient.get("birthDate", ""))) == 10


# --- names -------------------------------------------------------------------------------------------------------


def _name_of(resource: Mapping[str, Any] | None) -> Json | None:
    """Return the name of a Patient or Practitioner, in Han and in pinyin."""
    names = [name for name in (resource or {}).get("name") or () if name.get("use") not in {"old", "maiden"}]
    han = next((name for name in names if has_han(_whole(name))), None)
    latin = next((name for name in names if _whole(name) and not has_han(_whole(name))), None)
    if han is None:
        return None if latin is None else {"vr": "PN", "Value": [{"Alphabetic": _parts(latin)}]}
    made = _person(_whole(han), family=str(han.get("family", "")))
    if made is not None and latin is not None:
        made["Value"][0]["Alphabetic"] = _parts(latin)
    return made


def _whole(name: Mapping[str, Any]) -> str:
    given = "".join(name.get("given") or ())
    return str(name.get("text") or f"{name.get('family', '')}{given}").strip()


def _parts(name: Mapping[str, Any]) -> str:
    if name.get("family"):
        return "^".join(_clean(part) for part in (str(name["family"]), " ".join(name.get("given") or ()))).rstrip("^")
    return _clean(_whole(name))


def _person(text: str, *, family: str = "") -> Json | None:
    """Return a name written as one text; of a Chinese one the surname is told apart."""
    text = _clean(text)
    if not text:
        return None
    if not has_han(text):
        return {"vr": "PN", "Value": [{"Alphabetic": text}]}
    length = len(family) if family and text.startswith(family) else 2 if text[:2] in _COMPOUND and len(text) > 2 else 1
    surname, rest = text[:length], text[length:].strip()
    reading = _READINGS.get(surname) or full_pinyin(surname)
    groups = [
        "^".join(part for part in pair if part)
        for pair in ((reading.upper(), full_pinyin(rest).upper()), (surname, rest))
    ]
    return {"vr": "PN", "Value": [{"Alphabetic": groups[0], "Ideographic": groups[1]}]}


def _clean(text: str) -> str:
    """Return *text* without what has a meaning in PN (PS3.5 section 6.2.1)."""
    return "".join(" " if char in "^=\\" or ord(char) < 0x20 else char for char in text).strip()[:_LO]


# --- parts -------------------------------------------------------------------------------------------------------


def _value(vr: str, value: Any) -> Json:
    if isinstance(value, str):
        value = value.replace("\\", "/").strip()
    return {"vr": vr} if value in ("", None) else {"vr": vr, "Value": [value]}


def _text(concept: Mapping[str, Any] | None) -> str:
    texts = [(concept or {}).get("text")] + [one.get("display") for one in (concept or {}).get("coding") or ()]
    return next((str(text).strip() for text in texts if text), "")


def _coded(observation: Mapping[str, Any] | None) -> list[str]:
    concept = (observation or {}).get("valueCodeableConcept") or {}
    return [str(one.get("code", "")) for one in concept.get("coding") or ()]


def _codes(concept: Mapping[str, Any] | None, around: Around) -> Json:
    """Return a code sequence (PS3.3 section 8.8); codes too long for it and codes without a meaning are left out."""
    found = []
    for one in (concept or {}).get("coding") or ():
        code, meaning = str(one.get("code", "")), str(one.get("display") or (concept or {}).get("text") or "")
        if code and meaning and len(code) <= _SH:
            scheme = _SCHEMES.get(str(one.get("system", "")), f"99{around.owner}"[:_SH])
            found.append(
                {
                    "00080100": _value("SH", code),
                    "00080102": _value("SH", scheme),
                    "00080104": _value("LO", meaning[:_LO]),
                }
            )
    return {"vr": "SQ", "Value": found} if found else {"vr": "SQ"}


def _scheduled(order: Mapping[str, Any], time_zone: str) -> tuple[str, str]:
    """Return the day and hour an order is planned for, else when it was written; a day alone begins at midnight."""
    planned = order.get("occurrenceDateTime") or (order.get("occurrencePeriod") or {}).get("start")
    text = str(planned or order.get("authoredOn") or "")
    if len(text) == 10:
        return text.replace("-", ""), "000000"
    try:
        moment = datetime.fromisoformat(text).astimezone(ZoneInfo(time_zone))
    except ValueError:
        return "", ""
    return f"{moment:%Y%m%d}", f"{moment:%H%M%S}"


def _fitting(numbers: Sequence[str]) -> str:
    """Return the best of *numbers* that fits an SH whole."""
    return next((number for number in numbers if len(number) <= _SH), "")


def _short(numbers: Sequence[str], id_: str) -> str:
    """Return what identifies the order inside its institution: its best number, else the first digits of its id."""
    return _fitting(numbers) or id_.replace("-", "")[:_SH].upper()


def _numbered(order: Mapping[str, Any], kind: str) -> str:
    return next((number for number in orders.numbers(order) if orders.is_numbered(order, number, kind)), "")


def _visit(encounter: Mapping[str, Any] | None) -> str:
    identifiers = (encounter or {}).get("identifier") or ()
    return next((str(one["value"]) for one in identifiers if one.get("value")), "")[:_LO]


def _place(encounter: Mapping[str, Any] | None) -> str:
    places = [(one.get("location") or {}).get("display") for one in (encounter or {}).get("location") or ()]
    return next((str(place) for place in places if place), "")[:_LO]
