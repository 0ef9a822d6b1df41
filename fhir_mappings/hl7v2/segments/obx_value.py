"""OBX-5 by the type that OBX-2 names, as FHIR ``value[x]`` (HL7 v2 chapter 7.4.2). v2-to-FHIR: OBX[Observation].

Numbers keep every digit: ``6.90`` stays 6.90 (https://hl7.org/fhir/R4/datatypes.html#decimal).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Place
from fhir_mappings.hl7v2.segments import convert
from fhir_mappings.hl7v2.tokenizer import Repetition, Segment

TEXT_TYPES = frozenset({"ST", "TX", "FT", ""})
CODED_TYPES = frozenset({"CE", "CWE", "CNE", "CF", "IS", "ID"})

_COMPARED = re.compile(r"(<=|>=|<|>|≤|≥|＜|＞)\s*([^\s<>=]+)")
_COMPARATORS = {"≤": "<=", "≥": ">=", "＜": "<", "＞": ">"}
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d)(?:([0-5]\d)(\.\d+)?)?")


def _unit(segment: Segment) -> Repetition:
    return segment.field(6).first


def _nm(repetition: Repetition, segment: Segment, place: Place) -> dict[str, Any]:
    text = repetition.text().strip()
    made = datatypes.nm_quantity(text, _unit(segment), place.ctx)
    if made is not None:
        return {"valueQuantity": made}
    compared = _COMPARED.fullmatch(text)
    made = datatypes.nm_quantity(compared[2], _unit(segment), place.ctx) if compared else None
    if compared and made is not None:
        return {"valueQuantity": {**made, "comparator": _COMPARATORS.get(compared[1], compared[1])}}
    place.warn("OBX-5 is no number although OBX-2 says NM; it was kept as text.")
    return {"valueString": text}


def _sn(repetition: Repetition, segment: Segment, place: Place) -> dict[str, Any]:
    made = datatypes.sn_value(repetition, _unit(segment), place.ctx)
    return {made[0]: made[1]} if made else {}


def _text(repetition: Repetition, _segment: Segment, _place: Place) -> dict[str, Any]:
    return {"valueString": repetition.text()}


def _coded(repetition: Repetition, _segment: Segment, place: Place) -> dict[str, Any]:
    concept = convert.concept_of(repetition, place)
    return {"valueCodeableConcept": concept} if concept else {}


def _moment(repetition: Repetition, _segment: Segment, place: Place) -> dict[str, Any]:
    moment = convert.moment_text(repetition.component(1), place)
    return {"valueDateTime": moment} if moment else {}


def _time(repetition: Repetition, _segment: Segment, place: Place) -> dict[str, Any]:
    text = repetition.component(1).strip()
    found = _TIME.match(text)
    if found is None:
        place.warn("OBX-5 is no time although OBX-2 says TM; it was kept as text.")
        return {"valueString": text}
    hour, minute, second, fraction = found.groups()
    return {"valueTime": f"{hour}:{minute}:{second or '00'}{fraction or ''}"}


def _period(repetition: Repetition, _segment: Segment, place: Place) -> dict[str, Any]:
    ends = {
        key: moment
        for key, component in (("start", 1), ("end", 2))
        if (moment := convert.moment_text(repetition.component(component), place))
    }
    return {"valuePeriod": ends} if ends else {}


def _numeric_range(repetition: Repetition, segment: Segment, place: Place) -> dict[str, Any]:
    ends = {
        key: made
        for key, component in (("low", 1), ("high", 2))
        if (made := datatypes.nm_quantity(repetition.component(component), _unit(segment), place.ctx)) is not None
    }
    return {"valueRange": ends} if ends else {"valueString": repetition.text()}


def _value_range(repetition: Repetition, _segment: Segment, _place: Place) -> dict[str, Any]:
    return {"valueString": f"{repetition.component(1)}-{repetition.component(2)}"}


def _numbers(repetition: Repetition, _segment: Segment, place: Place) -> dict[str, Any]:
    # SampledData needs an origin and a period, which NA does not carry; v2-to-FHIR maps it all the same.
    place.warn("OBX-5 is a numeric array (NA); it was kept as text.", code="not-supported")
    return {"valueString": " ".join(component.raw for component in repetition.components)}


_BY_TYPE: dict[str, Callable[[Repetition, Segment, Place], dict[str, Any]]] = {
    "NM": _nm,
    "SI": _nm,
    "SN": _sn,
    **dict.fromkeys(TEXT_TYPES, _text),
    **dict.fromkeys(CODED_TYPES, _coded),
    "DT": _moment,
    "TS": _moment,
    "DTM": _moment,
    "TM": _time,
    "DR": _period,
    "NR": _numeric_range,
    "VR": _value_range,
    "NA": _numbers,
    "MA": _numbers,
}


def value(repetition: Repetition, segment: Segment, place: Place) -> dict[str, Any]:
    """Return ``{"value...": ...}`` of one repetition of OBX-5; empty when there is nothing to say."""
    if not repetition.raw or repetition.is_null:
        return {}
    kind = segment.get(2).strip().upper()
    convert_value = _BY_TYPE.get(kind)
    if convert_value is None:
        place.warn(f"OBX-2 {kind[:3]} has no FHIR type; the value was kept as text.", code="not-supported")
        return {"valueString": repetition.text()}
    made = convert_value(repetition, segment, place)
    # FHIR forbids empty and overlong strings; a megabyte of text belongs into a document.
    if "valueString" in made and not made["valueString"].strip():
        return {}
    return made


def reference_range(segment: Segment, place: Place) -> list[dict[str, Any]]:
    """Return OBX-7: the text always, low and high where the text is ``a-b``, ``<b`` or ``>a``."""
    made = datatypes.reference_range(segment.field(7).text(), _unit(segment), place.ctx)
    return [made] if made else []
