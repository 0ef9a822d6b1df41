"""``hub exports``: de-identified copies of a member's own studies, made by the worker (PS3.15 annex E)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fhir_mappings.json import dumps
from hub.actor import Actor
from hub.cli.common import operator, say, services
from hub.errors import Category, HubError

if TYPE_CHECKING:
    from hub.boot import Services
    from hub.export import Exports

app = typer.Typer(help="去标识化导出 / de-identified exports", no_args_is_help=True)

Member = Annotated[str, typer.Argument(metavar="MEMBER", help="成员代码 / member code, for example KN")]
Job = Annotated[str, typer.Argument(metavar="JOB", help="任务编号 / id of the job")]
AsJson = Annotated[bool, typer.Option("--json", help="每行一个 JSON / one JSON object a line")]


def _exports(opened: Services) -> Exports:
    """Return the service; loaded here, because what it stands on is large and every process of the hub runs this module."""
    from hub.export import Exports

    return Exports(opened)


def _administrator(member: str) -> Actor:
    """Return whoever runs the command as an administrator of *member*; the audit trail names the account."""
    return Actor(institution=member, roles=frozenset({"admin"}), client=operator().client)


@app.command()
def start(
    member: Member,
    project: Annotated[str, typer.Option(help="项目名 / name of the project, which has a key of its own")],
    study: Annotated[list[str] | None, typer.Option(help="Study Instance UID; 可重复 / may be repeated")] = None,
    query: Annotated[
        list[str] | None,
        typer.Option(help="条件，可重复 / may be repeated: StudyDate=20250101-20250630, ModalitiesInStudy=CT"),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="选项，可重复 / may be repeated: full-dates, modified-dates, patient, device, institution, uids,"
            " safe-private, descriptors, structured-content, graphics"
        ),
    ] = None,
    take: Annotated[
        list[str] | None,
        typer.Option(help="仍然导出 / export all the same: burned-in-annotation, pixels-may-carry-names, ..."),
    ] = None,
    hold_unknown: Annotated[
        bool,
        typer.Option("--hold-unknown", help="未声明无烧录文字的图像不导出 / only images that say they name nobody"),
    ] = False,
) -> None:
    """开始导出 / Ask for an export of the member's own studies; the worker makes it."""
    from hub.export import Request

    asked: dict[str, str] = {}
    for one in query or ():
        keyword, separator, value = one.partition("=")
        if not separator:
            raise HubError(
                Category.INCORRECT, "A query is a keyword and a value.", where="--query", remedy="StudyDate=20250601-"
            )
        asked[keyword] = value
    request = Request(
        project=project,
        studies=study or (),
        query=asked,
        options=option or (),
        take=take or (),
        hold_unknown=hold_unknown,
    )
    with services() as opened:
        job = _exports(opened).start(_administrator(member), request)
    say(job["id"])


@app.command("list")
def list_(member: Member, as_json: AsJson = False) -> None:
    """列出导出 / List the member's exports, the newest first."""
    with services() as opened:
        jobs = _exports(opened).jobs(_administrator(member))
    for job in jobs:
        say(dumps(job).decode() if as_json else _line(job))


@app.command()
def show(member: Member, job: Job, as_json: AsJson = False) -> None:
    """显示一个导出 / Show one export: how far it is, and what was left out and why."""
    with services() as opened:
        found = _exports(opened).get(_administrator(member), job)
        folder = opened.settings.data_dir / found["folder"] if found["folder"] else None
    if as_json:
        say(dumps(found).decode())
        return
    say(_line(found))
    for reason, count in found["reasons"].items():
        say(f"    {count:>8}  {reason}")
    if folder is not None:
        say(f"结果 / result: {folder}")


@app.command()
def cancel(member: Member, job: Job) -> None:
    """取消导出 / End an export before its time; what was made is removed."""
    with services() as opened:
        _exports(opened).cancel(_administrator(member), job)
    say(f"已取消 / cancelled: {job}")


@app.command()
def mapping(
    member: Member,
    job: Job,
    key_file: Annotated[Path, typer.Option(help="项目密钥文件 / the project's key: DATA_DIR/keys/deidentify-*.key")],
) -> None:
    """列出 UID 对照表 / Print the UIDs here and in the copies, for who has the project's key; audited, never stored."""
    try:
        key = key_file.read_bytes()
    except OSError as error:
        raise HubError(
            Category.INCORRECT,
            "The key file cannot be read.",
            where="--key-file",
            remedy="Name the project's key file.",
        ) from error
    with services() as opened:
        for kind, here, there in _exports(opened).mapping(_administrator(member), job, key):
            say(f"{kind}\t{here}\t{there}")


def _line(job: dict[str, Any]) -> str:
    return (
        f"{job['id']}  {job['status']:<12} {job['project']:<16} 完成/done {job['done']}  未导出/left out {job['left_out']}"
        f"  失败/failed {job['failed']}  共/of {job['total']}"
    )
