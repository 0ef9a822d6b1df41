"""Received XML as a small tree: the bounded, entity-free reader behind every XML text that is no DICOM model.

XML 1.0 (https://www.w3.org/TR/xml/). A document type is refused before anything of it is read, so there are neither entity
bombs nor references to other places; depth, elements and size are bounded before anything is built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fhir_mappings import text as text_rule
from fhir_mappings.errors import MalformedError
from fhir_mappings.guarded_xml import feed

#: The bounds of one document; depth is that of JSON. So many elements take some 40 MB while they are read, and are a result
#: of several thousand OBX; text inside them costs no more than its size.
MAX_BYTES = 16 << 20
MAX_ELEMENTS = 100_000
MAX_DEPTH = 64

_ENCODING = re.compile(rb"""\A(?:\xef\xbb\xbf)?\s*<\?xml\s[^>]*?encoding\s*=\s*["']([A-Za-z0-9._\-]{1,40})["']""")
_DECLARATION = re.compile(r"\A\ufeff?\s*<\?xml\s[^>]*\?>")
#: Characters that XML 1.0 cannot hold in any spelling (section 2.2).
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_REFERENCES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;"})


@dataclass(slots=True)
class Element:
    """One element.

    Attributes:
        name: local name.
        space: namespace URI, empty where it has none.
        content: its character data and children in their order.
    """

    name: str
    space: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    content: list[str | Element] = field(default_factory=list)

    @property
    def children(self) -> list[Element]:
        """The elements that stand directly in this one."""
        return [one for one in self.content if isinstance(one, Element)]

    @property
    def text(self) -> str:
        """Its own character data in one piece, that of its children left out."""
        return "".join(one for one in self.content if isinstance(one, str))


def decode(document: bytes) -> text_rule.Decoded:
    """Return *document* as text: by its own bytes first, as Chinese senders often declare another encoding; never fails."""
    label = _ENCODING.match(document[:256])
    return text_rule.decode(document, declared=label.group(1).decode("ascii") if label else "")


def read(document: str) -> Element:
    """Return the root of *document*.

    Raises:
        MalformedError: it is not well formed, has a document type, or goes beyond the bounds.
    """
    raw = _DECLARATION.sub("", document, count=1).lstrip("\ufeff \t\r\n").encode("utf-8", "replace")
    if len(raw) > MAX_BYTES:
        raise _malformed(f"The XML is larger than {MAX_BYTES} bytes.")
    builder = _Builder()
    feed(raw, builder, malformed=_malformed, encoding="utf-8")
    assert builder.root is not None
    return builder.root


def escape(text: str) -> str:
    """Return *text* for content or an attribute; CR survives the reader, and what XML cannot hold becomes U+FFFD."""
    return _UNWRITABLE.sub("\ufffd", text).translate(_REFERENCES)


class _Builder:
    """Takes the events of the parser."""

    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS or len(self._open) >= MAX_DEPTH:
            raise _malformed("The XML has too many or too deeply nested elements.")
        space, _, local = name.rpartition(" ")
        made = Element(local, space, dict(attributes))
        if self._open:
            self._open[-1].content.append(made)
        else:
            self.root = made
        self._open.append(made)

    def text(self, data: str) -> None:
        self._open[-1].content.append(data)

    def end(self, _name: str) -> None:
        self._open.pop()


def _malformed(message: str) -> MalformedError:
    return MalformedError(message, where="body", remedy="Send well-formed XML without a document type (DTD).", code=100)
