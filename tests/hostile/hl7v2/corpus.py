"""The whole corpus of hostile HL7 v2 cases."""

from __future__ import annotations

from functools import cache

from tests.hostile.hl7v2 import charsets, delimiters, framing, headers, senders, structure, texts
from tests.hostile.hl7v2.cases import Case


@cache
def corpus() -> tuple[Case, ...]:
    """Return every case; the same ones in the same order each time."""
    families = (framing, delimiters, structure, texts, senders, charsets, headers)
    return tuple(case for family in families for case in family.cases())
