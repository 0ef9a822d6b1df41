"""The character set of a message: MSH-18 and HL7 table 0211, judged against the message's own bytes.

Bytes are decoded before they are split: in GBK the second byte of a character may be ``|``, ``^``, ``~`` or ``\\``
(陳 is EA 90, 東 is 96 7C), so a message split as bytes gains fields that nobody sent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fhir_mappings import text as text_rule
from fhir_mappings.errors import MappingError, UnsupportedError
from fhir_mappings.hl7v2.wrapping import kind_of, unwrap
from fhir_mappings.text import Evidence, codec_for

_MSH_18 = 17  # MSH-1 is the separator itself, so MSH-n stands at n - 1 after a split
_HEADER_MAX_BYTES = 8192
_WIDE = ("utf-16", "utf-32")
#: The bytes that frame a message in MLLP.
_BLOCK_BYTES = frozenset({0x0B, 0x1C})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A decoded message and why it was read so.

    Attributes:
        charset: the Python codec; answers to this sender are encoded in it, unless it is ``ascii``, which says nothing.
        declared: MSH-18 as the sender wrote it, empty when absent.
        flagged: a person should look: characters were lost, or no step of the rule was sure.
        disagrees: MSH-18 names another character set than the one the bytes are in.
        missing: what a row that was no v2 message should have brought (:mod:`fhir_mappings.hl7v2.row`).
    """

    text: str
    charset: str
    evidence: Evidence
    declared: str = ""
    flagged: bool = False
    disagrees: bool = False
    missing: tuple[str, ...] = ()


def decode_message(raw: bytes, *, override: str | None = None) -> Decoded:
    """Return *raw* as text by the rule of ``fhir_mappings.text``; never fails, and flags what it is not sure of.

    A message in a wrapping is taken out of it. The wrapping says what it is written in, so MSH-18 and *override*, which
    are about bare messages, do not count then.
    """
    decoded = _out_of_wrapping(raw) if kind_of(raw) else None
    if decoded is None:
        decoded = _decode_bare(raw, override)
    if "\0" not in decoded.text:
        return decoded
    # No FHIR string holds U+0000 (https://hl7.org/fhir/R4/datatypes.html#string) and PostgreSQL stores none, so it is read as
    # a character that was lost; the journal keeps the bytes.
    return replace(decoded, text=decoded.text.replace("\0", "\ufffd"), flagged=True)


def _decode_bare(raw: bytes, override: str | None) -> Decoded:
    declared = declared_charset(raw)
    label = _effective(declared)
    # What starts with the bytes of MSH is not in wide characters, whatever it says, though an even number of bytes could be.
    narrow = raw[:64].lstrip(b"\r\n").startswith(b"MSH")
    false_label, false_override = narrow and _is_wide(label), narrow and _is_wide(override or "")
    decided = text_rule.decode(
        raw, override=None if false_override else override, declared="" if false_label else label
    )
    return Decoded(
        text=decided.text,
        charset=decided.codec,
        evidence=decided.evidence,
        declared=declared,
        flagged=decided.flagged or false_label or false_override,
        disagrees=decided.disagrees or (false_label and not decided.text.isascii()),
    )


def _is_wide(label: str) -> bool:
    return (codec_for(label) or "").startswith(_WIDE)


def _out_of_wrapping(raw: bytes) -> Decoded | None:
    try:
        wrapped = unwrap(raw)
    except MappingError:
        # What cannot be unwrapped is no message; whoever cuts it next says so.
        return None
    return Decoded(
        text=wrapped.text,
        charset=wrapped.charset,
        evidence=wrapped.decoded.evidence,
        flagged=wrapped.decoded.flagged,
        disagrees=wrapped.decoded.disagrees,
        missing=wrapped.missing,
    )


def declared_charset(raw: bytes) -> str:
    """Return MSH-18 as written, before anything is known about the bytes; empty when absent."""
    start = raw.find(b"MSH", 0, 64)
    if start < 0:
        return ""
    header = raw[start : start + _HEADER_MAX_BYTES].replace(b"\n", b"\r").split(b"\r", 1)[0]
    if header.isascii():
        return _field_18(header.decode("ascii"))
    # A name in MSH-3 to MSH-6 may hold a delimiter byte, so both readings are tried and the one that gives a known label wins.
    readings = [_field_18(header.decode(codec, "replace")) for codec in ("utf-8", "gb18030")]
    return next((label for label in readings if codec_for(_effective(label)) is not None), readings[-1])


def encode_for(text: str, charset: str) -> bytes:
    """Return *text* in *charset*, which is a Python codec or any label of HL7 table 0211.

    Raises:
        UnsupportedError: the character set is unknown or lacks a character of the text.
    """
    codec = codec_for(charset)
    if codec is None:
        raise UnsupportedError(
            f"The character set {charset!r} is not supported.", where="MSH-18", remedy="Use UTF-8 or GB18030."
        )
    try:
        made = text_rule.encode(text, codec)
    except UnicodeEncodeError as error:
        raise UnsupportedError(
            f"The character set {charset!r} has no code for a character at position {error.start}.",
            where="MSH-18",
            remedy="Set the receiver's character set to UTF-8 or GB18030.",
        ) from error
    if codec.startswith(_WIDE) and not _BLOCK_BYTES.isdisjoint(made):
        return _without_block_bytes(text, codec)
    return made


def _without_block_bytes(text: str, codec: str) -> bytes:
    """Return *text* with every character escaped whose wide code holds a block byte, as 下 (U+4E0B) in UTF-16.

    MLLP cannot carry those bytes (Transport Specification R2, section 2.3), and a message that cannot be sent at all helps
    nobody; a reader sees ``\\X...\\`` with the character's UTF-8 (chapter 2, section 2.7.6).
    """
    escape = text[6] if text[:3] in {"MSH", "BHS", "FHS"} and len(text) > 6 else "\\"
    width = "-be" if codec.endswith("-be") else "-le"
    exact = codec if codec.endswith(("-le", "-be")) else codec + width
    return text_rule.encode(
        "".join(
            char if _BLOCK_BYTES.isdisjoint(char.encode(exact)) else f"{escape}X{char.encode().hex().upper()}{escape}"
            for char in text
        ),
        codec,
    )


def _field_18(header: str) -> str:
    fields = header.split(header[3:4]) if len(header) > 3 else []
    return fields[_MSH_18].strip() if len(fields) > _MSH_18 else ""


def _effective(declared: str) -> str:
    """Return the label that speaks for the whole message: of several, the first that is more than ASCII."""
    labels = [label for label in declared.replace('""', "").split("~") if label.strip()]
    return next((label for label in labels if codec_for(label) not in {None, "ascii"}), labels[0] if labels else "")
