"""TQ1 and TQ: when and how often (HL7 v2 chapter 4.5.4, data type TQ in 2A.81) as FHIR Timing.

v2-to-FHIR: TQ1[ServiceRequest], TQ1[MedicationRequest], TQ[ServiceRequest], RPT[Timing]. TQ1-14 goes to ``count``, because
FHIR allows the ``countMax`` of those maps only beside a ``count`` (tim-7). TQ1-5 has no counterpart without an event.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Place
from fhir_mappings.hl7v2.segments import convert
from fhir_mappings.hl7v2.tokenizer import Repetition, Segment
from fhir_mappings.text import has_han

Json = dict[str, Any]

_GTS = "http://terminology.hl7.org/CodeSystem/v3-GTSAbbreviation"
_V2_0335 = "http://terminology.hl7.org/CodeSystem/v2-0335"
#: Patterns that v2-to-FHIR (RepeatPattern) says with a code of GTSAbbreviation.
_ABBREVIATIONS = frozenset(
    {"BID", "TID", "QID", "QOD", "QD", "AM", "PM", "BED", "WK", "MO", "Q1H", "Q2H", "Q3H", "Q4H", "Q6H", "Q8H"}
)
#: What patterns mean in numbers (table 0335, and what Chinese wards write): frequency, period and its unit.
_FREQUENCIES: dict[str, tuple[int, int, str]] = {
    "QD": (1, 1, "d"),
    "QN": (1, 1, "d"),
    "QAM": (1, 1, "d"),
    "QPM": (1, 1, "d"),
    "QHS": (1, 1, "d"),
    "BID": (2, 1, "d"),
    "TID": (3, 1, "d"),
    "QID": (4, 1, "d"),
    "QOD": (1, 2, "d"),
    "QW": (1, 1, "wk"),
    "BIW": (2, 1, "wk"),
    "TIW": (3, 1, "wk"),
    "QSHIFT": (3, 1, "d"),
}
_EVERY = re.compile(r"Q([0-9]{0,3})([SMHDWL])")
_TIMES_A_DAY = re.compile(r"([0-9]{1,2})ID")
_EVERY_UNITS = {"S": "s", "M": "min", "H": "h", "D": "d", "W": "wk", "L": "mo"}
_TIME = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9])([0-5][0-9])?")
#: Time units of UCUM that FHIR takes, and how v2 writes them (``D10`` and ``10^d`` alike).
_UNITS = {
    "S": "s", "SEC": "s", "M": "min", "MIN": "min", "H": "h", "HR": "h", "D": "d", "DAY": "d", "天": "d", "日": "d",
    "W": "wk", "WK": "wk", "周": "wk", "L": "mo", "MO": "mo", "MON": "mo", "A": "a", "小时": "h", "分钟": "min",
}  # fmt: skip
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "wk": 604800}
_COUNT = re.compile(r"[1-9][0-9]{0,8}")
_OLD_DURATION = re.compile(r"([SMHDWL])([0-9]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When something is to be done, whichever of the two ways it was written in.

    Attributes:
        quantity: how much each time (TQ1-2), a Quantity.
        repeat: ``Timing.repeat`` without its bounds.
        code: ``Timing.code``.
        start, end: dateTimes of the whole.
        duration: how long the whole lasts, a Duration, where it has no end.
        as_needed: the pattern says PRN.
        condition, text: in the orderer's words.
    """

    quantity: Json | None = None
    repeat: Json | None = None
    code: Json | None = None
    start: str = ""
    end: str = ""
    duration: Json | None = None
    as_needed: bool = False
    condition: str = ""
    text: str = ""

    @property
    def repeats(self) -> bool:
        """Whether it says more than one moment or span of time."""
        return bool(self.repeat or self.code)

    def timing(self) -> Json:
        """Return the Timing; empty when nothing is said."""
        repeat: Json = {}
        if self.start or self.end:
            repeat["boundsPeriod"] = {key: value for key, value in (("start", self.start), ("end", self.end)) if value}
        elif self.duration:
            repeat["boundsDuration"] = self.duration
        repeat.update(self.repeat or {})
        return {**({"repeat": repeat} if repeat else {}), **({"code": self.code} if self.code else {})}

    def occurrence(self) -> Json:
        """Return occurrence[x]: a Timing only where something repeats, else the moment or the span.

        v2-to-FHIR has a Timing in every case; a single appointed moment is looked for in ``occurrenceDateTime``.
        """
        if self.repeats:
            return {"occurrenceTiming": self.timing()}
        if self.start and self.end and self.start != self.end:
            return {"occurrencePeriod": {"start": self.start, "end": self.end}}
        return {"occurrenceDateTime": self.start} if self.start else {}


def schedules(segments: list[Segment], assembly: Assembly) -> list[Schedule]:
    """Return what each TQ1 says."""
    return [_from_tq1(segment, assembly) for segment in segments]


def _from_tq1(segment: Segment, assembly: Assembly) -> Schedule:
    place = Place(assembly, segment, 3)
    patterns = [one for one in segment.field(3).repetitions if one.raw and not one.is_null]
    codes = [one.component(1).strip() for one in patterns]
    repeat = _repeat([code for code in codes if code])
    times = [made for one in segment.field(4).repetitions if (made := _time(one.component(1)))]
    times += [made for one in patterns if (made := _time(one.component(4)))]
    if times:
        repeat["timeOfDay"] = times
    occurrence = _duration(segment.field(13).first)
    if occurrence:
        repeat["duration"], repeat["durationUnit"] = occurrence["value"], occurrence["code"]
    repeat.update(_count(segment.get(14)))
    duration = _duration(segment.field(6).first)
    start = convert.moment(segment.field(7), Place(assembly, segment, 7)) or ""
    end = convert.moment(segment.field(8), Place(assembly, segment, 8)) or ""
    if start and not end and duration:
        end = _later(segment.get(7), duration, assembly)
    return Schedule(
        quantity=_quantity(segment.field(2).first, place),
        repeat=repeat,
        code=_code(patterns, place),
        start=start,
        end=end,
        duration=duration,
        as_needed=any(code.upper().startswith("PRN") for code in codes),
        condition=segment.field(10).text().strip(),
        text=segment.field(11).text().strip(),
    )


def from_tq(segment: Segment, number: int, assembly: Assembly) -> list[Schedule]:
    """Return what the TQ of field *number* says (ORC-7, OBR-27 and RXE-1 before v2.5), one for each repetition."""
    place = Place(assembly, segment, number)
    made = []
    for one in segment.field(number).repetitions:
        if not one.raw or one.is_null:
            continue
        code = one.component(2, 1).strip()
        repeat = _repeat([code] if code else [])
        times = [found for part in one.component(2, 2).split(",") if (found := _time(part))]
        if times:
            repeat["timeOfDay"] = times
        repeat.update(_count(one.component(12)))
        number_text, unit = one.component(1, 1).strip(), one.component(1, 2).strip()
        value = datatypes.nm_value(number_text)
        start = convert.moment_text(one.component(4), place) or ""
        end = convert.moment_text(one.component(5), place) or ""
        duration = _old_duration(one.component(3))
        if start and not end and duration:
            end = _later(one.component(4), duration, assembly)
        made.append(
            Schedule(
                quantity={"value": value, **({"unit": unit} if unit else {})} if value is not None else None,
                repeat=repeat,
                code=_concept(code, "", "", place) if code else None,
                start=start,
                end=end,
                duration=duration,
                as_needed=code.upper().startswith("PRN"),
                condition=one.component(7).strip(),
                text=one.component(8).strip(),
            )
        )
    return made


def _repeat(codes: list[str]) -> Json:
    """Return frequency and period of the first pattern that says them."""
    for code in codes:
        name = code.strip().upper()
        found = _FREQUENCIES.get(name)
        every, times = _EVERY.fullmatch(name), _TIMES_A_DAY.fullmatch(name)
        if found is None and every is not None:
            found = (1, int(every[1] or 1), _EVERY_UNITS[every[2]])
        elif found is None and times is not None:
            found = (int(times[1]), 1, "d")
        if found is not None and found[0] > 0 and found[1] > 0:
            return {"frequency": found[0], "period": found[1], "periodUnit": found[2]}
    return {}


def _count(text: str) -> Json:
    match = _COUNT.fullmatch(text.strip())
    return {"count": int(match[0])} if match else {}


def _code(patterns: list[Repetition], place: Place) -> Json | None:
    for one in patterns:
        code, text, system = (one.component(1, part).strip() for part in (1, 2, 3))
        if code:
            # RPT-2 is a code of table 0527; senders that write a CWE have the text there.
            text = text or (one.component(2).strip() if has_han(one.component(2)) else "")
            return _concept(code, text, system, place)
    return None


def _concept(code: str, text: str, system: str, place: Place) -> Json:
    name = code.upper()
    known = name in _FREQUENCIES or _EVERY.fullmatch(name) or _TIMES_A_DAY.fullmatch(name)
    if name in _ABBREVIATIONS:
        coding = {"system": _GTS, "code": name}
    elif known or name.startswith("PRN") or name in {"C", "ONCE"}:
        coding = {"system": _V2_0335, "code": code}
    else:
        coding = {"system": place.ctx.code_system(system), "code": code}
    return {"coding": [coding], "text": text or code}


def _time(text: str) -> str:
    match = _TIME.fullmatch(text.strip())
    return f"{match[1]}:{match[2]}:{match[3] or '00'}" if match else ""


def _quantity(cq: Repetition, place: Place) -> Json | None:
    value = datatypes.nm_value(cq.component(1))
    if value is None:
        if cq.component(1).strip():
            place.warn("The quantity is no number; it was left out.")
        return None
    unit = cq.component(2, 2).strip() or cq.component(2, 1).strip()
    return {"value": value, **({"unit": unit} if unit else {})}


def _duration(cq: Repetition) -> Json | None:
    value = datatypes.nm_value(cq.component(1))
    unit = _UNITS.get(cq.component(2, 1).strip().upper())
    if value is None or unit is None or value <= 0:
        return None
    return {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}


def _old_duration(text: str) -> Json | None:
    match = _OLD_DURATION.fullmatch(text.strip().upper())
    value = datatypes.nm_value(match[2]) if match else None
    if match is None or value is None or value <= 0:
        return None
    unit = _EVERY_UNITS[match[1]]
    return {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}


def _later(start: str, duration: Json, assembly: Assembly) -> str:
    """Return *start* and *duration* as the end; empty where either is too vague to add up."""
    seconds = _SECONDS.get(duration["code"])
    moment = datatypes.dtm_instant(start, assembly.ctx) if len(start.strip()) >= 12 else None
    if seconds is None or moment is None:
        return ""
    try:
        return (moment + timedelta(seconds=float(duration["value"]) * seconds)).isoformat(timespec="seconds")
    except OverflowError:
        return ""
