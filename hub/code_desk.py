"""What people do about codes: look at those without a map, map them, and have the messages concerned processed again.

The command line and ``/ops`` share it. The operator sees every queue, a member's administrator its own; both see codes
and numbers of messages, never a word about a patient. Every act leaves an audit line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fhir_mappings.code_maps import APPLIED, UnmappedCode
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.identifiers import CANONICAL_BASE, resource_id
from fhir_mappings.json import loads
from hub import concept_maps
from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.askers import capped, limit_of
from hub.clock import instant
from hub.errors import Category, HubError
from hub.pending import DOORS
from hub.ports import AuditLine, Entry, NewVersion, Stored, Tx
from hub.ports.codes import UnmappedItem

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]

#: Messages that one call looks at, unless it is told otherwise; the caller goes on from where it stopped.
LOOKED_AT = 10_000
_PAGE = 100
_ALL = 1_000_000


class CodeDesk:
    """The acts of one asker at a time."""

    def __init__(self, services: Services) -> None:
        self._services = services

    # --- the queue -------------------------------------------------------------------------------------------

    def unmapped(self, actor: Actor, institution: str = "", *, limit: int = 100) -> list[Json]:
        """Return the codes that wait for a map, those met most often first.

        ``mapped`` says that a map knows the code by now; messages that came before it wait to be processed again.
        """
        wanted = self._within(actor, institution)
        found = self._services.database.read(lambda tx: tx.unmapped_codes.items(wanted, limit=capped(limit)))
        return [
            {
                "institution": one.institution,
                "system": one.system,
                "code": one.code,
                "count": one.count,
                "first_seen": instant(one.first_seen),
                "last_seen": instant(one.last_seen),
                "sample": one.sample_seq,
                "mapped": self._is_mapped(one),
            }
            for one in found
        ]

    def maps(self, actor: Actor, institution: str = "") -> list[Json]:
        """Return what the codes of *institution* (or of all within reach) are mapped to, code by code."""
        wanted = self._within(actor, institution)
        found: list[Json] = []
        for one in self._services.database.read(lambda tx: list(concept_maps.stored(tx))):
            resource = loads(one.body)
            for row in concept_maps.rows_of(resource):
                if wanted not in {None, row.institution}:
                    continue
                found.append(
                    {
                        "institution": row.institution,
                        "system": row.system,
                        "code": row.code,
                        "targets": [f"{target['system']}|{target['code']}" for target in row.targets],
                        "map": f"ConceptMap/{one.id}",
                        "version": one.version,
                        "owner": one.owner,
                        "active": resource.get("status") == "active",
                    }
                )
        return found

    # --- mapping ---------------------------------------------------------------------------------------------

    def map(
        self,
        actor: Actor,
        institution: str,
        source: str,
        code: str,
        target: str,
        *,
        display: str = "",
        equivalence: str = "equivalent",
    ) -> Json:
        """Make *code* of *source* mean *target*, in a new version of the asker's ConceptMap; in force on return.

        Args:
            source: a code system of the institution: ``local``, ``table/unit``, ``table/administrative_sex``, or its URI.
            target: ``system|code``; empty says that there is none.

        Raises:
            HubError: not-found for an institution out of reach; incorrect or 422 for what cannot be a map.
        """
        self._within(actor, institution)
        system, bar, wanted = target.partition("|")
        if target and not (system and bar and wanted):
            raise HubError(
                Category.INCORRECT,
                "The target is no code.",
                where="target",
                remedy="Write SYSTEM|CODE, for example http://loinc.org|2823-3.",
            )
        if target and equivalence not in APPLIED:
            raise HubError(
                Category.INCORRECT,
                "Of this equivalence nothing follows for a message.",
                where="equivalence",
                remedy=f"Use one of {', '.join(sorted(APPLIED))}.",
            )
        prefix = f"{CANONICAL_BASE}/CodeSystem/{institution}/"
        uri = source if source.startswith(prefix) else f"{prefix}{source}"
        element: Json = {"code": code, "target": [{"equivalence": "unmatched"}]}
        if target:
            element["target"] = [{"code": wanted, "equivalence": equivalence}]
            if display:
                element["target"][0]["display"] = display
        id_ = resource_id(actor.institution, "code-map", "ConceptMap", institution)

        def work(tx: Tx) -> Stored:
            before = tx.records.get(concept_maps.TYPE, id_, UNRESTRICTED)
            resource = _begun(before, id_, institution)
            _put(resource, uri, system, element)
            concept_maps.checked(resource)
            concept_maps.refuse(actor, before, resource)
            (made,) = tx.records.put_many(
                [
                    NewVersion(
                        resource=resource,
                        owner=actor.institution,
                        visibility="consortium",
                        expected_version=before.version if before is not None else 0,
                    )
                ]
            )
            concept_maps.changed(tx)
            self._audit(tx, actor, "code-map", f"{uri}|{code}"[:200], (f"ConceptMap/{id_}",), action="U")
            return made

        made = self._services.database.write(work)
        self._services.directory.refresh()
        return {"map": f"ConceptMap/{id_}", "version": made.version, "system": uri, "code": code, "target": target}

    # --- processing again ------------------------------------------------------------------------------------

    def reprocess(self, actor: Actor, institution: str, *, limit: int = LOOKED_AT, before: int | None = None) -> Json:
        """Process the messages again that hold codes which have a map by now.

        Only what a message says otherwise now gets a new version, and never over what came later. Items whose messages
        have all been looked at leave the queue.

        Args:
            limit: messages to look at, from the newest down; ``next`` of the answer is the *before* to go on with,
                ``None`` at the end.

        Raises:
            HubError: not-found for an institution out of reach; transient, when the hub cannot go on now.
        """
        self._within(actor, institution)
        database = self._services.database
        every = database.read(lambda tx: tx.unmapped_codes.items(institution, limit=_ALL))
        ready = [one for one in every if self._is_mapped(one)]
        told: Json = {"institution": institution, "codes": len(ready), "looked_at": 0, "replayed": 0, "refused": []}
        if not ready:
            return {**told, "next": None}
        oldest = min(one.first_seq for one in ready)
        words = _words(one.code for one in ready)
        concerned: list[int] = []
        while before is None or before > oldest:
            if told["looked_at"] >= limit:
                self._replay(concerned, actor, told)
                return {**told, "next": before}
            page = self._before(institution, before, min(_PAGE, limit - told["looked_at"]))
            if not page:
                break
            for entry in page:
                if entry.seq < oldest:
                    break
                told["looked_at"] += 1
                if entry.door in DOORS and entry.state == "done" and self._holds(entry, words):
                    concerned.append(entry.seq)
            before = page[-1].seq
        self._replay(concerned, actor, told)

        def settle(tx: Tx) -> None:
            tx.unmapped_codes.settle(ready)
            self._audit(tx, actor, "codes-reprocess", f"{institution}: {told['replayed']} messages", ())

        database.write(settle)
        return {**told, "next": None}

    def _replay(self, concerned: Sequence[int], actor: Actor, told: Json) -> None:
        # In the order they came, so that a record goes through its versions once and not back and forth.
        for seq in sorted(concerned):
            try:
                self._services.messages.replay(seq, actor)
                told["replayed"] += 1
            except HubError as error:
                if error.transient or error.fatal:
                    raise
                told["refused"].append(seq)

    def _before(self, institution: str, seq: int | None, limit: int) -> Sequence[Entry]:
        criteria = {"institution": institution}
        return self._services.database.read(lambda tx: tx.journal.search(criteria, limit=limit, before_seq=seq))

    def _holds(self, entry: Entry, words: re.Pattern[str]) -> bool:
        body = entry.body if entry.body is not None else self._services.objects.read(entry.digest)
        # A code may be written with escapes, which no text search sees through; such messages are taken as holding it.
        text = decode_message(body).text
        return "\\X" in text or words.search(text) is not None

    def _is_mapped(self, item: UnmappedItem) -> bool:
        return self._services.directory.code_maps(item.institution).knows(UnmappedCode(item.system, item.code))

    def _within(self, actor: Actor, institution: str) -> str | None:
        """Return the institution to look at, ``None`` for all.

        Raises:
            HubError: not-found for a member that is none, or not the asker's own.
        """
        limit = limit_of(actor)
        if institution and (
            (limit is not None and institution != limit) or self._services.directory.member(institution) is None
        ):
            raise HubError(
                Category.NOT_FOUND,
                "There is no such member.",
                where="institution",
                remedy="`hub members list` shows the codes.",
            )
        return institution or limit

    def _audit(
        self, tx: Tx, actor: Actor, subtype: str, detail: str, entities: tuple[str, ...], *, action: str = "E"
    ) -> None:
        tx.audit.write(
            AuditLine(
                type="admin",
                action=action,
                subtype=subtype,
                actor=actor,
                recorded_at=self._services.clock(),
                entities=entities,
                detail=detail,
            )
        )


def _words(found: Iterable[str]) -> re.Pattern[str]:
    """Return the expression that finds a code where no letter or digit goes on before or behind it."""
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(map(re.escape, sorted(found)))})(?![^\W_])")


def _begun(before: Stored | None, id_: str, institution: str) -> Json:
    if before is not None and not before.deleted:
        resource: Json = loads(before.body)
        return {**resource, "status": "active"}
    return {
        "resourceType": concept_maps.TYPE,
        "id": id_,
        "name": f"CodesOf{institution}".replace("-", "_"),
        "title": f"{institution} 院内代码对照 / codes of {institution}",
        "status": "active",
        "group": [],
    }


def _put(resource: Json, source: str, target: str, element: Mapping[str, Any]) -> None:
    """Put *element* into the group of *resource* from *source* to *target*, in the place of what was said before.

    A code without a target is without any; one that gets a target is no longer without one.
    """
    groups: list[Json] = [dict(group) for group in resource.get("group", ())]
    for group in groups:
        if group.get("source") == source and (not target or group.get("target", "") in {target, ""}):
            group["element"] = [one for one in group.get("element", ()) if one.get("code") != element["code"]]
    wanted = next((one for one in groups if one.get("source") == source and one.get("target", "") == target), None)
    if wanted is None:
        wanted = {"source": source, **({"target": target} if target else {}), "element": []}
        groups.append(wanted)
    wanted["element"] = [*wanted["element"], dict(element)]
    # FHIR wants at least one element of a group.
    resource["group"] = [group for group in groups if group["element"]]
