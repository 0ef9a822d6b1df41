"""The DICOM JSON Model of scanned elements (PS3.18 annex F), with bulk data left where it is."""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Iterator
from functools import lru_cache
from struct import Struct
from typing import Any

from fhir_mappings.dicom.charset import plain_ascii, read_text
from fhir_mappings.dicom.elements import BINARY_VRS, TEXT_VRS, Elements, Value, implicit_vr
from fhir_mappings.json import dumps

_SPECIFIC_CHARACTER_SET = 0x00080005
#: JSON is UTF-8, so the label says so (PS3.18 section F.2.3).
UTF8_LABEL = b'"00080005":{"vr":"CS","Value":["ISO_IR 192"]}'
_SINGLE_TEXT = frozenset({"LT", "ST", "UT", "UR"})
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_LITTLE, _BIG = (
    {vr: (Struct(mark + code).size, Struct(mark + code).iter_unpack) for vr, code in (*_NUMBERS.items(), ("AT", "HH"))}
    for mark in ("<", ">")
)
#: VRs that the dictionary may lend a standard element written as UN.
_LENT_VRS = TEXT_VRS | {"CS", "DA", "TM", "DT", "UI", "AE", "AS", "IS", "DS"}
_INTEGER = re.compile(r"[+-]?[0-9]+")
#: A group takes part as soon as the number is more than an integer.
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(\.[0-9]*)?|(\.[0-9]+))([Ee][+-]?[0-9]+)?")
_PN_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
#: Values up to this length are worth remembering; a UID has 64 bytes at most.
_REMEMBERED_BYTES = 64


def text_values(dataset: Elements) -> Iterator[bytes]:
    """Yield every standard text value on every level: the evidence for the character set of the whole data set."""
    waiting = [dataset]
    while waiting:
        for tag, vr, value, _, _, _ in waiting.pop():
            if vr == "SQ" and isinstance(value, list):
                waiting.extend(value)
            elif (
                (vr in TEXT_VRS or vr == "UN")
                and value
                and not tag >> 16 & 1
                and isinstance(value, bytes)
                and _vr(tag, vr, value, signed=False) in TEXT_VRS
            ):
                yield value


class JsonModel:
    """Writes elements of one object.

    Args:
        codec: reads the text of the object, with *initial*, as in :class:`fhir_mappings.dicom.charset.TextDecoder`.
        signed: (0028,0103) Pixel Representation is 1, which decides values that may be US or SS.
    """

    def __init__(self, codec: str, initial: str, *, little_endian: bool, signed: bool) -> None:
        self._codec = codec
        self._initial = initial
        self._little_endian = little_endian
        self._signed = signed
        self._numbers = _LITTLE if little_endian else _BIG

    def members(self, elements: Elements, path: str = "bulk") -> list[bytes]:
        """Return the members of the JSON object of *elements*, ordered by tag.

        Group lengths are left out. Bulk gets a ``BulkDataURI`` relative to the instance: ``bulk/<tag>``, and inside
        sequences ``bulk/<tag>/<item, from 1>/<tag>``.
        """
        result: list[bytes] = []
        last = -1
        ordered = True
        codec, initial, signed, little_endian = self._codec, self._initial, self._signed, self._little_endian
        for tag, vr, value, _, length, _ in elements:
            if not tag & 0xFFFF:
                continue
            if tag < last:
                ordered = False
            last = tag
            if little_endian and isinstance(value, bytes) and len(value) <= _REMEMBERED_BYTES:
                result.append(_plain_member(tag, vr, value) or _member(codec, initial, signed, tag, vr, value))
            else:
                result.append(self.member(tag, vr, value, length, path))
        if not ordered:
            # Every member begins with its tag in eight digits, and no tag occurs twice.
            result.sort()
        return result

    def member(self, tag: int, vr: str, value: Value, length: int, path: str) -> bytes:
        """Return one element as a member of a JSON object, ``"00100020":{"vr":"LO","Value":["10086"]}``."""
        name = f"{tag:08X}"
        if isinstance(value, list) and value:
            items = [
                b"{" + b",".join(self.members(item, f"{path}/{name}/{number}")) + b"}"
                for number, item in enumerate(value, 1)
            ]
            return f'"{name}":{{"vr":"SQ","Value":['.encode() + b",".join(items) + b"]}"
        vr = _vr(tag, vr, value, signed=self._signed)
        content: dict[str, Any] = {"vr": vr}
        if value is None:
            if length:
                content["BulkDataURI"] = f"{path}/{name}"
        elif isinstance(value, bytes) and value:
            if tag == _SPECIFIC_CHARACTER_SET:
                return UTF8_LABEL
            if vr in BINARY_VRS:
                content["InlineBinary"] = b64encode(self._swapped(value, BINARY_VRS[vr])).decode("ascii")
            else:
                values = self._values(vr, value)
                if len(values) != 1 or values[0] not in ("", None):
                    content["Value"] = values
        return dumps({name: content})[1:-1]

    def _values(self, vr: str, value: bytes) -> list[Any]:
        number = self._numbers.get(vr)
        if number is not None:
            width, unpack = number
            whole = unpack(value[: len(value) // width * width])
            if vr == "AT":
                return [f"{group:04X}{item:04X}" for group, item in whole]
            return [_finite(item[0]) for item in whole]
        text = read_text(value, self._codec, self._initial)
        if vr == "PN":
            return [_person_name(part) for part in text.split("\\")]
        if vr in _SINGLE_TEXT:
            return [text.rstrip(" \0")]
        if vr == "IS":
            return [_integer(part.strip(" \0")) for part in text.split("\\")]
        if vr == "DS":
            return [_decimal(part.strip(" \0")) for part in text.split("\\")]
        if "\\" in text:
            return [part.strip(" \0") or None for part in text.split("\\")]
        return [text.strip(" \0")]

    def _swapped(self, value: bytes, width: int) -> bytes:
        """Inline binary words are little endian (PS3.18 section F.2.7)."""
        if self._little_endian or width == 1 or len(value) % width:
            return value
        return b"".join(value[start : start + width][::-1] for start in range(0, len(value), width))


_PLAIN = JsonModel("ascii", "ascii", little_endian=True, signed=False)


# Most short values of an object stand in the one before it too: the same patient, study, series and machine. Both caches
# keep results of pure functions, so they can forget anything at any time.
@lru_cache(maxsize=2048)
def _plain_member(tag: int, vr: str, value: bytes) -> bytes | None:
    """Return the member of a little endian value, ``None`` where the character set or the sign of its object decides."""
    if vr == "US or SS":
        return None
    known = _vr(tag, vr, value, signed=False)
    if known not in BINARY_VRS and known not in _LITTLE and not plain_ascii(value):
        return None
    return _PLAIN.member(tag, vr, value, len(value), "")


@lru_cache(maxsize=512)
def _member(codec: str, initial: str, signed: bool, tag: int, vr: str, value: bytes) -> bytes:
    """Return the member of any little endian value that is not bulk."""
    return JsonModel(codec, initial, little_endian=True, signed=signed).member(tag, vr, value, len(value), "")


def _vr(tag: int, vr: str, value: Value, *, signed: bool) -> str:
    if len(vr) == 2:
        if vr == "UN" and not tag >> 16 & 1 and isinstance(value, bytes):
            # A sender that did not know a standard element wrote it as UN (PS3.5 section 6.2.2); the dictionary knows.
            known = implicit_vr(tag)
            return known if known in _LENT_VRS else "UN"
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
    number = _DECIMAL.fullmatch(text) if len(text) <= 32 else None
    if number is None:
        return text
    if number.lastindex is None:
        return int(text) if len(text) <= 19 else text
    return _finite(float(text))


def _person_name(text: str) -> dict[str, str] | None:
    if "=" not in text:
        text = text.strip(" \0")
        return {"Alphabetic": text} if text else None
    groups = (group.strip(" \0") for group in text.split("="))
    return {name: group for name, group in zip(_PN_GROUPS, groups, strict=False) if group} or None
