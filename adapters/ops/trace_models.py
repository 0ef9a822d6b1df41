"""What ``/ops`` answers about the whole way of one arrival: what came, what was done, what left."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from adapters.ops.message_models import AnsweredEntry
from adapters.ops.models import Answer, Instant
from adapters.ops.queue_models import AnsweredDelivery


class Act(Answer):
    """审计记录 / One audited act."""

    recorded: str
    what: str
    action: str
    outcome: str
    who: str
    entities: list[str]


class TaskState(Answer):
    """任务状态 / State of one Task of the group."""

    task: str
    code: str
    status: str
    business_status: str
    requester: str
    owner: str
    last_updated: Instant


class Trace(Answer):
    """一次到达的全过程 / The whole way of one arrival."""

    correlation_id: str
    arrivals: list[AnsweredEntry]
    acts: list[Act]
    records: Annotated[list[str], Field(description="涉及的记录 / References of the records touched")]
    tasks: list[TaskState]
    deliveries: list[AnsweredDelivery]
