"""``hub studies``: what is fetched from members' own archives."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from fhir_mappings.json import dumps
from hub.cli.common import note, operator, say, services, tool
from hub.errors import Category, HubError
from hub.priors import Priors, Rule

app = typer.Typer(help="检查 / studies", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep ``pull`` a word of its own while it is the only command."""


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
