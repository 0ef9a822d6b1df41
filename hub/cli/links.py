"""``hub links``: which patients of different institutions are one person, as :mod:`hub.identity` keeps it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from fhir_mappings.json import dumps
from hub.cli.common import operator, say, services

app = typer.Typer(help="跨机构的同一患者 / one patient at several institutions", no_args_is_help=True)

_STATES = {
    "open": "待决定/open",
    "linked": "已关联/linked",
    "refused": "非同一人/refused",
    "unlinked": "已解除/unlinked",
}


class Decision(StrEnum):
    """What is said of two patients."""

    #: They are one person.
    LINK = "link"
    #: They are two; the pair is not suggested again.
    REFUSE = "refuse"
    #: A link of theirs ends.
    UNLINK = "unlink"


@app.command("list")
def list_(
    waiting: Annotated[bool, typer.Option("--open", help="仅待决定的 / only what waits for a decision")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="每行一个 JSON / one JSON object a line")] = False,
) -> None:
    """列出患者关联 / List pairs of patients, the last changed first, by ids alone."""
    with services() as opened:
        found = [one for one in opened.identity.listed(operator()) if not waiting or one["state"] == "open"]
    for one in found:
        sides = "  ".join(f"{side['institution']} {side['patient']}" for side in one["patients"])
        evidence = ",".join(one["evidence"]) or "-"
        stated = ",".join(one["stated_by"]) or "-"
        say(
            dumps(one).decode()
            if as_json
            else f"{one['task']}  {_STATES[one['state']]}  {sides}  依据/evidence {evidence}  声明/stated by {stated}"
        )
    if not found and not as_json:
        say("没有患者关联 / there are none")


@app.command()
def settle(
    task: Annotated[str, typer.Argument(metavar="TASK", help="待办事项的编号 / id of the work item")],
    decision: Annotated[Decision, typer.Argument(help="关联、非同一人、解除 / link, refuse or unlink")],
) -> None:
    """判断是否同一患者 / Link two patients, say that they are two, or end their link."""
    with services() as opened:
        opened.identity.settle(operator(), task.removeprefix("Task/"), decision.value)
    say(f"已处理 / settled: {task} {decision.value}")
