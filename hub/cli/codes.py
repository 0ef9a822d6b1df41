"""``hub codes``: members' own codes, what they are mapped to, and messages processed again once they are."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from fhir_mappings.json import dumps
from hub.cli.common import note, operator, say, services
from hub.code_desk import CodeDesk
from hub.errors import Category, HubError

app = typer.Typer(help="院内代码对照 / members' own codes", no_args_is_help=True)

Member = Annotated[str, typer.Argument(metavar="MEMBER", help="成员代码 / member code, for example KN")]
Maybe = Annotated[str, typer.Argument(metavar="[MEMBER]", help="成员代码；缺省为全部 / member code; all when absent")]
AsJson = Annotated[bool, typer.Option("--json", help="每行一个 JSON / one JSON object a line")]


@app.command()
def unmapped(member: Maybe = "", limit: Annotated[int, typer.Option(min=1)] = 100, as_json: AsJson = False) -> None:
    """列出尚无对照的代码 / List codes without a map, those met most often first."""
    with services() as opened:
        found = CodeDesk(opened).unmapped(operator(), member, limit=limit)
    for one in found:
        say(
            dumps(one).decode()
            if as_json
            else f"{one['count']:>8}  {one['institution']:<4} {_short(one['system'], one['institution'])}|{one['code']}"
            f"  消息 / message {one['sample']}{'  已对照，待重新处理 / mapped, to be processed again' if one['mapped'] else ''}"
        )


@app.command("list")
def list_(member: Maybe = "", as_json: AsJson = False) -> None:
    """列出对照 / List what codes are mapped to."""
    with services() as opened:
        found = CodeDesk(opened).maps(operator(), member)
    for one in found:
        say(
            dumps(one).decode()
            if as_json
            else f"{one['institution']:<4} {_short(one['system'], one['institution'])}|{one['code']}"
            f" -> {', '.join(one['targets']) or '-'}  {one['map']} v{one['version']}"
            f"{'' if one['active'] else '  停用 / not active'}"
        )


@app.command("map")
def map_(
    member: Member,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="local, table/unit, table/administrative_sex, ...")],
    code: Annotated[str, typer.Argument(metavar="CODE", help="院内代码 / the member's code")],
    target: Annotated[str, typer.Argument(metavar="[SYSTEM|CODE]", help="http://loinc.org|2823-3")] = "",
    display: Annotated[str, typer.Option(help="目标名称 / name of the target")] = "",
    equivalence: Annotated[str, typer.Option(help="equal, equivalent, wider, subsumes")] = "equivalent",
    none: Annotated[bool, typer.Option("--none", help="没有对应的标准代码 / there is no standard code")] = False,
) -> None:
    """建立对照 / Map a code; running processes follow within a second. Then: hub codes reprocess MEMBER."""
    if none == bool(target):
        raise HubError(
            Category.INCORRECT,
            "A code has a target, or --none says that it has none.",
            where="target",
            remedy="Give SYSTEM|CODE or --none.",
        )
    with services() as opened:
        made = CodeDesk(opened).map(operator(), member, source, code, target, display=display, equivalence=equivalence)
    say(f"{made['system']}|{code} -> {target or '-'}  {made['map']} v{made['version']}")


@app.command()
def reprocess(
    member: Member,
    limit: Annotated[
        int, typer.Option(min=1, help="最多查看多少条消息 / look at this many messages at most")
    ] = 100_000,
) -> None:
    """重新处理含新对照代码的消息 / Process messages again that hold codes mapped since; what stands is not changed."""
    looked_at = replayed = 0
    refused: list[int] = []
    before: int | None = None
    with services() as opened, Console(stderr=True).status("重新处理 / processing again"):
        while looked_at < limit:
            told = CodeDesk(opened).reprocess(operator(), member, limit=min(1000, limit - looked_at), before=before)
            looked_at, replayed = looked_at + told["looked_at"], replayed + told["replayed"]
            refused += told["refused"]
            before = told["next"]
            if before is None:
                break
    say(f"查看 / looked at: {looked_at}  重新处理 / processed again: {replayed}")
    if refused:
        note(f"未能处理 / refused: {', '.join(map(str, refused[:20]))}  (hub messages show SEQ)")
    if before is not None:
        note("尚未完成，请加大 --limit 再运行 / not done yet: run it again with a larger --limit")
        raise typer.Exit(1)


def _short(system: str, institution: str) -> str:
    return system.rpartition(f"/CodeSystem/{institution}/")[2]
