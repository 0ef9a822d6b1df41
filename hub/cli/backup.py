"""``hub backup`` and ``hub restore``: a copy of everything, taken while the hub runs, and brought back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from hub.cli.common import command_settings, say, services, tool


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def backup(target: Annotated[Path, typer.Argument(metavar="DIR", help="目标目录 / folder for the copy")]) -> None:
    """备份 / Copy database, objects and keys to DIR; the hub may run meanwhile."""
    from hub.recompression import paused

    # An original that went after the database was copied would be in no copy, and its packed form under no name.
    with services() as opened, paused(opened), _progress() as progress:
        bar = progress.add_task("对象 / objects", total=None)
        manifest = tool("storage.backup").backup(
            opened.settings,
            opened.objects,
            target,
            now=opened.clock(),
            tick=lambda size: progress.advance(bar, size),
        )
    say(f"已备份 / backed up: {manifest['objects']['count']} objects, {manifest['objects']['bytes']} bytes -> {target}")


def restore(source: Annotated[Path, typer.Argument(metavar="DIR", help="备份目录 / folder of a backup")]) -> None:
    """恢复 / Bring a backup back into an empty data directory; never overwrites."""
    found = command_settings()
    with _progress() as progress:
        bar = progress.add_task("对象 / objects", total=None)
        manifest = tool("storage.backup").restore(
            found,
            lambda: tool("storage.objects").open_from(found, direct=True),
            source,
            tick=lambda size: progress.advance(bar, size),
        )
    say(f"已恢复 / restored: {manifest['objects']['count']} objects, backup of {manifest['created']}")
    say("请运行 / now run: hub fsck && hub audit verify")
