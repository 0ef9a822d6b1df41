"""Messages in the receiver's character set, without loss (HL7 v2 chapter 2, sections 2.7.6 and 2.14.9.18)."""

from __future__ import annotations

from fhir_mappings import text as text_rule
from fhir_mappings.errors import UnsupportedError
from fhir_mappings.hl7v2.charset import encode_for
from fhir_mappings.text import codec_for


def encode_or_escape(text: str, charset: str) -> tuple[bytes, int]:
    """Return *text* in *charset* and how many characters it has no code for.

    Such a character leaves as ``\\Xdd...\\`` with its UTF-8 (chapter 2, section 2.7.6): a reader sees that something
    stands there, and what, where a question mark would lose it. The text must use the standard's own escape character.

    Raises:
        UnsupportedError: the character set is unknown.
    """
    try:
        return encode_for(text, charset), 0
    except UnsupportedError:
        codec = codec_for(charset)
        if codec is None:
            raise
    made: list[str] = []
    missing = 0
    for char in text:
        try:
            text_rule.encode(char, codec)
            made.append(char)
        except UnicodeEncodeError:
            missing += 1
            made.append(f"\\X{char.encode('utf-8', 'surrogatepass').hex().upper()}\\")
    return text_rule.encode("".join(made), codec), missing
