"""FHIR's primitive types as JSON spells them (https://hl7.org/fhir/R4/datatypes.html#primitive).

Every test is linear in its input. A test answers with what is wrong, in words that do not repeat the value, or ``None``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from fhir_mappings.definitions.dates import range_us
from fhir_mappings.errors import MalformedError

#: Tells what is wrong with a value, or ``None``.
Test = Callable[[Any], str | None]

#: FHIR: "Strings SHALL NOT exceed 1MB (1024*1024 characters) in size".
MAX_STRING_CHARS: Final = 1_048_576
#: A decimal with more digits or a larger exponent cannot be ordered by any store; no measurement has them.
MAX_DECIMAL_DIGITS: Final = 64
MAX_DECIMAL_EXPONENT: Final = 300

_YEAR = r"([1-9]\d{3}|0[1-9]\d\d|00[1-9]\d|000[1-9])"
_DAY = r"(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
_TIME = r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d{1,12})?"
_ZONE = r"(Z|[+-]((0\d|1[0-3]):[0-5]\d|14:00))"
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_SPACE: Final = re.compile(r"\s+")
# What a narrative may never hold: anything active, anything fetched by itself, anything an XML parser would expand.
_ACTIVE: Final = re.compile(
    r"<\s*/?\s*(script|iframe|frame|object|embed|applet|form|input|button|link|base|meta|head|body|html|svg|math|style)\b"
    r"|<!DOCTYPE|<!ENTITY|<\?|\bon\w{1,32}\s*=|javascript\s*:|vbscript\s*:|data\s*:\s*text/html",
    re.IGNORECASE,
)


def _pattern(expression: str, wording: str) -> Test:
    match = re.compile(expression, re.ASCII).fullmatch

    def test(value: Any) -> str | None:
        return None if type(value) is str and match(value) else wording

    return test


def _calendar(expression: str, wording: str) -> Test:
    match = re.compile(expression, re.ASCII).fullmatch

    def test(value: Any) -> str | None:
        if type(value) is not str or not match(value):
            return wording
        try:
            range_us(value)
        except MalformedError:
            return "This day is not in the calendar."
        return None

    return test


def _string(value: Any) -> str | None:
    if type(value) is not str:
        return "Expected a string."
    if not value:
        return "A string may not be empty; leave the element out."
    if len(value) > MAX_STRING_CHARS:
        return "The string is longer than the 1,048,576 characters FHIR allows."
    if not value.isprintable() and _CONTROL.search(value):
        return "The string has control characters."
    return None


def _xhtml(value: Any) -> str | None:
    if (wrong := _string(value)) is not None:
        return wrong
    text = value.strip()
    if not text.startswith("<div") or not text.endswith(("</div>", "/>")):
        return "A narrative is one XHTML div."
    if _ACTIVE.search(text):
        return "The narrative has active or external content, which FHIR forbids."
    return None


def _base64(value: Any) -> str | None:
    if type(value) is not str or not value:
        return "Expected base64 text."
    plain = value if value.isalnum() else _SPACE.sub("", value)
    return None if len(plain) % 4 == 0 and _BASE64.fullmatch(plain) else "The text is not base64."


def _boolean(value: Any) -> str | None:
    return None if type(value) is bool else "Expected true or false."


def _integer(least: int) -> Test:
    wording = f"Expected a whole number of {least} or more, up to 2147483647."

    def test(value: Any) -> str | None:
        return None if type(value) is int and least <= value <= 2_147_483_647 else wording

    return test


def _decimal(value: Any) -> str | None:
    if type(value) is int:
        return None if len(str(abs(value))) <= MAX_DECIMAL_DIGITS else "The number has too many digits."
    if type(value) is not Decimal:
        return "Expected a number; a binary float cannot keep its precision."
    if not value.is_finite():
        return "Expected a finite number."
    if len(value.as_tuple().digits) > MAX_DECIMAL_DIGITS or abs(value.adjusted()) > MAX_DECIMAL_EXPONENT:
        return "The number has too many digits or too large an exponent."
    return None


_URI: Final = _pattern(r"[^\s\x00-\x1f]{1,4096}", "Expected a URI: no spaces, not empty, at most 4096 characters.")

TESTS: Final[dict[str, Test]] = {
    "base64Binary": _base64,
    "boolean": _boolean,
    "canonical": _URI,
    "code": _pattern(r"[^\s]+( [^\s]+)*", "Expected a code: no spaces around it, single spaces inside."),
    "date": _calendar(rf"{_YEAR}(-({_DAY}|(0[1-9]|1[0-2])))?", "Expected a date: YYYY, YYYY-MM or YYYY-MM-DD."),
    "dateTime": _calendar(
        rf"{_YEAR}(-(0[1-9]|1[0-2])|-{_DAY}(T{_TIME}{_ZONE})?)?",
        "Expected YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss with a zone (Z or +08:00).",
    ),
    "decimal": _decimal,
    "id": _pattern(r"[A-Za-z0-9\-.]{1,64}", "Expected an id: 1 to 64 of A-Z, a-z, 0-9, - and '.'."),
    "instant": _calendar(rf"{_YEAR}-{_DAY}T{_TIME}{_ZONE}", "Expected YYYY-MM-DDThh:mm:ss with a zone (Z or +08:00)."),
    "integer": _integer(-2_147_483_648),
    "markdown": _string,
    "oid": _pattern(r"urn:oid:[0-2](\.(0|[1-9]\d*))+", "Expected urn:oid: and an OID."),
    "positiveInt": _integer(1),
    "string": _string,
    "time": _pattern(_TIME, "Expected a time: hh:mm:ss."),
    "unsignedInt": _integer(0),
    "uri": _URI,
    "url": _URI,
    "uuid": _pattern(
        r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "Expected urn:uuid: and a lower-case UUID.",
    ),
    "xhtml": _xhtml,
}
