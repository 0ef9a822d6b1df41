"""``hub members``: the consortium's directory, imported from FHIR (https://hl7.org/fhir/R4/organization.html)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from fhir_mappings.errors import MappingError
from fhir_mappings.json import dumps, loads
from hub.actor import ROLES
from hub.cli import member_versions
from hub.cli.common import note, operator, say, services
from hub.clock import instant
from hub.errors import Category, HubError
from hub.presented_certificates import days_left, presented

app = typer.Typer(help="成员目录 / the members of the consortium", no_args_is_help=True)


def resources_in(paths: list[Path]) -> list[dict[str, Any]]:
    """Return the resources of the Bundles and single resources in *paths*; a folder stands for its ``*.json`` files.

    Raises:
        HubError: incorrect, naming the file that cannot be read as FHIR JSON.
    """
    found: list[dict[str, Any]] = []
    for path in _files(paths):
        try:
            content = loads(path.read_bytes())
        except OSError as error:
            raise _unreadable(path, error.strerror or "it cannot be opened") from error
        except (ValueError, MappingError) as error:
            raise _unreadable(path, "it is not JSON") from error
        if not isinstance(content, dict) or not isinstance(content.get("resourceType"), str):
            raise _unreadable(path, "it is not a FHIR resource")
        entries = content.get("entry", []) if content["resourceType"] == "Bundle" else [{"resource": content}]
        for number, entry in enumerate(entries):
            resource = entry.get("resource") if isinstance(entry, dict) else None
            if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
                raise _unreadable(path, f"Bundle.entry[{number}] has no resource")
            found.append(resource)
    return found


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            inside = sorted(path.glob("*.json"))
            if not inside:
                raise _unreadable(path, "the folder holds no *.json file")
            yield from inside
        else:
            yield path


def _unreadable(path: Path, reason: str) -> HubError:
    return HubError(
        Category.INCORRECT,
        f"The file cannot be imported: {reason}.",
        where=str(path),
        remedy="Give FHIR R4 JSON: a Bundle, or one resource a file.",
    )


@app.command("import")
def import_(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="FHIR JSON 文件或目录 / files or folders")],
) -> None:
    """导入成员 / Import members, endpoints and people; importing the same again changes nothing."""
    resources = resources_in(paths)
    with services() as opened:
        members, endpoints, people = opened.directory.load(resources, actor=operator())
    say(f"成员 / members: {members}  端点 / endpoints: {endpoints}  人员 / people: {people}")


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="每行一个 JSON / one JSON object a line")] = False,
) -> None:
    """列出成员 / List members with their endpoints and people."""
    with services() as opened:
        directory = opened.directory
        members = directory.members()
        endpoints = opened.database.read(lambda tx: tx.members.endpoints())
        people = directory.practitioners()
        shown = opened.database.read(lambda tx: {one.id: presented(tx, one.id) for one in endpoints})
        now = opened.clock()
    for member in members:
        own = [one for one in endpoints if one.member == member.code]
        staff = [one for one in people if one.member == member.code]
        if as_json:
            row = {
                "code": member.code,
                "name": member.name,
                "kind": member.kind,
                "active": member.active,
                "entitlements": list(member.entitlements),
                "endpoints": [
                    {
                        "id": one.id,
                        "kind": one.kind,
                        "address": one.address,
                        "active": one.active,
                        "certificates": [
                            {"fingerprint": each.fingerprint, "ends": instant(each.ends)} for each in shown[one.id]
                        ],
                    }
                    for one in own
                ],
                "practitioners": [
                    {"code": one.code, "name": one.name, "roles": list(one.roles), "active": one.active}
                    for one in staff
                ],
            }
            say(dumps(row).decode())
            continue
        say(f"{member.code:<4} {member.name}  {member.kind}{'' if member.active else '  停用 / inactive'}")
        for point in own:
            title = point.ae_title or point.sending_facility
            say(f"       {point.id:<20} {title:<16} {point.address or '-'}{'' if point.active else '  停用 / off'}")
            for each in shown[point.id]:
                left = days_left(each.ends, now)
                say(f"{'':<28}证书/certificate {each.fingerprint[:16]}  剩余/days left {left}  {each.ends.date()}")
        for person in staff:
            say(f"       {person.code:<20} {person.name}  {' '.join(person.roles)}")
    if not members:
        note("还没有成员 / no members yet: hub members import sample_data/members")


@app.command("client")
def client(
    member: Annotated[str, typer.Argument(metavar="CODE", help="成员代码 / member code, for example KN")],
    role: Annotated[list[str] | None, typer.Option(help="角色 / role, may be repeated (default: system)")] = None,
) -> None:
    """登记 OAuth 客户端 / Register an OAuth client; its secret is shown this once."""
    roles = frozenset(role or ["system"])
    unknown = sorted(roles - ROLES)
    if unknown:
        raise HubError(
            Category.INCORRECT,
            f"Unknown role {', '.join(unknown)}.",
            where="--role",
            remedy=f"Use {', '.join(sorted(ROLES))}.",
        )
    with services() as opened:
        client_id, secret = opened.directory.add_client(member, roles)
    say(f"client_id={client_id}")
    say(f"client_secret={secret}")
    note("密钥只显示这一次 / the secret is not shown again")


app.command("history")(member_versions.history)
app.command("diff")(member_versions.diff)
app.command("rollback")(member_versions.rollback)
