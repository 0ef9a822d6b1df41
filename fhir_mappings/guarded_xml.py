"""The one way in which received XML is parsed: no document type, no entities, no other places (XML 1.0 sections 2.8 and 4).

A document type is refused before anything of it is read, so there are neither entity bombs nor references to files and
addresses. Size, depth and number of elements are bounded by whoever takes the events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from xml.parsers import expat

from fhir_mappings.errors import MalformedError


class Taker(Protocol):
    """Takes the events of one document; may raise what it likes to end it."""

    def start(self, name: str, attributes: dict[str, str], /) -> None: ...
    def end(self, name: str, /) -> None: ...
    def text(self, data: str, /) -> None: ...


def feed(
    document: bytes, taker: Taker, *, malformed: Callable[[str], MalformedError], encoding: str | None = None
) -> None:
    """Hand the events of *document* to *taker*; names come with their namespace and a blank before them.

    Args:
        malformed: makes the error of what is wrong in one sentence.
        encoding: of the bytes, whatever the document declares.

    Raises:
        MalformedError: it is not well formed, or has a document type.
    """

    def refuse(*_: object) -> None:
        raise malformed("The XML has a document type declaration.")

    parser = expat.ParserCreate(encoding, namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = taker.start
    parser.EndElementHandler = taker.end
    parser.CharacterDataHandler = taker.text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        parser.Parse(document, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise malformed("The XML is not well formed.") from error
