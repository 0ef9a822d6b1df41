"""Short data sets on the wire as the DICOM JSON Model and back: identifiers, worklist items, attribute lists (PS3.7
section 6.2; PS3.18 annex F).

What arrives passes the bounded scanner and the rule for character sets, as objects do. What goes out is written in the
character set that the asker named, and in UTF-8 where that set cannot hold it.
"""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from fhir_mappings.dicom.charset import choose_decoder
from fhir_mappings.dicom.code_extensions import GB2312_LABEL, in_gb2312, reads_gb2312, write_gb2312
from fhir_mappings.dicom.elements import LONG_VRS
from fhir_mappings.dicom.json_model import JsonModel, text_values
from fhir_mappings.dicom.scanner import ScanLimits, scan
from fhir_mappings.json import loads
from fhir_mappings.text import codec_for

Json = dict[str, Any]

IMPLICIT, EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
UTF8 = "ISO_IR 192"
#: An identifier of any service class is far below this.
MAX_BYTES = 1 << 20
_LIMITS = ScanLimits(
    depth=8, items=1000, elements=10_000, element_bytes=256 << 10, held_bytes=256 << 10, held_total_bytes=MAX_BYTES
)
_CHARACTER_SET = "00080005"
#: Text that another character set than ASCII may be needed for (PS3.5 section 6.1.2.3).
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_NUL_PADDED = frozenset({"OB", "UI", "UN"})
_SHORT_BYTES = 0xFFFE


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifier:
    """A short data set as it arrived.

    Attributes:
        attributes: the DICOM JSON Model, text in UTF-8; an empty element has no ``Value``.
        character_set: (0008,0005) as the peer wrote it; empty when it did not.
    """

    attributes: Json
    character_set: str = ""


def read(
    data: bytes, transfer_syntax: str, *, charset_override: str | None = None, limits: ScanLimits = _LIMITS
) -> Identifier:
    """Return the data set in *data*.

    Args:
        limits: for a service whose data sets are longer than identifiers are.

    Raises:
        MalformedError: it breaks the standard or a limit.
    """
    scanned = scan(BytesIO(data), transfer_syntax, limits=limits, instance=False)
    label = scanned.top.get(0x00080005)
    declared = label.value.decode("ascii", "replace").strip(" \0") if label and isinstance(label.value, bytes) else ""
    decoder = choose_decoder(
        text_values(scanned.dataset),
        [one.strip(" \0") for one in declared.split("\\")] if declared else [],
        override=charset_override,
    )
    model = JsonModel(decoder.codec, decoder.initial, little_endian=scanned.little_endian, signed=False)
    attributes: Json = loads(b"{" + b",".join(model.members(scanned.dataset)) + b"}")
    attributes.pop(_CHARACTER_SET, None)
    return Identifier(attributes=attributes, character_set=declared)


def write(attributes: Mapping[str, Any], transfer_syntax: str, *, character_set: str = "") -> bytes:
    """Return *attributes* (DICOM JSON) as a data set.

    Args:
        character_set: the label the reader asked for; UTF-8 is written where it is empty and the text is not ASCII,
            where the hub does not write it, and where it cannot hold the text. Of code extensions GB 2312 is written.
    """
    content = {tag: element for tag, element in attributes.items() if tag != _CHARACTER_SET}
    label = _label(list(_texts(content)), character_set)
    if label:
        content[_CHARACTER_SET] = {"vr": "CS", "Value": [label]}
    writer = _Writer(
        mark=">" if transfer_syntax == EXPLICIT_BIG else "<",
        implicit=transfer_syntax == IMPLICIT,
        codec=(codec_for(label) if label and label != GB2312_LABEL else None) or "ascii",
        extended=label == GB2312_LABEL,
    )
    return writer.dataset(content)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """Writes data sets with defined lengths (PS3.5 section 7); what a stored header says is not judged again."""

    mark: str
    implicit: bool
    codec: str
    #: Whether text beyond ASCII is GB 2312 behind its escape.
    extended: bool = False

    def dataset(self, attributes: Mapping[str, Any]) -> bytes:
        """Return the elements of *attributes* in the order of their tags."""
        return b"".join([self._element(tag, attributes[tag]) for tag in sorted(attributes)])

    def _element(self, tag: str, element: Mapping[str, Any]) -> bytes:
        vr = str(element["vr"])
        raw = self._value(vr, element)
        if len(raw) % 2:
            raw += b"\0" if vr in _NUL_PADDED else b" "
        head = struct.pack(self.mark + "HH", int(tag[:4], 16), int(tag[4:], 16))
        if self.implicit:
            return head + struct.pack(self.mark + "I", len(raw)) + raw
        if vr in LONG_VRS or len(raw) > _SHORT_BYTES:
            # A value too long for its own VR is written as UN (PS3.5 section 6.2.2, note 5).
            name = vr if vr in LONG_VRS else "UN"
            return head + name.encode("ascii") + b"\0\0" + struct.pack(self.mark + "I", len(raw)) + raw
        return head + vr.encode("ascii") + struct.pack(self.mark + "H", len(raw)) + raw

    def _value(self, vr: str, element: Mapping[str, Any]) -> bytes:
        if "InlineBinary" in element:
            return b64decode(element["InlineBinary"])
        values = element.get("Value") or ()
        if vr == "SQ":
            return b"".join([self._item(self.dataset(item)) for item in values])
        if vr in _NUMBERS:
            return b"".join([struct.pack(self.mark + _NUMBERS[vr], value) for value in values if value is not None])
        if vr == "AT":
            return b"".join([struct.pack(self.mark + "HH", int(one[:4], 16), int(one[4:], 16)) for one in values])
        text = "\\".join([_text(value) for value in values])
        if self.extended and vr in _TEXT_VRS:
            return write_gb2312(text, name=vr == "PN")
        return text.encode(self.codec if vr in _TEXT_VRS else "ascii", "replace")

    def _item(self, data: bytes) -> bytes:
        return struct.pack(self.mark + "HHI", 0xFFFE, 0xE000, len(data)) + data


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "=".join([str(value.get(group, "")) for group in _GROUPS]).rstrip("=")
    return "" if value is None else str(value)


def _label(texts: list[str], wanted: str) -> str:
    extended = reads_gb2312(wanted)
    if all(text.isascii() for text in texts):
        if extended:
            # The default repertoire is the first value of that label, and needs no escape.
            return GB2312_LABEL
        # Text without a special character needs no label, and ASCII is in every set (PS3.3 C.12.1.1.2).
        return wanted if wanted and "\\" not in wanted and codec_for(wanted) else ""
    if extended:
        return GB2312_LABEL if all(in_gb2312(text) for text in texts) else UTF8
    codec = codec_for(wanted) if wanted and "\\" not in wanted else None
    if codec is None or wanted.startswith("ISO 2022"):
        # Other code extensions are read but not written: UTF-8 holds all of it without switching.
        return UTF8
    try:
        "".join(texts).encode(codec)
    except UnicodeEncodeError:
        return UTF8
    return wanted


def _texts(attributes: Mapping[str, Any]) -> Iterator[str]:
    for element in attributes.values():
        if element["vr"] == "SQ":
            for item in element.get("Value", ()):
                yield from _texts(item)
        elif element["vr"] in _TEXT_VRS:
            for value in element.get("Value", ()):
                if isinstance(value, dict):
                    yield from (str(group) for group in value.values())
                elif value is not None:
                    yield str(value)
