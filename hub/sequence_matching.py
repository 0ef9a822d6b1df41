"""Sequence matching (PS3.4 C.2.2.2.6): keys inside sequences, such as RequestAttributesSequence.ScheduledProcedureStepID.

No store has a column for what stands in a sequence. So the other keys of the query choose the candidates by the index,
at most :data:`MAX_CANDIDATES` of them, and their stored headers are looked at one by one; a query whose other keys
choose more is told to name more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fhir_mappings.json import loads
from hub.access import scope_of
from hub.actor import Actor
from hub.attribute_matching import MAX_VALUES, Level, Match, fits, parse, parse_as
from hub.errors import Category, HubError
from hub.ports import StudyKey, Tx

if TYPE_CHECKING:
    from hub.boot import Services

#: Headers that one query may look at: some tenths of a second, and no more results than one list of UIDs may hold.
MAX_CANDIDATES = MAX_VALUES


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceKey:
    """One key inside sequences.

    Attributes:
        path: tags as eight hex digits, from the outermost sequence to the attribute.
        name: the path as it was asked for.
        vr: of the attribute.
    """

    path: tuple[str, ...]
    name: str
    vr: str
    value: str


def matching(
    services: Services,
    actor: Actor,
    level: Level,
    keys: Sequence[tuple[str, str]],
    inside: Sequence[SequenceKey],
    *,
    owner: str | None = None,
    fuzzy: bool = False,
) -> frozenset[tuple[str, str]]:
    """Return (owner, UID) of what *actor* may see on *level* that matches all *keys* and all keys *inside* sequences.

    Nothing is disclosed by it, so it is not audited: the query that shows the rows is.

    Raises:
        HubError: incorrect when a key cannot be matched, or when *keys* alone choose too many candidates.
    """
    wanted = [match for name, value in keys if (match := parse(name, value, level=level, fuzzy=fuzzy)) is not None]
    deep = [(key, parse_as(key.name, key.vr, key.value, fuzzy=fuzzy)) for key in inside]

    def work(tx: Tx) -> frozenset[tuple[str, str]]:
        return frozenset(
            (holder, uid)
            for holder, uid, header in _candidates(tx, actor, level, wanted, owner)
            if all(match is None or fits(match, _values(header, key.path)) for key, match in deep)
        )

    return services.database.read(work)


def _candidates(
    tx: Tx, actor: Actor, level: Level, matches: Sequence[Match], owner: str | None
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield (owner, UID, header) of each row that the index chooses."""
    scope, limit = scope_of(actor), MAX_CANDIDATES + 1
    if level == "instance":
        instances = tx.imaging.instances(scope, matches, limit=limit, owner=owner, attributes=True)
        _bounded(len(instances))
        yield from ((row.owner, row.SOPInstanceUID, loads(row.attributes or b"{}")) for row in instances)
        return
    rows = (tx.imaging.series if level == "series" else tx.imaging.studies)(scope, matches, limit=limit, owner=owner)
    _bounded(len(rows))
    firsts = []
    for row in rows:
        if level == "series":
            firsts.append(row["SeriesInstanceUID"])
        else:
            study = StudyKey(owner=row["owner"], StudyInstanceUID=row["StudyInstanceUID"])
            firsts.append(next(iter(tx.imaging.series_uids(study)), ""))
    places = [(row["owner"], row["StudyInstanceUID"], first) for row, first in zip(rows, firsts, strict=True)]
    headers = tx.imaging.first_attributes(places)
    uid = "SeriesInstanceUID" if level == "series" else "StudyInstanceUID"
    for row, place in zip(rows, places, strict=True):
        yield row["owner"], row[uid], loads(headers.get(place, b"{}"))


def _bounded(count: int) -> None:
    if count > MAX_CANDIDATES:
        raise HubError(
            Category.INCORRECT,
            f"The other keys leave more than {MAX_CANDIDATES} candidates, too many to look into their sequences.",
            where="query",
            remedy="Add StudyInstanceUID, PatientID, AccessionNumber or a StudyDate range.",
        )


def _values(dataset: Mapping[str, Any], path: Sequence[str]) -> Iterator[str]:
    """Yield the values at *path* in every item, as text."""
    values = dataset.get(path[0], {}).get("Value") or ()
    for value in values:
        if len(path) > 1:
            if isinstance(value, dict):
                yield from _values(value, path[1:])
        elif isinstance(value, dict):
            yield from (str(group) for group in value.values())
        elif value is not None:
            yield str(value)
