"""The wildcard of ITI-21 is the one everybody knows, and costs what its texts are long."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from fhir_mappings.hl7v2.queries.qbp import fits

_TEXT = st.text(alphabet="ab郑*", max_size=8)


@given(pattern=_TEXT, candidate=st.text(alphabet="ab郑", max_size=8))
def test_a_star_stands_for_any_characters_and_nothing_else_is_special(pattern: str, candidate: str) -> None:
    meant = ".*".join(re.escape(part) for part in pattern.split("*"))
    assert fits(pattern, candidate) == (re.fullmatch(meant, candidate) is not None)


def test_many_stars_over_a_long_name_end() -> None:
    assert not fits("a*" * 5000 + "b", "a" * 20_000)
