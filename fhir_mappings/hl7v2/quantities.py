"""Times and numbers of HL7 v2 as FHIR R4: DTM, DT, TS, NM, SN and the reference range text of OBX-7 (chapter 2A).

Decimals keep every digit the sender wrote (6.90 stays 6.90), and dates keep the precision they came with.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.tokenizer import Repetition

Json = dict[str, Any]

_DTM = re.compile(
    r"(?P<year>[0-9]{4})(?:(?P<month>[0-9]{2})(?:(?P<day>[0-9]{2})(?:(?P<hour>[0-9]{2})(?:(?P<minute>[0-9]{2})"
    r"(?:(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]{1,9}))?)?)?)?)?)?(?P<offset>[+-][0-9]{4})?"
)
#: A date as databases and screens write it, never by the standard; the year stands first, so that its order is certain.
_SEPARATED = re.compile(
    r"(?P<year>[0-9]{4})(?P<mark>[-/])(?P<month>[0-9]{1,2})(?:(?P=mark)(?P<day>[0-9]{1,2})"
    r"(?:(?: +|T)(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2}(?:\.[0-9]{1,9})?))?"
    r" ?(?P<offset>Z|[+-][0-9]{2}:?[0-9]{2})?)?)?"
)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_MAX_DIGITS = 64
#: What stands behind the exponent is a unit of its own kind: ``/L``, ``个/L``, nothing; a letter alone would be a name.
_POWER_OF_TEN = re.compile(r"[xX×*]?\s*10\^[+-]?[0-9]{1,2}(?:\s*[^\s0-9A-Za-z][^^]*)?")
_UCUM = "http://unitsofmeasure.org"


def dtm_date(value: str, ctx: MappingContext | None = None) -> str | None:
    """Return a FHIR date with the precision of *value*; a time after the day is dropped, an impossible day is ``None``.

    Without *ctx* only what the standard allows is a date; with it, also what the sender's dialect reads.
    """
    match = _match(value, ctx)
    if match is None:
        return None
    year, month, day = match["year"], match["month"], match["day"]
    if day is not None:
        return f"{year}-{month}-{day}"
    return f"{year}-{month}" if month is not None else year


def dtm_datetime(value: str, ctx: MappingContext) -> str | None:
    """Return a FHIR dateTime; a time without offset is in the sender's zone, and never leaves without one.

    FHIR has no times of hours alone, so missing minutes and seconds become zero; a date stays a date.
    """
    match = _match(value, ctx)
    if match is None:
        return None
    if match["hour"] is None:
        return dtm_date(value, ctx)
    moment = _moment(match, ctx)
    if moment is None:
        return None
    fraction = f".{match['fraction']}" if match["fraction"] else ""
    whole = moment.replace(microsecond=0).isoformat()
    return f"{whole[:19]}{fraction}{whole[19:]}"


def dtm_instant(value: str, ctx: MappingContext) -> datetime | None:
    """Return the aware moment that *value* names, the start of its day, month or year where it is only partial."""
    match = _match(value, ctx)
    return _moment(match, ctx) if match is not None else None


def as_dtm(value: str, ctx: MappingContext) -> str:
    """Return *value* as a DTM of chapter 2A.22 where the sender's dialect has it with separators; else as it is, trimmed."""
    text = value.strip()
    if ctx.dialect.dates != "separated" or (found := _SEPARATED.fullmatch(text)) is None:
        return text
    parts = [part.rjust(2, "0") for name in ("month", "day", "hour", "minute", "second") if (part := found[name])]
    offset = (found["offset"] or "").replace("Z", "+0000").replace(":", "")
    return f"{found['year']}{''.join(parts)}{offset}"


def is_separated(value: str) -> bool:
    """Return whether *value* is a date or time with dashes or slashes, be there such a day or not."""
    return _SEPARATED.fullmatch(value.strip()) is not None


def _match(value: str, ctx: MappingContext | None) -> re.Match[str] | None:
    match = _DTM.fullmatch(value.strip() if ctx is None else as_dtm(value, ctx))
    if match is None:
        return None
    try:
        date(int(match["year"]), int(match["month"] or 1), int(match["day"] or 1))
    except ValueError:
        return None
    return match


def _moment(match: re.Match[str], ctx: MappingContext) -> datetime | None:
    offset = match["offset"]
    zone: Any = ctx.dialect.zone
    if offset is not None:
        hours, minutes = int(offset[1:3]), int(offset[3:5])
        if hours > 14 or minutes > 59:
            return None
        shift = timedelta(hours=hours, minutes=minutes)
        zone = timezone(-shift if offset[0] == "-" else shift)
    try:
        return datetime(
            int(match["year"]),
            int(match["month"] or 1),
            int(match["day"] or 1),
            int(match["hour"] or 0),
            int(match["minute"] or 0),
            int(match["second"] or 0),
            int((match["fraction"] or "0").ljust(6, "0")[:6]),
            tzinfo=zone,
        )
    except ValueError:
        return None


def nm_value(value: str) -> Decimal | None:
    """Return the number that NM spells with every digit kept, or ``None`` where it is no number."""
    text = value.strip()
    if len(text) > _MAX_DIGITS or _NUMBER.fullmatch(text) is None:
        return None
    return Decimal(text)


def nm_quantity(value: str, unit: Repetition | None, ctx: MappingContext) -> Json | None:
    """Return the Quantity of an NM and its unit (OBX-5, OBX-6), or ``None`` where it is no number."""
    number = nm_value(value)
    return None if number is None else {"value": number, **unit_of(unit, ctx)}


def unit_of(unit: Repetition | None, ctx: MappingContext) -> Json:
    """Return ``unit``, and ``system`` with ``code`` only where the sender says that the code is UCUM.

    A laboratory system that writes ``10^9/L`` and not ``10\\S\\9/L`` (chapter 2.7.1) means the power of ten all the same.
    """
    if unit is None or unit.is_null or not unit.raw:
        return {}
    power = f"{unit.component(1).strip()}^{unit.component(2).strip()}"
    if _POWER_OF_TEN.fullmatch(power) is not None:
        return {"unit": power}
    code, text, system = (unit.component(number).strip() for number in (1, 2, 3))
    made: Json = {"unit": text or code} if text or code else {}
    if code and system and ctx.code_system(system) == _UCUM:
        made.update(system=_UCUM, code=code)
    return made


def sn_value(repetition: Repetition, unit: Repetition | None, ctx: MappingContext) -> tuple[str, Any] | None:
    """Return the element and value of an SN: ``valueQuantity``, ``valueRange``, ``valueRatio`` or ``valueString``.

    SN.1 is the comparator, SN.2 the first number, SN.3 the separator and SN.4 the second number.
    """
    comparator, first, separator, second = (repetition.component(number).strip() for number in range(1, 5))
    low, high = nm_value(first), nm_value(second)
    parts = unit_of(unit, ctx)
    if low is not None and not separator and not second:
        comparator = {"": "", "=": "", "≤": "<=", "≥": ">="}.get(comparator, comparator)
        if comparator in {"", "<", "<=", ">", ">="}:
            return "valueQuantity", {"value": low, **({"comparator": comparator} if comparator else {}), **parts}
    if low is not None and high is not None and not comparator:
        if separator == "-":
            return "valueRange", {"low": {"value": low, **parts}, "high": {"value": high, **parts}}
        if separator in {":", "/"}:
            return "valueRatio", {"numerator": {"value": low, **parts}, "denominator": {"value": high, **parts}}
    text = f"{comparator}{first}{separator}{second}"
    return ("valueString", text) if text else None


_UPPER = frozenset({"<", "<=", "≤", "＜"})
_RANGE = re.compile(
    rf"(?P<low>{_NUMBER.pattern})\s*(?P<to>--|-|~|～|－|—|–|至)\s*(?P<high>{_NUMBER.pattern})"
    rf"|(?P<comparator><=|>=|<|>|≤|≥|＜|＞)\s*(?P<bound>{_NUMBER.pattern})"
)


def reference_range(text: str, unit: Repetition | None, ctx: MappingContext) -> Json | None:
    """Return ``referenceRange`` of an OBX-7: always its text, ``low`` and ``high`` where they can be read for certain.

    A one-sided range (``<5.2``) gives the one bound; FHIR's bounds are inclusive, so only the text says ``<`` or ``<=``.
    """
    written = text.strip()
    if not written or len(written) > 1000:
        return {"text": written} if written else None
    made: Json = {}
    match = _RANGE.fullmatch(written)
    parts = unit_of(unit, ctx)
    if match is not None and match["low"] is not None:
        low, high = nm_value(match["low"]), nm_value(match["high"])
        # "-5--3" may end at 3 or at -3; what is not certain stays text.
        certain = match["to"] != "--" or not match["low"].startswith("-")
        if certain and low is not None and high is not None and low <= high:
            made = {"low": {"value": low, **parts}, "high": {"value": high, **parts}}
    elif match is not None:
        bound = nm_value(match["bound"])
        if bound is not None:
            made = {"high" if match["comparator"] in _UPPER else "low": {"value": bound, **parts}}
    made["text"] = written
    return made
