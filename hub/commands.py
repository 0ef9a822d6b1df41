"""What a workflow command of an HL7 v2 message means where its table has no open event for it (DESIGN rule 7).

A command asks the other side to begin, change, accept, refuse or cancel work (HL7 v2 tables 0119 and 0283, and the
events of REF and SIU); a result reports and is no command. A command that asks for what stands already is fulfilled:
senders repeat themselves after a lost acknowledgement. Any other one is refused, so that its sender does not take for
done what is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_mappings.hl7v2.base import Issue, Translation
from hub import workflows
from hub.errors import Category, HubError
from hub.workflows.standing import roles_of
from hub.workflows.task import marks

#: Commands that end work.
CANCELLATIONS = frozenset({"order.cancel", "referral.cancelled"})
#: Commands that no table has an event for: they change the request alone.
UNRULED = frozenset({"order.on-hold"})
#: Commands that change an order -> ORC-1 of the answer to one that is refused (HL7 v2 table 0119).
ORDER_CHANGES = {"order.modified": "UX", "order.hold": "UH", "order.release": "UR"}
#: Where a message says what it commands, for ERR-2; other kinds say it in MSH-9.
_PLACES = {"order.": "ORC-1", "referral.accepted": "RF1-1", "referral.rejected": "RF1-1", "referral.received": "RF1-1"}


#: What the other side says to a change or a cancellation of a referral, or to the question where it stands (RRI^I13, I14,
#: I15). It moves a Task where the table is open to it and is noted otherwise: a partner that hears AE for having answered
#: would answer again without end.
ANSWERS = ("referral.change-", "referral.cancellation-", "referral.status-")


def is_command(kind: str) -> bool:
    """Return whether a workflow event of this *kind* asks for something; the others are kept whatever a table says."""
    return not kind.startswith(("report.", "observation.", *ANSWERS))


def unmoved(translation: Translation) -> tuple[Issue, ...]:
    """Return what the journal says of the answers of a message that moved no Task."""
    return tuple(
        Issue(
            severity="warning",
            code="business-rule",
            message=f"Noted: '{event.kind}' moves no Task that the sender takes part in.",
            where="RF1-1",
        )
        for event in translation.workflow_events
        if event.kind.startswith(ANSWERS)
    )


def concerns(workflow: workflows.Workflow, kind: str) -> bool:
    """Return whether *workflow* has an event for *kind* in any state."""
    return any(kind in transition.messages for transition in workflow.transitions)


def is_fulfilled(workflow: workflows.Workflow, instance: workflows.Instance, kind: str, actor: workflows.Actor) -> bool:
    """Return whether what *kind* of *actor* asks for stands already, so that nothing is left to do."""
    held = roles_of(workflow, instance, actor)
    meant = [one for one in workflow.transitions if kind in one.messages and held.intersection(one.by)]
    if not meant:
        return False
    name = workflows.state_of(workflow, instance.task)
    state = workflow.states[name]
    if any(one.to == name for one in meant if name not in one.sources):
        return True
    is_open = any(name in one.sources for one in meant)
    if any(one.event == workflow.submit for one in meant) and not (state.terminal or is_open):
        # The work that the message asks for is under way.
        return True
    if kind in CANCELLATIONS and state.terminal and state.task_status != "completed":
        # There is no work left to stop.
        return True
    # A question that waits for its answer is not asked twice.
    return any(name in one.sources and one.marks and marks(instance.task).issuperset(one.marks) for one in meant)


def refusal(
    workflow: workflows.Workflow, instance: workflows.Instance, kind: str, actor: workflows.Actor, task_id: str
) -> HubError:
    """Return the error for a command that the table does not take; names the state and what is open to *actor*."""
    state = workflows.state_of(workflow, instance.task)
    allowed = ", ".join(workflows.allowed_events(workflow, instance, actor)) or "none"
    return HubError(
        Category.CONFLICT,
        f"工作流状态为 '{state}' 时不能执行 '{kind}' / The command '{kind}' is not open to this sender while the "
        f"Task is '{state}' (Task/{task_id}).",
        where=next((place for prefix, place in _PLACES.items() if kind.startswith(prefix)), "MSH-9"),
        remedy=f"Allowed events: {allowed}.",
        issue_code="business-rule",
        status=409,
    )


def goes_on(workflow: workflows.Workflow, task: Mapping[str, Any]) -> bool:
    """Return whether the work of *task* goes on."""
    return not workflow.states[workflows.state_of(workflow, task)].terminal
