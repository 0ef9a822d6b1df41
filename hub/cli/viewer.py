"""``hub viewer``: put OHIF, the browser's image viewer, where the HTTP door serves it from (``/viewer/``)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hub.cli.common import command_settings, say, tool

app = typer.Typer(no_args_is_help=True, help="影像浏览器 / The browser's image viewer.")


@app.command("add")
def add(
    tarball: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="npm 包文件，免网络 / the npm package's file; needs no network"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="已安装也重做 / again, even where it is there")] = False,
) -> None:
    """安装影像浏览器 / Fetch the pinned OHIF with npm, check it, fit it to the hub and put it in place."""
    package = tool("adapters.viewer.package")
    folder = command_settings().viewer()
    found = None if force else package.read(folder)
    if found is None:
        if tarball is not None:
            found = package.install(tarball, folder)
        else:
            with tempfile.TemporaryDirectory(prefix="hub-viewer-") as scratch:
                found = package.install(package.fetch(Path(scratch)), folder)
    say(f"影像浏览器 / viewer: OHIF {found.version}  {folder}")


@app.command("status")
def status() -> None:
    """影像浏览器是否就绪 / Tell whether the viewer is there; exit status 1 when it is not."""
    folder = command_settings().viewer()
    found = tool("adapters.viewer.package").read(folder)
    if found is None:
        say(f"影像浏览器未安装 / the viewer is not installed: hub viewer add  ({folder})")
        raise typer.Exit(1)
    size = sum(found.files.values()) / 1e6
    say(f"影像浏览器 / viewer: OHIF {found.version}, {len(found.files)} files, {size:.0f} MB  {folder}")
