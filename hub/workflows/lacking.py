"""What a move still lacks: required inputs and outputs, a reason, a person, and the conditions of its table.

Task.input and Task.output: https://hl7.org/fhir/R4/task-definitions.html#Task.input.
"""

from __future__ import annotations

from collections.abc import Mapping

from hub.workflows import codes
from hub.workflows.base import BASE, Case, Resource
from hub.workflows.table import Require, Transition, Workflow
from hub.workflows.task import code_in, referred


def lacking(
    workflow: Workflow, transition: Transition, case: Case, fresh: Mapping[str, tuple[Resource, ...]]
) -> list[str]:
    """Return what *transition* lacks in *case*, a sentence each; *fresh* is what came with the event."""
    found = [text for need in transition.require if (text := _missing(need, case, fresh)) is not None]
    if transition.reasons:
        found.extend(_reason_problems(transition.reasons, case.inputs.reason))
    if transition.event == workflow.submit and not case.parties.get("owner"):
        found.append("须在 Task.owner 中指明承接机构。 Task.owner must name the institution that is to do the work.")
    if transition.assigns == "assignee":
        party = case.inputs.assignee
        if party is None or not party.practitioner:
            found.append("须指派具体人员。 A person must be named as the new Task.owner.")
        elif party.institution != case.parties.get("owner"):
            found.append(
                "所指派人员须属于承接机构。 The new Task.owner must belong to the institution that does the work."
            )
    if not found:
        # Guards may rely on what is required, so they are asked only when it is there.
        found = [text for guard in transition.guards if (text := guard(case)) is not None]
    return found


def _missing(need: Require, case: Case, fresh: Mapping[str, tuple[Resource, ...]]) -> str | None:
    task: Resource = {need.element: fresh[need.element]} if need.fresh else case.task
    present = list(referred(task, need.element))
    if need.types:
        present = [reference for reference in present if reference.partition("/")[0] in need.types]
    elif need.fresh and fresh[need.element]:
        return None
    if present:
        return None
    what = " or ".join(need.types) or "something new"
    zh = f"须{'随本次事件' if need.fresh else ''}在 Task.{need.element} 中提供 {'、'.join(need.types) or '新内容'}。"
    return f"{zh} Task.{need.element} must hold {what}{' that comes with this event' if need.fresh and need.types else ''}."


def _reason_problems(system: str, reason: Resource | None) -> list[str]:
    if reason is None or not (reason.get("text") or reason.get("coding")):
        needed = f"Task.statusReason is required: a code of {BASE}/CodeSystem/{system} or a text."
        return [f"须填写原因。 {needed}"]
    code = code_in(reason, f"{BASE}/CodeSystem/{system}")
    if code and not codes.is_known(system, code):
        return [
            f"原因代码 {code!r} 不在代码表中。 Task.statusReason: {code!r} is not a code of {BASE}/CodeSystem/{system}."
        ]
    return []
