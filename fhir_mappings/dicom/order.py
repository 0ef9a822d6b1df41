"""What an imaging order says in terms of DICOM: modalities, dates and numbers of a ServiceRequest.

HL7 v2 OBR-24 (table 0074) and DICOM modality codes name different things; the table below joins them. Many hospital
systems send neither and only name the examination (``胸部CT平扫``), so the name is read too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from fhir_mappings.identifiers import CANONICAL_BASE

#: Plain radiography goes by several codes (PS3.3 C.7.3.1.1.1): computed, digital, and the DR that vendors write.
_PLAIN = frozenset({"CR", "DX", "DR", "RG"})
_GROUPS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(_PLAIN, _PLAIN),
    "MR": frozenset({"MR", "MRI"}),
    "NM": frozenset({"NM", "ST"}),
    "XA": frozenset({"XA", "DSA"}),
}

#: HL7 table 0074 -> DICOM modalities.
_SECTIONS: Mapping[str, frozenset[str]] = {
    "CT": frozenset({"CT"}),
    "NMR": frozenset({"MR"}),
    "RX": _PLAIN,
    "RUS": frozenset({"US"}),
    "OUS": frozenset({"US"}),
    "VUS": frozenset({"US", "IVUS"}),
    "CUS": frozenset({"US"}),
    "NMS": frozenset({"NM", "PT"}),
    "EC": frozenset({"ECG"}),
    "EN": frozenset({"EEG", "EMG"}),
    "RAD": frozenset(),
}
_DICOM_CODES = frozenset(
    {"CR", "CT", "DX", "DR", "RG", "MR", "MRI", "US", "NM", "PT", "XA", "RF", "MG", "IO", "PX", "ES", "ECG", "EEG", "EMG",
     "OP", "OPT", "OCT", "SM", "GM", "XC", "IVUS", "BMD", "DSA"}
)  # fmt: skip

#: What the name of an examination says. Latin words stand alone, so that ``ECT`` is no CT.
_WORDS: tuple[tuple[re.Pattern[str], frozenset[str]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), modalities)
    for pattern, modalities in (
        (r"PET[-/ ]?CT", frozenset({"PT", "CT"})),
        (r"(?<![A-Za-z/-])CT[AV]?(?![A-Za-z])", frozenset({"CT"})),
        (r"(?<![A-Za-z])MR[IA]?(?![A-Za-z])|磁共振|核磁", frozenset({"MR"})),
        (r"(?<![A-Za-z])[DC]R(?![A-Za-z])|X\s*[线光]|平片|胸片|正侧位|摄片", _PLAIN),
        (r"超声|彩超|(?<![A-Za-z])B超|(?<![A-Za-z])US(?![A-Za-z])", frozenset({"US"})),
        (r"钼靶|乳腺摄影", frozenset({"MG"})),
        (r"造影|DSA", frozenset({"XA", "RF"})),
        (r"(?<![A-Za-z])ECT(?![A-Za-z])|骨扫描|核素", frozenset({"NM"})),
        (r"胃镜|肠镜|内镜", frozenset({"ES"})),
        (r"心电图", frozenset({"ECG"})),
    )
)

#: Identifier kinds of an order that modalities and PACS put into (0008,0050), best first.
_NUMBER_KINDS = ("accession", "filler-order", "placer-order")
#: Identifier kinds of what a modality is to do for an order, which stand in elements of their own: (0040,1001), (0040,0009).
REQUESTED_PROCEDURE, SCHEDULED_STEP = "requested-procedure", "scheduled-step"
#: HL7 table 0203 codes that say the same as our systems.
_TYPES = {"ACSN": "accession", "FILL": "filler-order", "PLAC": "placer-order"}


def modality_group(code: str) -> frozenset[str]:
    """Return the modality codes that mean the same kind of examination as *code*."""
    name = code.strip().upper()
    return _GROUPS.get(name, frozenset({name}))


def modalities(order: Mapping[str, Any]) -> frozenset[str]:
    """Return the DICOM modalities that a ServiceRequest asks for; empty when it does not say."""
    found: set[str] = set()
    for system, code in _codes(order):
        if "0074" in system:
            found |= _SECTIONS.get(code.upper(), frozenset())
        elif code.upper() in _DICOM_CODES and ("DCM" in system or system.startswith(CANONICAL_BASE) or not system):
            found |= modality_group(code)
    if found:
        return frozenset(found)
    text = " ".join(_texts(order))
    for pattern, said in _WORDS:
        if pattern.search(text):
            return said
    return frozenset()


def _concepts(order: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if isinstance(order.get("code"), dict):
        yield order["code"]
    for name in ("category", "orderDetail"):
        yield from order.get(name) or ()


def _codes(order: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for concept in _concepts(order):
        for coding in concept.get("coding") or ():
            yield str(coding.get("system", "")), str(coding.get("code", ""))


def _texts(order: Mapping[str, Any]) -> Iterator[str]:
    for concept in _concepts(order):
        yield str(concept.get("text", ""))
        for coding in concept.get("coding") or ():
            yield str(coding.get("display", ""))


def days(order: Mapping[str, Any], time_zone: str) -> tuple[date | None, date | None]:
    """Return the days an order is planned for and was written on, in *time_zone*; ``None`` where it does not say."""
    planned = order.get("occurrenceDateTime") or (order.get("occurrencePeriod") or {}).get("start")
    return _day(planned, time_zone), _day(order.get("authoredOn"), time_zone)


def _day(text: Any, time_zone: str) -> date | None:
    if not isinstance(text, str) or len(text) < 10:
        return None
    try:
        if "T" not in text:
            return date.fromisoformat(text)
        return datetime.fromisoformat(text).astimezone(ZoneInfo(time_zone)).date()
    except ValueError:
        return None


def numbers(order: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the numbers of an order that may stand in an image's Accession Number, best first."""
    ranked: list[tuple[int, str]] = []
    for identifier in order.get("identifier") or ():
        kinds = _kinds(identifier)
        if kinds & {REQUESTED_PROCEDURE, SCHEDULED_STEP}:
            continue
        rank = min((_NUMBER_KINDS.index(kind) for kind in kinds if kind in _NUMBER_KINDS), default=9)
        if identifier.get("value"):
            ranked.append((rank, str(identifier["value"])))
    return tuple(dict.fromkeys(value for _, value in sorted(ranked, key=lambda one: one[0])))


def scheduled(order: Mapping[str, Any], kind: str, modality: str = "") -> tuple[str, ...]:
    """Return the numbers of *kind*, procedures or steps, that *order* has; those for *modality* go first."""
    found = [one for one in order.get("identifier") or () if kind in _kinds(one) and one.get("value")]
    group = modality_group(modality)
    found.sort(
        key=lambda one: not any(str(said.get("valueString", "")) in group for said in one.get("extension") or ())
    )
    return tuple(dict.fromkeys(str(one["value"]) for one in found))


def accession(order: Mapping[str, Any]) -> str:
    """Return the accession number that an order carries, or ``""``."""
    for identifier in order.get("identifier") or ():
        if "accession" in _kinds(identifier):
            return str(identifier.get("value", ""))
    return ""


def is_numbered(order: Mapping[str, Any], value: str, kind: str) -> bool:
    """Return whether *order* carries *value* as a number of *kind* (``accession``, ``placer-order``, ...)."""
    return any(one.get("value") == value and kind in _kinds(one) for one in order.get("identifier") or ())


def _kinds(identifier: Mapping[str, Any]) -> frozenset[str]:
    codes = {str(coding.get("code", "")) for coding in (identifier.get("type") or {}).get("coding") or ()}
    kind = str(identifier.get("system", "")).rpartition("/")[2]
    return frozenset({kind} | {_TYPES[code] for code in codes & _TYPES.keys()})
