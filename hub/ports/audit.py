"""Who read and wrote what (DESIGN rule 12)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from hub.actor import Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """One access to patient data or one change of rules, in the words of FHIR AuditEvent.

    Attributes:
        type: ``rest``, ``dicom``, ``hl7v2``, ``login``, ``admin``.
        action: C, R, U, D or E (AuditEvent.action).
        subtype: interaction, for example ``read``, ``search``, ``C-STORE``.
        patients: (owner institution, Patient id) of those whose data was touched.
        entities: resource references or UIDs touched.
        query: the query text of a search, without values of free-text parameters.
    """

    type: str
    action: str
    subtype: str
    actor: Actor
    recorded_at: datetime
    outcome: str = "0"
    patients: tuple[tuple[str, str], ...] = ()
    entities: tuple[str, ...] = ()
    query: str = ""
    count: int | None = None
    correlation_id: str = ""
    detail: str = ""


class AuditLog(Protocol):
    def write(self, line: AuditLine) -> None:
        """Append *line* to this node's hash chain; durable with the transaction."""
        ...

    def search(
        self, criteria: Mapping[str, str], *, institution: str | None, limit: int, before: int | None
    ) -> Sequence[Mapping[str, Any]]:
        """Return AuditEvent resources, newest first; *institution* limits them to its patients and its own acts."""
        ...

    def get(self, id: str, *, institution: str | None) -> Mapping[str, Any] | None: ...
    def checkpoint(self, sign: Callable[[bytes], bytes], *, now: datetime) -> int:
        """Sign the present end of every chain that has grown; returns how many did."""
        ...

    def verify(self, check: Callable[[bytes, bytes], bool]) -> Iterator[str]:
        """Yield one sentence for each break found in any chain; *check* takes (text, signature)."""
        ...
