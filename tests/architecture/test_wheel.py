"""The wheel carries everything the hub reads at run time, and nothing that belongs to development."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("hub", "adapters", "fhir_mappings", "storage", "sample_data")
#: Files that are no Python modules but without which the installed hub does not run; one of each kind must be there.
NEEDED = (
    "fhir_mappings/codes/*.csv",
    "fhir_mappings/definitions/data/*",
    "storage/migrations/versions/*.py",
    "hub/py.typed",
    "fhir_mappings/py.typed",
    "sample_data/members/*.json",
    "sample_data/hl7/*/*.hl7",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    # A fixed date makes the archive the same for the same sources.
    subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1577836800"}
    )
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


@pytest.mark.parametrize("pattern", NEEDED)
def test_what_is_read_at_run_time_is_in_the_wheel(wheel: zipfile.ZipFile, pattern: str) -> None:
    wanted = {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern) if path.name != "__pycache__"}
    assert wanted, f"nothing in the checkout matches {pattern}"
    assert wanted <= set(wheel.namelist())


def test_the_wheel_holds_our_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_the_wheel_has_no_leftovers(wheel: zipfile.ZipFile) -> None:
    assert not [name for name in wheel.namelist() if "__pycache__" in name or name.endswith((".pyc", ".db"))]


def test_the_wheel_declares_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    (info,) = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert "hub = hub.__main__:main" in wheel.read(f"{info}/entry_points.txt").decode()
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Private :: Do Not Upload" in metadata
