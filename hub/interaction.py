"""One FHIR write on its way through a transaction: what was asked, what was found, what stands afterwards.

https://hl7.org/fhir/R4/http.html. :mod:`hub.writing` carries changes out, one or a whole Bundle of them.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

from hub.errors import Category, HubError
from hub.ports import Stored

Json = dict[str, Any]
Pairs = tuple[tuple[str, str], ...]
Key = tuple[str, str]

#: A stored Bundle is a document or message of its sender's: its references speak of its own entries and stay as they are.
SEALED = frozenset({"Bundle"})

Method = Literal["POST", "PUT", "DELETE"]


@dataclass(slots=True, kw_only=True)
class Change:
    """One thing to be written; ``label`` says where it stands in a Bundle (``Bundle.entry[3]``).

    Attributes:
        given_id: id in the URL, or ``None`` when the hub has to choose or a condition has to tell.
        source: the checked resource as it was sent.
        condition: search parameters of a conditional interaction.
        if_match: version of If-Match; 0 for If-None-Match: *.
        patch: JSON Patch operations in place of ``source``.
        full_url: how other entries of the Bundle call this one.
        existing: what a condition or the id found.
        result: the version that stands afterwards.
        skipped: nothing is to be done: a conditional create found its resource, a conditional delete found none.
    """

    method: Method
    type: str
    given_id: str | None = None
    source: Json | None = None
    condition: Pairs | None = None
    if_match: int | None = None
    patch: Any = None
    full_url: str = ""
    label: str = ""
    id: str | None = None
    resource: Json | None = None
    expected_version: int | None = None
    existing: Stored | None = None
    result: Stored | None = None
    skipped: bool = False

    def begin(self) -> None:
        """Forget what an earlier run found: the work of a transaction may run again."""
        self.id, self.expected_version = self.given_id, self.if_match
        # Entries of a Bundle get their references rewritten, so each run starts from what was sent.
        self.resource = deepcopy(self.source) if self.label else self.source
        self.existing = self.result = None
        self.skipped = False

    @property
    def key(self) -> Key:
        """Type and id, once known."""
        assert self.id is not None
        return self.type, self.id

    @property
    def created(self) -> bool:
        """Whether the change made a resource that was not there, or was deleted."""
        return not self.skipped and self.method != "DELETE" and (self.existing is None or self.existing.deleted)


def ends(change: Change) -> bool:
    """Return whether *change* deletes what was there."""
    return change.method == "DELETE" and change.existing is not None and not change.existing.deleted


def moved(change: Change) -> bool:
    """Return whether *change* made a version; saying the same again makes none."""
    before = change.existing
    return change.result is not None and (before is None or change.result.version != before.version)


def gone(change: Change) -> HubError:
    """Return the error for a resource that was deleted."""
    return HubError(
        Category.NOT_FOUND,
        "The resource was deleted.",
        where=f"{change.type}/{change.id}",
        status=410,
        issue_code="deleted",
    )


def no_version(change: Change) -> HubError:
    """Return the error for a version that is asked for where there is no resource."""
    return HubError(
        Category.CONFLICT, "The resource does not exist yet.", where=f"{change.type}/{change.id}", status=412
    )
