"""ED in OBX-5: bytes inside a message (HL7 v2 chapter 2A.24), mostly the PDF of a report.

The bytes decide what they are: feeds write ``PDF``, ``pdf``, ``AP^PDF`` or ``application^pdf`` for the same thing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.assembly import Assembly, Place, where
from fhir_mappings.hl7v2.base import Attachment
from fhir_mappings.hl7v2.tokenizer import Segment
from fhir_mappings.media_types import OCTETS, media_type

_SPACE = re.compile(r"\s+")
#: What ``\s`` means among the ASCII characters.
_ASCII_SPACE = b" \t\n\r\v\f\x1c\x1d\x1e\x1f"
#: Table 0299; an empty one means Base64.
_ENCODINGS = frozenset({"", "A", "HEX", "BASE64"})
#: Longer than any label of table 0191 or 0291, shorter than any document.
_LABEL_MAX = 32
#: How the documents of ``_SIGNATURES`` begin in Base64: PDF, PNG, JPEG, RTF.
_BASE64_STARTS = ("JVBERI", "IVBORW0K", "/9J/", "E1XYDGY")
_WEB_ADDRESS = re.compile(r"https?://[^\s/@]+(?:/[^\s]*)?", re.IGNORECASE)
_SIGNATURES = (
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"{\\rtf", "application/rtf"),
)
_BY_LABEL = {
    "PDF": "application/pdf",
    "JPEG": "image/jpeg",
    "JPG": "image/jpeg",
    "PNG": "image/png",
    "TIFF": "image/tiff",
    "RTF": "application/rtf",
    "HTML": "text/html",
    "XML": "application/xml",
    "CDA": "application/xml",
    "PLAIN": "text/plain",
    "TEXT": "text/plain",
    "DICOM": "application/dicom",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encapsulated:
    """The decoded bytes and what they are."""

    data: bytes
    content_type: str


def decode(segment: Segment) -> Encapsulated:
    """Return the bytes that OBX-5 carries.

    Feeds put the components of ED in other places than the standard, or send the data alone; what is longest is the
    data, and an encoding is known by its name (table 0299).

    Raises:
        MalformedError: code 102, the data is not what its encoding says, or code 101, there is none.
    """
    repetition = segment.field(5).first
    kind, subtype, encoding = (repetition.component(n).strip() for n in (2, 3, 4))
    text = repetition.component(5)
    if not text or encoding.upper() not in _ENCODINGS:
        kind, subtype, encoding, text = _swapped(segment)
    if not text:
        raise MalformedError(
            "OBX-5 is encapsulated data without data.",
            where=where(segment, 5),
            remedy="Send the content in component 5.",
            code=101,
        )
    try:
        match encoding.upper():
            case "HEX":
                data = binascii.a2b_hex(_without_space(text))
            case "A":
                data = text.encode("utf-8")
            case _:
                # An empty ED.4 is Base64 in every feed that leaves it empty.
                data = base64.b64decode(_without_space(text), validate=True)
    except (ValueError, binascii.Error) as error:
        raise MalformedError(
            "OBX-5 cannot be decoded with the encoding that component 4 names.",
            where=where(segment, 5),
            remedy="Send Base64 or Hex and name it in component 4.",
            code=102,
        ) from error
    return Encapsulated(data=data, content_type=_content_type(data, kind, subtype))


def _without_space(text: str) -> bytes:
    """Return *text*, which is to be Base64 or Hex, without white space; it may be megabytes long.

    Raises:
        ValueError: it holds what neither of them writes with.
    """
    # A regular expression over ten megabytes keeps every other thread of the process waiting for a tenth of a second.
    return (text if text.isascii() else _SPACE.sub("", text)).encode("ascii").translate(None, _ASCII_SPACE)


def _swapped(segment: Segment) -> tuple[str, str, str, str]:
    """Return type, subtype, encoding and data of an ED whose components stand elsewhere; empty data when there is none."""
    repetition = segment.field(5).first
    parts = [repetition.component(number) for number in range(1, len(repetition.components) + 1)]
    encoding = next((part.strip() for part in parts if part.strip().upper() in _ENCODINGS - {"", "A"}), "")
    labels = [part.strip() for part in parts if len(part.strip()) < _LABEL_MAX]
    data = max(parts, key=len, default="")
    if data.strip() in labels and not _SPACE.sub("", data).upper().startswith(_BASE64_STARTS):
        # Nothing here but short words: labels without content.
        return "", "", "", ""
    known = [one for one in labels if one.upper() not in _ENCODINGS and one != data.strip()]
    kind, subtype = (known[-2], known[-1]) if len(known) > 1 else ("", known[0] if known else "")
    return kind, subtype, encoding, data


def pointer(segment: Segment, assembly: Assembly) -> dict[str, Any] | None:
    """Return the Attachment of an RP in OBX-5: the address at the sender, which the hub never fetches.

    v2-to-FHIR: RP[Attachment]. What is no web address (a file share, a path) means nothing to another institution, and
    an address with a password inside would give it away; both are left out, with an issue.
    """
    repetition = segment.field(5).first
    address = repetition.component(1).strip()
    place = Place(assembly, segment, 5)
    if not _WEB_ADDRESS.fullmatch(address):
        place.warn("OBX-5 points at no web address (RP-1); it was left out.", code="not-supported")
        return None
    made = {"url": address}
    kind, subtype = repetition.component(3).strip(), repetition.component(4).strip()
    if kind or subtype:
        made["contentType"] = _content_type(b"", kind, subtype)
    title = segment.get(3, 2).strip() or segment.get(3, 5).strip() or segment.get(3).strip()
    if title:
        made["title"] = title
    return made


def attachment(segment: Segment, context: str, assembly: Assembly) -> dict[str, Any]:
    """Add the bytes of OBX-5 as a change and return the Attachment that points at them.

    *context* is the ``Type/id`` of the resource that holds it. The digest is part of the id, so that a corrected PDF is
    a new object and the old one stays what it was.

    Raises:
        MalformedError: as :func:`decode`.
    """
    content = decode(segment)
    digest = hashlib.sha256(content.data).hexdigest()
    identity = assembly.ctx.id("Binary", "attachment", f"{context}|{digest}")
    assembly.changes.append(
        Attachment(binary_id=identity, content_type=content.content_type, data=content.data, context=context)
    )
    made: dict[str, Any] = {
        "contentType": content.content_type,
        "url": f"Binary/{identity}",
        "size": len(content.data),
        "hash": base64.b64encode(hashlib.sha1(content.data, usedforsecurity=False).digest()).decode(),
    }
    title = segment.get(3, 2).strip() or segment.get(3, 5).strip() or segment.get(3).strip()
    if title:
        made["title"] = title
    return made


def _content_type(data: bytes, kind: str, subtype: str) -> str:
    for signature, content_type in _SIGNATURES:
        if data.startswith(signature):
            return content_type
    for label in (subtype, kind):
        if "/" in label:
            return media_type(label.lower())
        if label.upper() in _BY_LABEL:
            return _BY_LABEL[label.upper()]
    if kind and subtype and kind.lower() in {"application", "image", "text", "audio", "video"}:
        return media_type(f"{kind.lower()}/{subtype.lower()}")
    return OCTETS
