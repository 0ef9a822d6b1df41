"""What an open Task lets a partner see (DESIGN rule 5)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Leave for one institution to see one target while a Task is open.

    Attributes:
        target_type: a resource type (``Task``, ``ImagingStudy``, ...) or ``patient-record`` for a Patient's whole record,
            with the records that the owner's merges make the same person's while they do.
        until: end of the leave, or ``None`` while the Task is open.
    """

    grantee: str
    target_type: str
    target_id: str
    task_id: str
    until: datetime | None = None


class Grants(Protocol):
    def open(self, grant: Grant, *, now: datetime) -> None: ...
    def close(self, task_id: str, *, grantee: str | None, until: datetime, patient_record: bool | None = None) -> None:
        """Let the grants of *task_id* end at *until*; with *patient_record* only those of that kind, or all others."""
        ...

    def close_across(
        self, patients: Collection[str], others: Collection[str], *, until: datetime
    ) -> Sequence[tuple[str, str]]:
        """End the grants of single resources of *patients* that Tasks for *others* opened, and the other way about.

        They were opened while the two were one person. Returns the (Task id, ``Type/id``) that end at *until*; one that
        ends sooner keeps its end.
        """
        ...

    def of_task(self, task_id: str) -> Sequence[Grant]: ...
