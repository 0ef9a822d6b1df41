"""The Native DICOM Model: data sets as XML (PS3.19 section A.1), written from and read into the DICOM JSON Model.

Both models say the same (PS3.18 annex F.2), so the JSON Model is the one form that the hub works with. Received XML is
hostile until read: no document type, no entities, and bounds on depth, elements and text before anything is built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag

from fhir_mappings.errors import MalformedError
from fhir_mappings.guarded_xml import feed

NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_START = f'<?xml version="1.0" encoding="UTF-8"?>\n<NativeDicomModel xmlns="{NAMESPACE}" xml:space="preserve">'
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
#: Characters that XML 1.0 cannot hold in any spelling (section 2.2).
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
#: XML parsers turn a bare CR into LF (XML 1.0 section 2.11), so it is written as a reference.
_REFERENCES = {"\r": "&#13;"}
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_VR = re.compile(r"[A-Z]{2}")
_INTEGERS = frozenset(["IS", "US", "SS", "UL", "SL", "UV", "SV"])
_FLOATS = frozenset(["FL", "FD"])
#: JSON and XML Schema spell what is no number differently (PS3.18 table F.2.3-1, XML Schema part 2 section 3.2.5).
_TO_XML = {"Infinity": "INF", "-Infinity": "-INF"}
_FROM_XML = {"INF": "Infinity", "-INF": "-Infinity", "NaN": "NaN"}


# --- writing -----------------------------------------------------------------------------------------------------


def write(dataset_json: Mapping[str, Any]) -> bytes:
    """Return *dataset_json*, an object of the DICOM JSON Model, as a Native DICOM Model document in UTF-8.

    Attributes come in the order of their tags. A character that XML cannot hold becomes U+FFFD.
    """
    out = [_START]
    _write_attributes(dataset_json, out)
    out.append("</NativeDicomModel>")
    return "".join(out).encode()


def _write_attributes(dataset: Mapping[str, Any], out: list[str]) -> None:
    for tag in sorted(dataset):
        element = dataset[tag]
        vr = element["vr"]
        keyword = _keyword(tag)
        out.append(f'<DicomAttribute tag="{tag}" vr="{vr}"')
        if keyword:
            out.append(f' keyword="{keyword}"')
        creator = _creator(dataset, tag)
        if creator:
            out.append(f" privateCreator={quoteattr(_clean(creator))}")
        out.append(">")
        if "BulkDataURI" in element:
            out.append(f"<BulkData uri={quoteattr(_clean(str(element['BulkDataURI'])))}/>")
        elif "InlineBinary" in element:
            out.append(f"<InlineBinary>{element['InlineBinary']}</InlineBinary>")
        else:
            _write_values(vr, element.get("Value", ()), out)
        out.append("</DicomAttribute>")


def _write_values(vr: str, values: Any, out: list[str]) -> None:
    for number, value in enumerate(values, 1):
        if vr == "SQ":
            out.append(f'<Item number="{number}">')
            _write_attributes(value or {}, out)
            out.append("</Item>")
        elif value is None:
            # The numbers of the others say where one is missing.
            continue
        elif vr == "PN":
            _write_name(number, value, out)
        else:
            text = _TO_XML.get(value, value) if vr in _FLOATS and isinstance(value, str) else value
            out.append(f'<Value number="{number}">{escape(_clean(str(text)), _REFERENCES)}</Value>')


def _write_name(number: int, value: Mapping[str, str], out: list[str]) -> None:
    out.append(f'<PersonName number="{number}">')
    for group in _GROUPS:
        if not value.get(group):
            continue
        out.append(f"<{group}>")
        # A name has five components; what a sender wrote beyond them stays with the last.
        for component, text in zip(_COMPONENTS, value[group].split("^", len(_COMPONENTS) - 1), strict=False):
            if text:
                out.append(f"<{component}>{escape(_clean(text), _REFERENCES)}</{component}>")
        out.append(f"</{group}>")
    out.append("</PersonName>")


@lru_cache(maxsize=8192)
def _keyword(tag: str) -> str:
    return keyword_for_tag(int(tag, 16))


def _creator(dataset: Mapping[str, Any], tag: str) -> str:
    """Return the private creator of the block that *tag* lies in, ``""`` for standard attributes and creators."""
    if not int(tag[3], 16) & 1 or tag[4:6] == "00":
        return ""
    values = dataset.get(f"{tag[:4]}00{tag[4:6]}", {}).get("Value")
    return str(values[0]) if values and values[0] else ""


def _clean(text: str) -> str:
    return _UNWRITABLE.sub("�", text)


# --- reading -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class XmlLimits:
    """What one document may hold; our own limits, as those of :class:`fhir_mappings.dicom.scanner.ScanLimits`.

    Attributes:
        depth: nested XML elements; a sequence takes two.
        elements: XML elements in all.
    """

    document_bytes: int = 64 << 20
    depth: int = 70
    elements: int = 1_000_000


LIMITS = XmlLimits()


def read(document: bytes, *, limits: XmlLimits = LIMITS) -> dict[str, Any]:
    """Return the DICOM JSON Model of a Native DICOM Model *document*.

    Raises:
        MalformedError: it is not well formed, has a document type, goes beyond *limits*, or is not of this model.
    """
    if len(document) > limits.document_bytes:
        raise _malformed(f"The XML is larger than {limits.document_bytes} bytes.")
    builder = _Builder(limits)
    feed(document, builder, malformed=_malformed)
    return builder.dataset


def _malformed(message: str) -> MalformedError:
    return MalformedError(message, where="body", remedy="Send a Native DICOM Model as PS3.19 section A.1 defines it.")


@dataclass
class _Attribute:
    tag: str
    vr: str
    creator: str
    values: dict[int, Any] = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)

    def element(self) -> dict[str, Any]:
        """Return the attribute as an element of the JSON Model."""
        if self.content:
            return {"vr": self.vr, **self.content}
        if not self.values:
            return {"vr": self.vr}
        last = max(self.values)
        if last != len(self.values) and last > 2 * len(self.values) + 1000:
            raise _malformed("The numbers of the values have too wide gaps.")
        empty: Any = {} if self.vr == "SQ" else None
        return {"vr": self.vr, "Value": [self.values.get(number, empty) for number in range(1, last + 1)]}


class _Builder:
    """Takes the events of the parser; its stack holds data sets and attributes in turn."""

    def __init__(self, limits: XmlLimits) -> None:
        self.dataset: dict[str, Any] = {}
        self._limits = limits
        self._left = limits.elements
        self._names: list[str] = []
        self._datasets: list[dict[str, Any]] = []
        self._attributes: list[_Attribute] = []
        self._number = 0
        self._name: dict[str, dict[str, str]] = {}
        self._text: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Begin an element."""
        local = name.rpartition(" ")[2]
        self._left -= 1
        if self._left < 0 or len(self._names) >= self._limits.depth:
            raise _malformed("The XML has too many or too deeply nested elements.")
        parent = self._names[-1] if self._names else ""
        if parent not in _PARENTS.get(local, ()):
            raise _malformed(f"An element is not where it may be, or not of this model, below {parent or 'the root'}.")
        self._names.append(local)
        self._text = []
        if local == "NativeDicomModel":
            self._datasets.append(self.dataset)
        elif local == "DicomAttribute":
            self._attributes.append(_attribute(attributes))
        elif local in {"Item", "Value", "PersonName"}:
            self._begin_value(local, attributes)
        elif local == "BulkData":
            # PS3.19 names bulk by uri or, within one machine, by uuid.
            self._attributes[-1].content = {"BulkDataURI": attributes.get("uri") or attributes.get("uuid", "")}
        elif local in _GROUPS:
            self._name[local] = {}

    def _begin_value(self, local: str, attributes: dict[str, str]) -> None:
        number = attributes.get("number", "")
        if not (number.isascii() and number.isdigit() and int(number[:9]) > 0 and len(number) <= 9):
            raise _malformed("A value has no number.")
        attribute = self._attributes[-1]
        if int(number) in attribute.values:
            raise _malformed("Two values of an attribute have the same number.")
        if (local == "Item") != (attribute.vr == "SQ") or (local == "PersonName") != (attribute.vr == "PN"):
            raise _malformed("A value does not fit the value representation of its attribute.")
        if local == "Item":
            item: dict[str, Any] = {}
            attribute.values[int(number)] = item
            self._datasets.append(item)
        self._number = int(number)
        self._name = {}

    def text(self, data: str) -> None:
        """Take text."""
        self._text.append(data)

    def end(self, _name: str) -> None:
        """End an element."""
        local = self._names.pop()
        text = "".join(self._text)
        self._text = []
        if local in {"NativeDicomModel", "Item"}:
            self._datasets.pop()
        elif local == "DicomAttribute":
            self._end_attribute(self._attributes.pop())
        elif local == "Value":
            attribute = self._attributes[-1]
            attribute.values[self._number] = _value(attribute.vr, text)
        elif local == "InlineBinary":
            self._attributes[-1].content = {"InlineBinary": "".join(text.split())}
        elif local in _COMPONENTS:
            self._name[self._names[-1]][local] = text
        elif local == "PersonName":
            self._attributes[-1].values[self._number] = _person(self._name)

    def _end_attribute(self, attribute: _Attribute) -> None:
        dataset = self._datasets[-1]
        tag = attribute.tag
        if attribute.creator and int(tag[3], 16) & 1:
            tag = _in_block(dataset, tag, attribute.creator)
        if tag in dataset:
            raise _malformed("An attribute occurs twice.")
        dataset[tag] = attribute.element()


#: Where each element may stand.
_PARENTS: Mapping[str, frozenset[str]] = {
    "NativeDicomModel": frozenset([""]),
    "DicomAttribute": frozenset(["NativeDicomModel", "Item"]),
    **dict.fromkeys(["Item", "Value", "PersonName", "BulkData", "InlineBinary"], frozenset(["DicomAttribute"])),
    **dict.fromkeys(_GROUPS, frozenset(["PersonName"])),
    **dict.fromkeys(_COMPONENTS, frozenset(_GROUPS)),
}


def _attribute(attributes: Mapping[str, str]) -> _Attribute:
    tag, vr = attributes.get("tag", ""), attributes.get("vr", "")
    if _TAG.fullmatch(tag) is None or _VR.fullmatch(vr) is None:
        raise _malformed("An attribute has no tag of eight hex digits or no value representation.")
    return _Attribute(tag=tag.upper(), vr=vr, creator=attributes.get("privateCreator", ""))


def _in_block(dataset: dict[str, Any], tag: str, creator: str) -> str:
    """Return the tag of a private attribute in the block of its *creator*, which is reserved where it is missing.

    The block of the sender is kept where it is named and free; ``00`` names none (PS3.5 section 7.8.1).
    """
    group = tag[:4]

    def owner(block: str) -> str | None:
        values = dataset.get(f"{group}00{block}", {}).get("Value")
        return str(values[0]) if values else None

    blocks = [tag[4:6]] if tag[4:6] != "00" else [f"{number:02X}" for number in range(0x10, 0x100)]
    for wanted in (creator, None):
        for block in blocks:
            if owner(block) == wanted:
                if wanted is None:
                    dataset[f"{group}00{block}"] = {"vr": "LO", "Value": [creator]}
                return f"{group}{block}{tag[6:]}"
    raise _malformed("A private attribute lies in the block of another creator.")


def _value(vr: str, text: str) -> Any:
    if vr == "SQ":
        return {}
    if vr in _INTEGERS or vr in _FLOATS or vr == "DS":
        return _number(vr, text.strip())
    return text or None


def _number(vr: str, text: str) -> Any:
    if not text:
        return None
    if vr in _FLOATS and text in _FROM_XML:
        return _FROM_XML[text]
    try:
        if vr in _INTEGERS:
            return int(text) if len(text) <= 20 else text
        number = Decimal(text) if len(text) <= 40 else None
    except (ValueError, InvalidOperation):
        # What is no number is handed on as it came, as in the JSON Model.
        return text
    return number if number is not None and number.is_finite() else text


def _person(groups: Mapping[str, Mapping[str, str]]) -> dict[str, str] | None:
    found = {}
    for group in _GROUPS:
        parts = [groups.get(group, {}).get(component, "") for component in _COMPONENTS]
        text = "^".join(parts).rstrip("^")
        if text:
            found[group] = text
    return found or None
