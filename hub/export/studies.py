"""The studies of an export: an institution's own ones, named or found by a query (PS3.18 section 10.6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from hub.access import Scope
from hub.attribute_matching import Match, parse
from hub.errors import Category, HubError
from hub.export.request import Request
from hub.ports import Tx

#: Most studies and instances of one job: its list must fit a FHIR string and the memory of the worker.
MAX_STUDIES: Final = 2_000
MAX_INSTANCES: Final = 200_000
#: Studies looked up in one statement.
_BATCH: Final = 500


def chosen(tx: Tx, owner: str, request: Request) -> list[Mapping[str, Any]]:
    """Return the rows of the studies that are meant, by UID; the institution's own ones only.

    Raises:
        HubError: not-found when one is not the institution's own; incorrect for a request that names none; unsupported for
            more than one job holds.
    """
    if request.studies:
        wanted = sorted(set(request.studies))
        if len(wanted) > MAX_STUDIES:
            raise _too_many()
        found = rows(tx, owner, wanted)
        if len(found) != len(wanted):
            raise HubError(Category.NOT_FOUND, "A study is not there, or not this institution's own.", where="studies")
    else:
        matches = [
            match for name, value in request.query.items() if (match := parse(name, value, level="study")) is not None
        ]
        if not matches:
            raise HubError(
                Category.INCORRECT,
                "The request does not say which studies.",
                where="studies",
                remedy="Give Study Instance UIDs, or a query such as StudyDate and ModalitiesInStudy.",
            )
        scope = Scope(institution=owner)
        found = list(tx.imaging.studies(scope, matches, limit=MAX_STUDIES + 1, owner=owner))
        if len(found) > MAX_STUDIES:
            raise _too_many()
    uids = [str(row["StudyInstanceUID"]) for row in found]
    instances = sum(
        tx.imaging.count("instance", Scope(institution=owner), [_any(batch)], owner=owner) for batch in _batches(uids)
    )
    if instances > MAX_INSTANCES:
        raise _too_many()
    return sorted(found, key=lambda row: str(row["StudyInstanceUID"]))


def rows(tx: Tx, owner: str, uids: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the rows of the institution's own studies among *uids*."""
    scope = Scope(institution=owner)
    return [
        row
        for batch in _batches(uids)
        for row in tx.imaging.studies(scope, [_any(batch)], limit=len(batch), owner=owner)
    ]


def _batches(uids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(uids[start : start + _BATCH]) for start in range(0, len(uids), _BATCH))


def _any(uids: tuple[str, ...]) -> Match:
    return Match(keyword="StudyInstanceUID", vr="UI", kind="any", values=uids)


def _too_many() -> HubError:
    return HubError(
        Category.UNSUPPORTED,
        f"More than {MAX_STUDIES} studies or {MAX_INSTANCES} instances.",
        where="studies",
        remedy="Make several exports of them; one project may have any number.",
    )
