"""No row of a segment table is dead: some message of the samples or of ``every_field`` gets a value out of each."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

from fhir_mappings.definitions.check import check
from fhir_mappings.hl7v2 import messages as message_tables
from fhir_mappings.hl7v2 import segments as segment_tables
from fhir_mappings.hl7v2.assembly import Place, Row
from fhir_mappings.hl7v2.base import Upsert
from fhir_mappings.hl7v2.tokenizer import Field, parse
from fhir_mappings.hl7v2.translate import supported_events, translate
from tests.support.v2_reach import EVERY_FIELD, messages


def _tables() -> Iterator[tuple[str, Row]]:
    """Yield every row of every table with its name: ``pid.ROWS PID-3``."""
    for package in (segment_tables, message_tables):
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            for name, value in vars(module).items():
                if isinstance(value, tuple) and value and all(isinstance(row, Row) for row in value):
                    yield from ((f"{found.name}.{name} field {row.number} -> {row.element}", row) for row in value)


def test_every_row_of_every_segment_table_gives_a_value() -> None:
    """Each converter is wrapped in one that remembers whether it ever returned something."""
    rows = dict(_tables())
    assert len(rows) > 150
    converters = {name: row.convert for name, row in rows.items()}
    alive: set[str] = set()

    def remembering(names: list[str], convert: Any) -> Any:
        def wrapped(content: Field, place: Place) -> Any:
            value = convert(content, place)
            if value not in (None, [], {}, ""):
                alive.update(names)
            return value

        return wrapped

    # Two tables may share a row; it lives for both.
    shared: dict[int, list[str]] = {}
    for name, row in rows.items():
        shared.setdefault(id(row), []).append(name)
    try:
        for names in shared.values():
            row = rows[names[0]]
            object.__setattr__(row, "convert", remembering(names, converters[names[0]]))
        for _, text, ctx in messages():
            translate(parse(text), ctx)
    finally:
        for name, row in rows.items():
            object.__setattr__(row, "convert", converters[name])
    assert sorted(set(rows) - alive) == [], "value the field in a message of tests/fhir_mappings/hl7v2/every_field"


@pytest.mark.parametrize("name", sorted(path.stem for path in EVERY_FIELD.glob("*.hl7")))
def test_a_message_with_every_field_valued_makes_valid_resources(name: str) -> None:
    text, ctx = next((text, ctx) for one, text, ctx in messages() if one == name)
    translation = translate(parse(text), ctx)
    assert translation.event in supported_events()
    for change in translation.changes:
        if isinstance(change, Upsert) and not change.update_only and not change.by_item:
            stored = {**change.defaults, **change.resource}
            errors = [issue for issue in check(stored) if issue.severity in {"error", "fatal"}]
            assert errors == [], change.reference
