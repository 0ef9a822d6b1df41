"""Fixtures that every test may use; tools that are missing are named, and with CI=true their lack is an error.

A tool that is installed and may not do its work here, as ``mount`` without the right to mount, is missing too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from functools import cache

import pytest

pytest_plugins = [
    "tests.support.databases",
    "tests.support.hub",
    "tests.support.mariadb",
    "tests.support.reactor",
    "tests.support.seaweedfs",
]


@cache
def may_mount() -> bool:
    """Whether a tmpfs can be mounted here: being root is not enough in most containers (capabilities(7))."""
    with tempfile.TemporaryDirectory(prefix="hub-mount-") as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=False, capture_output=True)
        if tried.returncode == 0:
            subprocess.run(["umount", "-l", folder], check=True)
        return tried.returncode == 0


@cache
def has_chinese_font() -> bool:
    """Whether a browser can draw Chinese here."""
    found = subprocess.run(["fc-list", ":lang=zh-cn", "family"], check=False, capture_output=True)
    return bool(found.stdout.strip())


#: Tools whose presence says little: what tells that they work here, and what to do where they do not.
ABILITIES: Mapping[str, tuple[Callable[[], bool], str]] = {
    "mount": (may_mount, "Run the tests as root where mounting is allowed (CAP_SYS_ADMIN)."),
    "chromium": (has_chinese_font, "Install a Chinese font (fonts-noto-cjk)."),
}


def require_tool(name: str) -> str:
    """Return the path of the system tool *name*; skip by name where it is missing or powerless, fail with CI=true."""
    path = shutil.which(name)
    works, remedy = ABILITIES.get(name, (lambda: True, ""))
    if path is not None and works():
        return path
    if os.environ.get("CI") == "true":
        if path is None:
            pytest.fail(f"The system tool {name} is missing; `make setup` installs it.")
        pytest.fail(f"The system tool {name} is there and cannot do its work. {remedy}")
    pytest.skip(f"needs the system tool {name}" if path is None else f"needs the system tool {name} with its rights")


@pytest.fixture(autouse=True)
def _tools(request: pytest.FixtureRequest) -> None:
    for marker in request.node.iter_markers("tool"):
        for name in marker.args:
            require_tool(name)
