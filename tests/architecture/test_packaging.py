"""The import packages are ours wherever the tests run: in the checkout, or installed from the wheel.

``EXPECT_PACKAGES_IN`` names the environment they must come from; without it, it is the checkout.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = Path(os.environ.get("EXPECT_PACKAGES_IN", ROOT)).resolve()
PACKAGES = ("hub", "adapters", "fhir_mappings", "storage")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_comes_from_this_product(package: str) -> None:
    file = import_module(package).__file__
    assert file is not None
    assert Path(file).resolve().is_relative_to(EXPECTED)


@pytest.mark.parametrize("package", [*PACKAGES, "sample_data"])
def test_no_other_distribution_brings_the_same_package(package: str) -> None:
    # An editable install lists no packages, so ours may be absent here.
    assert set(metadata.packages_distributions().get(package, ())) <= {"yixie-hub"}


def test_the_command_runs_away_from_the_checkout(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", "import hub, storage; print(hub.__file__, storage.__file__, sep='\\n')"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all(Path(line).resolve().is_relative_to(EXPECTED) for line in done.stdout.splitlines())


def test_the_installed_version_is_the_version_of_the_code() -> None:
    assert metadata.version("yixie-hub") == import_module("hub").__version__
