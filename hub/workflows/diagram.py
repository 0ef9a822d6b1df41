"""Pages of the workflows: a Mermaid state diagram and the tables behind it, in Chinese and English.

``python -m hub.workflows.diagram DIR`` writes one page per workflow; a test fails while the written pages are stale.
Mermaid state diagrams: https://mermaid.js.org/syntax/stateDiagram.html.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from hub.workflows import WORKFLOWS, codes, submission
from hub.workflows.effect_kinds import CreateTask, EndTask, Notify, Send, SetStatus, Sign, TableEffect, When
from hub.workflows.table import STAFF, Transition, Workflow


def mermaid(workflow: Workflow) -> str:
    """Return the state diagram; events that stay in their state are left to the table."""
    lines = ["stateDiagram-v2", "  direction TB"]
    for name in workflow.states:
        lines.append(f'  state "{_display(workflow, name)}<br/>{name}" as {_node(name)}')
    lines.append(f"  [*] --> {_node(workflow.initial)}")
    lines += [
        f"  {_node(source)} --> {_node(t.to)}: {t.event}"
        for t in workflow.transitions
        if t.to is not None
        for source in t.sources
        if source != t.to
    ]
    lines += [f"  {_node(name)} --> [*]" for name, state in workflow.states.items() if state.terminal]
    return "\n".join(lines)


def page(workflow: Workflow) -> str:
    """Return the Markdown page of one workflow."""
    parts = [
        f"# {workflow.title_zh} {workflow.title_en}",
        (
            f"Generated from `hub/workflows/{workflow.code.replace('-', '_')}.py` by `python -m hub.workflows.diagram "
            "docs/workflows`; do not edit."
        ),
        (
            f"`Task.code` `{workflow.code}` · `businessStatus` CodeSystem `{workflow.steps_system}` · "
            f"version {workflow.version}"
        ),
        f"```mermaid\n{mermaid(workflow)}\n```",
        "## 角色 Roles",
        _table(("role", "名称", "who"), (_role(workflow, name) for name in workflow.roles)),
        "## 状态 States",
        _table(
            ("state", "Task.status", "businessStatus", "名称"), (_state(workflow, name) for name in workflow.states)
        ),
        "## 事件 Events",
        _table(
            ("event", "名称", "from", "to", "by", "must hold", "effects", "v2 in"),
            (_event(t) for t in workflow.transitions),
        ),
        "## 发出前的核对 What is checked before the request is sent",
        _sending(workflow),
        "## 时限 Timers",
        _table(
            ("timer", "名称", "runs in", "fires", "due"),
            (
                (f"`{t.name}`", f"{t.title_zh} {t.title_en}", _codes(t.states), f"`{t.event}`", _says(t.due))
                for t in workflow.timers
            ),
        ),
        "## 可见范围 What each side sees",
        _table(
            ("role", "scope", "while", "afterwards"),
            (
                (
                    f"`{v.role}`",
                    f"`{v.scope}`",
                    "always" if set(v.states) == set(workflow.states) else _codes(v.states),
                    f"{v.after_days} days after completion; ends at once otherwise" if v.after_days else "ends at once",
                )
                for v in workflow.visibility
            ),
        ),
    ]
    return "\n\n".join(parts) + "\n"


_SENDING = """
- **协议 Agreement**：目录中须有连接申请方与受邀方（方向不限）、`active` 且 `period` 含当前时间的 OrganizationAffiliation。
  The directory holds an OrganizationAffiliation of the two institutions, in either direction, `active`, with a `period` that
  covers now. Both being members of the consortium is not an agreement between them.
- **协作关系 Relations**：协议的 `code` 可列出 `{system}` 的服务，即 `participatingOrganization` 为另一方提供的服务；双方一旦列出，
  未列出、已停用或过期的即不可申请。未列出任何服务的协议不限服务。The `code` of an agreement may list services of `{system}` that
  the `participatingOrganization` provides to the other side. Once two institutions list any, only what is listed and in force
  may be asked; an agreement that lists none covers every service.
- **申请人 Requester**：`Task.requester` 为 PractitionerRole 或 Practitioner 时，须 `active`，`period` 与执业资质
  （`qualification.period`）含当前时间。A person there must be `active`, with a role and a licence whose `period` covers now.
- **服务 Service**：受邀方须有 `active` 的 HealthcareService，`category` 为 `{system}` 的 `{service}`。
  The owner needs an `active` HealthcareService with that `category`.
- **开通与停用 Switching on and off**：由运营方维护：`hub members import FILE`（文件可只含这一资源），或以运营方令牌
  `PUT /fhir/HealthcareService/ID`；停用时设 `"active": false`。The operator does it, by importing the resource or by PUT with
  a token of its own; `"active": false` switches off. It counts from the next request on; work that was sent goes on.
- **不符即拒绝 What does not hold refuses**：422，列出缺项与允许的事件；v2 消息应答 AE，原文保留，目录改正后可
  `hub messages replay`。422 with what is wrong and the allowed events; a v2 message is answered AE, kept, and can be replayed
  once the directory is mended.
- **提示 Advice**：不阻止发出，写入 Task 的扩展 `task-advice`，双方可见。Advice does not stop the request; it stands in the
  extension `task-advice` of the Task, where both parties read it.
- **v2 来件 Requests by HL7 v2**：身份与知情同意由发送机构负责，缺项只作提示，收到的内容不丢失。The sending institution vouches
  for identity and consent, so what is missing is advice and nothing received is lost.
"""


def _sending(workflow: Workflow) -> str:
    return _SENDING.strip().format(system=submission.SERVICE_SYSTEM, service=workflow.service)


def pages() -> dict[str, str]:
    """Return file name to text for all workflows."""
    return {f"{code}.md": page(workflow) for code, workflow in WORKFLOWS.items()}


def _role(workflow: Workflow, name: str) -> tuple[str, str, str]:
    role = workflow.roles[name]
    who = "the hub itself" if role.party == "hub" else f"institution of Task.{role.party}"
    if role.functions != STAFF and role.party != "hub":
        who += f", as {' or '.join(sorted(role.functions))}"
    return f"`{name}`", f"{role.title_zh} {role.title_en}", who + (", a named person" if role.person else "")


def _state(workflow: Workflow, name: str) -> tuple[str, str, str, str]:
    state = workflow.states[name]
    return f"`{name}`", state.task_status, f"`{state.business_status}`", _display(workflow, name)


def _event(t: Transition) -> tuple[str, ...]:
    needs = [
        f"{'new ' if need.fresh else ''}{need.element}: {' or '.join(need.types) or 'anything'}" for need in t.require
    ]
    needs += [f"reason from `{t.reasons}`"] if t.reasons else []
    needs += [_says(guard) for guard in t.guards]
    needs += [f"advice: {_says(guard)}" for guard in t.advice]
    return (
        f"`{t.event}`",
        f"{t.title_zh} {t.title_en}",
        _codes(t.sources),
        f"`{t.to}`" if t.to else "stays",
        _codes(t.by),
        "; ".join(need.rstrip(".") for need in needs),
        "; ".join(_effects(t.effects)),
        _codes(t.messages),
    )


def _effects(effects: tuple[TableEffect, ...]) -> Iterator[str]:
    for effect in effects:
        match effect:
            case When():
                yield f"if {_says(effect.condition).rstrip('.')}: {', '.join(_effects(effect.effects))}"
            case SetStatus():
                yield f"{effect.resource_type} {effect.status}"
            case Send():
                yield f"send {effect.message} {effect.control} to {effect.to_role}".replace("  ", " ")
            case Notify():
                yield f"notify {effect.role}"
            case Sign():
                yield f"signature of {effect.role}"
            case CreateTask():
                yield f"Task {effect.code} for {effect.owner_role}"
            case EndTask():
                yield f"Task {effect.code} {effect.status}"


def _display(workflow: Workflow, name: str) -> str:
    return codes.concept(workflow.steps, workflow.states[name].business_status)["display"]


def _says(function: object) -> str:
    return (getattr(function, "__doc__", None) or "").strip().splitlines()[0]


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _node(name: str) -> str:
    return name.replace("-", "_")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def main(arguments: list[str]) -> int:
    """Write all pages into the folder that is named; return the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m hub.workflows.diagram DIR\n")
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
