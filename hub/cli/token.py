"""``hub token``: a bearer token (RFC 6750) for a member's software or one of its people."""

from __future__ import annotations

from typing import Annotated

import typer

from hub.actor import Actor
from hub.cli.common import operator, say, services


def token(
    institution: Annotated[str, typer.Option(help="成员代码 / member code, for example KN")],
    practitioner: Annotated[str | None, typer.Option(help="工号 / the person's code at that member")] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(help="角色 / role, may be repeated (default: the person's own roles, or system)"),
    ] = None,
    ttl: Annotated[int, typer.Option(min=1, max=31_536_000, help="有效秒数 / seconds it is valid")] = 3600,
) -> None:
    """签发令牌 / Print a bearer token and nothing else."""
    actor = Actor(
        institution=institution,
        practitioner=practitioner or None,
        roles=frozenset(role or ["system"]),
        client=operator().client,
    )
    with services() as opened:
        issued = opened.directory.issue_token(actor, ttl_s=ttl)
    say(issued)
