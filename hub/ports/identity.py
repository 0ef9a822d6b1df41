"""Links between Patients of different institutions, as queries and answers use them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One person as an institution knows them, with what links add.

    Attributes:
        own: the institution's Patients of the person, by what its merges say; the one in use first.
        numbers: their PatientIDs in that order, each once.
        others: Patients of other institutions that are linked to one of these, with what their owners' merges say.
    """

    own: tuple[str, ...]
    numbers: tuple[str, ...]
    others: frozenset[str]

    def first(self, among: Collection[str]) -> str:
        """Return which of the records *among* stands for the person; empty where none of the person's is there."""
        own = (one for one in self.own if one in among)
        return next(own, min((one for one in self.others if one in among), default=""))


class Identity(Protocol):
    """A link is a ``Linkage`` of the operator's institution over two Patients; deleting it ends it (hub.identity)."""

    def persons(self, institution: str, patients: Sequence[str]) -> Mapping[str, Sequence[Person]]:
        """Return, for each of *patients* that a link concerns, who it is to *institution*.

        A Patient of another institution may be linked to several persons here; one of *institution* is one of them.
        """
        ...

    def owners(self, patients: Sequence[str]) -> Mapping[str, str]:
        """Return the owner institution of each of *patients* that is stored and not deleted."""
        ...
