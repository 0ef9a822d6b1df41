"""``hub queue``: what waits to be delivered, and what to do when a partner cannot or will not take it."""

from __future__ import annotations

from typing import Annotated

import typer

from fhir_mappings.json import dumps
from hub.cli.common import operator, say, services
from hub.operations import Operations

app = typer.Typer(help="外发队列 / deliveries that wait", no_args_is_help=True)

Id = Annotated[int, typer.Argument(metavar="ID", help="投递编号 / number of the delivery")]
Destination = Annotated[str, typer.Argument(metavar="DESTINATION", help="目的地 / for example KN/mllp")]
#: What is said of a destination, by :func:`hub.delivery.circuit`.
_CIRCUIT = {"closed": "运行/running", "open": "联系不上/away", "half-open": "试探/trying"}


@app.command("list")
def list_(
    destination: Annotated[str, typer.Option(help="只列这个目的地的投递 / the deliveries of this destination")] = "",
    state: Annotated[str, typer.Option(help="pending, dead, sent, skipped")] = "",
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="每行一个 JSON / one JSON object a line")] = False,
) -> None:
    """列出队列 / List destinations and lanes; with an option, single deliveries."""
    with services() as opened:
        operations = Operations(opened)
        if destination or state:
            criteria = {name: value for name, value in (("destination", destination), ("state", state)) if value}
            deliveries = operations.deliveries(operator(), criteria, limit=limit)
            for one in deliveries:
                say(
                    dumps(one).decode()
                    if as_json
                    else f"{one['id']:>8}  {one['state']:<8} {one['destination']:<14} {one['kind']:<6} 尝试/tries"
                    f" {one['attempts']}  {one['created']}  {one['control_id']}  {one['last_error']}"
                )
            return
        queues = operations.queues(operator())
    if as_json:
        say(dumps(queues).decode())
        return
    for one in queues["destinations"]:
        state_text = "暂停/paused" if one["paused"] else _CIRCUIT[one["circuit"]]
        say(
            f"{one['destination']:<16} {state_text}  等待/waiting {one['depth']}  死信/dead {one['dead']}"
            f"  最早/oldest {'-' if one['oldest_s'] is None else one['oldest_s']} s  {one['last_error']}"
        )
    for lane in queues["lanes"]:
        say(
            f"    {lane['state']:<8} 等待/waiting {lane['depth']:<5} 队首/head {lane['head']:<8} 尝试/tries"
            f" {lane['attempts']}  {lane['lane']}  {lane['last_error']}"
        )
    if not queues["destinations"]:
        say("没有投递 / nothing was ever to be delivered")


@app.command()
def pause(destination: Destination) -> None:
    """暂停 / Hold everything for a destination; nothing is lost."""
    with services() as opened:
        Operations(opened).pause(operator(), destination, True)
    say(f"已暂停 / paused: {destination}")


@app.command()
def resume(destination: Destination) -> None:
    """恢复 / Let the destination's deliveries go on, at once."""
    with services() as opened:
        Operations(opened).pause(operator(), destination, False)
    say(f"已恢复 / resumed: {destination}")


@app.command()
def replay(id: Id) -> None:
    """重发 / Send a dead letter again in its place, or a finished delivery once more."""
    with services() as opened:
        Operations(opened).replay(operator(), id)
    say(f"将重发 / will be sent again: {id}")


@app.command()
def skip(id: Id, reason: Annotated[str, typer.Option(help="原因，写入审计 / why; it is audited")]) -> None:
    """跳过 / Give up one delivery for good, so that those behind it go on."""
    with services() as opened:
        Operations(opened).skip(operator(), id, reason)
    say(f"已跳过 / skipped: {id}")
