"""The reviewed comparison with the official v2-to-FHIR maps (docs/conformance/v2-to-fhir) is what the code does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from fhir_mappings import codes
from tests.support import v2_datatypes, v2_maps
from tests.support.v2_reach import reach

ROOT = Path(__file__).resolve().parents[3]


def script(name: str) -> ModuleType:
    """Return ``docs/scripts/NAME.py`` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_conformance_statement_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "conformance" / "hl7v2.md").read_text("utf-8")
    assert script("hl7v2_conformance").fill(page) == page, "run `make docs` and commit docs/conformance/hl7v2.md"


def test_a_page_without_the_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="generated: events"):
        script("hl7v2_conformance").fill("# nothing")


def test_every_row_without_a_reason_is_reached() -> None:
    """A field that v2-to-FHIR maps reaches its element, or a reason says why it does not."""
    reached = reach()
    lost = [row for row in v2_maps.segment_rows() if not row.reason and not v2_maps.holds(row, reached)]
    assert lost == [], "map the field again, or give a reason in docs/conformance/v2-to-fhir/segments.csv"


def test_no_row_with_a_reason_is_reached_after_all() -> None:
    reached = reach()
    stale = [row for row in v2_maps.segment_rows() if row.reason and v2_maps.holds(row, reached)]
    assert stale == [], "take the reason out of docs/conformance/v2-to-fhir/segments.csv"


def test_every_segment_map_that_a_structure_calls_for_is_used_or_has_a_reason() -> None:
    reached = reach()
    wrong = [row for row in v2_maps.message_rows() if v2_maps.called(row, reached) == bool(row.reason)]
    assert wrong == [], "bring docs/conformance/v2-to-fhir/messages.csv up to the code"


def test_every_component_reaches_its_element_or_has_a_reason() -> None:
    reached = v2_datatypes.reach()
    wrong = [row for row in v2_maps.datatype_rows() if v2_maps.component_holds(row, reached) == bool(row.reason)]
    assert wrong == [], "bring docs/conformance/v2-to-fhir/datatypes.csv up to the code"


def test_every_code_becomes_what_the_table_of_differences_says() -> None:
    tables = script("v2_maps").TABLES
    rows = [row for row in v2_maps.code_rows() if row.code != "*"]
    assert {row.map for row in rows} == set(tables)
    wrong = []
    for row in rows:
        mapped = codes.lookup(tables[row.map], row.code)
        if (mapped.target if mapped else "") != row.ours:
            wrong.append(row)
    assert wrong == [], "bring docs/conformance/v2-to-fhir/codes.csv up to fhir_mappings/codes"


def test_every_code_that_becomes_something_else_has_a_reason() -> None:
    rows = [row for row in v2_maps.code_rows() if row.code != "*"]
    assert [row for row in rows if (row.theirs != row.ours) != bool(row.reason)] == []


def test_every_concept_map_without_a_table_has_a_reason() -> None:
    assert [row for row in v2_maps.code_rows() if row.code == "*" and not row.reason] == []


def test_every_reason_has_its_words_and_all_words_are_used() -> None:
    named = {
        row.reason
        for rows in (v2_maps.segment_rows(), v2_maps.message_rows(), v2_maps.datatype_rows(), v2_maps.code_rows())
        for row in rows
        if row.reason
    }
    assert named == set(v2_maps.reasons())


@pytest.mark.parametrize(
    ("target", "element"),
    [
        ("identifier[1].type.coding.code", "identifier"),
        ("performer[2](PractitionerRole.organization(Organization.address))", "performer(Organization.address)"),
        ("extension[4].extension[1].url", "extension"),
        ('type.coding.code="VN"', "type"),
        ("participant[2].type.text", "participant"),
        ("location[1].location(Location)", "location.location"),
        ("$this", "$this"),
    ],
)
def test_a_target_of_the_maps_is_named_by_its_element(target: str, element: str) -> None:
    assert v2_maps.element(target) == element
