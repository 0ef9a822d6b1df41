"""``hub share``: links by which a patient opens a study, by the rules of ``ImagingStudy/{id}/$share`` (:mod:`hub.sharing`).

A link is made in the name of a person of the member, whose own roles decide, because a physician or the desk answers for
it. Without a person, whoever runs the command acts as the member's administrator, who may list and end links.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fhir_mappings.json import dumps
from hub.actor import Actor
from hub.cli.common import note, operator, say, services
from hub.clock import instant
from hub.errors import Category, HubError

if TYPE_CHECKING:
    from hub.boot import Services

app = typer.Typer(help="患者分享链接 / links for patients", no_args_is_help=True)

_Member = Annotated[str, typer.Argument(metavar="MEMBER", help="成员代码 / member code, for example KN")]
_Study = Annotated[str, typer.Argument(metavar="STUDY", help="检查 UID / Study Instance UID")]
_Practitioner = Annotated[str, typer.Option(help="经办人工号 / code of the person at that member who does this")]
_AsJson = Annotated[bool, typer.Option("--json", help="每行一个 JSON / one JSON object a line")]

_STATES = {"open": "有效/open", "expired": "过期/expired", "revoked": "撤销/revoked"}


@app.command()
def create(
    member: _Member,
    study: _Study,
    practitioner: _Practitioner,
    days: Annotated[int | None, typer.Option(help="有效天数 / days that it is open (default: share_days)")] = None,
    history: Annotated[
        bool, typer.Option("--history", help="包含该患者在本院的其他检查 / also the patient's other studies there")
    ] = False,
    purpose: Annotated[str, typer.Option(help="用途 / purpose")] = "",
    remark: Annotated[str, typer.Option("--note", help="备注 / note")] = "",
    png: Annotated[Path | None, typer.Option(help="二维码另存为 PNG / also write the QR code to this file")] = None,
    as_json: _AsJson = False,
) -> None:
    """分享检查 / Make a link to a study and print it with its password and QR code, this once."""
    from hub import qr
    from hub.imaging_ids import study_resource_id

    if png is not None and png.exists():
        # Before the link is made: its password is told once, so nothing may fail after it.
        raise HubError(Category.CONFLICT, "The file exists.", where=str(png), remedy="Name another for --png.")
    with services() as opened:
        made = opened.sharing.make(
            _actor(opened, member, practitioner),
            study_resource_id(member, study),
            days=days,
            history=history,
            purpose=purpose,
            note=remark,
        )
    if as_json:
        said = {
            "id": made.share.id,
            "url": made.url,
            "password": made.password,
            "expires": instant(made.share.expires_at),
            "institution": made.institution,
            "studies": list(made.share.studies),
        }
        say(dumps(said).decode())
    else:
        say(qr.text(made.url, colours=sys.stdout.isatty()), drawn=True)
        say(f"链接 / address:   {made.url}")
        say(f"密码 / password:  {made.password}")
        say(f"有效至 / expires: {instant(made.share.expires_at)}")
        say(f"编号 / id:        {made.share.id}")
        note(
            "链接和密码只显示这一次；请分开告知患者 / shown this once; tell the patient the password apart from the link"
        )
    if png is not None:
        png.write_bytes(qr.png(made.url))


@app.command("list")
def list_(member: _Member, study: _Study, practitioner: _Practitioner = "", as_json: _AsJson = False) -> None:
    """列出分享 / List the links of a study, the newest first, with each attempt to open them."""
    from hub.imaging_ids import study_resource_id

    with services() as opened:
        found = opened.sharing.of_study(_actor(opened, member, practitioner), study_resource_id(member, study))
        now = opened.clock()
    for share, events in found:
        state = share.state_at(now)
        accesses = [
            {
                "recorded": event["recorded"],
                "what": event["subtype"][0]["code"],
                "outcome": event["outcome"],
                "address": event["agent"][0].get("network", {}).get("address", ""),
            }
            for event in events
        ]
        if as_json:
            said = {
                "id": share.id,
                "state": state,
                "created": instant(share.created_at),
                "by": share.created_by,
                "expires": instant(share.expires_at),
                "revoked": instant(share.revoked_at) if share.revoked_at is not None else None,
                "purpose": share.purpose,
                "note": share.note,
                "studies": list(share.studies),
                "accesses": accesses,
            }
            say(dumps(said).decode())
            continue
        say(
            f"{share.id}  {_STATES[state]}  {instant(share.created_at)}  {share.created_by}"
            f"  至/until {instant(share.expires_at)}  {share.purpose}".rstrip()
        )
        for one in accesses:
            right = "成功/ok" if one["outcome"] == "0" else "失败/failed"
            say(f"    {one['recorded']}  {one['what']}  {right}  {one['address']}".rstrip())
    if not found:
        note("没有分享链接 / there are no links")


@app.command()
def revoke(
    member: _Member,
    study: _Study,
    share: Annotated[
        str, typer.Argument(metavar="ID", help="分享编号 / id of the link, as `hub share list` prints it")
    ],
    practitioner: _Practitioner = "",
) -> None:
    """撤销分享 / End a link and all that was opened by it, at once."""
    from hub.imaging_ids import study_resource_id

    with services() as opened:
        ended = opened.sharing.revoke(_actor(opened, member, practitioner), study_resource_id(member, study), share)
    assert ended.revoked_at is not None
    say(f"已撤销 / revoked: {ended.id}  {instant(ended.revoked_at)}")


def _actor(opened: Services, member: str, practitioner: str) -> Actor:
    """Return the member's person *practitioner*, else its administrator; the audit trail names the account too.

    Raises:
        HubError: incorrect for an unknown member or person.
    """
    if opened.directory.member(member) is None:
        raise HubError(
            Category.INCORRECT,
            f"There is no active member {member}.",
            where="MEMBER",
            remedy="Run `hub members list` to see the codes.",
        )
    client = operator().client
    if not practitioner:
        return Actor(institution=member, roles=frozenset({"admin"}), client=client)
    person = opened.directory.practitioner(member, practitioner)
    if person is None:
        raise HubError(
            Category.INCORRECT,
            f"{member} has no active practitioner {practitioner}.",
            where="--practitioner",
            remedy="Import the PractitionerRole first.",
        )
    return Actor(institution=member, practitioner=practitioner, roles=frozenset(person.roles), client=client)
