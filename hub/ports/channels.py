"""Events of workitems that wait for the open WebSocket of their subscriber (PS3.18 sections 8.10 and 11.10)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChannelEvent:
    """Something that an AE is to be told.

    Attributes:
        institution: the subscriber's; with *ae_title* it names the channel.
        owner: institution that the workitem belongs to.
        item: SOP Instance UID of the workitem.
        payload: the event as JSON, as :mod:`hub.workitem_events` writes it.
    """

    institution: str
    ae_title: str
    owner: str
    task_id: str
    patient_id: str
    item: str
    payload: bytes
    correlation_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelEvent(NewChannelEvent):
    id: int


class Channels(Protocol):
    """What waits for each AE, the oldest first."""

    def tell(self, event: NewChannelEvent, *, keep: int) -> int:
        """Let *event* wait; return how many of the oldest of its AE went so that no more than *keep* wait."""
        ...

    def waiting(self, institution: str, ae_title: str, *, limit: int) -> Sequence[ChannelEvent]: ...
    def remove(self, ids: Collection[int]) -> None: ...
