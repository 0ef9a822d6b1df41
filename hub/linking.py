"""References of what is written: temporary and conditional ones resolved, and each checked within the writer's reach.

https://hl7.org/fhir/R4/http.html#transaction and https://hl7.org/fhir/R4/references.html.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from fhir_mappings.json import loads
from hub import references
from hub.access import scope_of
from hub.actor import Actor
from hub.errors import Category, HubError, Issue
from hub.interaction import SEALED, Change, Key, Pairs
from hub.ports import Tx
from hub.search import parse

if TYPE_CHECKING:
    from hub.boot import Services


class Linker:
    """Finds what references and conditions mean; safe for many threads."""

    def __init__(self, services: Services, bases: Sequence[str]) -> None:
        self._services = services
        self._bases = tuple(bases)

    def find(self, tx: Tx, type: str, pairs: Pairs, actor: Actor, *, own_only: bool) -> list[str]:
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

    def link(self, tx: Tx, changes: Sequence[Change], actor: Actor) -> None:
        """Replace temporary and conditional references by the resources they mean; 422 where one leads nowhere."""
        names = {one.full_url: f"{one.type}/{one.id}" for one in changes if one.full_url and one.id is not None}
        found: dict[str, str] = {}
        issues: list[Issue] = []

        def conditional(text: str, type: str, query: str, where: str) -> str | None:
            if text not in found:
                pairs = tuple(parse_qsl(query, keep_blank_values=True))
                ids = self.find(tx, type, pairs, actor, own_only=False)
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

    def check_references(self, tx: Tx, changes: Sequence[Change], actor: Actor) -> None:
        """Raise 422 unless everything that *changes* newly refer to exists in the actor's reach."""
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


def _unresolved(issues: list[Issue]) -> HubError:
    return HubError(Category.INCORRECT, "A reference leads nowhere.", where=issues[0].where, issues=issues, status=422)
