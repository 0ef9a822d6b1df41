"""How a value of each FHIR datatype becomes index rows, per search parameter type.

https://hl7.org/fhir/R4/search.html#ptypes and its tables of which datatype matches how.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from fhir_mappings.definitions.dates import range_us
from fhir_mappings.definitions.index_rows import (
    DATE_MAX_US,
    DATE_MIN_US,
    DateRow,
    IndexRows,
    NumberRow,
    QuantityRow,
    ReferenceRow,
    StringRow,
    TokenRow,
    UriRow,
)
from fhir_mappings.definitions.search_parameters import SearchParameter
from fhir_mappings.definitions.structures import Element, resource_types, system_of
from fhir_mappings.text import fold, full_pinyin, has_han, pinyin_initials

#: Writes the rows of one value.
Writer = Callable[[Any, IndexRows], None]

_BOOLEAN_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/special-values"
#: String parameters that are searched by pinyin too; addresses and titles are not.
_NAMES: Final = frozenset({"name", "family", "given", "phonetic"})
#: Surnames that are read otherwise than the same character in ordinary words; both readings are indexed.
_SURNAMES: Final = {
    "万俟": "mo qi", "单于": "chan yu", "尉迟": "yu chi", "澹台": "tan tai", "长孙": "zhang sun",
    "曾": "zeng", "单": "shan", "仇": "qiu", "解": "xie", "区": "ou", "查": "zha", "盖": "ge", "翟": "zhai",
    "朴": "piao", "缪": "miao", "冼": "xian", "员": "yun", "覃": "qin", "种": "chong", "秘": "bi", "折": "she",
    "乐": "yue", "尉": "yu", "召": "shao", "繁": "po", "祭": "zhai", "那": "na", "幺": "yao", "逄": "pang",
}  # fmt: skip
_ADDRESS_PARTS: Final = ("text", "city", "district", "state", "postalCode", "country")
_QUANTITIES: Final = frozenset({"Quantity", "Age", "Count", "Distance", "Duration"})
_TEXTS: Final = frozenset({"string", "markdown", "code", "id", "uri"})
_RELATIVE: Final = re.compile(
    r"(?:(?P<base>https?://.*)/)?(?P<type>[A-Z][A-Za-z]+)/(?P<id>[A-Za-z0-9.\-]{1,64})(?:/_history/[A-Za-z0-9.\-]{1,64})?"
)


def writer_for(parameter: SearchParameter, element: Element, resolves_to: str = "") -> Writer | None:
    """Return what writes a value of *element* for *parameter*, or ``None`` where the standard matches nothing.

    *resolves_to* keeps only references to that resource type.
    """
    code, kind = parameter.code, element.type
    match parameter.type:
        case "token":
            return _token(code, element)
        case "string":
            return _string(code, kind)
        case "reference":
            return _reference(code, kind, resolves_to)
        case "date":
            return _date(code, kind)
        case "number":
            return _number(code, kind)
        case "quantity":
            return _quantity(code, kind)
        case "uri":
            return _uri(code, kind)
        case _:
            return None


def boolean_token(param: str, value: bool) -> TokenRow:
    """Return the row of a boolean."""
    return TokenRow(param, _BOOLEAN_SYSTEM, "true" if value else "false", "")


# --- token -----------------------------------------------------------------------------------------------------------


def _coding(param: str, value: Any, rows: IndexRows) -> None:
    display = value.get("display")
    rows.tokens.append(
        TokenRow(param, value.get("system", ""), value.get("code", ""), fold(display) if display else "")
    )


def _concept(param: str, value: Any, rows: IndexRows) -> None:
    for item in value.get("coding", ()):
        _coding(param, item, rows)
    if text := value.get("text"):
        rows.tokens.append(TokenRow(param, "", "", fold(text)))


def _identifier(param: str, value: Any, rows: IndexRows) -> None:
    kind = value.get("type", {})
    number = value.get("value", "")
    rows.tokens.append(TokenRow(param, value.get("system", ""), number, fold(kind.get("text", ""))))
    for item in kind.get("coding", ()):
        if number and item.get("code"):
            rows.tokens.append(TokenRow(f"{param}:of-type", item.get("system", ""), f"{item['code']}|{number}", ""))


def _contact(param: str, value: Any, rows: IndexRows) -> None:
    if number := value.get("value"):
        rows.tokens.append(TokenRow(param, "", number, ""))
        # People type telephone numbers with spaces and dashes of their own.
        if value.get("system") != "email" and (plain := re.sub(r"[\s()-]", "", number)) != number:
            rows.tokens.append(TokenRow(param, "", plain, ""))


def _boolean(param: str, value: Any, rows: IndexRows) -> None:
    rows.tokens.append(boolean_token(param, value))


def _plain(param: str, value: Any, rows: IndexRows) -> None:
    rows.tokens.append(TokenRow(param, "", str(value), ""))


_TOKENS: Final[dict[str, Callable[[str, Any, IndexRows], None]]] = {
    "Coding": _coding,
    "CodeableConcept": _concept,
    "Identifier": _identifier,
    "ContactPoint": _contact,
    "boolean": _boolean,
    **dict.fromkeys(("code", "string", "id", "uri", "url", "canonical", "oid", "uuid"), _plain),
}


def _token(param: str, element: Element) -> Writer | None:
    def code(value: Any, rows: IndexRows) -> None:
        rows.tokens.append(TokenRow(param, system_of(element.value_set, value), value, ""))

    if element.type == "code" and element.value_set:
        return code
    write = _TOKENS.get(element.type)
    return None if write is None else partial(write, param)


# --- string ----------------------------------------------------------------------------------------------------------


def _add_text(param: str, text: str, rows: IndexRows, *, pinyin: bool, surname_first: bool = False) -> None:
    rows.strings.append(StringRow(param, "text", fold(text), text))
    if not pinyin or not has_han(text):
        return
    rows.strings.append(StringRow(param, "pinyin", full_pinyin(text), ""))
    rows.strings.append(StringRow(param, "initials", pinyin_initials(text), ""))
    if surname_first and (surname := _read_as_surname(text)):
        reading, rest = _SURNAMES[surname], text[len(surname) :]
        rows.strings.append(StringRow(param, "pinyin", reading.replace(" ", "") + full_pinyin(rest), ""))
        initials = "".join(syllable[0] for syllable in reading.split())
        rows.strings.append(StringRow(param, "initials", initials + pinyin_initials(rest), ""))


def _read_as_surname(text: str) -> str:
    """Return the surname that *text* starts with when it is read otherwise than in ordinary words, else nothing."""
    return next((text[:length] for length in (2, 1) if text[:length] in _SURNAMES), "")


def _string(param: str, kind: str) -> Writer | None:
    pinyin = param in _NAMES

    def text(value: Any, rows: IndexRows) -> None:
        _add_text(param, value, rows, pinyin=pinyin, surname_first=param == "family")

    def human_name(value: Any, rows: IndexRows) -> None:
        family, given = value.get("family", ""), [part for part in value.get("given", ()) if part]
        whole = [value.get("text", ""), family]
        parts = [*given, *value.get("prefix", ()), *value.get("suffix", ())]
        if family and given:
            # Han names are read family first; others are looked for in both orders.
            whole.append(family + "".join(given))
            if not has_han(family):
                parts.append(" ".join([*given, family]))
        for part in dict.fromkeys(whole):
            if part:
                _add_text(param, part, rows, pinyin=True, surname_first=True)
        for part in dict.fromkeys(parts):
            if part and part not in whole:
                _add_text(param, part, rows, pinyin=True)

    def address(value: Any, rows: IndexRows) -> None:
        for part in dict.fromkeys([*(value.get(name, "") for name in _ADDRESS_PARTS), *value.get("line", ())]):
            if part:
                _add_text(param, part, rows, pinyin=False)

    if kind == "HumanName":
        return human_name
    if kind == "Address":
        return address
    return text if kind in _TEXTS else None


# --- reference -------------------------------------------------------------------------------------------------------


def _reference(param: str, kind: str, resolves_to: str) -> Writer | None:
    def reference(value: Any, rows: IndexRows) -> None:
        target_type, target_id, url = split_reference(value.get("reference", ""))
        target_type = target_type or value.get("type", "")
        identifier = value.get("identifier", {})
        if resolves_to and target_type != resolves_to:
            return
        system, number = identifier.get("system", ""), identifier.get("value", "")
        if target_id or url or number:
            rows.references.append(ReferenceRow(param, target_type, target_id, url, system, number))

    def canonical(value: Any, rows: IndexRows) -> None:
        url, _, version = value.partition("|")
        rows.references.append(ReferenceRow(param, "", "", url, "", ""))
        if version:
            rows.references.append(ReferenceRow(param, "", "", value, "", ""))

    if kind == "Reference":
        return reference
    return canonical if kind in {"canonical", "uri"} else None


def split_reference(text: str) -> tuple[str, str, str]:
    """Return resource type, id and URL of a literal reference; a version is dropped, ``#contained`` gives nothing.

    A relative reference has no URL; an absolute one has, and type and id too when it looks like a RESTful one.
    """
    if not text or text.startswith("#"):
        return "", "", ""
    match = _RELATIVE.fullmatch(text)
    if match is None or match["type"] not in resource_types():
        return "", "", text
    url = f"{match['base']}/{match['type']}/{match['id']}" if match["base"] else ""
    return match["type"], match["id"], url


# --- date ------------------------------------------------------------------------------------------------------------


def _date(param: str, kind: str) -> Writer | None:
    def instant(value: Any, rows: IndexRows) -> None:
        rows.dates.append(DateRow(param, *range_us(value)))

    def period(value: Any, rows: IndexRows) -> None:
        start, end = value.get("start"), value.get("end")
        if start or end:
            low = range_us(start)[0] if start else DATE_MIN_US
            high = range_us(end)[1] if end else DATE_MAX_US
            rows.dates.append(DateRow(param, low, high))

    def timing(value: Any, rows: IndexRows) -> None:
        events = [range_us(event) for event in value.get("event", ()) if event]
        if events:
            rows.dates.append(DateRow(param, min(low for low, _ in events), max(high for _, high in events)))
        if bounds := value.get("repeat", {}).get("boundsPeriod"):
            period(bounds, rows)

    if kind in {"date", "dateTime", "instant"}:
        return instant
    if kind == "Period":
        return period
    return timing if kind == "Timing" else None


# --- number, quantity, uri -------------------------------------------------------------------------------------------


def _number(param: str, kind: str) -> Writer | None:
    def number(value: Any, rows: IndexRows) -> None:
        rows.numbers.append(NumberRow(param, float(value), float(value)))

    def span(value: Any, rows: IndexRows) -> None:
        rows.numbers.append(NumberRow(param, *_span(value)))

    if kind in {"decimal", "integer", "positiveInt", "unsignedInt"}:
        return number
    return span if kind == "Range" else None


def _span(value: Any) -> tuple[float, float]:
    low, high = value.get("low", {}).get("value"), value.get("high", {}).get("value")
    return (-math.inf if low is None else float(low), math.inf if high is None else float(high))


def _quantity(param: str, kind: str) -> Writer | None:
    def quantity(value: Any, rows: IndexRows) -> None:
        if value.get("value") is None:
            return
        low = high = float(value["value"])
        comparator = value.get("comparator", "")
        if comparator.startswith("<"):
            low = -math.inf
        elif comparator.startswith(">"):
            high = math.inf
        rows.quantities.append(
            QuantityRow(param, low, high, value.get("system", ""), value.get("code", ""), value.get("unit", ""))
        )

    def money(value: Any, rows: IndexRows) -> None:
        if value.get("value") is not None:
            amount, currency = float(value["value"]), value.get("currency", "")
            rows.quantities.append(QuantityRow(param, amount, amount, "urn:iso:std:iso:4217", currency, currency))

    def span(value: Any, rows: IndexRows) -> None:
        unit = value.get("low") or value.get("high") or {}
        rows.quantities.append(
            QuantityRow(param, *_span(value), unit.get("system", ""), unit.get("code", ""), unit.get("unit", ""))
        )

    if kind in _QUANTITIES:
        return quantity
    if kind == "Money":
        return money
    return span if kind == "Range" else None


def _uri(param: str, kind: str) -> Writer | None:
    def uri(value: Any, rows: IndexRows) -> None:
        rows.uris.append(UriRow(param, value))

    return uri if kind in {"uri", "url", "canonical", "oid", "uuid"} else None
