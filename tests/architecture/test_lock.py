"""requirements.txt and the tests' npm lock name every package by version and hash, and leave the choice of the index to the installer."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
PINNED = re.compile(r"([A-Za-z0-9._-]+)==(\S+) \\")
HASH = re.compile(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?")


def locked() -> dict[str, str]:
    """Return the locked version of each package."""
    return {canonicalize_name(found[1]): found[2] for line in LINES if (found := PINNED.fullmatch(line))}


def test_every_line_is_a_pinned_package_or_its_hash() -> None:
    assert [line for line in LINES if not PINNED.fullmatch(line) and not HASH.fullmatch(line)] == []


def test_every_package_has_a_hash() -> None:
    followed = [HASH.fullmatch(after) for line, after in zip(LINES, [*LINES[1:], ""], strict=True) if "==" in line]
    assert followed
    assert all(followed)


def test_no_index_url_or_path_is_named() -> None:
    assert [line for line in LINES if re.search(r"://|index|find-links|trusted|^\s*-e|/", line)] == []


def _declared() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
        *project["project"]["optional-dependencies"]["video"],
        *project["build-system"]["requires"],
    ]


@pytest.mark.parametrize("declared", _declared())
def test_a_declared_dependency_is_locked_within_its_bounds(declared: str) -> None:
    requirement = Requirement(declared)
    assert requirement.specifier.contains(locked()[canonicalize_name(requirement.name)])


def _npm_packages() -> dict[str, dict[str, str]]:
    lock = json.loads((ROOT / "tests" / "strangers" / "package-lock.json").read_text("utf-8"))
    return {name: package for name, package in lock["packages"].items() if name}


def test_npm_packages_are_locked_by_version_and_sum_and_name_no_registry() -> None:
    wanted = json.loads((ROOT / "tests" / "strangers" / "package.json").read_text("utf-8"))["dependencies"]
    packages = _npm_packages()
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert [name for name, one in packages.items() if not one["integrity"].startswith("sha512-")] == []
    assert [name for name, one in packages.items() if "resolved" in one] == []
    assert "://" not in (ROOT / "tests" / "strangers" / "package-lock.json").read_text("utf-8")
