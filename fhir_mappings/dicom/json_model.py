"""The DICOM JSON Model of scanned elements (PS3.18 annex F), with bulk data left where it is."""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

from fhir_mappings.dicom.charset import TextDecoder
from fhir_mappings.dicom.elements import BINARY_VRS, TEXT_VRS, Element, Elements, implicit_vr

_SPECIFIC_CHARACTER_SET = 0x00080005
_SINGLE_TEXT = frozenset({"LT", "ST", "UT", "UR"})
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[Ee][+-]?[0-9]+)?")
_PN_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_names: dict[int, str] = {}


def text_values(dataset: Elements) -> Iterator[bytes]:
    """Yield every standard text value on every level: the evidence for the character set of the whole data set."""
    waiting = [dataset]
    while waiting:
        for element in waiting.pop():
            value = element.value
            if isinstance(value, list):
                waiting.extend(value)
            elif value and not element.tag >> 16 & 1 and _vr(element, signed=False) in TEXT_VRS:
                yield value


class JsonModel:
    """Writes elements of one object.

    Args:
        decoder: reads the text of the object.
        signed: (0028,0103) Pixel Representation is 1, which decides values that may be US or SS.
    """

    def __init__(self, decoder: TextDecoder, *, little_endian: bool, signed: bool) -> None:
        self._decoder = decoder
        self._little_endian = little_endian
        self._signed = signed
        mark = "<" if little_endian else ">"
        self._numbers: dict[str, tuple[int, Callable[[bytes], Iterator[tuple[Any, ...]]]]] = {
            vr: (Struct(mark + code).size, Struct(mark + code).iter_unpack) for vr, code in _NUMBERS.items()
        }
        self._halves = Struct(mark + "HH").iter_unpack

    def dataset(self, elements: Elements, path: str = "bulk") -> dict[str, Any]:
        """Return the JSON object of *elements*, ordered by tag.

        Group lengths are left out. Bulk gets a ``BulkDataURI`` relative to the instance: ``bulk/<tag>``, and inside
        sequences ``bulk/<tag>/<item, from 1>/<tag>``.
        """
        result: dict[str, Any] = {}
        last = -1
        ordered = True
        for element in elements:
            tag = element.tag
            if not tag & 0xFFFF:
                continue
            ordered = ordered and tag > last
            last = tag
            name = _names.get(tag)
            if name is None:
                name = f"{tag:08X}"
                if len(_names) < 65536:
                    _names[tag] = name
            result[name] = self._element(element, name, path)
        return result if ordered else dict(sorted(result.items()))

    def _element(self, element: Element, name: str, path: str) -> dict[str, Any]:
        value = element.value
        vr = _vr(element, signed=self._signed)
        if value is None:
            return {"vr": vr, "BulkDataURI": f"{path}/{name}"} if element.length else {"vr": vr}
        if not value:
            return {"vr": vr}
        if isinstance(value, list):
            return {
                "vr": "SQ",
                "Value": [self.dataset(item, f"{path}/{name}/{number}") for number, item in enumerate(value, 1)],
            }
        if element.tag == _SPECIFIC_CHARACTER_SET:
            # JSON is UTF-8, so the label says so (PS3.18 section F.2.3).
            return {"vr": "CS", "Value": ["ISO_IR 192"]}
        if vr in BINARY_VRS:
            return {"vr": vr, "InlineBinary": b64encode(self._swapped(value, BINARY_VRS[vr])).decode("ascii")}
        number = self._numbers.get(vr)
        if number is not None:
            width, unpack = number
            values: list[Any] = [_finite(item[0]) for item in unpack(value[: len(value) // width * width])]
        elif vr == "AT":
            values = [f"{group:04X}{item:04X}" for group, item in self._halves(value[: len(value) // 4 * 4])]
        else:
            text = self._decoder.decode(value)
            if vr == "PN":
                values = [_person_name(part) for part in text.split("\\")]
            elif vr in _SINGLE_TEXT:
                values = [text.rstrip(" \0")]
            elif vr == "IS":
                values = [_integer(part.strip(" \0")) for part in text.split("\\")]
            elif vr == "DS":
                values = [_decimal(part.strip(" \0")) for part in text.split("\\")]
            elif "\\" in text:
                values = [part.strip(" \0") or None for part in text.split("\\")]
            else:
                values = [text.strip(" \0")]
            if len(values) == 1 and values[0] in ("", None):
                return {"vr": vr}
        return {"vr": vr, "Value": values}

    def _swapped(self, value: bytes, width: int) -> bytes:
        """Inline binary words are little endian (PS3.18 section F.2.7)."""
        if self._little_endian or width == 1 or len(value) % width:
            return value
        return b"".join(value[start : start + width][::-1] for start in range(0, len(value), width))


def _vr(element: Element, *, signed: bool) -> str:
    vr = element.vr
    if len(vr) == 2:
        if vr == "UN" and not element.tag >> 16 & 1 and isinstance(element.value, bytes):
            # A sender that did not know a standard element wrote it as UN (PS3.5 section 6.2.2); the dictionary knows.
            known = implicit_vr(element.tag)
            return (
                known if known in TEXT_VRS or known in {"CS", "DA", "TM", "DT", "UI", "AE", "AS", "IS", "DS"} else "UN"
            )
        return vr
    if vr == "US or SS":
        return "SS" if signed else "US"
    return "OW"


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity; they are written as strings (PS3.18 table F.2.3-1)."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _integer(text: str) -> Any:
    if not text:
        return None
    return int(text) if len(text) <= 19 and _INTEGER.fullmatch(text) else text


def _decimal(text: str) -> Any:
    if not text:
        return None
    if _DECIMAL.fullmatch(text) is None or len(text) > 32:
        return text
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) <= 19 else text
    return _finite(float(text))


def _person_name(text: str) -> dict[str, str] | None:
    if "=" not in text:
        text = text.strip(" \0")
        return {"Alphabetic": text} if text else None
    groups = (group.strip(" \0") for group in text.split("="))
    return {name: group for name, group in zip(_PN_GROUPS, groups, strict=False) if group} or None
