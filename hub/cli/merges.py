"""``hub merges``: patient numbers that a sender merged, taken back or kept by a person."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fhir_mappings.json import dumps
from hub.cli.common import operator, say, services

app = typer.Typer(help="患者合并 / merged patients", no_args_is_help=True)

Former = Annotated[
    str,
    typer.Argument(
        metavar="PATIENT",
        help="被并入他人的患者：编号，或 KN/10099 / who was merged away: the id of the Patient, or member and number",
    ),
]
Reason = Annotated[str, typer.Option(help="原因，写入审计 / why; it is audited")]
Json = Annotated[bool, typer.Option("--json", help="每行一个 JSON / one JSON object a line")]
_CODES = {"unmerge-candidate": "号码再次出现/number in use again", "merge-conflict": "合并相矛盾/merges contradict"}
_SAID = {"former": "用旧号/former number", "survivor": "用保留号/survivor's number", "unknown": "不明/unknown"}


def _desk(opened: Any) -> Any:
    from hub.unmerging import MergeDesk

    return MergeDesk(opened)


def _id(patient: str) -> str:
    """Return the id of the Patient that the argument names."""
    member, slash, number = patient.removeprefix("Patient/").partition("/")
    if not slash:
        return member
    from hub.imaging_ids import number_record_id

    return number_record_id(member, number)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """列出待决定的合并 / List merges that wait for a decision, oldest first."""
    with services() as opened:
        found = _desk(opened).waiting(operator(), numbers=True)
    for one in found:
        say(dumps(one).decode() if as_json else _line(one))
    if not found and not as_json:
        say("没有待决定的合并 / nothing waits")


def _line(one: dict[str, Any]) -> str:
    numbers = [",".join(one[side]) or "-" for side in ("former_numbers", "survivor_numbers")]
    messages = " ".join(map(str, one["messages"]))
    return (
        f"{one['institution']:<4} {numbers[0]} -> {numbers[1]}  {_CODES[one['code']]}  {one['since']}"
        f"  消息/messages {messages or '-'}  {one['former'].removeprefix('Patient/')}"
    )


@app.command()
def show(patient: Former, as_json: Json = False) -> None:
    """查看一次合并 / Show a merge, the message that made it, and what came since."""
    with services() as opened:
        one = _desk(opened).shown(operator(), _id(patient), numbers=True)
    if as_json:
        say(dumps(one).decode())
        return
    numbers = [",".join(one[side]) or "-" for side in ("former_numbers", "survivor_numbers")]
    state = "有效/in force" if one["merged"] else "已撤销/taken back"
    say(f"{one['institution']}  {numbers[0]} -> {numbers[1]}  {state}  {one['since']}  消息/message {one['message']}")
    for item in one["items"]:
        say(f"    {item['task']}  {_CODES[item['code']]}  {item['decision'] or '待决定/waits'}")
    _came(one["came"])
    for reference in one["replaced"]:
        say(f"    {reference}  随同合并，不撤销/merged beside it, stays so")


def _came(listed: list[dict[str, Any]]) -> None:
    for one in listed:
        message = one["message"] or "-"
        say(f"    {one['reference']}  {_SAID[one['said']]}  消息/message {message}  {one['last_updated']}")


@app.command()
def undo(patient: Former, reason: Reason) -> None:
    """撤销合并 / Take a merge back, and process the messages that waited."""
    with services() as opened:
        done = _desk(opened).undo(operator(), _id(patient), reason)
    say(f"已撤销 / taken back: {done['former']} <- {done['survivor']}")
    _told(done)


@app.command()
def keep(patient: Former, reason: Reason) -> None:
    """保留合并 / Say that a merge is right, and apply the messages that waited to the survivor."""
    with services() as opened:
        done = _desk(opened).keep(operator(), _id(patient), reason)
    say(f"保留 / kept: {done['former']} -> {done['survivor']}")
    _told(done)


def _told(done: dict[str, Any]) -> None:
    for one in done["ended_shares"]:
        say(f"    终止的分享 / share link ended: {one}")
    for one in done["ended_grants"]:
        say(f"    终止的授权 / grant ended: {one['task']} {one['reference']}")
    for one in done["replayed"]:
        state = "已处理/processed" if one["applied"] else "未成功/not applied"
        say(f"    消息/message {one['seq']}  {state}  {one['outcome']}")
    if done["stays"]:
        say("仍在保留方名下，请核对归属 / stays with the survivor; look whose it is:")
        _came(done["stays"])
