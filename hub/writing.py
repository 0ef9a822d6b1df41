"""FHIR writes: what may be written by whom, and how one or many changes become one commit.

https://hl7.org/fhir/R4/http.html#create and following. A request is prepared outside the transaction (guard, decode,
structural check) and carried out inside it (conditions, references, owners, workflow tables, records); journal entry and
audit line belong to the same commit. One change and a whole transaction Bundle go the same way.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl

from fhir_mappings.definitions.check import check
from fhir_mappings.errors import MappingError
from fhir_mappings.json import loads
from fhir_mappings.prescan import prescan
from hub import kept, references
from hub.access import DIRECTORY_TYPES, UNRESTRICTED, scope_of
from hub.actor import Actor
from hub.directory import DIRECTORY_OWNER
from hub.envelope import Envelope
from hub.errors import Category, HubError, Issue
from hub.members import distil
from hub.outcome import as_hub_error, findings_error
from hub.patch import apply_patch
from hub.ports import NewVersion, Stored, Tx
from hub.reading import not_found
from hub.search import parse
from hub.translate import OBJECT_DIGEST

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]
Pairs = tuple[tuple[str, str], ...]
Key = tuple[str, str]

#: Types that are messages or answers of a server, not records; nothing is stored under them.
NOT_STORED = frozenset({"Parameters", "OperationOutcome", "CapabilityStatement"})
#: The audit trail is written by the hub alone; a Subscription would promise notices that are not sent yet.
NOT_WRITABLE = NOT_STORED | {"AuditEvent", "Subscription"}
#: A stored Bundle is a document or message of its sender's: its references speak of its own entries and stay as they are.
SEALED = frozenset({"Bundle"})
#: Directory resources that a member keeps itself; all members read them.
MEMBERS_OWN = frozenset({"Schedule", "Slot"})
#: Directory types that the doors' own tables are made of.
_DISTILLED = frozenset({"Organization", "Endpoint", "Practitioner", "PractitionerRole"})
_READ_ONLY = frozenset({"patient", "auditor"})

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


class Writer:
    """The writing half of the FHIR interactions; safe for many threads."""

    def __init__(self, services: Services, bases: Sequence[str]) -> None:
        self._services = services
        self._bases = tuple(bases)

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
        self._refuse_object(value, label)
        if found not in SEALED:
            references.make_relative(value, self._bases)
        return value

    def refuse_role(self, actor: Actor, type: str) -> None:
        """Raise forbidden when *actor* may write no resource of *type*."""
        if type in NOT_WRITABLE:
            raise HubError(
                Category.UNSUPPORTED,
                f"{type} cannot be written here.",
                where=type,
                status=405,
                issue_code="not-supported",
            )
        if actor.patient is not None or not actor.roles - _READ_ONLY:
            raise HubError(Category.FORBIDDEN, "This role only reads.", where=type)
        if type in DIRECTORY_TYPES - MEMBERS_OWN and actor.institution != DIRECTORY_OWNER:
            raise HubError(
                Category.FORBIDDEN,
                "The directory is kept by the operator.",
                where=type,
                remedy="Ask the operator to import the change.",
            )
        if scope_of(actor).directory_only and type not in DIRECTORY_TYPES | {"Task", "Communication"}:
            raise HubError(Category.FORBIDDEN, "The operator keeps no patient data.", where=type)

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
        self._refuse_twice(changes)
        self._link(tx, changes, actor)
        self._check_references(tx, changes, actor)
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
            [f"{one.type}/{one.id}" for one in plain if _moved(one)],
            origin=actor.institution,
            correlation_id=envelope.correlation_id,
        )
        for change in changes:
            if change.resource is not None and not change.skipped and self._ruled(change):
                change.result = self._task(tx, change, envelope)
        if any(change.type in _DISTILLED and not change.skipped for change in changes):
            self._refresh_members(tx)
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
            ids = self._find(tx, change.type, change.condition, actor, own_only=True)
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

    def _find(self, tx: Tx, type: str, pairs: Pairs, actor: Actor, *, own_only: bool) -> list[str]:
        """Return ids of at most a few matches: the institution's own before others that it may see."""
        query = parse(type, pairs, base_urls=self._bases, now=self._services.clock())
        if not query.filters:
            raise HubError(
                Category.INCORRECT, "A condition needs at least one search parameter.", where=type, status=412
            )
        scope = scope_of(actor)
        ids = tx.records.find_ids(query, scope, limit=50)
        if not ids:
            return []
        rows = tx.records.get_many([(type, id_) for id_ in ids], scope)
        own = [id_ for (_, id_), row in rows.items() if row.owner == actor.institution]
        return own if own or own_only else list(ids)

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
                    self._refuse_id(change)
                continue
            row = rows[change.key]
            if row.owner != actor.institution:
                if change.key not in visible:
                    if change.method == "PUT":
                        # Refused as where there is nothing: an id that can be computed must not tell what exists.
                        self._refuse_id(change)
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

    def _refuse_id(self, change: Change) -> None:
        # Ids of version 5 are made from business keys, so whoever takes one could keep another hospital's resource out.
        if change.condition is None and change.patch is None and change.id is not None and change.id[14:15] == "5":
            try:
                version = uuid.UUID(change.id).version
            except ValueError:
                return
            if version == 5:
                raise HubError(
                    Category.INCORRECT,
                    "Ids that are UUIDs of version 5 are given by the hub.",
                    where=change.label or f"{change.type}.id",
                    remedy="Let the hub choose the id (POST), or use another kind of id.",
                    status=422,
                    issue_code="business-rule",
                )

    def _apply_patch(self, change: Change) -> None:
        if change.existing is None:
            raise not_found(*change.key)
        if change.existing.deleted:
            raise _gone(change)
        patched = apply_patch(
            loads(change.existing.body), change.patch, max_bytes=self._services.settings.max_fhir_bytes
        )
        change.resource = self.resource(patched, change.type, label=change.label)
        if change.resource.get("id") != change.id:
            raise HubError(Category.INCORRECT, "A patch may not change the id.", where=f"{change.type}.id", status=422)
        if change.expected_version is None:
            # The patch was made of this version; a later one must not be overwritten by it.
            change.expected_version = change.existing.version

    @staticmethod
    def _refuse_twice(changes: Sequence[Change]) -> None:
        seen: dict[Key, str] = {}
        urls: dict[str, str] = {}
        pending: dict[tuple[str, Pairs], str] = {}
        for change in changes:
            clash = ""
            if change.id is not None:
                clash = seen.setdefault(change.key, change.label)
            if change.full_url and clash in {"", change.label}:
                clash = urls.setdefault(change.full_url, change.label)
            if change.condition is not None and clash in {"", change.label}:
                clash = pending.setdefault((change.type, tuple(sorted(change.condition))), change.label)
            if clash not in {"", change.label}:
                raise HubError(
                    Category.INCORRECT,
                    f"{clash} and {change.label} are about the same resource.",
                    where=change.label,
                    remedy="Send one entry for each resource.",
                    issue_code="duplicate",
                )

    def _link(self, tx: Tx, changes: Sequence[Change], actor: Actor) -> None:
        """Replace temporary and conditional references by the resources they mean."""
        names = {one.full_url: f"{one.type}/{one.id}" for one in changes if one.full_url and one.id is not None}
        found: dict[str, str] = {}
        issues: list[Issue] = []

        def conditional(text: str, type: str, query: str, where: str) -> str | None:
            if text not in found:
                pairs = tuple(parse_qsl(query, keep_blank_values=True))
                ids = self._find(tx, type, pairs, actor, own_only=False)
                if len(ids) != 1:
                    many = "More than one resource fulfils" if ids else "No resource fulfils"
                    issues.append(
                        Issue(
                            severity="error",
                            code="multiple-matches" if ids else "not-found",
                            message=f"{many} this conditional reference.",
                            where=where,
                        )
                    )
                    return None
                found[text] = f"{type}/{ids[0]}"
            return found[text]

        for change in changes:
            if change.resource is None or change.type in SEALED:
                continue
            label = f"{change.label}.resource: " if change.label else ""

            def changed(text: str, where: str, label: str = label) -> str | None:
                if text in names:
                    return names[text]
                if where and (match := references.CONDITIONAL.fullmatch(text)):
                    return conditional(text, match[1], match[2], f"{label}{where}")
                if where and text.startswith(("urn:uuid:", "urn:oid:")):
                    issues.append(
                        Issue(
                            severity="error",
                            code="not-found",
                            message="No entry of the request has this fullUrl.",
                            where=f"{label}{where}",
                        )
                    )
                return None

            references.rewrite(change.resource, changed)
        if issues:
            raise _unresolved(issues)

    def _check_references(self, tx: Tx, changes: Sequence[Change], actor: Actor) -> None:
        written = {one.key for one in changes if one.id is not None and one.method != "DELETE"}
        removed = {one.key for one in changes if one.id is not None and one.method == "DELETE"}
        wanted: dict[tuple[str, str, str], str] = {}
        for change in changes:
            if change.resource is None or change.skipped or change.type in SEALED:
                continue
            # What already stood in the stored version was checked then; a grant may have ended since.
            before = references.targets(loads(change.existing.body)) if change.existing is not None else {}
            for key, where in references.targets(change.resource).items():
                if key not in before and (key[:2] not in written or key[2]):
                    wanted.setdefault(key, f"{change.label}.resource: {where}" if change.label else where)
        self.check_targets(tx, wanted, actor, removed)

    @staticmethod
    def check_targets(
        tx: Tx, wanted: Mapping[tuple[str, str, str], str], actor: Actor, removed: Collection[Key] = ()
    ) -> None:
        """Raise 422 unless every (type, id, version) of *wanted* exists in the actor's reach, naming the places."""
        if not wanted:
            return
        scope = scope_of(actor)
        rows = tx.records.get_many([key[:2] for key in wanted], scope)
        issues = []
        for (type_, id_, version), where in wanted.items():
            row = rows.get((type_, id_))
            there = row is not None and not row.deleted and (type_, id_) not in removed
            if there and version and row is not None and version != str(row.version):
                number = int(version) if version.isdigit() and len(version) < 10 else 0
                there = tx.records.version(type_, id_, number, scope) is not None
            if not there:
                issues.append(
                    Issue(
                        severity="error",
                        code="not-found",
                        message=f"There is no such {type_}, or it is out of your reach.",
                        where=where,
                    )
                )
        if issues:
            raise _unresolved(issues)

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
                raise _no_version(change)
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
        if change.type in _DISTILLED:
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
    def _refresh_members(tx: Tx) -> None:
        """Distil the directory anew, so that the doors know in the same commit what was written."""
        resources: list[Json] = []
        for type_ in sorted(_DISTILLED):
            query = parse(type_, (("_count", "500"),))
            while True:
                page = tx.records.search(query, UNRESTRICTED)
                resources += [loads(one.body) for one in page.matches if one.owner == DIRECTORY_OWNER]
                if page.next_cursor is None:
                    break
                query = replace(query, cursor=page.next_cursor)
        tx.members.replace(*distil(resources))

    @staticmethod
    def _refuse_object(resource: Json, label: str) -> None:
        # Only the hub says where stored bytes are; a sender who could, would read other institutions' objects.
        stack: list[Any] = [resource]
        while stack:
            value = stack.pop()
            if isinstance(value, list):
                stack.extend(value)
            elif isinstance(value, dict):
                if str(value.get("url", "")).endswith(f"/{OBJECT_DIGEST}"):
                    raise HubError(
                        Category.INCORRECT,
                        "The extension that names a stored object is the hub's own.",
                        where=label or str(resource["resourceType"]),
                        remedy="Send the bytes in Binary.data.",
                        status=422,
                        issue_code="business-rule",
                    )
                stack.extend(value.values())


def _moved(change: Change) -> bool:
    """Return whether *change* made a version; saying the same again makes none."""
    before = change.existing
    return change.result is not None and (before is None or change.result.version != before.version)


def _unresolved(issues: list[Issue]) -> HubError:
    return HubError(Category.INCORRECT, "A reference leads nowhere.", where=issues[0].where, issues=issues, status=422)


def _gone(change: Change) -> HubError:
    return HubError(
        Category.NOT_FOUND,
        "The resource was deleted.",
        where=f"{change.type}/{change.id}",
        status=410,
        issue_code="deleted",
    )


def _no_version(change: Change) -> HubError:
    return HubError(
        Category.CONFLICT, "The resource does not exist yet.", where=f"{change.type}/{change.id}", status=412
    )
