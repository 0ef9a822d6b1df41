"""``hub feed``: play data through the doors of a running hub, and look at what a member's feed is made of.

``hub feed`` and ``hub feed DIR`` play, which is what a word that is no command here means; a folder that is called like
one is written ``./test``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typer.core import TyperGroup

import hub
from hub.boot import Services
from hub.cli.common import note, say, services, tool
from hub.cli.dry_run import dry_run
from hub.cli.feed_stats import stats
from hub.cli.feed_test import check_samples
from hub.config import Settings
from hub.errors import Category, HubError


def sample_folder() -> Path:
    """Return the sample data that came with the hub.

    Raises:
        HubError: not-found when it was left out.
    """
    folder = Path(hub.__file__).parent.parent / "sample_data"
    if not (folder / "feed.toml").exists():
        raise HubError(
            Category.NOT_FOUND, "There is no sample data beside this hub.", where=str(folder), remedy="Name a folder."
        )
    return folder


def addresses(found: Settings) -> Mapping[str, str]:
    """Return where the doors are: what the running hub wrote down, else what the settings say."""
    known = {"http": found.http_bind, "mllp": found.mllp_bind, "dimse": found.dimse_bind}
    try:
        running = json.loads((found.data_dir / "run" / "ports.json").read_text("utf-8"))
    except (OSError, ValueError):
        running = {}
    return {**known, **{door: ways["plain"] for door, ways in running.items() if door in known}}


def play(opened: Services, folder: Path) -> int:
    """Play *folder* with a progress bar, tell what came of it, and return how many items failed."""
    module = tool("adapters.feed")
    with (
        module.Feed(opened, folder, module.Doors(**addresses(opened.settings))) as feed,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        ) as progress,
    ):
        bar = progress.add_task("播放 / playing", total=len(feed.items))
        played = feed.play(lambda item: progress.update(bar, advance=1, description=f"{item.door:<5}"))
    names = {"dimse": "DICOM (C-STORE)", "mllp": "HL7 v2 (MLLP)", "fhir": "FHIR (HTTP)", "cda": "CDA (HTTP)"}
    for door, count in sorted(played.taken.items()):
        say(f"{names[door]}: {count} 已接收 / taken")
    for failure in played.failures:
        note(f"失败 / failed: {failure}")
    if played.failures:
        total, failed = len(feed.items), len(played.failures)
        note(f"共 {total} 项，{failed} 项失败，其余已接收 / {failed} of {total} items failed, the rest were taken")
    return len(played.failures)


def feed(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="数据目录 / folder (default: the sample consortium)")
    ] = None,
) -> None:
    """播放样例数据，`play` 可省略 / Play sample data through the running hub's doors; again changes nothing; `play` may be left out."""
    with services() as opened:
        failed = play(opened, folder or sample_folder())
    raise typer.Exit(1 if failed else 0)


class _Group(TyperGroup):
    """The commands of ``hub feed``, of which ``play`` needs not be named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse *args*, with ``play`` before them where they begin with no command."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["play", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group, help="播放样例数据；检查成员的接口 / play data through the doors; look at a member's feed"
)
app.command("play")(feed)
app.command("dry-run")(dry_run)
app.command("test")(check_samples)
app.command("stats")(stats)
