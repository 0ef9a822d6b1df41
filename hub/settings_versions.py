"""Settings as versions: what a member's Endpoint, Organization or ConceptMap said at which time, and how to go back.

https://hl7.org/fhir/R4/http.html#history. The records keep every version; here people read them by the names of settings
and codes, and an earlier one is made the newest. Nothing is taken out of the history by that.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fhir_mappings.json import loads
from hub import concept_maps
from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.askers import is_operator, limit_of
from hub.clock import instant
from hub.differences import differences, values
from hub.directory_records import OWNER, Consortium, consortium
from hub.errors import Category, HubError
from hub.members import MEMBER_SETTING_URL, SETTING_URL, settings_of
from hub.ports import AuditLine, NewVersion, Stored, Tx

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]

#: Versions that one look shows.
MAX_VERSIONS = 100
_TYPES = ("Endpoint", "Organization", concept_maps.TYPE)
_URLS = {"Endpoint": SETTING_URL, "Organization": MEMBER_SETTING_URL}
#: Settings whose value nobody is shown.
_SECRET = frozenset({"bearer"})
#: Makes the mark of a secret mean nothing outside of this process.
_SALT = secrets.token_bytes(16)
#: A version and its audit line are of one transaction, by two looks at the clock.
_NEAR = timedelta(seconds=5)


class SettingsVersions:
    """One asker's looks at the history of the directory."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def history(self, actor: Actor, name: str) -> list[Json]:
        """Return the versions of *name*, the newest first, each with what it changed and who made it.

        Args:
            name: an endpoint (``KN/mllp``), or ``Endpoint/ID``, ``Organization/ID``, ``ConceptMap/ID``.

        Raises:
            HubError: not-found for what is none of these, or out of reach.
        """

        def read(tx: Tx) -> list[Json]:
            type_, id_ = self._resolve(tx, actor, name)
            found = list(tx.records.history(type_, id_, UNRESTRICTED, count=MAX_VERSIONS + 1))
            told = []
            for number, one in enumerate(found[:MAX_VERSIONS]):
                before = _said(found[number + 1]) if number + 1 < len(found) else {}
                told.append(
                    {
                        "version": one.version,
                        "at": instant(one.last_updated),
                        "by": _who(tx, one),
                        "deleted": one.deleted,
                        "changed": list(differences(before, _said(one))),
                    }
                )
            return told

        return self._services.database.read(read)

    def diff(self, actor: Actor, name: str, before: int | None = None, after: int | None = None) -> list[Json]:
        """Return what differs between two versions of *name*; by default between the last two.

        Raises:
            HubError: not-found for what is no such version, or out of reach.
        """

        def read(tx: Tx) -> list[Json]:
            type_, id_ = self._resolve(tx, actor, name)
            newest = after if after is not None else _current(tx, type_, id_).version
            older = before if before is not None else newest - 1
            old = _said(_version(tx, type_, id_, older)) if older > 0 else {}
            new = _said(_version(tx, type_, id_, newest))
            return [
                {"path": path, "change": kind, "before": values(old, path), "after": values(new, path)}
                for path, kind in differences(old, new).items()
            ]

        return self._services.database.read(read)

    def rollback(self, actor: Actor, name: str, version: int) -> Json:
        """Make *version* of *name* the newest again; in force on return, in other processes within a second.

        Raises:
            HubError: not-found for what is no such version; forbidden for who may not change it; conflict when the hub
                could not work with what it said then, or somebody else changed it meanwhile.
        """

        def work(tx: Tx) -> Json:
            type_, id_ = self._resolve(tx, actor, name)
            current = _current(tx, type_, id_)
            resource = loads(_version(tx, type_, id_, version).body)
            resource.pop("meta", None)
            _refuse(actor, current, resource)
            reference = f"{type_}/{id_}"
            now, then = consortium(tx), _as_it_was(tx, resource, current.owner)
            if _names(now, reference) != _names(then, reference):
                raise HubError(
                    Category.CONFLICT,
                    "The endpoint was called otherwise then, and both names would be in force.",
                    where=f"{reference}/_history/{version}",
                    remedy="Import the Endpoint as it shall be.",
                )
            (made,) = tx.records.put_many(
                [
                    NewVersion(
                        resource=resource,
                        owner=current.owner,
                        visibility="consortium",
                        expected_version=current.version,
                    )
                ]
            )
            tx.members.replace(then.members, then.endpoints, ())
            tx.audit.write(
                AuditLine(
                    type="admin",
                    action="U",
                    subtype="members-rollback",
                    actor=actor,
                    recorded_at=self._services.clock(),
                    entities=(reference,),
                    detail=f"to version {version}",
                )
            )
            return {"reference": reference, "version": made.version, "like": version}

        told = self._services.database.write(work)
        self._services.directory.refresh()
        return told

    def _resolve(self, tx: Tx, actor: Actor, name: str) -> tuple[str, str]:
        limit = limit_of(actor)
        known = consortium(tx)
        reference = known.references.get(name, name)
        type_, _, id_ = reference.partition("/")
        found = tx.records.get(type_, id_, UNRESTRICTED) if type_ in _TYPES and id_ else None
        if found is None or (limit is not None and not _concerns(known, found, limit)):
            raise HubError(
                Category.NOT_FOUND,
                "There is nothing of that name whose versions can be looked at.",
                where=name[:64],
                remedy="Name an endpoint like KN/mllp, or Endpoint/ID, Organization/ID, ConceptMap/ID.",
            )
        return type_, id_


def _concerns(known: Consortium, found: Stored, institution: str) -> bool:
    if found.type == "Endpoint":
        name = f"Endpoint/{found.id}"
        return any(one.member == institution and known.references.get(one.id) == name for one in known.endpoints)
    if found.type == "Organization":
        return any(one.code == institution and one.organization_id == found.id for one in known.members)
    rows = () if found.deleted else concept_maps.rows_of(loads(found.body))
    return found.owner == institution or institution in {row.institution for row in rows}


def _current(tx: Tx, type_: str, id_: str) -> Stored:
    found = tx.records.get(type_, id_, UNRESTRICTED)
    if found is None:
        raise _no_version(f"{type_}/{id_}")
    return found


def _version(tx: Tx, type_: str, id_: str, version: int) -> Stored:
    found = tx.records.version(type_, id_, version, UNRESTRICTED)
    if found is None or found.deleted:
        raise _no_version(f"{type_}/{id_}/_history/{version}")
    return found


def _no_version(where: str) -> HubError:
    return HubError(
        Category.NOT_FOUND,
        "There is no such version.",
        where=where,
        remedy="`hub members history NAME` lists them.",
    )


def _refuse(actor: Actor, current: Stored, resource: Json) -> None:
    if current.type == concept_maps.TYPE:
        concept_maps.refuse(actor, current, resource)
        allowed = current.owner == actor.institution
    else:
        allowed = is_operator(actor) and current.owner == OWNER
    if not allowed:
        raise HubError(
            Category.FORBIDDEN,
            "Only the institution that owns a resource may change it.",
            where=f"{current.type}/{current.id}",
            remedy="Ask the operator for members and endpoints, the owner for a ConceptMap.",
        )


def _as_it_was(tx: Tx, resource: Json, owner: str) -> Consortium:
    try:
        return consortium(tx, [resource], owner=owner)
    except HubError as error:
        raise HubError(
            Category.CONFLICT,
            f"With the rest of the directory as it is, that version cannot be in force: {error.message}",
            where=error.where,
            remedy=error.remedy,
        ) from error


def _names(found: Consortium, reference: str) -> set[str]:
    return {name for name, one in found.references.items() if one == reference}


def _said(stored: Stored) -> Json:
    """Return what a version said, settings and codes by their names and no secret among them."""
    if stored.deleted:
        return {}
    resource: Json = loads(stored.body)
    resource.pop("meta", None)
    url = _URLS.get(stored.type)
    if url is not None:
        settings = settings_of(resource, url)
        plain = [one for one in resource.pop("extension", ()) if one.get("url") != url]
        return {
            **resource,
            **({"extension": plain} if plain else {}),
            "setting": {name: _shown(name, value) for name, value in settings.items()},
        }
    rows = concept_maps.rows_of(resource)
    if rows:
        del resource["group"]
        resource["map"] = {
            f"{row.system}|{row.code}": [f"{one['system']}|{one['code']}" for one in row.targets] or ["-"]
            for row in rows
        }
    return resource


def _shown(name: str, value: Any) -> Any:
    # That it changed is told; what it was, is not.
    if name not in _SECRET:
        return value
    return f"(secret {hashlib.blake2b(str(value).encode(), key=_SALT, digest_size=3).hexdigest()})"


def _who(tx: Tx, version: Stored) -> str:
    """Return who made *version*, by the audit trail; empty when that does not name it."""
    reference = f"{version.type}/{version.id}"
    near = {
        "since": (version.last_updated - _NEAR).isoformat(),
        "until": (version.last_updated + _NEAR).isoformat(),
    }
    for event in tx.audit.search(near, institution=None, limit=100, before=None):
        if event.get("action") in {"C", "U", "D"} and reference in _entities(event):
            who: Mapping[str, Any] = event.get("agent", [{}])[0].get("who", {})
            return str(who.get("identifier", {}).get("value", ""))
    return ""


def _entities(event: Mapping[str, Any]) -> Sequence[str]:
    return [str(one.get("what", {}).get("reference", "")) for one in event.get("entity", ())]
