"""ConceptMaps in the records: who may write one, and what translations take from them.

https://hl7.org/fhir/R4/conceptmap.html. A map over the code systems of one institution belongs to that institution's
administrator or to the operator; its own is believed before the operator's. Every change is a version of the directory,
so that each process takes it up as it takes up a changed Endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import structlog

from fhir_mappings.code_maps import CodeMaps, Row, compiled, rows
from fhir_mappings.definitions.check import check
from fhir_mappings.errors import MalformedError
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.errors import Category, HubError
from hub.outcome import findings_error
from hub.ports import Stored, Tx
from hub.search import parse

log = structlog.get_logger("hub.concept_maps")

TYPE = "ConceptMap"
#: Institution that owns what the operator writes.
OPERATOR = "YY"


def institutions(resource: Mapping[str, Any]) -> frozenset[str]:
    """Return the institutions whose codes the ConceptMap *resource* maps.

    Raises:
        HubError: 422, naming the element that no translation could follow.
    """
    try:
        return frozenset(row.institution for row in rows(resource))
    except MalformedError as error:
        raise HubError(
            Category.INCORRECT,
            error.message,
            where=error.where,
            remedy=error.remedy,
            status=422,
            issue_code="business-rule",
        ) from error


def rows_of(resource: Mapping[str, Any]) -> tuple[Row, ...]:
    """Return what the ConceptMap *resource* says of members' codes; nothing if it cannot be followed."""
    try:
        return tuple(rows(resource))
    except MalformedError:
        return ()


def refuse(actor: Actor, before: Stored | None, after: Mapping[str, Any] | None) -> None:
    """Raise unless *actor* may make *after* of the ConceptMap *before*; ``None`` is one that is not there.

    Raises:
        HubError: forbidden, for who neither runs the hub nor administers the institution whose codes it maps; 422 as
            :func:`institutions`.
    """
    concerned = institutions(after) if after is not None else frozenset[str]()
    if before is not None and not before.deleted:
        concerned |= institutions(loads(before.body))
    if not concerned:
        return
    may = actor.roles & {"admin", "operator"} and (actor.institution == OPERATOR or concerned == {actor.institution})
    if not may:
        raise HubError(
            Category.FORBIDDEN,
            "How an institution's codes are read is decided by its administrator or by the operator.",
            where="ConceptMap.group.source",
            remedy="Use a token with the role admin of that institution.",
        )


def checked(resource: Mapping[str, Any]) -> None:
    """Raise unless *resource*, which came in a file, is a ConceptMap that can be followed.

    Raises:
        HubError: 422, with every finding.
    """
    findings = check(dict(resource), resource_type=TYPE)
    if findings:
        raise findings_error(findings, prefix=f"ConceptMap/{resource.get('id', '')}: ")
    institutions(resource)


def check_among(resources: Iterable[Mapping[str, Any]]) -> None:
    """Raise as :func:`checked` for each ConceptMap among *resources*."""
    for one in resources:
        if one["resourceType"] == TYPE:
            checked(one)


def stored(tx: Tx) -> Iterator[Stored]:
    """Yield the current version of every ConceptMap."""
    query = parse(TYPE, (("_count", "500"),))
    while True:
        page = tx.records.search(query, UNRESTRICTED)
        yield from page.matches
        if page.next_cursor is None:
            return
        query = replace(query, cursor=page.next_cursor)


def changed(tx: Tx) -> None:
    """Make the ConceptMaps that *tx* wrote a new version of the directory."""
    tx.members.replace((), (), ())


def load(tx: Tx) -> dict[str, CodeMaps]:
    """Return the maps of each institution as the records have them now."""
    return compiled_from([(one.owner, one.id, loads(one.body)) for one in stored(tx)])


def compiled_from(found: list[tuple[str, str, Mapping[str, Any]]]) -> dict[str, CodeMaps]:
    """Return the maps of each institution from (owner, id, ConceptMap), each owner's within its right."""
    usable: list[tuple[bool, str, Mapping[str, Any]]] = []
    for owner, id_, resource in found:
        try:
            concerned = institutions(resource)
        except HubError as error:
            # It was checked when it was written; a table may have changed since, and one map must not stop all feeds.
            log.warning("concept_map_not_followed", id=id_, owner=owner, where=error.where)
            continue
        if concerned and (owner == OPERATOR or concerned == {owner}):
            usable.append((owner == OPERATOR, id_, resource))
    return compiled([resource for _, _, resource in sorted(usable, key=lambda one: one[:2])])
