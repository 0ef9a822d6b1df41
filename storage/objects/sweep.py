"""Housekeeping of objects: orphans without a row, rows without an object, and bytes that rotted.

Objects are written before their row, so a crash leaves at most an object that nothing names. Such an orphan may hold
patient data that no deletion request can reach, so it must not stay; but a row may still be on its way, so it is only
reported after a day and removed after eight.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from hub.ports import ObjectRef, ObjectStore

#: An orphan younger than this may still get its row.
REMOVE_AFTER_S = 8 * 24 * 3600.0
#: A thirtieth a day re-reads every object once a month.
SCRUB_DAYS = 30
_BATCH = 500


class SweepableStore(ObjectStore, Protocol):
    """An object store that can also remove what nobody has touched for a while, and be closed."""

    def discard(self, digest: str, *, idle_s: float) -> bool:
        """Remove the object unless it was put or put again within *idle_s*; returns whether it was removed."""
        ...

    def close(self) -> None:
        """Release files and connections; the objects stay."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep saw and did.

    Attributes:
        seen: objects in the store.
        orphans: digests without a row that were left because they are too young or the sweep was a dry run.
        removed: digests without a row that were removed.
    """

    seen: int
    orphans: Sequence[str]
    removed: Sequence[str]


def sweep(
    store: SweepableStore,
    referenced: Callable[[Sequence[str]], Collection[str]],
    *,
    remove_after_s: float = REMOVE_AFTER_S,
    dry_run: bool = False,
) -> Swept:
    """Compare the store with the rows and remove old orphans.

    *referenced* returns those of the given digests that some row names. Memory use does not grow with the store, only
    with the number of orphans.
    """
    seen = 0
    orphans: list[str] = []
    removed: list[str] = []
    for refs in _batches(store.digests()):
        seen += len(refs)
        digests = [ref.digest for ref in refs]
        named = set(referenced(digests))
        for digest in digests:
            if digest in named:
                continue
            if not dry_run and store.discard(digest, idle_s=remove_after_s):
                removed.append(digest)
            else:
                orphans.append(digest)
    return Swept(seen=seen, orphans=orphans, removed=removed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A row whose object is not what the row says: ``missing``, ``size`` or ``hash``."""

    digest: str
    reason: str


def check(store: ObjectStore, rows: Iterable[ObjectRef], *, deep: bool) -> Iterator[Damage]:
    """Yield the rows of *rows* whose object is missing or has another size; with *deep*, or another hash."""
    for row in rows:
        found = store.stat(row.digest)
        if found is None:
            yield Damage(digest=row.digest, reason="missing")
        elif found.size != row.size:
            yield Damage(digest=row.digest, reason="size")
        elif deep and not store.verify(row.digest):
            yield Damage(digest=row.digest, reason="hash")


def scrub(store: ObjectStore, *, day: int, days: int = SCRUB_DAYS) -> Iterator[str]:
    """Re-hash the share of the store that is due on *day* and yield the digests of damaged objects.

    Digests are evenly spread, so each object is due once in *days* days without any record of the last time.
    """
    for ref in store.digests():
        if int(ref.digest[:8], 16) % days == day % days and not store.verify(ref.digest):
            yield ref.digest


def _batches(refs: Iterator[ObjectRef]) -> Iterator[list[ObjectRef]]:
    while batch := list(islice(refs, _BATCH)):
        yield batch
