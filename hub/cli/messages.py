"""``hub messages``: everything that was received, and processing a v2 message again."""

from __future__ import annotations

from typing import Annotated

import typer

from fhir_mappings.json import dumps
from hub.cli.common import operator, say, services
from hub.message_desk import MessageDesk

app = typer.Typer(help="收到的消息 / what was received", no_args_is_help=True)

Seq = Annotated[int, typer.Argument(metavar="SEQ", help="序号 / number in the journal")]


@app.command("list")
def list_(
    institution: Annotated[str, typer.Option(help="成员代码 / member code")] = "",
    door: Annotated[str, typer.Option(help="mllp, hl7-http, dimse, stow, fhir")] = "",
    state: Annotated[str, typer.Option(help="received, done, refused, failed")] = "",
    type: Annotated[str, typer.Option(help="例如 / for example ADT^A01")] = "",
    control_id: Annotated[str, typer.Option(help="MSH-10")] = "",
    correlation: Annotated[str, typer.Option(help="关联号 / correlation id")] = "",
    since: Annotated[str, typer.Option(help="2025-06-11T08:00:00+08:00")] = "",
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="每行一个 JSON / one JSON object a line")] = False,
) -> None:
    """列出消息 / List what was received, newest first, without its content."""
    wanted = {
        "institution": institution,
        "door": door,
        "state": state,
        "message_type": type,
        "control_id": control_id,
        "correlation_id": correlation,
        "since": since,
    }
    with services() as opened:
        found = MessageDesk(opened).messages(
            operator(), {name: value for name, value in wanted.items() if value}, limit=limit
        )
    for one in found:
        say(
            dumps(one).decode()
            if as_json
            else f"{one['seq']:>8}  {one['received']}  {one['door']:<8} {one['institution']:<4} {one['type']:<10}"
            f" {one['state']:<8} {one['control_id']}  {one['outcome'][:80]}"
        )


@app.command()
def show(seq: Seq) -> None:
    """显示一条消息 / Show one message with its content; the look is audited."""
    with services() as opened:
        one = MessageDesk(opened).message(operator(), seq)
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
        outcome = MessageDesk(opened).replay(operator(), seq)
    say(f"{seq}: {outcome or 'ok'}")
