"""``hub messages``: everything that was received, found, looked at, processed again and written out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fhir_mappings.json import dumps, loads
from hub.cli.common import note, operator, say, services
from hub.cli.message_filter import filtered
from hub.errors import Category, HubError
from hub.printable import printable

app = typer.Typer(help="收到的消息 / what was received", no_args_is_help=True)

Seq = Annotated[int, typer.Argument(metavar="SEQ", help="序号 / number in the journal")]

# What the commands stand on is loaded by those that run: it is large, and every process of the hub runs this module.


def _desk(opened: Any) -> Any:
    from hub.message_desk import MessageDesk

    return MessageDesk(opened)


@app.command("list")
@filtered
def list_(
    wanted: dict[str, str],
    limit: Annotated[int, typer.Option(min=1)] = 50,
    before: Annotated[
        int, typer.Option(min=0, help="此序号之前 / below this number, to go on from an earlier list")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="每行一个 JSON / one JSON object a line")] = False,
) -> None:
    """列出消息 / List what was received, newest first, without its content; Ctrl-C ends a long search."""
    with services() as opened:
        desk, after, left = _desk(opened), before or None, limit
        while left > 0:
            page = desk.find(operator(), wanted, limit=left, before_seq=after)
            for one in page["messages"]:
                say(dumps(one).decode() if as_json else _line(one))
            left -= len(page["messages"])
            after = page.get("next")
            if after is None:
                return
            if left > 0:
                note(f"继续向前查找 / looking on below {after}")
    note(f"还有更早的 / there may be older ones: --before {after}")


def _line(one: dict[str, Any]) -> str:
    return (
        f"{one['seq']:>8}  {one['received']}  {one['door']:<8} {one['institution']:<4} {one['type']:<10}"
        f" {one['state']:<8} {one['control_id']}  {one['outcome'][:80]}"
    )


@app.command()
def show(seq: Seq) -> None:
    """显示一条消息 / Show one message with its content; the look is audited."""
    with services() as opened:
        one = _desk(opened).message(operator(), seq)
    content, answer = one.pop("content"), one.pop("acknowledgement")
    for name, value in one.items():
        say(f"{name:<16}{value}")
    say()
    say(content)
    if answer:
        say("-- 应答 / answer --")
        say(answer)


@app.command()
def replay(seq: Seq) -> None:
    """重新处理 / Process a v2 message again; what stands already does not change."""
    with services() as opened:
        outcome = _desk(opened).replay(operator(), seq)
    say(f"{seq}: {outcome or 'ok'}")


@app.command()
def compare(
    seq: Seq,
    as_json: Annotated[bool, typer.Option("--json", help="一个 JSON / one JSON object")] = False,
) -> None:
    """对照 / Show a message beside the resources that came of it; the look is audited."""
    from hub.message_compare import compare as compared

    with services() as opened:
        found = compared(opened, operator(), seq).shown()
    if as_json:
        say(dumps(found).decode())
        return
    _side_by_side(found)


def _side_by_side(found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("消息 / message", "资源 / resources", expand=True)
    right = []
    for one in found["resources"]:
        right.append(f"{one['reference']} v{one['version']}{' 已删除 / deleted' if one['deleted'] else ''}")
        right += [f"  {line}" for line in _lines(loads(one["body"]))]
    right += [f"{one}: 无此版本 / no such version" for one in found["gone"]]
    # As text, so that brackets in a message are no markup.
    table.add_row(Text(printable("\n".join(found["segments"]))), Text(printable("\n".join(right)) or "无 / none"))
    Console().print(table)


def _lines(value: Any, path: str = "") -> list[str]:
    """Return the leaves of a resource, one a line, by their paths."""
    if isinstance(value, dict):
        return [line for name, one in value.items() for line in _lines(one, f"{path}.{name}" if path else name)]
    if isinstance(value, list):
        return [line for place, one in enumerate(value) for line in _lines(one, f"{path}[{place}]")]
    return [f"{path} = {value}"]


@app.command("replay-all")
@filtered
def replay_all(
    wanted: dict[str, str],
    confirm: Annotated[str, typer.Option(help="前一步给出的口令 / the word that the first step gave")] = "",
) -> None:
    """批量重新处理 / Process all messages of a filter again, oldest first; without --confirm it only counts them."""
    from hub.message_bulk import BulkReplay

    with services() as opened:
        bulk = BulkReplay(opened, operator(), wanted)
        chosen = bulk.choice
        note(f"消息 / messages: {len(chosen.numbers)}  {chosen.since or ''} .. {chosen.until or ''}")
        if not confirm:
            if chosen.numbers:
                say(f"--confirm {chosen.word}")
            return
        failed = done = 0
        try:
            for one in bulk.run(confirm):
                done += 1
                failed += one.error is not None
                say(f"{one.seq}: {one.error or one.outcome or 'ok'}")
        except KeyboardInterrupt:
            note("已停止；已处理的有效 / stopped; what is done is done")
        note(f"已处理 / processed {done}, 未成功 / of which not {failed}")
    if failed or done < len(chosen.numbers):
        raise typer.Exit(1)


@app.command()
@filtered
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="新文件 / a new file")],
    wanted: dict[str, str],
    form: Annotated[Literal["er7", "jsonl"], typer.Option("--format", help="er7 (FHS, BHS), jsonl")] = "er7",
) -> None:
    """导出消息 / Write all messages of a filter to a file, oldest first; audited, and readable by you only."""
    from hub.message_export import Export

    part = file.with_name(f"{file.name}.part")
    # Nothing that stands there is written over, and nobody else reads what hospitals say of their patients.
    for one in (file, part):
        if one.exists():
            raise HubError(Category.CONFLICT, "This file exists.", where=str(one), remedy="Name another, or remove it.")
    with services() as opened:
        export = Export(opened, operator(), wanted, form)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as out:
                for piece in export.parts():
                    out.write(piece)
            file.hardlink_to(part)
        finally:
            part.unlink()
    say(f"已导出 / written: {export.count - export.skipped}  {file}")
    if export.skipped:
        note(f"无 MSH，未写入 / without MSH, left out: {export.skipped}")


@app.command()
def expire(
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="成员代码 / member code, for example KN")],
    reason: Annotated[str, typer.Option(help="原因，写入审计 / why; kept in the audit trail")] = "",
    confirm: Annotated[
        str, typer.Option(metavar="WORD", help="前一步给出的口令 / the word that the first step gave")
    ] = "",
) -> None:
    """清除期满的消息 / Remove v2 messages whose member keeps them no longer; without --confirm it only says what would go."""
    from hub.message_retention import MessageRetention

    with services() as opened:
        retention = MessageRetention(opened)
        if confirm:
            removed = retention.remove(operator(), member, reason=reason, word=confirm)
            say(f"已清除 / removed: {removed}")
            return
        due = retention.due(operator(), member)
    if due.before is None:
        note(f"{member} 未设 message-retention，消息长期保存 / has no message-retention, so its messages stay")
        return
    note(f"早于 / before {due.before:%Y-%m-%d} ({due.years} 年 / years): {due.count} 消息/messages, {due.size} bytes")
    for why, count in sorted(due.kept.items()):
        note(f"保留 / kept: {count}  {_WHY_KEPT[why]}")
    if due.count:
        say(f"--confirm {due.word}")


_WHY_KEPT = {
    "open": "未处理完 / not processed",
    "delivery": "有未送达 / something of it is not delivered",
    "mark": "标记读取位置 / marks where to read on",
    "task": "任务未结 / an open task",
    "hold": "封存 / legal hold",
}
