"""Fixtures of the DIMSE tests."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.config import Settings
from tests.support.dimse import Door, FakeServices, running


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """Return a maker of settings with short limits where the test asks for them."""
    return lambda **values: Settings(data_dir=tmp_path, **values)


@pytest.fixture
def door(settings: Callable[..., Settings]) -> Iterator[Door]:
    """A running door with the default limits."""
    with running(FakeServices(settings())) as open_door:
        yield open_door


@pytest.fixture
def dcmtk() -> Callable[..., list[Any]]:
    """Return a maker of DCMTK command lines; the DICOM library installs scripts of the same names beside Python."""
    ours = Path(sys.prefix, "bin")
    path = os.pathsep.join(p for p in os.environ.get("PATH", "").split(os.pathsep) if Path(p) != ours)

    def command(name: str, *arguments: object) -> list[str]:
        found = shutil.which(name, path=path)
        assert found is not None
        return [found, *map(str, arguments)]

    return command
