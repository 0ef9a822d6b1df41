"""The tables of docs/conformance/dicom.md are those of the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def script() -> ModuleType:
    """Return docs/scripts/dicom_conformance.py as a module."""
    path = ROOT / "docs" / "scripts" / "dicom_conformance.py"
    spec = importlib.util.spec_from_file_location("dicom_conformance", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_conformance_statement_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "conformance" / "dicom.md").read_text("utf-8")
    assert script().fill(page) == page, "run `make docs` and commit docs/conformance/dicom.md"


def test_a_page_without_the_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="generated: services"):
        script().fill("# nothing")
