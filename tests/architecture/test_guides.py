"""The guides in docs/guides name files that are there and commands and settings that the hub has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from hub.__main__ import app
from hub.endpoint_settings import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_link_of_a_guide_leads_to_a_file(guide: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", guide.read_text("utf-8"))
    assert links
    assert [link for link in links if not (guide.parent / link).exists()] == []


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_command_of_a_guide_is_one(guide: Path) -> None:
    text = guide.read_text("utf-8")
    lines = re.findall(r"(?:^|`)hub ((?:[a-z][a-z-]* ?)+)", text, re.MULTILINE)
    assert lines
    for line in lines:
        command = typer.main.get_command(app)
        for word in line.split():
            commands = getattr(command, "commands", None)
            if commands is None:
                break
            assert word in commands, f"{guide.name}: there is no command `hub {line.strip()}`"
            command = commands[word]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_setting_of_a_guide_is_one(guide: Path) -> None:
    rows = re.findall(r"^\| (`[a-z0-9-]+`[^|]*)\|", guide.read_text("utf-8"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`(?! *=)", row.split(" = ")[0])}
    assert named
    assert named <= {one.name for one in SETTINGS}
