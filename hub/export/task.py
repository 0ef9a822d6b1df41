"""The Task that holds a job: what is to be done, sealed, and how far it is (https://hl7.org/fhir/R4/task.html)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from fhir_mappings.errors import MappingError
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED, Scope
from hub.actor import Actor
from hub.clock import instant
from hub.export.progress import NAMED, Run
from hub.ports import AuditLine, Stored, Tx
from hub.search import parse as parse_query

Json = dict[str, Any]

#: Code of the Task in the code system ``work-item``.
CODE: Final = "deidentified-export"
#: States of a job that has not ended.
ACTIVE: Final = ("requested", "in-progress")
_SPEC, _SEAL = "导出要求 (request)", "封印 (seal)"
_COUNTS = {
    "total": "总数 (total)",
    "done": "已导出 (done)",
    "left_out": "未导出 (left out)",
    "failed": "失败 (failed)",
}
_REASON, _LEFT = "未导出原因 (reason)", "未导出的实例 (left out instance)"


def new_task(tx: Tx, base: str, owner: str, id_: str, spec: str, seal: str, *, at: datetime) -> Json:
    """Return the Task that asks for *spec*; *base* is the hub's own, under which its code systems are."""
    now = instant(at)
    task: Json = {
        "resourceType": "Task",
        "id": id_,
        "status": "requested",
        "intent": "order",
        "code": {
            "coding": [
                {
                    "system": f"{base}/CodeSystem/work-item",
                    "code": CODE,
                    "display": "去标识化导出 (de-identified export)",
                }
            ]
        },
        "authoredOn": now,
        "lastModified": now,
        "input": [
            {"type": {"text": _SPEC}, "valueString": spec},
            {"type": {"text": _SEAL}, "valueString": seal},
        ],
    }
    member = tx.members.get(owner)
    if member is not None:
        task["requester"] = {"reference": f"Organization/{member.organization_id}"}
    return task


def tasks(tx: Tx, base: str, status: str | None, scope: Scope, limit: int) -> list[Stored]:
    """Return the Tasks of exports in *scope*, the newest first."""
    wanted = [("code", f"{base}/CodeSystem/work-item|{CODE}"), ("_sort", "-_lastUpdated"), ("_count", str(limit))]
    if status is not None:
        wanted.append(("status", status))
    return list(tx.records.search(parse_query("Task", wanted), scope).matches)


def task_of(id_: str, tx: Tx) -> Stored | None:
    """Return the Task of this id, whatever it is for."""
    return tx.records.get("Task", id_, UNRESTRICTED)


def is_export(task: Json) -> bool:
    """Return whether a Task holds an export."""
    return any(coding.get("code") == CODE for coding in (task.get("code") or {}).get("coding", ()))


def _input(task: Json, name: str) -> str:
    return next(
        (str(one.get("valueString", "")) for one in task.get("input", ()) if one.get("type", {}).get("text") == name),
        "",
    )


def said(task: Json) -> Json:
    """Return the request of a Task as it says, which anybody of the institution may have written."""
    try:
        found = loads(_input(task, _SPEC).encode())
    except (ValueError, MappingError):
        return {}
    return found if isinstance(found, dict) else {}


def seal(key: bytes, id_: str, spec: str) -> str:
    """Return what proves that *spec* was asked for by way of the hub: an HMAC under the project's key."""
    return hmac.digest(key, f"seal|{id_}|{spec}".encode(), sha256).hex()


def spec_of(task: Json, key: bytes) -> Json | None:
    """Return the request of a Task, or ``None`` where it is not sealed with *key*."""
    spec = _input(task, _SPEC)
    if not hmac.compare_digest(seal(key, str(task["id"]), spec).encode(), _input(task, _SEAL).encode()):
        return None
    return said(task)


def shown(task: Json) -> Json:
    """Return a job as people see it."""
    asked = said(task)
    outputs = [(one["type"].get("text"), one) for one in task.get("output", ())]
    counts = {
        name: next((one["valueInteger"] for text, one in outputs if text == label), 0)
        for name, label in _COUNTS.items()
    }
    reasons = dict(str(one["valueString"]).rsplit("=", 1) for text, one in outputs if text == _REASON)
    return {
        "id": task["id"],
        "status": task["status"],
        "project": asked.get("project", ""),
        "since": task["authoredOn"],
        "changed": task["lastModified"],
        "studies": len(asked.get("studies", ())),
        "options": asked.get("options", []),
        "take": asked.get("take", []),
        **counts,
        "reasons": {name: int(count) for name, count in reasons.items()},
        "left_out_instances": [str(one["valueString"]) for text, one in outputs if text == _LEFT],
        "folder": f"exports/{task['id']}" if task["status"] == "completed" else "",
    }


def outputs(run: Run) -> list[Json]:
    """Return how far a job is, as the outputs of its Task."""
    return [
        *(
            {"type": {"text": label}, "valueInteger": len(run.plan) if name == "total" else run.counts[name]}
            for name, label in _COUNTS.items()
        ),
        *(
            {"type": {"text": _REASON}, "valueString": f"{reason}={count}"}
            for reason, count in sorted(run.reasons.items())
        ),
        *({"type": {"text": _LEFT}, "valueString": uid} for uid in run.left),
    ]


def audit(
    tx: Tx,
    actor: Actor,
    action: str,
    subtype: str,
    task: Json,
    studies: Sequence[Mapping[str, Any]],
    *,
    at: datetime,
    count: int | None = None,
    detail: str = "",
) -> None:
    """Leave a line in the audit trail that names the job, its studies and whose they are."""
    tx.audit.write(
        AuditLine(
            type="dicom",
            action=action,
            subtype=subtype,
            actor=actor,
            recorded_at=at,
            patients=tuple(sorted({(str(row["owner"]), str(row["patient_id"])) for row in studies})),
            entities=(f"Task/{task['id']}", *(str(row["StudyInstanceUID"]) for row in studies[:NAMED])),
            count=count,
            detail=detail,
        )
    )
