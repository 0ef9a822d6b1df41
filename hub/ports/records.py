"""FHIR resources with their history, and searches over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from hub.access import Scope
from hub.search.ast import Query


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One version of a resource as stored; ``body`` is the JSON that was stored, byte for byte."""

    type: str
    id: str
    version: int
    owner: str
    visibility: str
    patient_id: str
    deleted: bool
    last_updated: datetime
    body: bytes
    method: str = "PUT"
    asserted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """A version to be written.

    Attributes:
        resource: the whole resource; the store sets ``id``, ``meta.versionId`` and ``meta.lastUpdated``.
        expected_version: refuse with conflict (412) unless this is the current version; 0 = must not exist yet;
            ``None`` = whatever is current.
        visibility: ``institution`` or ``consortium`` (directory data). What is the institution's and labelled restricted
            (:func:`hub.access.is_restricted`) is stored as ``restricted``, with all its earlier versions.
        asserted_at: the sender's own time of the statement, kept for the guard against older news.
    """

    resource: dict[str, Any]
    owner: str
    visibility: str = "institution"
    method: str = "PUT"
    expected_version: int | None = None
    asserted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a search: matches in order, what they include, and where to go on."""

    matches: tuple[Stored, ...]
    included: tuple[Stored, ...] = ()
    total: int | None = None
    next_cursor: str | None = None


class Records(Protocol):
    """FHIR resources with full history. Every read takes the asker's scope."""

    def get(self, type: str, id: str, scope: Scope) -> Stored | None:
        """Return the current version (``deleted`` may be true), or ``None`` when absent or out of scope."""
        ...

    def get_many(self, refs: Sequence[tuple[str, str]], scope: Scope) -> dict[tuple[str, str], Stored]: ...
    def version(self, type: str, id: str, version: int, scope: Scope) -> Stored | None: ...
    def history(
        self,
        type: str | None,
        id: str | None,
        scope: Scope,
        *,
        count: int,
        since: datetime | None = None,
        before: tuple[datetime, str] | None = None,
    ) -> Sequence[Stored]: ...
    def put_many(self, versions: Sequence[NewVersion]) -> list[Stored]:
        """Write versions in order; a version equal to the current one in all but ``meta`` writes nothing.

        Such a version still moves ``asserted_at`` on, so that what was said in between does not win when it comes late.

        Raises:
            HubError: conflict (status 412) when ``expected_version`` does not hold; forbidden when another
                institution owns the id.
        """
        ...

    def delete(self, type: str, id: str, *, owner: str, expected_version: int | None = None) -> Stored | None:
        """Mark the resource deleted; returns the new version, or ``None`` when there was nothing to delete."""
        ...

    def search(self, query: Query, scope: Scope) -> Page: ...
    def find_ids(self, query: Query, scope: Scope, *, limit: int) -> list[str]:
        """Return logical ids of at most *limit* matches, for conditional interactions."""
        ...

    def by_identifier(
        self, type: str, system: str | None, value: str, scope: Scope, *, owner: str | None = None
    ) -> list[Stored]: ...
    def referring(self, type: str, param: str, target: str, scope: Scope, *, limit: int = 100) -> list[Stored]:
        """Return resources of *type* whose search parameter *param* points at *target* (``Patient/x``)."""
        ...

    def compartment(
        self, patient_id: str, scope: Scope, *, types: Sequence[str] | None, count: int, after: str | None
    ) -> Page: ...
    def one_person(self, patient_id: str) -> list[str]:
        """Return *patient_id* and behind it the records that its owner's merges make the same person's."""
        ...

    def lock_condition(self, key: str) -> None:
        """Hold *key* until the transaction ends, so that two conditional writes of one condition cannot race."""
        ...
