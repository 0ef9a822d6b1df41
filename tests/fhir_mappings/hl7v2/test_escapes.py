"""Escape sequences."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_mappings.hl7v2.escapes import STANDARD, Delimiters, escape, unescape

ODD = Delimiters(field="!", component="@", repetition="$", escape="%", subcomponent="*", truncation="?")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("\\F\\\\S\\\\T\\\\R\\\\E\\", "|^&~\\"),
        ("一\\.br\\二", "一\n二"),
        ("\\.sp3\\x", "\n\n\nx"),
        ("\\.sk2\\x", "  x"),
        ("\\.in+4\\x", "x"),
        ("\\H\\重要\\N\\", "重要"),
        ("\\XE5BCA0\\", "张"),
        ("\\XD5C5\\", "张"),
        ("\\X0D0A\\", "\r\n"),
        ("\\X41\\", "A"),
        ("\\P\\", "#"),
        # Unknown, unclosed and forbidden sequences stay as written.
        ("\\Z99\\", "\\Z99\\"),
        ("C:\\temp\\F\\x", "C:\\temp|x"),
        ("\\F", "\\F"),
        ("\\X00\\", "\\X00\\"),
        ("\\X1C\\", "\\X1C\\"),
        ("\\X7F\\", "\\X7F\\"),
        ("\\XFF\\", "\\XFF\\"),
        ("\\X4\\", "\\X4\\"),
        ("50\\%", "50\\%"),
    ],
)
def test_unescaping(written: str, meant: str) -> None:
    assert unescape(written) == meant


def test_a_long_repeat_is_capped() -> None:
    assert len(unescape("\\.sp9999\\")) == 100


@pytest.mark.parametrize("delimiters", [STANDARD, ODD])
@given(text=st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_escaped_text_holds_no_delimiter_line_end_or_control(delimiters: Delimiters, text: str) -> None:
    written = escape(text, delimiters)
    structure = set(delimiters.field + delimiters.component + delimiters.repetition + delimiters.subcomponent)
    assert not structure & set(written)
    assert not [char for char in written if ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or char in "\u2028\u2029"]
    assert len(written.splitlines()) <= 1


@pytest.mark.parametrize("delimiters", [STANDARD, ODD])
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs"], include_characters="\n\t"), max_size=60))
@settings(max_examples=150, deadline=None)
def test_text_survives_escaping_and_back(delimiters: Delimiters, text: str) -> None:
    meant = text.replace("\u2028", "\n").replace("\u2029", "\n")
    assert unescape(escape(text, delimiters), delimiters) == meant
