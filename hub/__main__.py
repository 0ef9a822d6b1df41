"""The ``hub`` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hub import __version__
from hub.cli import (
    backup,
    codes,
    common,
    convert,
    demo,
    export,
    feed,
    integrity,
    links,
    members,
    merges,
    messages,
    migrate,
    queue,
    serve,
    share,
    studies,
    token,
    viewer,
)
from hub.errors import HubError

app = typer.Typer(
    name="hub",
    help="医协枢纽 / Yixie Hub: DICOM, HL7 v2 and FHIR in, FHIR R4 inside, closed loops out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        common.say(__version__)
        raise typer.Exit


@app.callback()
def _options(
    config: Annotated[
        Path | None, typer.Option(help="设置文件 / settings file (default: HUB_CONFIG, then hub.toml)")
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="版本 / version")
    ] = False,
) -> None:
    common.state.config = config


app.command("serve")(serve.serve)
app.command("_template", hidden=True)(serve.template)
app.command("demo")(demo.demo)
app.add_typer(feed.app, name="feed")
app.command("migrate")(migrate.migrate)
app.add_typer(members.app, name="members")
app.command("token")(token.token)
app.command("check")(integrity.check)
app.add_typer(messages.app, name="messages")
app.add_typer(codes.app, name="codes")
app.add_typer(queue.app, name="queue")
app.add_typer(merges.app, name="merges")
app.add_typer(links.app, name="links")
app.command("fsck")(integrity.fsck)
app.add_typer(integrity.audit, name="audit")
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("convert")(convert.convert)
app.add_typer(studies.app, name="studies")
app.add_typer(viewer.app, name="viewer")
app.add_typer(export.app, name="exports")
app.add_typer(share.app, name="share")


def main() -> None:
    """Run the command; trouble is one line on stderr and exit status 1."""
    try:
        app()
    except HubError as error:
        common.note(f"错误 / error ({error.category.value}): {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
