"""A test that needs a right of its own says so by the name of the tool, and CI does not let it pass unseen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import conftest


@pytest.fixture
def powerless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which ``mount`` is installed and may not mount."""
    (tmp_path / "mount").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(conftest.ABILITIES, "mount", (lambda: False, "Do this."))  # type: ignore[arg-type]


@pytest.mark.usefixtures("powerless")
def test_a_tool_that_may_not_do_its_work_is_an_error_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"mount is there and cannot do its work\. Do this\."):
        conftest.require_tool("mount")


@pytest.mark.usefixtures("powerless")
def test_elsewhere_its_test_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs the system tool mount with its rights"):
        conftest.require_tool("mount")


def test_a_tool_that_is_not_there_is_not_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="mount is missing"):
        conftest.require_tool("mount")


def test_no_test_of_the_object_stores_skips_by_a_rule_of_its_own() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        if path != Path(__file__):
            assert "pytest.skip" not in path.read_text("utf-8"), path.name
            assert "skipif" not in path.read_text("utf-8"), path.name
