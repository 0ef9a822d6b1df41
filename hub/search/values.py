"""The values of one search parameter: text from a URL in, a typed filter out (https://hl7.org/fhir/R4/search.html#ptypes)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, cast

from fhir_mappings.definitions.dates import range_us
from fhir_mappings.definitions.row_writers import split_reference
from fhir_mappings.definitions.search_parameters import SearchParameter
from fhir_mappings.definitions.structures import resource_types
from fhir_mappings.errors import MalformedError
from fhir_mappings.text import fold
from hub.errors import Category, HubError
from hub.search.ast import (
    Date,
    DateValue,
    Ids,
    Missing,
    Number,
    NumberValue,
    ParameterKind,
    PlainFilter,
    Prefix,
    Quantity,
    QuantityValue,
    Reference,
    ReferenceValue,
    String,
    StringValue,
    Token,
    TokenValue,
    Uri,
)

#: Modifiers by parameter type, beside ``missing`` and the resource types a reference may be narrowed to.
MODIFIERS: Final[dict[str, tuple[str, ...]]] = {
    "token": ("not", "text", "of-type"),
    "string": ("exact", "contains"),
    "reference": ("identifier",),
    "uri": ("below", "above"),
    "date": (),
    "number": (),
    "quantity": (),
}
#: Alternatives joined by commas in one parameter.
MAX_VALUES: Final = 100
#: Characters of one parameter's value.
MAX_VALUE_CHARS: Final = 8_192

_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}", re.ASCII)
_PREFIXED: Final = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.*)", re.DOTALL)
_NUMBER: Final = re.compile(r"[+-]?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,3})?", re.ASCII)
_ESCAPED: Final = re.compile(r"\\([\\,|$])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What reading a value needs to know besides the text.

    Attributes:
        base_urls: the hub's own FHIR bases; absolute references below them are read as relative.
        now: the instant ``ap`` dates are measured from.
    """

    base_urls: tuple[str, ...] = ()
    now: datetime


def incorrect(message: str, name: str, remedy: str = "") -> HubError:
    """Return the error of a search that breaks a rule; *name* is shown only when it looks like a parameter name."""
    return HubError(
        Category.INCORRECT, message, where=f"search parameter {printable(name)}", remedy=remedy, issue_code="invalid"
    )


def unsupported(message: str, name: str, remedy: str = "") -> HubError:
    """Return the error of a search that asks for what the hub does not do; HTTP 400 as FHIR wants it."""
    return HubError(
        Category.UNSUPPORTED,
        message,
        where=f"search parameter {printable(name)}",
        remedy=remedy,
        issue_code="not-supported",
        status=400,
    )


def printable(name: str) -> str:
    """Return *name* when it is made like a parameter name, else a description: anything may stand in a URL."""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.:\-]{0,79}", name) else "(a name that is none)"


def split(text: str, separator: str) -> list[str]:
    r"""Return the parts of *text* between separators that no backslash escapes; the escapes stay."""
    parts = [""]
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\" and position + 1 < len(text):
            parts[-1] += text[position : position + 2]
            position += 2
            continue
        if character == separator:
            parts.append("")
        else:
            parts[-1] += character
        position += 1
    return parts


def unescape(text: str) -> str:
    r"""Return *text* with ``\,`` ``\|`` ``\$`` and ``\\`` read."""
    return _ESCAPED.sub(r"\1", text)


def escape(text: str) -> str:
    """Return *text* as one value of a search parameter (https://hl7.org/fhir/R4/search.html#escaping)."""
    return "".join(f"\\{char}" if char in "\\|,$" else char for char in text)


def read(parameter: SearchParameter, modifier: str, text: str, context: Context) -> PlainFilter:
    """Return the filter of one parameter.

    Raises:
        HubError: incorrect (a value that is none) or unsupported (a modifier).
    """
    if len(text) > MAX_VALUE_CHARS:
        raise incorrect(f"The value is longer than {MAX_VALUE_CHARS} characters.", parameter.code)
    if modifier == "missing":
        return _missing(parameter, text)
    if modifier and not _allowed(parameter, modifier):
        known = ["missing", *MODIFIERS[parameter.type]]
        raise unsupported(
            f"The modifier :{printable(modifier)} is not supported for a {parameter.type} parameter.",
            parameter.code,
            f"Supported: {', '.join(known)}.",
        )
    parts = split(text, ",")
    if len(parts) > MAX_VALUES:
        raise incorrect(f"More than {MAX_VALUES} alternatives.", parameter.code, "Ask in several searches.")
    if any(not part.strip() for part in parts):
        raise incorrect("A value is empty.", parameter.code, "Leave the parameter out, or use :missing.")
    if parameter.code == "_id":
        return _ids(parts)
    return _READERS[parameter.type](parameter, modifier, parts, context)


def _allowed(parameter: SearchParameter, modifier: str) -> bool:
    if parameter.code in {"_id", "_lastUpdated"}:
        return False
    if parameter.type == "reference" and modifier in resource_types():
        return not parameter.targets or modifier in parameter.targets
    return modifier in MODIFIERS[parameter.type]


def _missing(parameter: SearchParameter, text: str) -> Missing:
    if parameter.code in {"_id", "_lastUpdated"}:
        raise incorrect("Every stored resource has this.", f"{parameter.code}:missing")
    if text not in {"true", "false"}:
        raise incorrect("Expected true or false.", f"{parameter.code}:missing")
    return Missing(param=parameter.rows, kind=cast("ParameterKind", parameter.type), missing=text == "true")


def _ids(parts: Sequence[str]) -> Ids:
    for part in parts:
        if not _ID.fullmatch(part):
            raise incorrect("Expected an id: 1 to 64 of A-Z, a-z, 0-9, - and '.'.", "_id")
    return Ids(values=tuple(dict.fromkeys(parts)))


def _token_value(part: str, name: str) -> TokenValue:
    pieces = [unescape(piece) for piece in split(part, "|")]
    if len(pieces) == 1:
        return TokenValue(system=None, code=pieces[0])
    if len(pieces) > 2 or pieces == ["", ""]:
        raise incorrect("Expected code, system|code, |code or system|.", name, r"Write a bar inside a value as \|.")
    return TokenValue(system=pieces[0], code=pieces[1] or None)


def _token(parameter: SearchParameter, modifier: str, parts: Sequence[str], context: Context) -> Token:
    del context
    values: list[TokenValue] = []
    for part in parts:
        if modifier == "text":
            values.append(TokenValue(system=None, code=_folded(part, parameter.code)))
        elif modifier == "of-type":
            pieces = [unescape(piece) for piece in split(part, "|")]
            if len(pieces) != 3 or not all(pieces):
                raise incorrect("Expected type system|type code|value.", f"{parameter.code}:of-type")
            values.append(TokenValue(system=pieces[0], code=f"{pieces[1]}|{pieces[2]}"))
        else:
            values.append(_token_value(part, parameter.code))
    match modifier:
        case "not":
            return Token(param=parameter.rows, modifier="not", values=tuple(values))
        case "text":
            return Token(param=parameter.rows, modifier="text", values=tuple(values))
        case "of-type":
            return Token(param=parameter.rows, modifier="of-type", values=tuple(values))
        case _:
            return Token(param=parameter.rows, values=tuple(values))


def _folded(part: str, name: str) -> str:
    folded = fold(unescape(part))
    if not folded:
        raise incorrect("The value has no letter or digit to look for.", name)
    return folded


def _string(parameter: SearchParameter, modifier: str, parts: Sequence[str], context: Context) -> String:
    del context
    values = tuple(StringValue(folded=_folded(part, parameter.code), exact=unescape(part)) for part in parts)
    match modifier:
        case "exact":
            return String(param=parameter.rows, modifier="exact", values=values)
        case "contains":
            return String(param=parameter.rows, modifier="contains", values=values)
        case _:
            return String(param=parameter.rows, values=values)


def _reference(parameter: SearchParameter, modifier: str, parts: Sequence[str], context: Context) -> Reference:
    targets = parameter.targets
    if modifier == "identifier":
        found = [ReferenceValue(identifier=_token_value(part, parameter.code)) for part in parts]
        return Reference(param=parameter.rows, target_types=targets, values=tuple(found))
    if modifier:
        targets = (modifier,)
    values = tuple(_reference_value(unescape(part), targets, parameter.code, context) for part in parts)
    return Reference(param=parameter.rows, target_types=targets, values=values)


def _reference_value(text: str, targets: tuple[str, ...], name: str, context: Context) -> ReferenceValue:
    if _ID.fullmatch(text):
        return ReferenceValue(target_type=targets[0] if len(targets) == 1 else None, target_id=text)
    target_type, target_id, url = split_reference(text)
    if url:
        for base in context.base_urls:
            if target_id and url == f"{base.rstrip('/')}/{target_type}/{target_id}":
                break
        else:
            if ":" not in url:
                raise incorrect("Expected an id, Type/id or an absolute URL.", name)
            return ReferenceValue(url=url)
    if not target_id:
        raise incorrect("Expected an id, Type/id or an absolute URL.", name)
    if targets and target_type not in targets:
        raise incorrect(f"It refers to {' or '.join(targets)} only.", name)
    return ReferenceValue(target_type=target_type, target_id=target_id)


def _prefix(part: str) -> tuple[Prefix, str]:
    match = _PREFIXED.fullmatch(part)
    assert match is not None
    return cast("Prefix", match[1] or "eq"), match[2]


def _date(parameter: SearchParameter, modifier: str, parts: Sequence[str], context: Context) -> Date:
    del modifier
    values: list[DateValue] = []
    for part in parts:
        prefix, text = _prefix(part)
        try:
            # A plus sign that the client did not encode arrives as a space.
            low, high = range_us(text.replace(" ", "+"))
        except MalformedError as error:
            raise incorrect(error.message, parameter.code, error.remedy) from error
        if prefix == "ap":
            margin = (
                abs(round((context.now - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000) - low) // 10
            )
            low, high = low - margin, high + margin
        values.append(DateValue(prefix=prefix, low_us=low, high_us=high))
    return Date(param=parameter.rows, values=tuple(values))


def _number_value(part: str, name: str) -> NumberValue:
    prefix, text = _prefix(part)
    if not _NUMBER.fullmatch(text):
        raise incorrect("Expected a number, perhaps with a prefix such as ge.", name)
    value = Decimal(text)
    exponent = cast("int", value.as_tuple().exponent)
    if abs(value.adjusted()) > 300:
        raise incorrect("The number is out of range.", name)
    # The digits that are written say how exact the number is meant: 5.4 is anything from 5.35 up to 5.45.
    margin = Decimal(5).scaleb(exponent - 1)
    if prefix == "ap":
        margin = max(margin, abs(value) / 10)
    return NumberValue(prefix=prefix, value=float(value), low=float(value - margin), high=float(value + margin))


def _number(parameter: SearchParameter, modifier: str, parts: Sequence[str], context: Context) -> Number:
    del modifier, context
    return Number(param=parameter.rows, values=tuple(_number_value(part, parameter.code) for part in parts))


def _quantity(parameter: SearchParameter, modifier: str, parts: Sequence[str], context: Context) -> Quantity:
    del modifier, context
    values: list[QuantityValue] = []
    for part in parts:
        pieces = [unescape(piece) for piece in split(part, "|")]
        if len(pieces) not in {1, 3}:
            raise incorrect("Expected number, number|system|code or number||unit.", parameter.code)
        number = _number_value(pieces[0], parameter.code)
        system, code = (pieces[1] or None, pieces[2] or None) if len(pieces) == 3 else (None, None)
        values.append(
            QuantityValue(
                prefix=number.prefix, value=number.value, low=number.low, high=number.high, system=system, code=code
            )
        )
    return Quantity(param=parameter.rows, values=tuple(values))


def _uri(parameter: SearchParameter, modifier: str, parts: Sequence[str], context: Context) -> Uri:
    del context
    values = tuple(unescape(part) for part in parts)
    match modifier:
        case "below":
            return Uri(param=parameter.rows, modifier="below", values=values)
        case "above":
            return Uri(param=parameter.rows, modifier="above", values=values)
        case _:
            return Uri(param=parameter.rows, values=values)


_READERS: Final[dict[str, Callable[[SearchParameter, str, Sequence[str], Context], PlainFilter]]] = {
    "token": _token,
    "string": _string,
    "reference": _reference,
    "date": _date,
    "number": _number,
    "quantity": _quantity,
    "uri": _uri,
}
