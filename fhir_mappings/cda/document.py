"""The bytes of a clinical document as its root element: the one reader of CDA (HL7 CDA Release 2, XML ITS 1.1).

A document comes in GBK, GB 18030, UTF-8 or UTF-16, and its XML declaration is often wrong or missing, so its own bytes decide.
What a hostile document could ask for (a document type, a million elements, endless nesting or size) is refused by
:mod:`fhir_mappings.markup` before anything is built; here only the size is looked at before decoding.
"""

from __future__ import annotations

from collections.abc import Iterator

from fhir_mappings import markup
from fhir_mappings.errors import MalformedError, MappingError, UnsupportedError
from fhir_mappings.markup import Element

V3 = "urn:hl7-org:v3"
_ROOT = "ClinicalDocument"
_XSI_TYPE = "http://www.w3.org/2001/XMLSchema-instance type"
#: How UTF-16 without a byte order mark begins, which XML 1.0 appendix F tells by the width of its first character.
_WIDE = ((b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"))
#: As much of a text as shows whether its root is a clinical document: declaration, style sheets and comments come first.
_HEAD_CHARS = 4096
_REMEDY = "Send one CDA Release 2 document of at most 16 MiB: well-formed XML without a document type (DTD)."


def is_document(raw: bytes) -> bool:
    """Return whether *raw* looks like a clinical document, from its first kilobytes alone; not whether it is whole."""
    head = raw[: _HEAD_CHARS * 2]
    if not head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"<"):
        return False
    return f"<{_ROOT}" in head.replace(b"\0", b"").decode("latin-1").replace(f":{_ROOT}", f"<{_ROOT}")


def read(raw: bytes) -> Element:
    """Return the root of the clinical document *raw*.

    Raises:
        MalformedError: it is too large, not readable, not well formed, or has a document type.
        UnsupportedError: it is another XML document.
    """
    if len(raw) > markup.MAX_BYTES:
        raise MalformedError(
            f"文书超过 {markup.MAX_BYTES} 字节 / The document is larger than {markup.MAX_BYTES} bytes.",
            where="body",
            remedy=_REMEDY,
            code=102,
        )
    try:
        root = markup.read(_text(raw))
    except MappingError as error:
        message = f"不是可接收的 CDA 文书 / This is no CDA document that can be taken: {error.message}"
        raise MalformedError(message, where="body", remedy=_REMEDY, code=102) from error
    if (root.space, root.name) != (V3, _ROOT):
        raise UnsupportedError(
            "根元素不是 CDA 文书 / The root element is no CDA document.",
            where="/",
            remedy=f"Send a {_ROOT} of the namespace {V3}.",
            code=200,
        )
    return root


def _text(raw: bytes) -> str:
    for start, codec in _WIDE:
        if raw.startswith(start):
            try:
                return raw.decode(codec)
            except UnicodeDecodeError as error:
                raise _undecodable() from error
    decoded = markup.decode(raw)
    if decoded.evidence == "replaced":
        raise _undecodable()
    return decoded.text


def _undecodable() -> MalformedError:
    return MalformedError(
        "The characters can be read in none of UTF-8, GB 18030 and UTF-16.", where="body", remedy=_REMEDY, code=102
    )


def child(element: Element | None, *path: str) -> Element | None:
    """Return the first element at *path* below *element* (local names), or ``None``."""
    for name in path:
        if element is None:
            return None
        element = next((one for one in element.children if one.name == name), None)
    return element


def children(element: Element | None, *path: str) -> list[Element]:
    """Return all elements at *path*: every one of the last name below the first of each name before it."""
    holder = child(element, *path[:-1])
    return [one for one in holder.children if one.name == path[-1]] if holder is not None else []


def attribute(element: Element | None, name: str) -> str:
    """Return an attribute, trimmed; empty where it or the element is absent."""
    return element.attributes.get(name, "").strip() if element is not None else ""


def type_of(element: Element) -> str:
    """Return the data type that ``xsi:type`` names, without its prefix; empty where it is absent."""
    return element.attributes.get(_XSI_TYPE, "").strip().rpartition(":")[2]


def text_of(element: Element | None) -> str:
    """Return all character data below *element* in one line."""
    if element is None:
        return ""
    parts: list[str] = []
    waiting: list[str | Element] = [element]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            parts.append(one)
        else:
            waiting.extend(reversed(one.content))
    return " ".join("".join(parts).split())


def below(element: Element) -> Iterator[Element]:
    """Yield every element below *element* in the order of the document."""
    waiting = list(reversed(element.children))
    while waiting:
        one = waiting.pop()
        yield one
        waiting.extend(reversed(one.children))
