"""``hub members history``, ``diff`` and ``rollback``: settings of members as versions."""

from __future__ import annotations

from typing import Annotated

import typer

from fhir_mappings.json import dumps
from hub.cli.common import operator, say, services

Name = Annotated[str, typer.Argument(metavar="NAME", help="KN/mllp, Endpoint/ID, Organization/ID, ConceptMap/ID")]
AsJson = Annotated[bool, typer.Option("--json", help="每行一个 JSON / one JSON object a line")]
_CHANGES = {"added": "+", "removed": "-", "changed": "~"}


def history(name: Name, as_json: AsJson = False) -> None:
    """设置的历史版本 / List the versions of a member's settings or code map, the newest first."""
    from hub.settings_versions import SettingsVersions

    with services() as opened:
        found = SettingsVersions(opened).history(operator(), name)
    for one in found:
        say(
            dumps(one).decode()
            if as_json
            else f"{one['version']:>4}  {one['at']}  {one['by'] or '-'}  "
            f"{'已删除 / deleted' if one['deleted'] else ', '.join(one['changed'][:10])}"
        )


def diff(
    name: Name,
    before: Annotated[int | None, typer.Argument(metavar="[BEFORE]", help="缺省为上一版本 / the last but one")] = None,
    after: Annotated[int | None, typer.Argument(metavar="[AFTER]", help="缺省为当前版本 / the current one")] = None,
    as_json: AsJson = False,
) -> None:
    """比较两个版本 / Show what differs between two versions; secrets are not shown."""
    from hub.settings_versions import SettingsVersions

    with services() as opened:
        found = SettingsVersions(opened).diff(operator(), name, before, after)
    for one in found:
        say(
            dumps(one).decode()
            if as_json
            else f"{_CHANGES[one['change']]} {one['path']}: {' '.join(one['before']) or '-'}"
            f" -> {' '.join(one['after']) or '-'}"
        )


def rollback(
    name: Name, version: Annotated[int, typer.Argument(metavar="VERSION", help="恢复到此版本 / version to go back to")]
) -> None:
    """恢复旧版本 / Make an earlier version the newest; running processes follow within a second."""
    from hub.settings_versions import SettingsVersions

    with services() as opened:
        told = SettingsVersions(opened).rollback(operator(), name, version)
    say(f"{told['reference']}: {told['like']} -> {told['version']}")
