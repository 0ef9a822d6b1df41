"""``hub feed dry-run``: new settings of a feed tried against what it has sent, before anybody relies on them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from fhir_mappings.json import dumps
from hub.cli.common import operator, say, services
from hub.cli.members import resources_in
from hub.errors import Category, HubError

_CHANGES = {"added": "+", "removed": "-", "changed": "~"}


def dry_run(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="端点 / endpoint, for example KN/mllp")],
    settings: Annotated[
        list[Path] | None,
        typer.Option(help="拟用的 Endpoint、ConceptMap 文件 / files of Endpoints and ConceptMaps that are proposed"),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="拟用的设置 / a setting that is proposed")
    ] = None,
    last: Annotated[int, typer.Option(min=1, max=10_000, help="最近多少条消息 / so many of the newest messages")] = 100,
    since: Annotated[str, typer.Option(help="2025-06-11T08:00:00+08:00")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="一个 JSON 对象 / one JSON object")] = False,
) -> None:
    """试用新设置，不保存 / Try new settings on what a feed has sent: which FHIR elements would differ; stores nothing."""
    from hub.dry_run import DryRun

    with services() as opened:
        told = DryRun(opened).run(
            operator(),
            endpoint,
            resources_in(settings or []),
            dict(_pair(one) for one in set_ or []),
            last=last,
            since=_moment(since),
        )
    if as_json:
        say(dumps(told).decode())
        return
    say(f"消息 / messages: {told['messages']}  有差异 / differing: {told['differing']}")
    say(f"警告 / warnings: {told['warnings']['now']} -> {told['warnings']['then']}")
    say(f"未对照代码 / unmapped codes: {told['unmapped']['now']} -> {told['unmapped']['then']}")
    for one in told["verdicts"]:
        say(f"! {one['count']:>6}  {one['now']} -> {one['then']}  {_examples(one['examples'])}")
    for one in told["elements"]:
        say(f"{_CHANGES[one['change']]} {one['count']:>6}  {one['path']}  {_examples(one['examples'])}")


def _examples(numbers: list[int]) -> str:
    return f"消息 / messages {', '.join(map(str, numbers))}"


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise HubError(
            Category.INCORRECT, "This is no setting.", where="--set", remedy="Write it like charset-in=GB18030."
        )
    return name, value


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise HubError(
            Category.INCORRECT, "This is no moment in time.", where="--since", remedy="Write 2025-06-11T08:30:00+08:00."
        )
    return found
