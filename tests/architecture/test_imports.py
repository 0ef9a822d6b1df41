"""Imports point one way (docs/architecture.md): the contracts of pyproject.toml hold, and they cover every room."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]


def test_the_contracts_hold() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_room_is_under_contract() -> None:
    assert set(CONTRACTS["root_packages"]) == {"hub", "adapters", "fhir_mappings", "storage"}


def test_every_protocol_is_kept_apart_from_the_others() -> None:
    # `http` composes doors and `worker` calls senders by name: they are compositions, not protocols.
    doors = {f"adapters.{path.parent.name}" for path in (ROOT / "adapters").glob("*/__init__.py")}
    (apart,) = (set(one["modules"]) for one in CONTRACTS["contracts"] if one["type"] == "independence")
    assert doors - {"adapters.http", "adapters.worker"} == apart
