"""The tables of docs/operations.md are those of the code, and every room says what it is for."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def script() -> ModuleType:
    """Return docs/scripts/operations.py as a module."""
    spec = importlib.util.spec_from_file_location("operations_tables", ROOT / "docs" / "scripts" / "operations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_commands_and_settings_in_the_docs_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert script().fill(page) == page, "run `make docs` and commit docs/operations.md"


def test_a_page_without_the_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="generated: commands"):
        script().fill("# nothing")


@pytest.mark.parametrize(
    "page",
    ["README.md", "CHANGELOG.md", "docs/architecture.md", "docs/operations.md"]
    + [f"{room}/README.md" for room in ("hub", "fhir_mappings", "storage", "adapters")],
)
def test_links_between_the_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []
