"""HL7 v2 in its XML encoding (HL7 Version 2: XML Encoding Syntax, release 2; namespace ``urn:hl7-org:v2xml``).

Read, a message becomes the same message in ER7, so that one tokenizer and one set of tables serve both. Written, only
acknowledgements leave in this form.
"""

from __future__ import annotations

import re

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.builder import NULL, ComponentValue, FieldValue, MessageBuilder, Null, Repeat, RepetitionValue
from fhir_mappings.hl7v2.tokenizer import NULL as NULL_TEXT
from fhir_mappings.hl7v2.tokenizer import Message, Repetition
from fhir_mappings.markup import Element, escape

NAMESPACE = "urn:hl7-org:v2xml"
#: Most fields of a segment and components of a field; the longest segment of the standard has fewer than a hundred.
_MAX_NUMBER = 200
_STRUCTURE = re.compile(r"[A-Z][A-Z0-9]{2}(_[A-Z0-9]{3})?")
_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")
#: Data types of the fields that an acknowledgement has and that are no simple text (chapters 2.14.5, 2.14.8, 2.14.9).
_TYPES = {
    **{("MSH", number): "HD" for number in (3, 4, 5, 6)},
    ("MSH", 7): "TS",
    ("MSH", 9): "MSG",
    ("MSH", 11): "PT",
    ("MSH", 12): "VID",
    ("MSA", 6): "CE",
    ("ERR", 1): "ELD",
    ("ERR", 2): "ERL",
    ("ERR", 3): "CWE",
    ("ERR", 5): "CWE",
}


def is_message(element: Element) -> bool:
    """Return whether *element* is a whole message: named as a message structure, its MSH the first thing in it."""
    named = _STRUCTURE.fullmatch(element.name) is not None
    return named and bool(element.children) and element.children[0].name == "MSH"


def read(root: Element) -> str:
    """Return the message that *root* holds, in ER7.

    Raises:
        MalformedError: an element stands where none of its name may; code 100.
    """
    builder = MessageBuilder()
    # Groups nest and have no meaning of their own in ER7; the stack is the document's order, last first.
    waiting = list(reversed(root.children))
    while waiting:
        element = waiting.pop()
        if _SEGMENT.fullmatch(element.name):
            builder.segment(element.name, _fields(element))
        elif element.children:
            waiting.extend(reversed(element.children))
        else:
            raise _wrong(element, "is neither a segment nor a group of segments")
    return builder.to_text()


def write(message: Message) -> str:
    """Return an acknowledgement in XML, without a declaration."""
    event = message.get("MSH-9.3").strip() or message.get("MSH-9.1").strip()
    name = event if _STRUCTURE.fullmatch(event) else "ACK"
    out = [f'<{name} xmlns="{NAMESPACE}">']
    for segment in message.segments:
        out.append(f"<{segment.name}>")
        if segment.name == "MSH":
            out.append("<MSH.1>|</MSH.1><MSH.2>^~\\&amp;</MSH.2>")
        for number in range(3 if segment.name == "MSH" else 1, segment.field_count + 1):
            content = segment.field(number)
            for repetition in () if content.is_absent else content.repetitions:
                out.append(_written(segment.name, number, repetition))
        out.append(f"</{segment.name}>")
    out.append(f"</{name}>")
    return "".join(out)


def _written(segment: str, number: int, repetition: Repetition) -> str:
    kind = _TYPES.get((segment, number))
    if kind is None:
        content = escape(repetition.text())
    else:
        texts = [repetition.component(index) for index in range(1, len(repetition.components) + 1)]
        content = "".join(
            f"<{kind}.{index}>{escape(text)}</{kind}.{index}>" for index, text in enumerate(texts, 1) if text
        )
    return f"<{segment}.{number}>{content}</{segment}.{number}>"


def _fields(segment: Element) -> dict[int, FieldValue]:
    found: dict[int, list[RepetitionValue]] = {}
    for element in segment.children:
        name, _, digits = element.name.rpartition(".")
        number = _number(element, digits)
        if name != segment.name:
            raise _wrong(element, f"is no field of {segment.name}")
        # The builder writes its own delimiters, so those of MSH-1 and MSH-2 say nothing any more.
        if segment.name != "MSH" or number > 2:
            found.setdefault(number, []).append(_repetition(element))
    return {number: values[0] if len(values) == 1 else Repeat(values) for number, values in found.items()}


def _repetition(element: Element) -> RepetitionValue:
    if not _parts(element):
        return _leaf(element)
    return [_component(one) for one in _numbered(element)]


def _component(element: Element | None) -> ComponentValue:
    if element is None:
        return ""
    if not _parts(element):
        return _leaf(element)
    made: list[str] = []
    for one in _numbered(element):
        leaf = "" if one is None else _leaf(one)
        made.append("" if isinstance(leaf, Null) else leaf)
    return made


def _leaf(element: Element) -> str | Null:
    if _parts(element):
        raise _wrong(element, "has parts where only text may stand")
    # Formatting travels as empty elements here; a line break is the only one that a text without it would miss.
    text = "".join(
        one if isinstance(one, str) else "\n" if one.attributes.get("V", "").startswith(".br") else ""
        for one in element.content
    )
    text = text.strip()
    return NULL if text == NULL_TEXT else text


def _parts(element: Element) -> list[Element]:
    return [child for child in element.children if child.name != "escape"]


def _numbered(element: Element) -> list[Element | None]:
    """Return the parts of *element* by the number that ends their names; what stands between is empty."""
    made: list[Element | None] = []
    for child in _parts(element):
        number = _number(child, child.name.rpartition(".")[2])
        made += [None] * (number - len(made))
        if made[number - 1] is not None:
            raise _wrong(child, "occurs twice")
        made[number - 1] = child
    return made


def _number(element: Element, digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 3 and 1 <= int(digits) <= _MAX_NUMBER):
        raise _wrong(element, "has no number that a field or component could have")
    return int(digits)


def _wrong(element: Element, what: str) -> MalformedError:
    # A name is not what a patient has, but it is received text: only as much of it as tells where to look.
    name = re.sub(r"[^A-Za-z0-9_.]", "?", element.name)[:20]
    return MalformedError(
        f"The element {name} {what}.",
        where=name,
        remedy=f"Send a message of the namespace {NAMESPACE}, or ER7.",
        code=100,
    )
