"""The directory as FHIR resources: what stands, and what would stand if some of it were otherwise.

The doors' tables are distilled from these records (:mod:`hub.members`); whoever tries a change, or takes one back, starts
from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fhir_mappings.code_maps import CodeMaps
from fhir_mappings.json import loads
from hub import concept_maps
from hub.access import UNRESTRICTED
from hub.endpoint_settings import checked
from hub.errors import Category, HubError
from hub.members import distil
from hub.ports import Member, MemberEndpoint, Stored, Tx
from hub.search import parse

Json = dict[str, Any]

#: Owner of all but the ConceptMaps.
OWNER = "YY"
#: Types that the doors' own tables are made of.
DISTILLED = ("Endpoint", "Organization", "Practitioner", "PractitionerRole")


@dataclass(frozen=True, slots=True, kw_only=True)
class Consortium:
    """The doors' view of a directory."""

    members: tuple[Member, ...]
    endpoints: tuple[MemberEndpoint, ...]
    maps: Mapping[str, CodeMaps]
    #: Reference of the FHIR Endpoint by the id that the doors know it by.
    references: Mapping[str, str] = field(default_factory=dict)

    def endpoint(self, id_: str) -> MemberEndpoint:
        """Return the endpoint called *id_*.

        Raises:
            HubError: not-found.
        """
        found = next((one for one in self.endpoints if one.id == id_), None)
        if found is None:
            raise HubError(
                Category.NOT_FOUND,
                "There is no such endpoint.",
                where=id_[:64],
                remedy="`hub members list` shows the names, for example KN/mllp.",
            )
        return found

    def with_settings(self, id_: str, changes: Mapping[str, str]) -> Consortium:
        """Return the same with *changes* among the settings of one endpoint.

        Raises:
            HubError: incorrect, naming the setting that no door could use.
        """
        point = self.endpoint(id_)
        try:
            made = dict(checked(point.kind, changes))
        except ValueError as error:
            name, words = error.args
            raise HubError(
                Category.INCORRECT, f"The setting {name} is none that a door could use.", where=name, remedy=words
            ) from error
        apart = sorted({"cidr", "sending-application", "sending-facility", "ae-title"} & made.keys())
        if apart:
            raise HubError(
                Category.INCORRECT,
                "By this setting a sender is recognised; it does not change what is read.",
                where=apart[0],
                remedy="Leave it out.",
            )
        changed = replace(point, settings={**point.settings, **made})
        return replace(self, endpoints=tuple(changed if one.id == id_ else one for one in self.endpoints))


def current(tx: Tx, type_: str) -> Iterator[Stored]:
    """Yield the current version of every resource of *type_*."""
    query = parse(type_, (("_count", "500"),))
    while True:
        page = tx.records.search(query, UNRESTRICTED)
        yield from page.matches
        if page.next_cursor is None:
            return
        query = replace(query, cursor=page.next_cursor)


def consortium(tx: Tx, proposed: Iterable[Mapping[str, Any]] = (), *, owner: str = OWNER) -> Consortium:
    """Return the directory as it would be with the resources *proposed*, new ConceptMaps being *owner*'s.

    Raises:
        HubError: as an import of *proposed* would be refused.
    """
    resources: dict[str, Mapping[str, Any]] = {}
    for type_ in DISTILLED:
        for one in current(tx, type_):
            if one.owner == OWNER:
                resources[f"{type_}/{one.id}"] = loads(one.body)
    maps = {one.id: (one.owner, loads(one.body)) for one in current(tx, concept_maps.TYPE)}
    for resource in proposed:
        id_ = str(resource.get("id", ""))
        if resource["resourceType"] == concept_maps.TYPE:
            concept_maps.checked(resource)
            maps[id_] = (maps[id_][0] if id_ in maps else owner, resource)
        else:
            resources[f"{resource['resourceType']}/{id_}"] = resource
    members, endpoints, _ = distil(resources.values())
    references = [name for name in resources if name.startswith("Endpoint/")]
    return Consortium(
        members=tuple(members),
        endpoints=tuple(endpoints),
        maps=concept_maps.compiled_from([(owned_by, id_, one) for id_, (owned_by, one) in maps.items()]),
        references={point.id: name for point, name in zip(endpoints, references, strict=True)},
    )
