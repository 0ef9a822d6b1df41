"""Workitems: units of work that wait for a performer, are claimed by one, and end (PS3.4 annex CC; PS3.18 chapter 11).

UPS-RS and the DIMSE services ask the same questions here. An item is a Task of the institution that created it. Another
institution sees it while it is the scheduled performer, or by an open grant as any Task; only its owner and its scheduled
performer may change it. Who claims an item names a Transaction UID, and nobody changes the item without it after that.

Which change is refused, and why, is table CC.1.1-2; two that race for one item meet in the version of its Task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4
from zoneinfo import ZoneInfo

from fhir_mappings.dicom import workitem as mapping
from fhir_mappings.dicom.performed_step import first
from fhir_mappings.dicom.scanner import valid_uid
from fhir_mappings.dicom.workitem import CANCELED, COMPLETED, FINAL, IN_PROGRESS, SCHEDULED
from fhir_mappings.identifiers import resource_id
from fhir_mappings.json import dumps, loads
from hub import workitem_parties as parties
from hub.access import UNRESTRICTED, scope_of
from hub.actor import Actor
from hub.clock import instant
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.ports import AuditLine, Grant, NewEntry, NewVersion, Stored, Tx
from hub.workitem_events import Item, WorkitemEvents, item_of
from hub.workitem_rules import (
    Reason,
    Remark,
    SubscriptionChange,
    WorkitemError,
    cancellation,
    check_changes,
    check_new,
    judge_state,
    may_change,
    same_lock,
    texts,
    unlock,
)

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]
T = TypeVar("T")

_WORKLIST_LABEL = "UPS"
#: Attempts at a change that another one overtakes; each sees what the other has left.
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A workitem as it is stored."""

    stored: Stored
    task: Json
    attributes: Json

    @property
    def state(self) -> str:
        """(0074,1000) Procedure Step State."""
        return first(self.attributes, mapping.STATE)

    @property
    def item(self) -> Item:
        """The item as those who are told see it."""
        return item_of(self.stored, self.task, self.attributes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """What a change leaves: the new data set, the new lock, or nothing new at all; *asked* = its performer is asked."""

    attributes: Json
    lock: str
    remark: Remark = Remark.NONE
    kept: bool = True
    asked: bool = False


class Workitems:
    """What both doors call; every change is durable and audited on return."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._events = WorkitemEvents(services)

    def create(self, envelope: Envelope, uid: str, dataset: Mapping[str, Any]) -> tuple[str, Remark]:
        """Keep a new item; return its UID, made here where *uid* is empty.

        Raises:
            WorkitemError: NOT_SCHEDULED, DUPLICATE.
            HubError: incorrect when what table CC.2.5-3 demands is missing; forbidden for those who only read.
        """
        may_change(envelope.actor)
        attributes = {tag: element for tag, element in dataset.items() if tag != mapping.TRANSACTION_UID}
        # UID 2.25 and a random UUID (PS3.5 annex B.2).
        uid = uid or first(attributes, mapping.INSTANCE_UID) or f"2.25.{uuid4().int}"
        check_new(uid, dataset)
        owner, remark = envelope.actor.institution, Remark.NONE
        attributes |= texts("UI", {mapping.CLASS_UID: mapping.SOP_CLASS, mapping.INSTANCE_UID: uid})
        if not mapping.has_value(attributes, mapping.WORKLIST_LABEL):
            attributes |= texts("LO", {mapping.WORKLIST_LABEL: _WORKLIST_LABEL})
            remark = Remark.CREATED_MODIFIED
        now = self._services.clock()
        attributes |= texts("DT", {mapping.MODIFIED: self._moment(now)})

        def work(tx: Tx) -> None:
            if tx.records.get("Task", task_id(owner, uid), UNRESTRICTED) is not None:
                raise WorkitemError(Reason.DUPLICATE, where="SOPInstanceUID", remedy="Give each workitem its own UID.")
            self._keep(tx, envelope, uid, owner, attributes, "", dataset=attributes, before=None, now=now)

        self._again(lambda: self._services.database.write(work))
        return uid, remark

    def read(self, envelope: Envelope, uid: str) -> Json:
        """Return the data set of an item that the asker may see; audited. Raises WorkitemError(ABSENT)."""

        def work(tx: Tx) -> Json:
            found = self.find(tx, envelope.actor, uid)
            tx.audit.write(self._line(envelope, "R", uid, found.stored.owner, found.stored.patient_id))
            return found.attributes

        return self._services.database.write(work)

    def update(self, envelope: Envelope, uid: str, changes: Mapping[str, Any], transaction_uid: str = "") -> None:
        """Set attributes of an item that is not over; after it was claimed, with its Transaction UID.

        Raises:
            WorkitemError: ABSENT, OVER, NO_LOCK, WRONG_LOCK, UNCLAIMED.
            HubError: incorrect for what no update may change; forbidden for those who only see it.
        """
        transaction_uid = transaction_uid or first(changes, mapping.TRANSACTION_UID)
        lock = mapping.lock_of(uid, transaction_uid) if transaction_uid else ""
        changes = {tag: element for tag, element in changes.items() if tag != mapping.TRANSACTION_UID}
        check_changes(changes)

        def judge(found: Found) -> _Change:
            held = mapping.stored_lock(found.task)
            if found.state in FINAL:
                raise WorkitemError(Reason.OVER, where="ProcedureStepState")
            if found.state == SCHEDULED and lock:
                raise WorkitemError(
                    Reason.UNCLAIMED, where="TransactionUID", remedy="Claim it first, or leave out the Transaction UID."
                )
            if found.state == IN_PROGRESS:
                unlock(held, lock)
            return _Change(attributes={**found.attributes, **changes}, lock=held)

        self._change(envelope, uid, changes, judge)

    def change_state(self, envelope: Envelope, uid: str, state: str, transaction_uid: str) -> Remark:
        """Claim, complete or cancel an item.

        Raises:
            WorkitemError: as :func:`judge_state` says; NOT_READY where the final state needs more; ABSENT.
            HubError: incorrect for a state that is none, or a Transaction UID that is no UID.
        """
        if state not in {SCHEDULED, IN_PROGRESS, COMPLETED, CANCELED}:
            raise HubError(
                Category.INCORRECT,
                "Procedure Step State is not one of the defined terms.",
                where="ProcedureStepState",
                remedy="Send IN PROGRESS, COMPLETED or CANCELED.",
            )
        if transaction_uid and not valid_uid(transaction_uid):
            raise HubError(Category.INCORRECT, "Transaction UID is not a UID.", where="TransactionUID")
        lock = mapping.lock_of(uid, transaction_uid) if transaction_uid else ""

        def judge(found: Found) -> _Change:
            held = mapping.stored_lock(found.task)
            verdict = judge_state(found.state, state, given=bool(lock), right=not held or same_lock(held, lock))
            if isinstance(verdict, Reason):
                raise WorkitemError(verdict, where="ProcedureStepState")
            if verdict is not Remark.NONE:
                return _Change(attributes=found.attributes, lock=held, remark=verdict, kept=False)
            attributes = {**found.attributes, **texts("CS", {mapping.STATE: state})}
            if state in FINAL and (lacking := mapping.missing_for(state, attributes)):
                raise WorkitemError(Reason.NOT_READY, where=lacking, remedy="Set it by an update, then ask again.")
            return _Change(attributes=attributes, lock=lock)

        return self._change(envelope, uid, texts("CS", {mapping.STATE: state}), judge)

    def request_cancellation(self, envelope: Envelope, uid: str, told: Mapping[str, Any]) -> Remark:
        """Cancel an item that nobody has claimed, or tell who subscribes to it that its cancellation is asked for.

        Args:
            told: may hold the reason and whom to ask (table CC.2.2-1).

        Raises:
            WorkitemError: UNREACHABLE when it is claimed and nobody else subscribes to it; IS_COMPLETED; ABSENT.
        """

        def judge(found: Found) -> _Change:
            if found.state == CANCELED:
                return _Change(attributes=found.attributes, lock="", remark=Remark.ALREADY_CANCELED, kept=False)
            if found.state == COMPLETED:
                raise WorkitemError(Reason.IS_COMPLETED, where="ProcedureStepState")
            if found.state == IN_PROGRESS:
                return _Change(attributes=found.attributes, lock="", kept=False, asked=True)
            attributes = {**found.attributes, **texts("CS", {mapping.STATE: CANCELED})}
            progress = cancellation(found.attributes, told, self._moment(self._services.clock()))
            return _Change(attributes={**attributes, mapping.PROGRESS: {"vr": "SQ", "Value": [progress]}}, lock="")

        return self._change(envelope, uid, told, judge)

    def change_subscription(
        self, envelope: Envelope, uid: str, told: Mapping[str, Any], change: SubscriptionChange
    ) -> None:
        """Change what the Receiving AE in *told* hears of the item *uid*, or of all where it is a well-known UID; audited.

        Raises:
            WorkitemError: ABSENT, UNKNOWN_RECEIVER, INAPPROPRIATE.
            HubError: incorrect for a filter that cannot be matched; forbidden for those who only read.
        """
        may_change(envelope.actor)

        def work(tx: Tx) -> None:
            found = None if uid in mapping.WORKLISTS else self.find(tx, envelope.actor, uid)
            if change is SubscriptionChange.SUBSCRIBE:
                self._events.subscribe(tx, envelope, None if found is None else found.item, uid, told)
            elif change is SubscriptionChange.UNSUBSCRIBE:
                self._events.unsubscribe(tx, envelope, uid, told)
            else:
                self._events.suspend(tx, envelope, uid, told)
            owner, patient = (found.stored.owner, found.stored.patient_id) if found is not None else ("", "")
            tx.audit.write(self._line(envelope, "E", uid, owner, patient))

        self._services.database.write(work)

    def find(self, tx: Tx, actor: Actor, uid: str) -> Found:
        """Return the item that *actor* means: the own institution's, else the first in scope. Raises ABSENT."""
        own = tx.records.get("Task", task_id(actor.institution, uid), scope_of(actor))
        if own is not None and own.deleted:
            raise WorkitemError(Reason.ABSENT, where="SOPInstanceUID", status=410)
        seen = [] if own is None else [own]
        if not seen and valid_uid(uid):
            seen = tx.records.by_identifier("Task", *mapping.identifier_of(uid), scope_of(actor))
        for stored in seen:
            task = loads(stored.body)
            attributes = mapping.attributes_of(task)
            if first(attributes, mapping.INSTANCE_UID) == uid:
                return Found(stored=stored, task=task, attributes=attributes)
        raise WorkitemError(Reason.ABSENT, where="SOPInstanceUID")

    # --- parts -----------------------------------------------------------------------------------------------

    def _change(
        self, envelope: Envelope, uid: str, dataset: Mapping[str, Any], judge: Callable[[Found], _Change]
    ) -> Remark:
        may_change(envelope.actor)

        def work(tx: Tx) -> Remark:
            found = self.find(tx, envelope.actor, uid)
            owner = found.stored.owner
            if envelope.actor.institution not in {owner, *parties.performers(self._services, found.attributes)}:
                raise HubError(
                    Category.FORBIDDEN, "Only its institution and its scheduled performer change a workitem."
                )
            change = judge(found)
            before, after = (
                parties.performers(self._services, found.attributes),
                parties.performers(self._services, change.attributes),
            )
            if after != before and envelope.actor.institution != owner:
                raise HubError(
                    Category.FORBIDDEN,
                    "Only its institution says which institution performs a workitem, since that one will see it.",
                    where="ScheduledStationNameCodeSequence",
                )
            if change.kept:
                now = self._services.clock()
                attributes = change.attributes | texts("DT", {mapping.MODIFIED: self._moment(now)})
                self._keep(tx, envelope, uid, owner, attributes, change.lock, dataset=dataset, before=found, now=now)
            else:
                if change.asked and not self._events.cancel_asked(tx, found.item, envelope, dataset):
                    raise WorkitemError(
                        Reason.UNREACHABLE, where="ProcedureStepState", remedy="Ask the performer to cancel it."
                    )
                action = "E" if change.asked else "R"
                tx.audit.write(self._line(envelope, action, uid, owner, found.stored.patient_id))
            return change.remark

        return self._again(lambda: self._services.database.write(work))

    @staticmethod
    def _again(work: Callable[[], T]) -> T:
        """Return what *work* returns; when another change overtakes it, it is done again on what that one left."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return work()
            except HubError as error:
                if isinstance(error, WorkitemError) or error.status != 412:
                    raise
        return work()

    def _keep(
        self,
        tx: Tx,
        envelope: Envelope,
        uid: str,
        owner: str,
        attributes: Json,
        lock: str,
        *,
        dataset: Mapping[str, Any],
        before: Found | None,
        now: datetime,
    ) -> None:
        state = first(attributes, mapping.STATE)
        performers = parties.performers(self._services, attributes) - {owner}
        patient = parties.patient(self._services, tx, owner, attributes)
        id_ = task_id(owner, uid) if before is None else before.stored.id
        task = mapping.task(
            attributes,
            id=id_,
            uid=uid,
            institution=owner,
            authored=instant(now) if before is None else str(before.task["authoredOn"]),
            now=instant(now),
            lock=lock,
            patient=f"Patient/{patient}" if patient else None,
            requester=parties.organization(self._services, owner),
            owner=parties.organization(self._services, next(iter(performers))) if len(performers) == 1 else None,
            time_zone=self._services.settings.time_zone,
            base=self._services.settings.base_url,
        )
        version = 0 if before is None else before.stored.version
        tx.records.put_many([NewVersion(resource=task, owner=owner, expected_version=version)])
        self._open(tx, id_, performers, state, now)
        body = dumps(dict(dataset))
        tx.journal.append(
            NewEntry(
                door=envelope.door,
                institution=envelope.actor.institution,
                peer=envelope.peer,
                correlation_id=envelope.correlation_id,
                message_type=envelope.kind,
                digest=hashlib.sha256(body).hexdigest(),
                size=len(body),
                # Inline whatever its length, which is bounded: there is no object behind it.
                body=body,
                received_at=now,
                sending_application=envelope.actor.client,
                control_id=uid,
                outcome=state,
                patient_id=patient,
                accession=next(iter(mapping.accessions(attributes)), ""),
            )
        )
        tx.audit.write(self._line(envelope, "C" if before is None else "U", uid, owner, patient))
        item = Item(
            uid=uid,
            task_id=id_,
            owner=owner,
            patient_id=patient,
            authored=str(task["authoredOn"]),
            attributes=attributes,
        )
        self._events.changed(tx, item, None if before is None else before.attributes, envelope.correlation_id)

    def _open(self, tx: Tx, id_: str, performers: frozenset[str], state: str, now: datetime) -> None:
        """Let the scheduled performers see the item, and nobody who is none any more."""
        until = now + timedelta(days=self._services.settings.grant_days_after) if state in FINAL else None
        for grant in tx.grants.of_task(id_):
            if grant.grantee not in performers:
                tx.grants.close(id_, grantee=grant.grantee, until=now)
        for one in sorted(performers):
            tx.grants.open(Grant(grantee=one, target_type="Task", target_id=id_, task_id=id_, until=until), now=now)

    def _moment(self, now: datetime) -> str:
        """Return *now* as a DT of the hub's zone (PS3.5 section 6.2)."""
        return now.astimezone(ZoneInfo(self._services.settings.time_zone)).strftime("%Y%m%d%H%M%S.%f%z")

    def _line(self, envelope: Envelope, action: str, uid: str, owner: str, patient: str) -> AuditLine:
        return AuditLine(
            type="dicom",
            action=action,
            subtype=envelope.kind,
            actor=envelope.actor,
            recorded_at=self._services.clock(),
            patients=((owner, patient),) if patient else (),
            entities=(uid,),
            correlation_id=envelope.correlation_id,
        )


def task_id(owner: str, uid: str) -> str:
    """Return the id of the Task that the owner's workitem is."""
    return resource_id(owner, "ups", "Task", uid)
