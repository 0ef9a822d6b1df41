"""``hub messages``: everything that was received, found, looked at and processed again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fhir_mappings.json import dumps
from hub.cli.common import note, operator, say, services
from hub.cli.message_filter import filtered

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
