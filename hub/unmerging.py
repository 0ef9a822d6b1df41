"""The desk for merged patients: what waits for a person, and the two answers, to take a merge back or to keep it.

HL7 v2 chapter 3.3.37 (ADT^A37) and 3.3.40 (ADT^A40), DESIGN rule 4. A message that speaks anew of a number merged away,
or contradicts a merge, waits (:mod:`hub.merging`). *undo* takes the merge of a sender's own numbers back: new versions
of the two records with a Provenance, grants and share links that joined the two persons ended, all in one commit. Then
the messages that waited are applied, and so is each that came under the former number and was led to the survivor: its
records go where its sender said. What was sent under the survivor's own number stays and is listed, because only its
sender can tell whose it is. *keep* applies what waited to the survivor.

Both may be asked for again: what is done stays done, and messages that were not applied yet are. A merge that was taken
back is made again by replaying its message.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from fhir_mappings.hl7v2.messages.adt_merge import LEVELS
from fhir_mappings.identifiers import resource_id
from fhir_mappings.json import loads
from hub import merge_items, merge_undo, merge_view
from hub.access import UNRESTRICTED, Scope
from hub.actor import Actor
from hub.askers import MAX_LIST, limit_of
from hub.clock import instant
from hub.envelope import new_correlation_id
from hub.errors import Category, HubError
from hub.members import MEMBER_SYSTEM
from hub.merge_undo import Came, Meanwhile, Merged
from hub.ports import AuditLine, Entry, NewVersion, Stored, Tx
from hub.search import parse

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]
_MERGES = frozenset(event for event, levels in LEVELS.items() if levels[0] == "patient")
_REASON_MAX = 200
_TASKS_MAX = 100


class MergeDesk:
    """The acts of one asker at a time upon merges; safe for many threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._base = services.settings.base_url

    # --- looking ---------------------------------------------------------------------------------------------

    def waiting(self, actor: Actor, *, numbers: bool) -> list[Json]:
        """Return the pairs that wait for a decision, oldest first.

        Args:
            numbers: name the patients by the sender's own numbers too, which is a read of patient data and audited.

        Raises:
            HubError: forbidden for who neither runs the hub nor administers a member.
        """
        institution = limit_of(actor)
        system = f"{self._base}/CodeSystem/work-item"
        codes = ",".join(f"{system}|{code}" for code in sorted(merge_items.CODES))
        query = parse(
            "Task", [("code", codes), ("status", "requested"), ("_sort", "_lastUpdated"), ("_count", str(MAX_LIST))]
        )

        def read(tx: Tx) -> list[Json]:
            found = []
            # Within the asker's reach, so that what waits at others takes no room in the list.
            scope = UNRESTRICTED if institution is None else Scope(institution=institution)
            for stored in tx.records.search(query, scope).matches:
                task = loads(stored.body)
                if institution in {None, stored.owner} and merge_items.code_of(task):
                    found.append(merge_view.item(tx, stored.owner, task, base=self._base, numbers=numbers))
            return found

        items = self._services.database.read(read)
        if numbers and items:
            patients = {
                (one["institution"], one[side].removeprefix("Patient/")) for one in items for side in merge_view.SIDES
            }
            self._services.database.write(lambda tx: self._audit(tx, actor, "merges-read", patients, action="R"))
        return items

    def shown(self, actor: Actor, patient_id: str, *, numbers: bool) -> Json:
        """Return one merge: the two records, the message that made it, and what came for the survivor since; audited.

        Args:
            patient_id: the record that was merged away.

        Raises:
            HubError: not-found where the asker's reach has no such record; conflict where it was never merged.
        """

        def read(tx: Tx) -> tuple[Json, set[tuple[str, str]]]:
            dead, merge = self._dead(tx, actor, patient_id)
            came, replaced = self._came(tx, dead, merge), self._replaced(tx, dead, merge)
            found = {
                "institution": dead.owner,
                **merge_view.sides(tx, dead.id, merge.survivor_id, base=self._base, numbers=numbers),
                "merged": merge.still,
                "since": instant(merge.since),
                "message": self._merge_message(tx, dead, merge),
                "items": [
                    merge_view.item(tx, dead.owner, one, base=self._base, numbers=False)
                    for one in self._tasks(tx, dead)
                ],
                "came": [merge_view.came(one) for one in came],
                "replaced": replaced,
            }
            return found, {(dead.owner, dead.id), (dead.owner, merge.survivor_id)}

        # What came is translated anew, which no writer should wait for.
        shown, patients = self._services.database.read(read)
        self._services.database.write(lambda tx: self._audit(tx, actor, "merge-read", patients, action="R"))
        return shown

    # --- deciding --------------------------------------------------------------------------------------------

    def undo(self, actor: Actor, patient_id: str, reason: str) -> Json:
        """Take the merge of *patient_id* back and apply what waited for that; durable on return.

        Raises:
            HubError: not-found where the asker's reach has no such record; conflict where it was never merged;
                incorrect without a reason; transient where messages could not be applied now: ask again.
        """
        why = _reason(reason)

        def work(tx: Tx) -> tuple[Stored, Merged, list[str], merge_undo.Ended]:
            dead, merge = self._locked(tx, actor, patient_id)
            if not merge.still:
                return dead, merge, [], self._parted(tx, actor, dead, merge)
            owner = dead.owner
            versions = merge_undo.separated(tx, dead, merge)
            changed = [f"Patient/{one.resource['id']}" for one in versions]
            tasks = [self._settled(one, "undo", actor, why) for one in self._tasks(tx, dead)]
            versions += [NewVersion(resource=one, owner=owner) for one in tasks]
            changed += [f"Task/{one['id']}" for one in tasks]
            proof = self._provenance(owner, changed, f"{dead.id}|{dead.version}", actor, why)
            tx.records.put_many([*versions, NewVersion(resource=proof, owner=owner)])
            ended = self._parted(tx, actor, dead, merge)
            correlation_id = new_correlation_id()
            self._services.identity.suggest(tx, changed, owner=owner)
            self._services.news.changed(tx, changed, origin=owner, correlation_id=correlation_id)
            self._audit(
                tx,
                actor,
                "merge-undo",
                {(owner, dead.id), (owner, merge.survivor_id)},
                entities=tuple(changed),
                detail=why,
                correlation_id=correlation_id,
            )
            return dead, merge, changed, ended

        dead, merge, changed, ended = self._services.database.write(work)
        waiting, stays = self._services.database.read(lambda tx: self._after_undo(tx, dead.id, merge))
        replayed = [self._replayed(actor, seq) for seq in waiting]
        if replayed:
            # What the messages took to the other record may still be open to whoever works for the survivor.
            ended += self._services.database.write(lambda tx: self._parted(tx, actor, dead, merge))
        return {
            **self._done("undo", dead, merge, changed),
            **ended.shown(),
            "replayed": replayed,
            "stays": [merge_view.came(one) for one in stays],
        }

    def keep(self, actor: Actor, patient_id: str, reason: str) -> Json:
        """Say that the merge of *patient_id* is right, and apply what waited to the survivor; durable on return.

        Raises:
            HubError: as :meth:`undo`; conflict too where nothing waits, or the merge is taken back.
        """
        why = _reason(reason)

        def work(tx: Tx) -> tuple[Stored, Merged, list[str]]:
            dead, merge = self._locked(tx, actor, patient_id)
            tasks = self._tasks(tx, dead)
            if not merge.still or not tasks:
                raise HubError(
                    Category.CONFLICT,
                    "没有待决定的合并 / No merge of this record waits for a decision.",
                    where=f"Patient/{dead.id}",
                    remedy="`hub merges list` shows what waits.",
                )
            settled = [
                self._settled(one, "keep", actor, why) for one in tasks if merge_items.decision_of(one) != "keep"
            ]
            changed = [f"Task/{one['id']}" for one in settled]
            if settled:
                proof = self._provenance(dead.owner, changed, f"{dead.id}|{changed[0]}", actor, why)
                versions = [NewVersion(resource=one, owner=dead.owner) for one in (*settled, proof)]
                tx.records.put_many(versions)
                patients = {(dead.owner, dead.id), (dead.owner, merge.survivor_id)}
                self._audit(tx, actor, "merge-keep", patients, entities=tuple(changed), detail=why)
            return dead, merge, changed

        dead, merge, changed = self._services.database.write(work)
        waiting = self._services.database.read(lambda tx: self._held(tx, dead, "keep", {merge_items.CANDIDATE}))
        return {
            **self._done("keep", dead, merge, changed),
            **merge_undo.Ended().shown(),
            "replayed": [self._replayed(actor, seq) for seq in waiting],
            "stays": [],
        }

    def _parted(self, tx: Tx, actor: Actor, dead: Stored, merge: Merged) -> merge_undo.Ended:
        """End the grants and share links that rest on the two being one person, in *tx*; audited where there are any."""
        group = merge_undo.merged_into(tx, dead).keys()
        survivors = {one.id for one in merge_undo.survivors_of(tx, dead.owner, merge.survivor_id)}
        others = {id_ for one in survivors for id_ in tx.records.one_person(one)} | survivors
        if group & others:
            # They were merged again meanwhile.
            return merge_undo.Ended()
        now = self._services.clock()
        ended = merge_undo.Ended(
            shares=tuple(tx.sharing.revoke_joining(dead.owner, group, others, by=_by(actor), now=now)),
            grants=tuple(tx.grants.close_across(group, others, until=now)),
        )
        if ended.shares or ended.grants:
            patients = {(dead.owner, dead.id), (dead.owner, merge.survivor_id)}
            self._audit(tx, actor, "merge-undo-access", patients, entities=ended.entities())
        return ended

    def _after_undo(self, tx: Tx, patient_id: str, merge: Merged) -> tuple[list[int], list[Came]]:
        """Return the messages to apply now that the merge is taken back, and what stays with the survivor."""
        dead = tx.records.get("Patient", patient_id, UNRESTRICTED)
        assert dead is not None
        came = self._came(tx, dead, merge)
        survivors = {one.id for one in merge_undo.survivors_of(tx, dead.owner, merge.survivor_id)}
        seqs = set(self._held(tx, dead, "undo", merge_items.CODES))
        for seq in {one.message for one in came if one.said == "former"}:
            entry = tx.journal.get(seq)
            if entry is not None and entry.patient_id in survivors:
                seqs.add(seq)
        left = [one for one in came if one.said != "former" or one.reference.startswith("Patient/")]
        return sorted(seqs), left

    def _held(self, tx: Tx, dead: Stored, decision: str, codes: Collection[str]) -> list[int]:
        """Return the messages of items about *dead*, settled by *decision*, that were not applied since."""
        found = []
        for task in self._tasks(tx, dead):
            if merge_items.decision_of(task) != decision or merge_items.code_of(task) not in codes:
                continue
            for seq in merge_items.messages_of(task):
                entry = tx.journal.get(seq)
                if entry is not None and entry.institution == dead.owner and _waits(entry):
                    found.append(seq)
        return sorted(set(found))

    def _replayed(self, actor: Actor, seq: int) -> Json:
        try:
            outcome = self._services.messages.replay(seq, actor)
        except HubError as error:
            if error.transient or error.fatal:
                raise
            return {"seq": seq, "applied": False, "outcome": str(error)}
        return {"seq": seq, "applied": not outcome.startswith("held"), "outcome": outcome}

    # --- the records -----------------------------------------------------------------------------------------

    def _locked(self, tx: Tx, actor: Actor, patient_id: str) -> tuple[Stored, Merged]:
        """Return as :meth:`_dead` does, once nobody else changes or follows merges of that institution."""
        dead, _ = self._dead(tx, actor, patient_id)
        tx.records.lock_condition(merge_items.lock_of(dead.owner))
        return self._dead(tx, actor, patient_id)

    def _dead(self, tx: Tx, actor: Actor, patient_id: str) -> tuple[Stored, Merged]:
        institution = limit_of(actor)
        stored = tx.records.get("Patient", patient_id, UNRESTRICTED)
        if stored is None or stored.deleted or institution not in {None, stored.owner}:
            raise HubError(Category.NOT_FOUND, "There is no such patient.", where=f"Patient/{patient_id[:64]}")
        merge = merge_undo.merge_of(tx, stored)
        if merge is None:
            raise HubError(
                Category.CONFLICT,
                "该患者未曾并入他人 / This record was never merged into another.",
                where=f"Patient/{patient_id[:64]}",
                remedy="Name the record that was merged away, not the one that survives.",
            )
        return stored, merge

    def _came(self, tx: Tx, dead: Stored, merge: Merged) -> list[Came]:
        survivors = merge_undo.survivors_of(tx, dead.owner, merge.survivor_id)
        group = merge_undo.merged_into(tx, dead)
        return Meanwhile(self._services, tx, dead.owner, group.keys()).of(survivors, merge.since)

    def _merge_told(self, tx: Tx, dead: Stored, merge: Merged) -> Json | None:
        """Return the Provenance of the message that made the merge."""
        told = tx.records.referring("Provenance", "target", f"Patient/{dead.id}", UNRESTRICTED, limit=MAX_LIST)
        for one in sorted(told, key=lambda one: one.last_updated):
            body: Json = loads(one.body)
            codes = {coding.get("code") for coding in body.get("activity", {}).get("coding", ())}
            if one.owner == dead.owner and one.last_updated >= merge.since and codes & _MERGES:
                return body
        return None

    def _merge_message(self, tx: Tx, dead: Stored, merge: Merged) -> int | None:
        told = self._merge_told(tx, dead, merge)
        return None if told is None else merge_undo.message_of(told) or None

    def _replaced(self, tx: Tx, dead: Stored, merge: Merged) -> list[str]:
        """Return the visits and accounts that the same message merged (ADT^A18, A36); they are not taken back."""
        targets = (str(one.get("reference", "")) for one in (self._merge_told(tx, dead, merge) or {}).get("target", ()))
        return [one for one in targets if one.startswith(("Encounter/", "Account/"))]

    def _tasks(self, tx: Tx, dead: Stored) -> list[Json]:
        found = tx.records.referring("Task", "focus", f"Patient/{dead.id}", UNRESTRICTED, limit=_TASKS_MAX)
        bodies = (row for one in found if one.owner == dead.owner and not one.deleted for row in [loads(one.body)])
        return [one for one in bodies if merge_items.code_of(one)]

    def _settled(self, task: Json, decision: merge_items.Decision, actor: Actor, reason: str) -> Json:
        plain = {name: value for name, value in task.items() if name != "meta"}
        if plain.get("status") == "completed" and merge_items.decision_of(plain) == decision:
            return plain
        return merge_items.settled(plain, decision, by=_by(actor), reason=reason)

    def _provenance(self, owner: str, changed: list[str], key: str, actor: Actor, reason: str) -> Json:
        """Return who decided and why; https://hl7.org/fhir/R4/provenance.html."""
        operation = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
        return {
            "resourceType": "Provenance",
            "id": resource_id(owner, "merge-decision", "Provenance", f"{key}|{instant(self._services.clock())}"),
            "target": [{"reference": reference} for reference in changed],
            "recorded": instant(self._services.clock()),
            "activity": {
                "coding": [{"system": operation, "code": "UPDATE"}],
                "text": "患者合并的人工处理 / decision about a patient merge",
            },
            "reason": [{"text": reason}],
            "agent": [
                {
                    "who": {
                        "type": "Organization",
                        "identifier": {"system": MEMBER_SYSTEM, "value": actor.institution},
                        "display": _by(actor),
                    }
                }
            ],
        }

    @staticmethod
    def _done(decision: str, dead: Stored, merge: Merged, changed: list[str]) -> Json:
        return {
            "decision": decision,
            "institution": dead.owner,
            "former": f"Patient/{dead.id}",
            "survivor": f"Patient/{merge.survivor_id}",
            "changed": changed,
        }

    def _audit(
        self,
        tx: Tx,
        actor: Actor,
        subtype: str,
        patients: Collection[tuple[str, str]],
        *,
        action: str = "U",
        entities: tuple[str, ...] = (),
        detail: str = "",
        correlation_id: str = "",
    ) -> None:
        tx.audit.write(
            AuditLine(
                type="admin",
                action=action,
                subtype=subtype,
                actor=actor,
                recorded_at=self._services.clock(),
                patients=tuple(sorted(patients)),
                entities=entities[:100],
                detail=detail,
                correlation_id=correlation_id,
            )
        )


def _waits(entry: Entry) -> bool:
    """Return whether what the message says was not applied, or not all of it, because a person had to decide."""
    conflict = merge_items.text_of(merge_items.CONFLICT)
    return entry.state == "done" and (entry.outcome.startswith("held") or conflict in entry.outcome)


def _by(actor: Actor) -> str:
    return actor.client or actor.practitioner or actor.institution


def _reason(text: str) -> str:
    reason = text.strip()[:_REASON_MAX]
    if not reason:
        raise HubError(
            Category.INCORRECT,
            "须说明原因 / A decision about a merge needs a reason.",
            where="reason",
            remedy="Say why.",
        )
    return reason
