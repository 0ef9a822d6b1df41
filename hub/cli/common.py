"""What every command shares: settings, services for the length of a command, and how trouble is told."""

from __future__ import annotations

import contextlib
import getpass
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import typer

from hub import config
from hub.actor import Actor
from hub.boot import Services, assemble
from hub.config import Settings
from hub.errors import HubError
from hub.printable import printable


@dataclass(slots=True)
class _State:
    config: Path | None = None


#: The options that stand before the command; set once by the callback in :mod:`hub.__main__`.
state = _State()


def settings() -> Settings:
    """Return the settings, with logs going to stderr from here on."""
    found = config.load(state.config)
    tool("adapters.ops.logs").configure(found.log_level)
    return found


def command_settings() -> Settings:
    """Return the settings for a short command, whose logs are warnings only."""
    found = config.load(state.config)
    tool("adapters.ops.logs").configure("debug" if found.log_level == "debug" else "warning")
    return found


def tool(module: str) -> Any:
    """Return *module* of another room, loaded by name so that the imports keep pointing one way."""
    return importlib.import_module(module)


def prepare(found: Settings) -> None:
    """Bring an embedded database to the newest schema; a PostgreSQL one is left to ``hub migrate``."""
    if found.database().startswith("sqlite:"):
        tool("storage.sql.migrate").migrate(found)


@contextlib.contextmanager
def services(found: Settings | None = None) -> Iterator[Services]:
    """Open the stores for one command; an embedded database is made when it is missing."""
    chosen = found if found is not None else command_settings()
    prepare(chosen)
    with node(chosen) as name:
        opened = assemble(chosen, node=name)
        try:
            yield opened
        finally:
            opened.close()


@contextlib.contextmanager
def node(found: Settings) -> Iterator[str]:
    """Hold a node name that no other command on this data directory has, because each node keeps an audit chain."""
    import fcntl

    run_dir = found.data_dir / "run"
    run_dir.mkdir(parents=True, exist_ok=True)
    for number in range(1000):
        with (run_dir / f"cli-{number}.lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield found.node(f"cli-{number}")
            return
    raise RuntimeError("A thousand commands are running on one data directory.")


def operator() -> Actor:
    """Return who acts from the command line: the operator, under the name of the account."""
    try:
        account = getpass.getuser()
    except (KeyError, OSError):
        account = "unknown"
    return Actor(institution="YY", roles=frozenset({"operator", "system"}), client=f"cli:{account}")


def say(text: str = "", *, drawn: bool = False) -> None:
    """Print a line of a command's result, without what would steer a terminal unless the hub itself has *drawn* it."""
    sys.stdout.write(f"{text if drawn else printable(text)}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a line that is not part of the result."""
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


def fail(error: HubError, *, status: int = 1) -> NoReturn:
    """Tell what went wrong and what to do, and end the command."""
    note(f"错误 / error ({error.category.value}): {error}")
    raise typer.Exit(status)
