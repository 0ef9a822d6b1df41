"""Attribute matching of DICOM queries (PS3.4 C.2.2.2): keys in, typed matches out.

QIDO-RS (PS3.18 8.3.4) and C-FIND ask with the same rules; the stores translate the matches to SQL. A key is named by
its DICOM keyword.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fhir_mappings.text import fold, full_pinyin, has_han, pinyin_initials
from hub.errors import Category, HubError

Level = Literal["study", "series", "instance"]

#: Keys that can be matched, by level, with their value representation (PS3.18 table 10.6.1-5 and what modalities send).
STUDY_KEYS: Mapping[str, str] = {
    "StudyDate": "DA",
    "StudyTime": "TM",
    "AccessionNumber": "SH",
    "ModalitiesInStudy": "CS",
    "SOPClassesInStudy": "UI",
    "ReferringPhysicianName": "PN",
    "PatientName": "PN",
    "PatientID": "LO",
    "IssuerOfPatientID": "LO",
    "PatientBirthDate": "DA",
    "PatientSex": "CS",
    "StudyInstanceUID": "UI",
    "StudyID": "SH",
    "StudyDescription": "LO",
}
SERIES_KEYS: Mapping[str, str] = {
    "Modality": "CS",
    "SeriesInstanceUID": "UI",
    "SeriesNumber": "IS",
    "SeriesDescription": "LO",
    "SeriesDate": "DA",
    "SeriesTime": "TM",
    "BodyPartExamined": "CS",
    "PerformedProcedureStepStartDate": "DA",
    "PerformedProcedureStepStartTime": "TM",
}
INSTANCE_KEYS: Mapping[str, str] = {"SOPClassUID": "UI", "SOPInstanceUID": "UI", "InstanceNumber": "IS"}

#: Values of one list key; longer lists are refused (our own limit, so that one request stays one bounded statement).
MAX_VALUES = 1000

_DATE = re.compile(r"[0-9]{8}")
_TIME = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9](([0-5][0-9]|60)(\.[0-9]{1,6})?)?)?")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_NAME_DELIMITERS = re.compile(r"[\^=\\\s]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One key of a query.

    Attributes:
        kind: ``any`` (equal to one of ``values``), ``wildcard`` (one of ``values``, of which one or more have ``*`` or
            ``?``), ``range`` (``values`` = low and high, either may be empty) or ``fuzzy`` (each of ``values`` starts a part of a name).
    """

    keyword: str
    vr: str
    kind: Literal["any", "wildcard", "range", "fuzzy"]
    values: tuple[str, ...]


def keys_of(level: Level) -> Mapping[str, str]:
    """Return the keys that a query on *level* may use: its own and those of the levels above."""
    if level == "study":
        return STUDY_KEYS
    if level == "series":
        return {**STUDY_KEYS, **SERIES_KEYS}
    return {**STUDY_KEYS, **SERIES_KEYS, **INSTANCE_KEYS}


def parse(keyword: str, value: str, *, level: Level, fuzzy: bool = False) -> Match | None:
    """Return the match that *value* asks of *keyword*, or ``None`` for universal matching (PS3.4 C.2.2.2.3).

    Raises:
        HubError: incorrect when the key cannot be matched on *level* or the value is malformed.
    """
    vr = keys_of(level).get(keyword)
    if vr is None:
        raise HubError(
            Category.INCORRECT,
            f"{keyword} cannot be matched on the {level} level.",
            where=keyword,
            remedy=f"Match by {', '.join(sorted(keys_of(level)))}; other attributes can be asked for by includefield.",
        )
    return parse_as(keyword, vr, value, fuzzy=fuzzy)


def parse_as(keyword: str, vr: str, value: str, *, fuzzy: bool = False) -> Match | None:
    """Return the match that *value* asks of an attribute of *vr*, called *keyword* in answers; see :func:`parse`."""
    text = value.strip()
    if not text or set(text) == {"*"}:
        return None
    if vr in {"DA", "TM"}:
        return _range(keyword, vr, text)
    if vr == "PN":
        words = tuple(part for part in (fold(word) for word in _NAME_DELIMITERS.split(text)) if part)
        if not words:
            return None
        if fuzzy and "*" not in text and "?" not in text:
            return Match(keyword=keyword, vr=vr, kind="fuzzy", values=words)
    if vr == "UI":
        return _uids(keyword, text)
    values = _split(text, r"[\\,]" if vr == "CS" else r"\\")
    if any(set(one) == {"*"} for one in values):
        # One value of the list that everything matches makes the list match everything.
        return None
    if any(map(starred, values)):
        return Match(keyword=keyword, vr=vr, kind="wildcard", values=values)
    return Match(keyword=keyword, vr=vr, kind="any", values=values)


def _split(text: str, separators: str) -> tuple[str, ...]:
    values = tuple(dict.fromkeys(part.strip() for part in re.split(separators, text) if part.strip()))
    if len(values) > MAX_VALUES:
        raise HubError(
            Category.INCORRECT, f"A key has {len(values)} values, the limit is {MAX_VALUES}.", remedy="Ask in parts."
        )
    return values


def _uids(keyword: str, text: str) -> Match:
    # PS3.18 8.3.4.1 separates UIDs by commas, viewers that think in DIMSE by backslashes.
    values = _split(text, r"[\\,]")
    wrong = [value for value in values if len(value) > 64 or _UID.fullmatch(value) is None]
    if wrong:
        raise HubError(Category.INCORRECT, "A value is not a UID.", where=keyword, remedy="Send digits and dots.")
    return Match(keyword=keyword, vr="UI", kind="any", values=values)


def _range(keyword: str, vr: str, text: str) -> Match:
    low, dash, high = text.partition("-")
    low, high = _moment(low.strip(), vr), _moment(high.strip(), vr)
    if not dash:
        high = low
    form = _DATE if vr == "DA" else _TIME
    if not (low or high) or any(part and form.fullmatch(part) is None for part in (low, high)):
        raise HubError(
            Category.INCORRECT,
            f"The value of {keyword} is neither a {'date' if vr == 'DA' else 'time'} nor a range.",
            where=keyword,
            remedy="Write 20250611, 20250601-20250630, 20250601- or -20250630."
            if vr == "DA"
            else "Write 0830, 080000-120000, 0800- or -1200.",
        )
    return Match(keyword=keyword, vr=vr, kind="range", values=(low, high))


def _moment(text: str, vr: str) -> str:
    # ACR-NEMA wrote 2025.06.11 and 08:30:00, and so do some programs still.
    return text.replace("." if vr == "DA" else ":", "")


#: Dates and times that are matched as one moment when both are asked for (PS3.4 C.2.2.2.5).
_COMBINED = (
    ("StudyDate", "StudyTime"),
    ("SeriesDate", "SeriesTime"),
    ("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime"),
)


def combined(keys: Sequence[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Return lists of (keyword, value) of which the first, or the second, ... is to match, newest moments first.

    A date range beside a time range means one span from moment to moment, not these hours of each day (PS3.18
    8.3.4.1.1). Such a span is the end of its first day, the whole days after it, and the beginning of its last: no row
    is in two of them, so their answers can be put one behind the other.
    """
    found = [list(keys)]
    for date, time in _COMBINED:
        given = dict(keys)
        if date in given and time in given:
            spans = _spans(given[date].strip(), given[time].strip())
            found = [
                [(name, span.get(name, value)) for name, value in one if span.get(name, value)]
                for one in found
                for span in ({date: day, time: hours} for day, hours in spans)
            ]
    return found


def _spans(dates: str, times: str) -> list[tuple[str, str]]:
    """Return (date range, time range) of the parts of the span; an empty one asks for nothing."""
    if "-" not in dates or "-" not in times:
        return [(dates, times)]
    (first, last), (start, end) = (
        [_moment(part.strip(), vr) for part in text.split("-", 1)] for text, vr in ((dates, "DA"), (times, "TM"))
    )
    wrong = any(day and _DATE.fullmatch(day) is None for day in (first, last))
    wrong = wrong or any(hour and _TIME.fullmatch(hour) is None for hour in (start, end))
    backwards = bool(first and last and first > last)
    if wrong or backwards or first == last or not (start or end):
        # Left as it is, so that whoever parses it says what is wrong, and a range that runs backwards holds nothing.
        return [(dates, times)]
    spans: list[tuple[str, str]] = []
    low, high = first, last
    if last and end:
        spans.append((last, f"-{end}"))
        # The day before need not be in the calendar: dates are compared as text, and none lies between.
        high = f"{int(last) - 1:08d}"
    if first and start:
        low = f"{int(first) + 1:08d}"
    if not (low and high and low > high):
        spans.append((f"{low}-{high}" if low or high else "", ""))
    if first and start:
        spans.append((first, f"{start}-"))
    return spans


def fits(match: Match, values: Iterable[str]) -> bool:
    """Return whether one of *values*, as they stand in the attribute, is what *match* asks; stores do this in SQL."""
    return any(_fits(match, value.strip()) for value in values)


def _fits(match: Match, value: str) -> bool:
    if match.kind == "range":
        low, high = match.values
        if match.vr == "TM":
            value, low = value[:6].ljust(6, "0") if value else "", low[:6]
            return bool(value) and (not low or value >= low) and (not high or value[: len(high[:6])] <= high[:6])
        return bool(value) and (not low or value >= low) and (not high or value <= high)
    if match.vr == "PN":
        value = value.lower()
    if match.kind == "fuzzy":
        ways = name_search(value, "").replace("~", "")
        return all(f" {word}" in ways for word in match.values)
    if match.kind == "wildcard":
        return any(_alike(one, value) for one in match.values if starred(one)) or value in _plain(match)
    return value in _plain(match)


def starred(value: str) -> bool:
    """Return whether *value* has a wildcard character (PS3.4 section C.2.2.2.4)."""
    return "*" in value or "?" in value


def _alike(pattern: str, value: str) -> bool:
    expression = "".join(".*" if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)
    return re.fullmatch(expression, value, re.IGNORECASE | re.DOTALL) is not None


def _plain(match: Match) -> tuple[str, ...]:
    return tuple(one.lower() for one in match.values) if match.vr == "PN" else match.values


def name_search(name: str, alphabetic: str) -> str:
    """Return the ways to find a patient's name, each between blanks: folded groups, full pinyin, ``~`` and initials.

    >>> name_search("郑伟", "ZHENG^WEI")
    ' 郑伟 zhengwei zheng wei ~zw '
    """
    ways: list[str] = []
    for group in (name, alphabetic):
        parts = [fold(part) for part in _NAME_DELIMITERS.split(group) if part]
        ways.append("".join(parts))
        if len(parts) > 1:
            ways += parts
    whole = "".join(part for part in _NAME_DELIMITERS.split(name) if part)
    if has_han(whole):
        ways += [full_pinyin(whole), f"~{pinyin_initials(whole)}"]
    found = [way for way in dict.fromkeys(ways) if way]
    return f" {' '.join(found)} " if found else ""
