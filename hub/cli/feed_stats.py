"""``hub feed stats``: which fields a member's feed values, how often, and in which character sets and versions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fhir_mappings.json import dumps
from hub.cli.common import operator, say, services


def stats(
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="成员或端点 / member or endpoint: KN, KN/mllp")],
    last: Annotated[
        int, typer.Option(min=1, max=10_000, help="最近多少条消息 / so many of the newest messages")
    ] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="一个 JSON 对象 / one JSON object")] = False,
) -> None:
    """统计接口字段的使用 / Count which fields a feed values, how long, how often; shows no values but codes of tables; audited."""
    from hub.feed_stats import FeedStatistics

    with services() as opened:
        told = FeedStatistics(opened).run(operator(), member, last=last)
    if as_json:
        say(dumps(told).decode())
        return
    say(
        f"{told['endpoint']}: 消息 / messages {told['messages']}  无法拆分 / unreadable {told['unreadable']}"
        f"  字符集存疑 / charset doubtful {told['charset_doubtful']}"
    )
    _traffic(told["traffic"])
    say(f"事件 / events: {_mix(told['events'])}")
    say(f"版本 / versions: {_mix(told['versions'])}")
    for one in told["charsets"]:
        say(f"字符集 / charset: {one['charset']} (MSH-18: {one['declared'] or '-'})  {one['messages']}")
    say(
        f"{'':<9}{'字段/field':<10}{'有值/valued':>12}{'空值/null':>11}{'不同/distinct':>14}{'最长/longest':>13}{'重复/rep':>9}"
    )
    for row in told["fields"]:
        more = "+" if row["distinct_capped"] else ""
        say(
            f"{row['event']:<9}{row['field']:<12}{row['valued']:>12.1%}{row['null']:>12.1%}"
            f"{str(row['distinct']) + more:>14}{row['longest']:>14}{row['repetitions']:>10}  {_mix(row['codes'])}"
        )


def _traffic(figures: dict[str, Any]) -> None:
    say(
        f"收到 / received {figures['received']}  入库 / applied {figures['applied']}"
        f"  拒绝 / refused {figures['refused']}  失败 / failed {figures['failed']}"
        f"  待处理 / waiting {figures['waiting']} ({figures['waiting_oldest_s']:.0f} s)"
    )
    say(f"到达至入库 / arrival to commit: {_times(figures['commit_s'])}")
    say(
        f"待投递 / queued {figures['queued']} ({figures['queued_oldest_s']:.0f} s)  死信 / dead {figures['queued_dead']}"
        f"  入队至应答 / queueing to ACK: {_times(figures['acknowledge_s'])}"
    )


def _times(percentiles: dict[str, float]) -> str:
    return "  ".join(f"{name} {seconds:.3f} s" for name, seconds in percentiles.items()) or "-"


def _mix(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name or '-'} {count}" for name, count in counts.items())
