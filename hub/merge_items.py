"""Work items about merged patients: a number merged away that is in use again, merges that contradict each other.

HL7 v2 chapter 3.3.37 (ADT^A37) and 3.3.40 (ADT^A40). One is a FHIR Task of the institution whose numbers they are
(https://hl7.org/fhir/R4/task.html): ``for`` is who survives, ``focus`` the other record, its inputs are the messages
that wait. :mod:`hub.merging` raises them, :mod:`hub.unmerging` settles them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from fhir_mappings.identifiers import naming_system, resource_id
from hub.clock import instant
from hub.members import MEMBER_SYSTEM
from hub.provenance import Context

Json = dict[str, Any]
Decision = Literal["undo", "keep"]

CANDIDATE: Final = "unmerge-candidate"
CONFLICT: Final = "merge-conflict"
CODES: Final = frozenset({CANDIDATE, CONFLICT})
_TEXTS = {
    CANDIDATE: "已并入他人的患者号再次出现 / A patient number that was merged away is in use again",
    CONFLICT: "患者合并与先前的合并相矛盾 / A merge contradicts an earlier one",
}
_MESSAGE, _LET, _DECISION = "消息 (message)", "放行的消息 (message let through)", "处理决定 (decision)"
_BY, _REASON = "决定者 (decided by)", "原因 (reason)"
#: Most messages that one item names; those behind are held as well, and ``hub messages list --outcome held`` has them.
MESSAGES_MAX = 500


def text_of(code: str) -> str:
    """Return what an item of *code* says to people."""
    return _TEXTS[code]


def lock_of(institution: str) -> str:
    """Return the condition that who changes, follows or undoes a merge of *institution* holds until it is committed."""
    return f"merges|{institution}"


def item_id(institution: str, code: str, patient_id: str, other_id: str) -> str:
    """Return the id of the Task about two records of *institution*; the same two always have the same."""
    return resource_id(institution, "work-item", "Task", f"{code}|{patient_id}|{other_id}")


def raised(stored: Json | None, code: str, patient_id: str, other_id: str, context: Context) -> Json:
    """Return the item, which waits for a person from now on, with the message of *context* among those that wait.

    Args:
        stored: the item as it stands, if there is one; one that was settled is opened again.
    """
    if stored is not None:
        task = dict(stored)
        if task.get("status") == "completed":
            task |= {"status": "requested", "authoredOn": instant(context.now)}
            task["output"] = [one for one in task.get("output", ()) if _name(one) == _LET]
            task["input"] = []
        task["input"] = _with(task.get("input", ()), _MESSAGE, (context.journal_seq,))
        return {name: value for name, value in task.items() if value != []}
    id_ = item_id(context.owner, code, patient_id, other_id)
    return {
        "resourceType": "Task",
        "id": id_,
        "identifier": [{"system": naming_system(context.owner, "work-item", base=context.base), "value": id_}],
        "status": "requested",
        "intent": "order",
        "priority": "urgent",
        "code": {
            "coding": [{"system": f"{context.base}/CodeSystem/work-item", "code": code}],
            "text": text_of(code),
        },
        "focus": {"reference": f"Patient/{other_id}"},
        "for": {"reference": f"Patient/{patient_id}"},
        "authoredOn": instant(context.now),
        "owner": {"type": "Organization", "identifier": {"system": MEMBER_SYSTEM, "value": context.owner}},
        "input": _with((), _MESSAGE, (context.journal_seq,)),
    }


def settled(task: Json, decision: Decision, *, by: str, reason: str) -> Json:
    """Return the item with what was decided; where the merge is kept, the messages that wait are let through."""
    let = [*_numbers(task.get("output", ()), _LET), *(messages_of(task) if decision == "keep" else ())]
    told = ((_DECISION, decision), (_BY, by), (_REASON, reason))
    output = [{"type": {"text": name}, "valueString": value} for name, value in told]
    return {**task, "status": "completed", "output": _with(output, _LET, let)}


def code_of(task: Mapping[str, Any]) -> str:
    """Return the code of the item, empty for a Task that is none."""
    codes = (str(one.get("code", "")) for one in task.get("code", {}).get("coding", ()))
    return next((one for one in codes if one in CODES), "")


def messages_of(task: Mapping[str, Any]) -> list[int]:
    """Return the numbers in the journal of the messages that the item names."""
    return _numbers(task.get("input", ()), _MESSAGE)


def let_through(task: Mapping[str, Any] | None, seq: int) -> bool:
    """Return whether a person has said that message *seq* speaks of the survivor."""
    return seq in _numbers((task or {}).get("output", ()), _LET)


def decision_of(task: Mapping[str, Any]) -> str:
    """Return how the item was settled; empty while it waits."""
    found = (str(one.get("valueString", "")) for one in task.get("output", ()) if _name(one) == _DECISION)
    return next(found, "")


def _name(one: Mapping[str, Any]) -> str:
    return str(one.get("type", {}).get("text", ""))


def _numbers(entries: Iterable[Mapping[str, Any]], name: str) -> list[int]:
    return [int(one["valueString"]) for one in entries if _name(one) == name]


def _with(entries: Iterable[Json], name: str, numbers: Iterable[int]) -> list[Json]:
    made = list(entries)
    known: Sequence[int] = _numbers(made, name)
    new = [one for one in dict.fromkeys(numbers) if one not in known]
    made += [{"type": {"text": name}, "valueString": str(one)} for one in new[: max(0, MESSAGES_MAX - len(known))]]
    return made
