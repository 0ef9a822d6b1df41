"""The written pages of the workflows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hub.workflows import WORKFLOWS
from hub.workflows.diagram import mermaid, pages

DOCS = Path(__file__).parents[3] / "docs" / "workflows"


def test_the_written_pages_are_those_of_the_tables() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    assert written == pages(), "Run `python -m hub.workflows.diagram docs/workflows` and commit the pages."


def test_the_diagram_shows_every_state_and_every_move() -> None:
    for workflow in WORKFLOWS.values():
        text = mermaid(workflow)
        assert all(f" as {name.replace('-', '_')}\n" in text for name in workflow.states)
        assert text.count(" --> ") == 1 + sum(s.terminal for s in workflow.states.values()) + sum(
            source != t.to for t in workflow.transitions if t.to for source in t.sources
        )


def test_the_command_writes_the_pages(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hub.workflows.diagram", str(tmp_path)], check=True)
    assert {path.name for path in tmp_path.iterdir()} == set(pages())
    assert subprocess.run([sys.executable, "-m", "hub.workflows.diagram"], check=False).returncode == 2
