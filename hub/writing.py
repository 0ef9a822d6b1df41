"""FHIR writes: how one or many changes become one commit; what may be written by whom is in :mod:`hub.writable`.

https://hl7.org/fhir/R4/http.html#create and following. A request is prepared outside the transaction (guard, decode,
structural check) and carried out inside it (conditions, references, owners, workflow tables, records); journal entry and
audit line belong to the same commit. One change and a whole transaction Bundle go the same way.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fhir_mappings.definitions.check import check
from fhir_mappings.errors import MappingError
from fhir_mappings.json import loads
from fhir_mappings.prescan import prescan
from hub import concept_maps, kept, references
from hub.access import DIRECTORY_TYPES, UNRESTRICTED, scope_of
from hub.actor import Actor
from hub.directory import DIRECTORY_OWNER
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.interaction import SEALED, Change, Json, ends, gone, moved, no_version
from hub.linking import Linker
from hub.members import distil
from hub.outcome import as_hub_error, findings_error
from hub.patch import apply_patch
from hub.ports import NewVersion, Stored, Tx
from hub.reading import not_found
from hub.search import parse
from hub.writable import DISTILLED, refuse_id, refuse_object, refuse_twice

if TYPE_CHECKING:
    from hub.boot import Services


class Writer:
    """The writing half of the FHIR interactions; safe for many threads."""

    def __init__(self, services: Services, bases: Sequence[str]) -> None:
        self._services = services
        self._bases = tuple(bases)
        self.linker = Linker(services, bases)

    # --- before the transaction --------------------------------------------------------------------------------

    def decode(self, raw: bytes) -> Any:
        """Return the decoded body.

        Raises:
            HubError: incorrect, for what is not a safe JSON text.
        """
        try:
            return prescan(raw)
        except MappingError as error:
            raise as_hub_error(error) from error

    def resource(self, value: Any, type: str | None, *, label: str = "", in_bundle: bool = False) -> Json:
        """Return *value* as a checked resource with references relative to the hub.

        Raises:
            HubError: 400 when it is no resource of *type*, 422 with every finding of the structural check.
        """
        found = value.get("resourceType") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(found, str) or (type is not None and found != type):
            raise HubError(
                Category.INCORRECT,
                f"Expected a {type or 'FHIR resource'} in the body.",
                where=label or "body",
                remedy="resourceType must be the type in the URL.",
                issue_code="structure",
            )
        findings = check(value, resource_type=type, conditional_references=in_bundle)
        if findings:
            raise findings_error(findings, prefix=f"{label}.resource: " if label else "")
        refuse_object(value, label)
        if found not in SEALED:
            references.make_relative(value, self._bases)
        return value

    # --- inside the transaction --------------------------------------------------------------------------------

    def carry_out(self, tx: Tx, changes: Sequence[Change], envelope: Envelope) -> None:
        """Make all *changes* or none; each gets its ``result``.

        Raises:
            HubError: what is wrong, with the entry it is wrong in.
        """
        for change in changes:
            change.begin()
        actor = envelope.actor
        self._meet_conditions(tx, changes, actor)
        self._load_existing(tx, changes, actor)
        for change in changes:
            if not change.skipped:
                held = change.existing.body if change.existing is not None else None
                kept.refuse(change.resource or change.source, held, where=change.label or f"{change.type}/{change.id}")
                if change.type == concept_maps.TYPE:
                    concept_maps.refuse(actor, change.existing, change.resource)
        refuse_twice(changes)
        self.linker.link(tx, changes, actor)
        self.linker.check_references(tx, changes, actor)
        for change in changes:
            if change.method == "DELETE":
                self._delete(tx, change, actor)
        plain = [one for one in changes if one.resource is not None and not one.skipped and not self._ruled(one)]
        for one in plain:
            if one.type == "DiagnosticReport" and one.existing is not None and not one.existing.deleted:
                assert one.resource is not None
                self._services.tasks.refuse_shortcut(tx, loads(one.existing.body), one.resource)
        results = tx.records.put_many([self._version(one, actor) for one in plain])
        for change, result in zip(plain, results, strict=True):
            change.result = result
        self._services.news.changed(
            tx,
            [f"{one.type}/{one.id}" for one in [*filter(moved, plain), *filter(ends, changes)]],
            origin=actor.institution,
            correlation_id=envelope.correlation_id,
        )
        for change in changes:
            if change.resource is not None and not change.skipped and self._ruled(change):
                change.result = self._task(tx, change, envelope)
        self._refresh_members(tx, {change.type for change in changes if not change.skipped})
        orders = [f"{one.type}/{one.id}" for one in results if one.type == "ServiceRequest"]
        if orders:
            self._services.imaging.match_orders(tx, orders, owner=actor.institution)
        patients = [f"{one.type}/{one.id}" for one in results if one.type == "Patient"]
        if patients:
            self._services.identity.suggest(tx, patients, owner=actor.institution)

    def _meet_conditions(self, tx: Tx, changes: Sequence[Change], actor: Actor) -> None:
        conditional = [one for one in changes if one.condition is not None]
        # In one order for all, so that two bundles with the same conditions wait for each other instead of deadlocking.
        keys = {
            f"{actor.institution}|{one.type}|{'&'.join(f'{n}={v}' for n, v in sorted(one.condition or ()))}"
            for one in conditional
        }
        for key in sorted(keys):
            tx.records.lock_condition(key)
        for change in conditional:
            assert change.condition is not None
            ids = self.linker.find(tx, change.type, change.condition, actor, own_only=True)
            if len(ids) > 1:
                raise HubError(
                    Category.CONFLICT,
                    "More than one resource fulfils the condition.",
                    where=change.label or change.type,
                    remedy="Make the condition narrower, or name the resource by its id.",
                    status=412,
                    issue_code="multiple-matches",
                )
            if change.method == "POST":
                change.id = ids[0] if ids else str(uuid.uuid4())
                change.skipped = bool(ids)
            elif ids:
                given = (change.resource or {}).get("id")
                if given is not None and given != ids[0]:
                    raise HubError(
                        Category.INCORRECT,
                        "The resource has another id than the one that fulfils the condition.",
                        where=change.label or f"{change.type}.id",
                    )
                change.id = ids[0]
            elif change.patch is not None:
                raise HubError(
                    Category.NOT_FOUND, "No resource fulfils the condition.", where=change.label or change.type
                )
            elif change.method == "PUT":
                change.id = (change.resource or {}).get("id") or str(uuid.uuid4())
            else:
                change.skipped = True

    def _load_existing(self, tx: Tx, changes: Sequence[Change], actor: Actor) -> None:
        for change in changes:
            if change.method == "POST" and change.id is None:
                change.id = str(uuid.uuid4())
        named = [one.key for one in changes if one.id is not None and (one.method != "POST" or one.skipped)]
        if not named:
            return
        rows = tx.records.get_many(named, UNRESTRICTED)
        foreign = [key for key, row in rows.items() if row.owner != actor.institution]
        visible = tx.records.get_many(foreign, scope_of(actor)) if foreign else {}
        for change in changes:
            if change.id is None or change.key not in rows:
                if change.id is not None and change.method == "PUT":
                    refuse_id(change)
                continue
            row = rows[change.key]
            if row.owner != actor.institution:
                if change.key not in visible:
                    if change.method == "PUT":
                        # Refused as where there is nothing: an id that can be computed must not tell what exists.
                        refuse_id(change)
                    raise not_found(*change.key)
                if not self._ruled_task(row):
                    raise HubError(
                        Category.FORBIDDEN,
                        "Only the institution that owns a resource may change it.",
                        where=change.label or f"{change.type}/{change.id}",
                    )
            change.existing = row
            if change.skipped:
                change.result = row
        for change in changes:
            if change.patch is not None:
                self._apply_patch(change)

    def _apply_patch(self, change: Change) -> None:
        if change.existing is None:
            raise not_found(*change.key)
        if change.existing.deleted:
            raise gone(change)
        patched = apply_patch(
            loads(change.existing.body), change.patch, max_bytes=self._services.settings.max_fhir_bytes
        )
        change.resource = self.resource(patched, change.type, label=change.label)
        if change.resource.get("id") != change.id:
            raise HubError(Category.INCORRECT, "A patch may not change the id.", where=f"{change.type}.id", status=422)
        if change.expected_version is None:
            # The patch was made of this version; a later one must not be overwritten by it.
            change.expected_version = change.existing.version

    def _version(self, change: Change, actor: Actor) -> NewVersion:
        assert change.resource is not None
        resource = {**change.resource, "id": change.id}
        return NewVersion(
            resource=resource,
            owner=actor.institution,
            visibility="consortium" if change.type in DIRECTORY_TYPES else "institution",
            method=change.method,
            expected_version=change.expected_version,
            # What a person or a system says by FHIR is said now; an older v2 message must not undo it.
            asserted_at=self._services.clock(),
        )

    # --- Tasks -------------------------------------------------------------------------------------------------

    def _ruled_task(self, row: Stored) -> bool:
        return row.type == "Task" and not row.deleted and self._services.tasks.rules(loads(row.body))

    def _ruled(self, change: Change) -> bool:
        if change.type != "Task" or change.resource is None:
            return False
        existing = change.existing
        before = existing is not None and self._ruled_task(existing)
        after = self._services.tasks.rules(change.resource)
        if after and not before and existing is not None:
            raise HubError(
                Category.INCORRECT,
                "A stored Task cannot become one of a workflow.",
                where=change.label or "Task.code",
                remedy="Create a new Task; its workflow's table judges how it starts.",
                status=422,
                issue_code="business-rule",
            )
        return before or after

    def _task(self, tx: Tx, change: Change, envelope: Envelope) -> Stored:
        assert change.resource is not None
        task = {**change.resource, "id": change.id}
        tasks = self._services.tasks
        if change.existing is None:
            if change.expected_version not in {None, 0}:
                raise no_version(change)
            return tasks.create(tx, task, envelope.actor, correlation_id=envelope.correlation_id)
        return tasks.update(
            tx,
            change.existing,
            task,
            envelope.actor,
            expected_version=change.expected_version,
            correlation_id=envelope.correlation_id,
        )

    def _delete(self, tx: Tx, change: Change, actor: Actor) -> None:
        if change.skipped:
            return
        if change.existing is None:
            raise not_found(*change.key)
        if self._ruled_task(change.existing):
            raise HubError(
                Category.CONFLICT,
                "A Task of a workflow is ended by an event, not deleted.",
                where=change.label or f"Task/{change.id}",
                remedy=f"POST Task/{change.id}/$transition with the event that ends it.",
            )
        if change.type in DISTILLED:
            raise HubError(
                Category.CONFLICT,
                "Members, their endpoints and people are not deleted.",
                where=change.label or f"{change.type}/{change.id}",
                remedy="Set active to false, or the status of an Endpoint to off.",
            )
        change.result = tx.records.delete(
            change.type, change.key[1], owner=actor.institution, expected_version=change.expected_version
        )

    # --- directory ---------------------------------------------------------------------------------------------

    @staticmethod
    def _refresh_members(tx: Tx, written: AbstractSet[str]) -> None:
        """Distil the directory anew where its types were *written*, so that the doors know in the same commit."""
        if not written & DISTILLED:
            if concept_maps.TYPE in written:
                concept_maps.changed(tx)
            return
        resources: list[Json] = []
        for type_ in sorted(DISTILLED):
            query = parse(type_, (("_count", "500"),))
            while True:
                page = tx.records.search(query, UNRESTRICTED)
                resources += [loads(one.body) for one in page.matches if one.owner == DIRECTORY_OWNER]
                if page.next_cursor is None:
                    break
                query = replace(query, cursor=page.next_cursor)
        tx.members.replace(*distil(resources))
