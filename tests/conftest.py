"""Fixtures that every test may use; tools that are missing are named, and with CI=true their lack is an error."""

from __future__ import annotations

import os
import shutil

import pytest

pytest_plugins = ["tests.support.databases", "tests.support.hub", "tests.support.seaweedfs"]


def require_tool(name: str) -> str:
    """Return the path of the system tool *name*; skip by name where it is missing, fail with CI=true."""
    path = shutil.which(name)
    if path is not None:
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(f"The system tool {name} is missing; `make setup` installs it.")
    pytest.skip(f"needs the system tool {name}")


@pytest.fixture(autouse=True)
def _tools(request: pytest.FixtureRequest) -> None:
    for marker in request.node.iter_markers("tool"):
        for name in marker.args:
            require_tool(name)
