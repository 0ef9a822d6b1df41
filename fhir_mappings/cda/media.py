"""What a clinical document carries inside its sections: observationMedia and other ED values in Base64 (CDA R2 section 4.3.6.4).

WS/T 500 has them for curves, drawings and signatures. The narrative shows one by the ``ID`` of its statement (renderMultiMedia).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from fhir_mappings.cda.datatypes import is_media
from fhir_mappings.cda.document import attribute, below, child
from fhir_mappings.markup import Element

#: As many attachments as one document gives; the original has the rest.
MAX_MEDIA = 50


@dataclass(frozen=True, slots=True)
class Media:
    """One embedded part.

    Attributes:
        name: the ``ID`` of its statement, by which the narrative shows it; empty where it has none.
        data: its bytes, ``None`` where they cannot be decoded.
    """

    name: str
    media_type: str
    data: bytes | None


def of(root: Element) -> list[Media]:
    """Return the embedded parts of the sections of the document *root* in their order."""
    body = child(root, "component", "structuredBody")
    found: list[Media] = []
    for statement in below(body) if body is not None else ():
        for one in statement.children:
            if one.name not in {"value", "text"} or not is_media(one) or not one.text.strip():
                continue
            found.append(
                Media(attribute(statement, "ID"), attribute(one, "mediaType") or "application/octet-stream", _data(one))
            )
            if len(found) == MAX_MEDIA:
                return found
    return found


def _data(element: Element) -> bytes | None:
    try:
        return base64.b64decode("".join(element.text.split()), validate=True)
    except (ValueError, binascii.Error):
        return None
