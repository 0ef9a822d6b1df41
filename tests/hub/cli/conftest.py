"""The ``hub`` command run inside the test's process, in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hub.__main__ import app

MEMBERS = Path(__file__).parents[3] / "sample_data" / "members"
SAMPLES = Path(__file__).parents[3] / "sample_data" / "hl7"

Hub = Callable[..., Result]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of the commands; it does not exist yet."""
    folder = tmp_path / "data"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUB_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def hub(data_dir: Path) -> Hub:
    """Run ``hub ARGUMENTS`` and return its result."""
    runner = CliRunner()

    def run(*arguments: str, stdin: bytes | None = None) -> Result:
        return runner.invoke(app, list(arguments), input=stdin)

    return run


@pytest.fixture
def consortium(hub: Hub) -> Hub:
    """The same, with the sample consortium imported."""
    assert hub("migrate").exit_code == 0
    assert hub("members", "import", str(MEMBERS)).exit_code == 0
    return hub
