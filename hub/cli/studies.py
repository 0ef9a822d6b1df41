"""``hub studies``: what is fetched from members' own archives, what is taken from view, held, and removed in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from fhir_mappings.json import dumps
from hub.cli.common import note, operator, say, services, tool
from hub.clock import instant
from hub.errors import Category, HubError

if TYPE_CHECKING:
    from hub.boot import Services
    from hub.deletion import Deletion
    from hub.retention import Expired, Retention

# What the commands stand on is loaded by those that run: it is large, and every process of the hub runs this module.

app = typer.Typer(help="检查 / studies", no_args_is_help=True)


def _deletion(opened: Services) -> Deletion:
    from hub.deletion import Deletion

    return Deletion(opened)


def _retention(opened: Services) -> Retention:
    from hub.retention import Retention

    return Retention(opened)


@app.command()
def pull(
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="成员代码 / member code, for example KN")],
    patient: Annotated[str, typer.Option(help="该成员的患者号 / the member's own Patient ID")],
    issuer: Annotated[str, typer.Option(help="患者号签发者 / Issuer of Patient ID, where there are several")] = "",
    rule: Annotated[
        str | None,
        typer.Option(help="例如 / for example: modality=CT,MR years=5 max=10 via=get (default: the setting priors)"),
    ] = None,
    years: Annotated[int | None, typer.Option(min=0, max=200, help="最多几年前；0 为不限 / 0 for any age")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="每行一个 JSON / one JSON object a line")] = False,
) -> None:
    """调取既往检查 / Fetch a patient's earlier studies from the member's archive; what is here is not fetched again."""
    from hub.priors import Priors, Rule

    with services() as opened:
        priors = Priors(opened, tool("adapters.dimse.scu").open_archive)
        try:
            wanted = Rule.of(rule) if rule is not None else priors.rule(member)
        except ValueError as error:
            raise HubError(
                Category.INCORRECT,
                f"The rule cannot be read at {error}.",
                where="--rule",
                remedy="Write it like modality=CT,MR years=5 max=10 via=get.",
            ) from error
        if years is not None:
            wanted = replace(wanted, years=years)
        done = priors.pull(operator(), member, patient, rule=wanted, issuer=issuer)
    for one in done:
        if as_json:
            say(
                dumps(
                    {
                        "study": one.StudyInstanceUID,
                        "date": one.StudyDate,
                        "present": one.present,
                        "fetched": one.fetched,
                        "missing": one.missing,
                        "why": one.why,
                    }
                ).decode()
            )
            continue
        say(
            f"{one.StudyDate:<8}  {one.StudyInstanceUID:<64}  已有/here {one.present}  调取/fetched {one.fetched}"
            f"  缺/missing {one.missing}  {one.why}".rstrip()
        )
    if not done:
        note("没有符合的检查 / the archive has no study that fits")
    if any(one.missing or one.why for one in done):
        raise typer.Exit(1)


#: Which study a command is about, and why.
_Member = Annotated[str, typer.Argument(metavar="MEMBER", help="成员代码 / member code, for example KN")]
_Study = Annotated[str, typer.Argument(metavar="STUDY", help="检查 UID / Study Instance UID")]
_Series = Annotated[str | None, typer.Option(help="仅此序列 / this series only")]
_Instance = Annotated[str | None, typer.Option(help="仅此图像 / this instance only")]
_Reason = Annotated[str, typer.Option(help="原因，写入审计 / why; kept in the audit trail")]
_AsJson = Annotated[bool, typer.Option("--json", help="每行一个 JSON / one JSON object a line")]


@app.command()
def delete(member: _Member, study: _Study, reason: _Reason, series: _Series = None, instance: _Instance = None) -> None:
    """标记删除 / Mark a study, a series or an instance deleted: nobody is shown it, no byte goes, and it can be restored."""
    with services() as opened:
        done = _deletion(opened).delete(operator(), study, series, instance, reason=reason, owner=member)
    say(f"标记删除 / marked deleted: {done}")


@app.command()
def restore(
    member: _Member, study: _Study, reason: _Reason, series: _Series = None, instance: _Instance = None
) -> None:
    """恢复 / Show again what is marked deleted of a study."""
    with services() as opened:
        done = _deletion(opened).restore(operator(), study, series, instance, reason=reason, owner=member)
    say(f"已恢复 / restored: {done}")


@app.command()
def deleted(
    member: Annotated[str | None, typer.Option(help="成员代码 / member code")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    as_json: _AsJson = False,
) -> None:
    """列出标记删除的图像 / List what is marked deleted, the newest first."""
    with services() as opened:
        marks = _deletion(opened).marks(operator(), owner=member, limit=limit)
    for one in marks:
        state = "清除/removed" if one.purged_at else "保留/kept"
        if as_json:
            say(
                dumps(
                    {
                        "member": one.owner,
                        "study": one.StudyInstanceUID,
                        "series": one.SeriesInstanceUID,
                        "instance": one.SOPInstanceUID,
                        "marked": instant(one.marked_at),
                        "by": one.marked_by,
                        "reason": one.reason,
                        "removed": instant(one.purged_at) if one.purged_at else None,
                    }
                ).decode()
            )
        else:
            say(
                f"{instant(one.marked_at)}  {one.owner:<4}  {one.SOPInstanceUID:<64}  {state}  {one.marked_by}  {one.reason}"
            )


@app.command()
def hold(member: _Member, study: _Study, reason: _Reason) -> None:
    """依法封存 / Put a study on legal hold: nothing of it can be deleted or expire."""
    with services() as opened:
        _deletion(opened).hold(operator(), study, reason=reason, owner=member)


@app.command()
def release(member: _Member, study: _Study, reason: _Reason) -> None:
    """解除封存 / End the legal hold of a study."""
    with services() as opened:
        _deletion(opened).release(operator(), study, reason=reason, owner=member)


@app.command()
def holds(
    member: Annotated[str | None, typer.Option(help="成员代码 / member code")] = None, as_json: _AsJson = False
) -> None:
    """列出封存的检查 / List the studies on legal hold, the oldest hold first."""
    with services() as opened:
        found = _deletion(opened).holds(operator(), owner=member)
    for one in found:
        if as_json:
            told = {"member": one.key.owner, "study": one.key.StudyInstanceUID, "since": instant(one.held_at)}
            say(dumps({**told, "by": one.held_by, "reason": one.reason}).decode())
        else:
            say(
                f"{instant(one.held_at)}  {one.key.owner:<4}  {one.key.StudyInstanceUID:<64}  {one.held_by}  {one.reason}"
            )


_WHY = {
    "hold": "封存/on hold",
    "grant": "他方可见/lent to others",
    "task": "任务未结/open task",
    "conflict": "冲突未决/contested",
}


@app.command()
def expired(member: _Member, as_json: _AsJson = False) -> None:
    """列出保存期满的检查 / List the studies whose retention has run out, and what keeps some of them; removes nothing."""
    with services() as opened:
        found = _retention(opened).expired(operator(), member)
    _list(found, as_json=as_json)


@app.command()
def expire(
    member: _Member,
    reason: Annotated[str, typer.Option(help="原因，写入审计 / why; kept in the audit trail")] = "",
    confirm: Annotated[
        str | None, typer.Option(metavar="WORD", help="上一次列出时给出的词 / the word that the list gave")
    ] = None,
) -> None:
    """清除期满的检查 / Remove what retention has run out of, bytes too; without --confirm it only says what would go."""
    from hub.retention import word_for

    with services() as opened:
        retention = _retention(opened)
        if confirm is None:
            found = retention.expired(operator(), member)
            _list(found, as_json=False)
            going = [one for one in found if not one.why_kept]
            size = sum(one.kept.size for one in going)
            note(f"将清除 / would be removed: {len(going)} 检查/studies, {size} bytes")
            if going:
                note(f"确认 / to go on: hub studies expire {member} --reason ... --confirm {word_for(going)}")
            return
        done = retention.remove(operator(), member, reason=reason, word=confirm)
        swept = tool("storage.fsck").sweep(opened.database, opened.objects)
    gone = len({one.digest for one in done.objects} & set(swept.removed))
    say(f"已清除 / removed: {done.studies} 检查/studies, {done.instances} 图像/instances, {gone} 对象/objects")
    if left := len({one.digest for one in done.objects}) - gone:
        note(
            f"另有 {left} 个对象由例行清扫清除，或仍为他方所用 / the others go with a later sweep, or are in use elsewhere"
        )


def _list(found: Sequence[Expired], *, as_json: bool) -> None:
    for one in found:
        kept = one.kept
        if as_json:
            told = {
                "member": kept.key.owner,
                "study": kept.key.StudyInstanceUID,
                "date": kept.StudyDate,
                "modalities": list(kept.modalities),
                "instances": kept.instances,
                "bytes": kept.size,
                "last": one.last.isoformat(),
                "years": one.years,
                "ended": one.ended.isoformat(),
                "kept_by": list(one.why_kept),
            }
            say(dumps(told).decode())
            continue
        why = "，".join(_WHY[reason] for reason in one.why_kept)
        say(
            f"{kept.StudyDate or '-':<8}  {kept.key.StudyInstanceUID:<64}  {'+'.join(kept.modalities):<8}"
            f"  {kept.instances} 图像/instances  {kept.size} bytes  期满/ended {one.ended}  {why}".rstrip()
        )
