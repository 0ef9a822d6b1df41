"""Who is told of what happens to workitems (PS3.4 sections CC.2.3 and CC.2.4).

An AE subscribes to one item or to all of them (Global Subscription), perhaps only to those that match keys (Filtered Global
Subscription). A subscription is a ``Basic`` of the AE's institution, found by the UID it is for and by the AE; whether an item is
told of is judged when something happens to it, so a global subscription also holds for what comes later. Who subscribes by
DIMSE is told by DIMSE: a delivery in a lane of AE and item, in order, tried again, and lost to nobody by a restart. Who
subscribes by UPS-RS is told on its event channel (:mod:`hub.workitem_channel`).

Nobody is told of an item that the AE's institution may not see, and this is asked again when the event leaves. No item is ever
deleted, so a deletion lock holds from the beginning and need not be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog

from fhir_mappings.dicom import workitem as mapping
from fhir_mappings.dicom.performed_step import first, items
from fhir_mappings.errors import MappingError
from fhir_mappings.identifiers import CANONICAL_BASE, resource_id
from fhir_mappings.json import dumps, loads
from hub import workitem_channel
from hub.access import UNRESTRICTED, Scope
from hub.actor import HUB
from hub.clock import instant
from hub.delivery import lane_name
from hub.envelope import Envelope
from hub.errors import HubError
from hub.ports import AuditLine, Delivery, MemberEndpoint, NewDelivery, NewVersion, Stored, Tx
from hub.ports.channels import NewChannelEvent
from hub.search import Query, parse
from hub.workitem_rules import Reason, WorkitemError
from hub.workitem_search import Key, keys_of, matches

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("hub.workitems")

#: ``NewDelivery.kind`` of an event.
KIND = "workitem-event"
#: The well-known UIDs of all items, and of those that match.
GLOBAL, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"
#: Event Type IDs (PS3.4 table CC.2.4-1).
STATE_REPORT, CANCEL_REQUESTED, PROGRESS_REPORT, ASSIGNED = 1, 2, 3, 5
#: Items of which a new global subscriber with a lock is told at most, those that changed last.
TOLD_AT_ONCE = 1000
#: Items that are held against its filter for that; everybody's commits wait meanwhile.
LOOKED_AT = 5000
RECEIVER, DELETION_LOCK, REQUESTER = "00741234", "00741230", "00741236"
_ASSIGNMENT = (mapping.STATION_CODES, mapping.HUMAN_PERFORMERS)
_PERFORMER_CODES = "00404009"
_CANCELLATION = (mapping.REASON, mapping.REASON_CODES, mapping.CONTACT_URI, mapping.CONTACT_NAME)
_ITEM = f"{CANONICAL_BASE}/NamingSystem/workitem-subscription"
_SUBSCRIBER = f"{CANONICAL_BASE}/NamingSystem/workitem-subscriber"
_SAID = f"{CANONICAL_BASE}/StructureDefinition/workitem-subscription"
#: What a row says of its AE: told, told of what was there when it was suspended, told no more although all are.
_ON, _SUSPENDED, _OFF = "on", "suspended", "off"
#: What a row says of an AE that is told on its event channel.
_CHANNEL = "channel"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A workitem as those who are told see it."""

    uid: str
    task_id: str
    owner: str
    patient_id: str
    authored: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Who is told: an AE of *member*, at *endpoint* by DIMSE, or on its event channel where that is ``""``."""

    member: str
    ae_title: str
    endpoint: str = ""


class WorkitemEvents:
    """Subscriptions, and the events that follow; every method works in its caller's transaction."""

    def __init__(self, services: Services) -> None:
        self._services = services

    # --- subscriptions ---------------------------------------------------------------------------------------

    def subscribe(self, tx: Tx, envelope: Envelope, item: Item | None, uid: str, told: Mapping[str, Any]) -> None:
        """Subscribe the Receiving AE in *told* to *item*, or to *uid*, one of the well-known ones.

        The AE is told the state of a single item at once, and with a deletion lock that of all that are not over (section
        CC.2.4.3), or of those of them that match.

        Raises:
            WorkitemError: UNKNOWN_RECEIVER when it is no AE of the asker's institution, or would be called and has no
                address.
            HubError: incorrect when a key of a filter is malformed.
        """
        to = self._receiver(envelope, told)
        keys = {tag: one for tag, one in told.items() if tag not in {RECEIVER, DELETION_LOCK}}
        if uid == FILTERED:
            # What cannot be matched is refused now, and not when something happens.
            self._keys(keys)
        if uid == GLOBAL:
            # Whoever wants all no longer does without some.
            self._forget(tx, to, {_OFF})
        self._keep(tx, to, uid, _ON, keys if uid == FILTERED else {})
        if item is not None:
            self._queue(tx, to, item, STATE_REPORT, _state(item.attributes), envelope.correlation_id)
        elif first(told, DELETION_LOCK).strip().upper() == "TRUE":
            for one in self._going_on(tx, to, self._keys(keys) if uid == FILTERED else []):
                self._queue(tx, to, one, STATE_REPORT, _state(one.attributes), envelope.correlation_id)

    def unsubscribe(self, tx: Tx, envelope: Envelope, uid: str, told: Mapping[str, Any]) -> None:
        """End the subscription to *uid*; that of a global one ends all of the AE's. Ending what is not there is harmless.

        Raises:
            WorkitemError: as :meth:`subscribe`.
        """
        to = self._receiver(envelope, told)
        if uid == GLOBAL:
            self._forget(tx, to, {_ON, _SUSPENDED, _OFF})
        elif uid == FILTERED:
            tx.records.delete("Basic", _row_id(to, uid), owner=to.member)
        else:
            self._keep(tx, to, uid, _OFF, {})

    def suspend(self, tx: Tx, envelope: Envelope, uid: str, told: Mapping[str, Any]) -> None:
        """Tell nothing of items that are yet to be made; those that are there stay subscribed to.

        Raises:
            WorkitemError: as :meth:`subscribe`; INAPPROPRIATE when *uid* is that of an item, or the AE has no such
                subscription.
        """
        to = self._receiver(envelope, told)
        stored = tx.records.get("Basic", _row_id(to, uid), UNRESTRICTED) if uid in mapping.WORKLISTS else None
        if stored is None or stored.deleted:
            raise WorkitemError(
                Reason.INAPPROPRIATE,
                where="RequestedSOPInstanceUID",
                remedy="Suspend a Global Subscription that there is.",
                # PS3.18 table 11.12.3-1; by DIMSE it is C314.
                status=404,
            )
        said = _said(stored)
        if said["state"] == _ON:
            # How the AE is told stays as it was, whichever door ends it for what is to come.
            same = self._known(to.member, to.ae_title, by_channel=said["by"] == _CHANNEL)
            self._keep(tx, same or to, uid, _SUSPENDED, said["keys"])

    # --- events ----------------------------------------------------------------------------------------------

    def changed(self, tx: Tx, item: Item, before: Mapping[str, Any] | None, correlation_id: str) -> None:
        """Tell of what *item* has become, from *before*, or of its creation."""
        events = list(_events(before, item.attributes))
        if events:
            for to in self._told(tx, item):
                for kind, information in events:
                    self._queue(tx, to, item, kind, information, correlation_id)

    def cancel_asked(self, tx: Tx, item: Item, envelope: Envelope, told: Mapping[str, Any]) -> bool:
        """Tell that the cancellation of *item* is asked for; returns whether anybody beside the asker is told."""
        asker = envelope.actor.client or envelope.actor.institution
        information = {tag: told[tag] for tag in _CANCELLATION if mapping.has_value(told, tag)}
        # An AE title has 16 characters (PS3.5 section 6.2).
        information[REQUESTER] = {"vr": "AE", "Value": [asker[:16]]}
        receivers = self._told(tx, item)
        if all(one.ae_title == asker for one in receivers):
            return False
        for to in receivers:
            self._queue(tx, to, item, CANCEL_REQUESTED, information, envelope.correlation_id)
        return True

    def may_leave(self, tx: Tx, delivery: Delivery, to: MemberEndpoint) -> bool:
        """Return whether the institution at *to* may still see the item; where not, the event is skipped and audited."""
        if self._sees(tx, to.member, delivery.owner, delivery.task_id):
            return True
        now = self._services.clock()
        tx.outbox.skip(delivery.id, now=now, reason=f"无权查看 / {to.member} may not see the workitem any more.")
        tx.audit.write(
            AuditLine(
                type="delivery",
                action="E",
                subtype="withheld",
                actor=HUB,
                recorded_at=now,
                outcome="4",
                patients=((delivery.owner, delivery.patient_id),) if delivery.patient_id else (),
                entities=(delivery.control_id,),
                correlation_id=delivery.correlation_id,
                detail=f"delivery {delivery.id} to {delivery.destination}: no open grant",
            )
        )
        return False

    # --- parts -----------------------------------------------------------------------------------------------

    def _receiver(self, envelope: Envelope, told: Mapping[str, Any]) -> Receiver:
        title = first(told, RECEIVER).strip()
        by_channel = envelope.door == "dicomweb"
        found = self._known(envelope.actor.institution, title, by_channel=by_channel)
        if found is None:
            where = "" if by_channel else " whose Endpoint has an address"
            raise WorkitemError(
                Reason.UNKNOWN_RECEIVER, where="ReceivingAE", remedy=f"Name an AE of your institution{where}."
            )
        return found

    def _known(self, member: str, title: str, *, by_channel: bool) -> Receiver | None:
        if by_channel:
            known = workitem_channel.has_ae(self._services, member, title)
            return Receiver(member=member, ae_title=title) if known else None
        points = self._services.directory.endpoints(member, "dicom")
        found = next((one for one in points if one.active and one.address and one.ae_title == title), None)
        return None if found is None else Receiver(member=member, ae_title=title, endpoint=found.id)

    def _keys(self, keys: Mapping[str, Any]) -> list[Key]:
        return list(keys_of(keys, zone=self._services.settings.time_zone))

    def _going_on(self, tx: Tx, to: Receiver, keys: Sequence[Key]) -> list[Item]:
        """Return the items that are not over, match *keys* and may be told to *to*, the one that changed last behind."""
        settings = self._services.settings
        code = f"{mapping.code_system(settings.base_url)}|{mapping.CODE}"
        pairs = [
            ("code", code),
            ("status", "requested,in-progress"),
            ("_sort", "-_lastUpdated"),
            ("_count", str(min(200, LOOKED_AT))),
        ]
        query: Query | None = parse("Task", pairs, base_urls=[settings.base_url])
        mine = tx.records.by_identifier("Basic", _SUBSCRIBER, to.ae_title, UNRESTRICTED, owner=to.member)
        unwanted = {stored.id for stored in mine if _said(stored)["state"] == _OFF}
        found: list[Item] = []
        looked_at = 0
        while query is not None and len(found) < TOLD_AT_ONCE and looked_at < LOOKED_AT:
            page = tx.records.search(query, Scope(institution=to.member))
            looked_at += len(page.matches)
            for stored in page.matches:
                task = loads(stored.body)
                # A person may write a Task of this code; one without a data set is no item.
                attributes = mapping.attributes_of(task)
                wanted = attributes and _row_id(to, first(attributes, mapping.INSTANCE_UID)) not in unwanted
                if wanted and matches(keys, attributes, settings.time_zone):
                    found.append(item_of(stored, task, attributes))
            query = replace(query, cursor=page.next_cursor) if page.next_cursor is not None else None
        if query is not None or len(found) > TOLD_AT_ONCE:
            log.warning("workitems_not_told_at_once", institution=to.member, ae_title=to.ae_title, told=TOLD_AT_ONCE)
        return found[:TOLD_AT_ONCE][::-1]

    def _told(self, tx: Tx, item: Item) -> list[Receiver]:
        """Return the AEs that are told of *item*: what is said of it alone goes before what is said of all."""
        rows: dict[tuple[str, str], dict[str, Json]] = {}
        for uid in (item.uid, GLOBAL, FILTERED):
            for stored in tx.records.by_identifier("Basic", _ITEM, uid, UNRESTRICTED):
                said = _said(stored)
                rows.setdefault((stored.owner, said["receiver"]), {})[uid] = said
        wanted = []
        for (member, title), said_of in sorted(rows.items()):
            uids = {item.uid} & said_of.keys() or said_of
            ways = {said_of[uid]["by"] == _CHANNEL for uid in uids if self._applies(said_of[uid], uid, item)}
            # An AE that subscribes by both is told by both.
            wanted += [self._known(member, title, by_channel=one) for one in sorted(ways)]
        return [to for to in wanted if to is not None and self._sees(tx, to.member, item.owner, item.task_id)]

    def _applies(self, said: Json, uid: str, item: Item) -> bool:
        if said["state"] == _OFF or (said["state"] == _SUSPENDED and item.authored > said["since"]):
            return False
        zone = self._services.settings.time_zone
        return uid != FILTERED or matches(self._keys(said["keys"]), item.attributes, zone)

    @staticmethod
    def _sees(tx: Tx, member: str, owner: str, task_id: str) -> bool:
        return member == owner or tx.records.get("Task", task_id, Scope(institution=member)) is not None

    def _keep(self, tx: Tx, to: Receiver, uid: str, state: str, keys: Mapping[str, Any]) -> None:
        now = self._services.clock()
        row: Json = {
            "resourceType": "Basic",
            "id": _row_id(to, uid),
            "identifier": [{"system": _ITEM, "value": uid}, {"system": _SUBSCRIBER, "value": to.ae_title}],
            "code": {"text": "工作项订阅 / workitem subscription"},
            "created": now.date().isoformat(),
            "extension": [{"url": _SAID, "valueString": dumps(_content(to, state, now, keys)).decode()}],
        }
        tx.records.put_many([NewVersion(resource=row, owner=to.member)])

    def _forget(self, tx: Tx, to: Receiver, states: set[str]) -> None:
        for stored in tx.records.by_identifier("Basic", _SUBSCRIBER, to.ae_title, UNRESTRICTED, owner=to.member):
            if _said(stored)["state"] in states:
                tx.records.delete("Basic", stored.id, owner=to.member)

    def _queue(
        self, tx: Tx, to: Receiver, item: Item, kind: int, information: Mapping[str, Any], correlation_id: str
    ) -> None:
        if not to.endpoint:
            event = NewChannelEvent(
                institution=to.member,
                ae_title=to.ae_title,
                owner=item.owner,
                task_id=item.task_id,
                patient_id=item.patient_id,
                item=item.uid,
                payload=workitem_channel.payload(kind, information),
                correlation_id=correlation_id,
                created_at=self._services.clock(),
            )
            workitem_channel.tell(tx, event)
            return
        tx.outbox.enqueue(
            NewDelivery(
                destination=to.endpoint,
                lane=lane_name(to.endpoint, item.uid, slot=KIND),
                kind=KIND,
                payload=workitem_channel.payload(kind, information),
                owner=item.owner,
                control_id=item.uid,
                content_type="application/dicom+json",
                correlation_id=correlation_id,
                task_id=item.task_id,
                patient_id=item.patient_id,
            )
        )


def item_of(stored: Stored, task: Mapping[str, Any], attributes: Mapping[str, Any]) -> Item:
    """Return the item that the Task *stored* is; *task* and *attributes* are what it says."""
    return Item(
        uid=first(attributes, mapping.INSTANCE_UID),
        task_id=stored.id,
        owner=stored.owner,
        patient_id=stored.patient_id,
        authored=str(task.get("authoredOn", "")),
        attributes=attributes,
    )


def _content(to: Receiver, state: str, now: datetime, keys: Mapping[str, Any]) -> Json:
    by = "dimse" if to.endpoint else _CHANNEL
    return {"receiver": to.ae_title, "state": state, "since": instant(now), "keys": dict(keys), "by": by}


def _said(stored: Stored) -> Json:
    """Return what a row says. A person may write any Basic; one that is no subscription subscribes to nothing."""
    try:
        (text,) = (one["valueString"] for one in loads(stored.body).get("extension", ()) if one.get("url") == _SAID)
        said = loads(text.encode())
        keys = mapping.normal(said["keys"])
        list(keys_of(keys, zone="UTC"))
        texts = {name: str(said[name]) for name in ("receiver", "state", "since")}
        return {**texts, "keys": keys, "by": str(said.get("by", ""))}
    except (ValueError, LookupError, TypeError, AttributeError, HubError, MappingError):
        log.warning("no_subscription", owner=stored.owner, basic=stored.id)
        return {"receiver": "", "state": _OFF, "since": "", "keys": {}, "by": ""}


def _row_id(to: Receiver, uid: str) -> str:
    return _id(to.member, to.ae_title, uid)


def _id(member: str, title: str, uid: str) -> str:
    return resource_id(member, "workitem-subscription", "Basic", f"{title}|{uid}")


def _events(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Iterator[tuple[int, Json]]:
    """Yield type and information of what became of an item (PS3.4 table CC.2.4-1)."""

    def differs(*tags: str) -> bool:
        return before is None or any(before.get(tag) != after.get(tag) for tag in tags)

    if differs(mapping.STATE, mapping.READINESS):
        yield STATE_REPORT, _state(after)
    if differs(*_ASSIGNMENT) and (before is not None or any(mapping.has_value(after, tag) for tag in _ASSIGNMENT)):
        yield ASSIGNED, _assignment(after)
    if differs(mapping.PROGRESS) and mapping.has_value(after, mapping.PROGRESS):
        yield PROGRESS_REPORT, {mapping.PROGRESS: after[mapping.PROGRESS]}


def _assignment(attributes: Mapping[str, Any]) -> Json:
    """Return who is to do it; the event has room for one person."""
    person = next(items(attributes, mapping.HUMAN_PERFORMERS), {})
    said = {tag: person[tag] for tag in (_PERFORMER_CODES, mapping.ORGANIZATION) if mapping.has_value(person, tag)}
    return {tag: attributes[tag] for tag in (mapping.STATION_CODES,) if mapping.has_value(attributes, tag)} | said


def _state(attributes: Mapping[str, Any]) -> Json:
    progress = next(items(attributes, mapping.PROGRESS), {})
    why = {tag: progress[tag] for tag in (mapping.REASON, mapping.REASON_CODES) if mapping.has_value(progress, tag)}
    return {tag: attributes[tag] for tag in (mapping.STATE, mapping.READINESS) if tag in attributes} | why
