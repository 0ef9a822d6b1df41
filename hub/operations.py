"""What people who run the hub look at and do: queues, the way of one arrival, work waiting for a decision.

The command line and ``/ops`` share these functions; messages are :mod:`hub.message_desk`. The operator sees every queue
and no patient data; a member's administrator sees the queues that lead to or come from that member. Every act leaves an
audit line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fhir_mappings.json import loads
from hub import conflicts
from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.askers import MAX_LIST, capped, limit_of
from hub.clock import instant
from hub.delivery import circuit
from hub.errors import Category, HubError
from hub.message_desk import shown_entry
from hub.message_search import text_of
from hub.ports import AuditLine, Delivery, Entry, Stored, StudyKey, Tx
from hub.search import parse

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]

#: Tasks of this code system wait for a decision by hand.
WORK_ITEM = "work-item"
#: Work items that wait for no decision by hand: the hub does them itself, or their performer has a list of his own.
_RUNNING = frozenset({"deidentified-export", "unified-procedure-step"})


class Operations:
    """The acts of operation, for one asker at a time."""

    def __init__(self, services: Services) -> None:
        self._services = services

    # --- queues ----------------------------------------------------------------------------------------------

    def queues(self, actor: Actor) -> Json:
        """Return the state of each destination and of each lane that has something open."""
        limit = limit_of(actor)
        destinations, lanes, alerts = self._services.database.read(
            lambda tx: (tx.outbox.destinations(), tx.outbox.lanes(), tx.alerts.all())
        )
        now = self._services.clock()
        return {
            "destinations": [
                {**_plain(one), "oldest_s": _age(now, one["oldest_at"]), "circuit": circuit(one, now)}
                for one in destinations
                if _leads_to(one["destination"], limit)
            ],
            "lanes": [
                {**_plain(one), "oldest_s": _age(now, one["oldest_at"])}
                for one in lanes
                if _leads_to(one["destination"], limit)
            ],
            "alerts": [_plain(one) for one in alerts if _leads_to(one["key"].partition("|")[2], limit)],
        }

    def deliveries(self, actor: Actor, criteria: Mapping[str, str], *, limit: int) -> list[Json]:
        """Return deliveries whose columns equal *criteria*, newest first, without their payload."""
        institution = limit_of(actor)
        # The limit counts rows within reach, so the asker's institution is part of the question.
        wanted = dict(criteria) if institution is None else {**criteria, "owner": institution}
        found = self._services.database.read(lambda tx: tx.outbox.deliveries(wanted, limit=capped(limit)))
        return [_delivery(one) for one in found]

    def pause(self, actor: Actor, destination: str, paused: bool) -> None:
        """Hold or release everything for *destination*; durable on return.

        Raises:
            HubError: not-found when it is no endpoint, or none of the asker's.
        """
        institution = limit_of(actor)
        if not _leads_to(destination, institution) or self._services.directory.endpoint(destination) is None:
            raise HubError(
                Category.NOT_FOUND,
                "There is no such destination.",
                where=destination[:64],
                remedy="`hub queue list` and `hub members list` show the names, for example KN/mllp.",
            )

        def work(tx: Tx) -> None:
            tx.outbox.set_paused(destination, paused)
            self._audit(tx, actor, "queue-pause" if paused else "queue-resume", detail=destination)

        self._services.database.write(work)

    def replay(self, actor: Actor, delivery_id: int) -> None:
        """Send a dead letter again in its place, or a finished delivery once more; durable on return.

        Raises:
            HubError: not-found; conflict when it is still waiting.
        """

        def work(tx: Tx) -> None:
            one = self._delivery(tx, actor, delivery_id)
            tx.outbox.replay(delivery_id, now=self._services.clock())
            self._audit(tx, actor, "queue-replay", detail=f"delivery {delivery_id}", correlation_id=one.correlation_id)

        self._services.database.write(work)

    def skip(self, actor: Actor, delivery_id: int, reason: str) -> None:
        """Give up a delivery for good, so that its lane goes on; durable on return.

        Raises:
            HubError: not-found; conflict when it is finished; incorrect without a reason.
        """
        if not reason.strip():
            raise HubError(Category.INCORRECT, "A skip needs a reason.", where="reason", remedy="Say why.")

        def work(tx: Tx) -> None:
            one = self._delivery(tx, actor, delivery_id)
            tx.outbox.skip(delivery_id, now=self._services.clock(), reason=reason.strip()[:200])
            self._audit(
                tx,
                actor,
                "queue-skip",
                detail=f"delivery {delivery_id}: {reason.strip()[:200]}",
                correlation_id=one.correlation_id,
            )

        self._services.database.write(work)

    def _delivery(self, tx: Tx, actor: Actor, delivery_id: int) -> Delivery:
        one = tx.outbox.get(delivery_id)
        if one is None or not _concerns(one, limit_of(actor)):
            raise HubError(Category.NOT_FOUND, "There is no such delivery.", where=f"delivery {delivery_id}")
        return one

    # --- one arrival's way -----------------------------------------------------------------------------------

    def trace(self, actor: Actor, correlation_id: str) -> Json:
        """Return the whole way of one arrival: journal, audited acts, records, Tasks of its group, deliveries, answers.

        Raises:
            HubError: not-found when nothing within the asker's reach has this id.
        """
        institution = limit_of(actor)
        criteria = {"correlation": correlation_id}
        # A comma would make two values of the id, a bar a system.
        plain = "".join(f"\\{one}" if one in "\\,|$" else one for one in correlation_id)
        query = parse("Task", (("group-identifier", plain), ("_count", "100")))

        def read(tx: Tx) -> tuple[list[Entry], Sequence[Mapping[str, Any]], list[Stored], list[Delivery]]:
            entries = [
                one for one in tx.journal.by_correlation(correlation_id) if institution in {None, one.institution}
            ]
            audited = tx.audit.search(criteria, institution=institution, limit=MAX_LIST, before=None)
            cases = {one.id: one for one in tx.records.search(query, UNRESTRICTED).matches}
            # What comes later in a case (a result, a report) has an id of its own; the Task it moved leads on from there.
            for id_ in sorted(_moved(audited) - cases.keys())[:MAX_LIST]:
                found = tx.records.get("Task", id_, UNRESTRICTED)
                if found is not None and not found.deleted:
                    cases[id_] = found
            tasks = [one for one in cases.values() if self._takes_part(one, institution)]
            sent = {one.id: one for one in tx.outbox.by_correlation(correlation_id)}
            for task in tasks:
                sent |= {one.id: one for one in tx.outbox.deliveries({"task_id": task.id}, limit=MAX_LIST)}
            return entries, audited, tasks, [sent[id_] for id_ in sorted(sent) if _concerns(sent[id_], institution)]

        entries, audited, tasks, deliveries = self._services.database.read(read)
        if not (entries or audited or tasks or deliveries):
            raise HubError(Category.NOT_FOUND, "Nothing has this correlation id.", where="correlation_id")
        touched = sorted({reference for event in audited for reference in _references(event)})
        return {
            "correlation_id": correlation_id,
            "arrivals": [{**shown_entry(one), "acknowledgement": text_of(one.ack or b"")} for one in entries],
            "acts": [_act(event) for event in reversed(audited)],
            "records": touched,
            "tasks": [_task(one) for one in tasks],
            "deliveries": [{**_delivery(one), "acknowledgement": text_of(one.ack or b"")} for one in deliveries],
        }

    def _takes_part(self, task: Stored, institution: str | None) -> bool:
        if institution in {None, task.owner}:
            return True
        resource = loads(task.body)
        parties = (self._services.directory.resolve(_reference(resource.get(name))) for name in ("requester", "owner"))
        return any(party is not None and party[0] == institution for party in parties)

    # --- work by hand ----------------------------------------------------------------------------------------

    def work_items(self, actor: Actor) -> list[Json]:
        """Return the open Tasks that wait for a decision by hand, oldest first."""
        institution = limit_of(actor)
        query = parse(
            "Task",
            [
                ("status", "requested,ready,received,accepted,in-progress"),
                ("_sort", "_lastUpdated"),
                ("_count", "1000"),
            ],
        )
        page = self._services.database.read(lambda tx: tx.records.search(query, UNRESTRICTED))
        found = []
        for stored in page.matches:
            task = loads(stored.body)
            codes = [
                coding.get("code", "")
                for coding in task.get("code", {}).get("coding", ())
                if str(coding.get("system", "")).endswith(f"/CodeSystem/{WORK_ITEM}")
                and coding.get("code") not in _RUNNING
            ]
            if codes and (institution in {None, stored.owner} or institution == self._requester(task)):
                focus = task.get("focus", {})
                found.append(
                    {
                        "task": f"Task/{stored.id}",
                        "code": codes[0],
                        "institution": stored.owner,
                        "since": task.get("authoredOn", instant(stored.last_updated)),
                        "focus": focus.get("reference") or focus.get("identifier", {}).get("value", ""),
                    }
                )
        return found

    def _requester(self, task: Json) -> str | None:
        party = self._services.directory.resolve(_reference(task.get("requester")))
        return party[0] if party is not None else None

    def settle(self, actor: Actor, imaging_study_id: str, service_request_id: str | None) -> None:
        """Tie a study that waits to an order of its institution, or to none; durable on return.

        Raises:
            HubError: not-found when the study is out of the asker's reach, or the order is not the study's institution's.
        """
        institution = limit_of(actor)

        def work(tx: Tx) -> None:
            stored = tx.records.get("ImagingStudy", imaging_study_id, UNRESTRICTED)
            owner = stored.owner if stored is not None and not stored.deleted else ""
            study = tx.imaging.study_by_resource(owner, imaging_study_id) if institution in {None, owner} else None
            if study is None:
                raise HubError(
                    Category.NOT_FOUND, "There is no such study.", where=f"ImagingStudy/{imaging_study_id[:64]}"
                )
            key = StudyKey(owner=owner, StudyInstanceUID=study["StudyInstanceUID"])
            self._services.imaging.settle_unmatched(tx, key, service_request_id, actor)

        self._services.database.write(work)

    def settle_conflict(self, actor: Actor, task_id: str, decision: str) -> None:
        """Decide about images that contradict what was here; durable on return.

        Raises:
            HubError: as :func:`hub.conflicts.settle`; forbidden for who may not decide.
        """
        limit_of(actor)
        self._services.database.write(lambda tx: conflicts.settle(tx, self._services, task_id, decision, actor))

    def _audit(self, tx: Tx, actor: Actor, subtype: str, *, detail: str, correlation_id: str = "") -> None:
        tx.audit.write(
            AuditLine(
                type="admin",
                action="E",
                subtype=subtype,
                actor=actor,
                recorded_at=self._services.clock(),
                correlation_id=correlation_id,
                detail=detail,
            )
        )


def _leads_to(destination: str, institution: str | None) -> bool:
    return institution is None or destination.partition("/")[0] == institution


def _concerns(delivery: Delivery, institution: str | None) -> bool:
    return institution is None or delivery.owner == institution or _leads_to(delivery.destination, institution)


def _age(now: Any, oldest: Any) -> float | None:
    return None if oldest is None else round(max(timedelta(0), now - oldest).total_seconds(), 1)


def _plain(row: Mapping[str, Any]) -> Json:
    """Return *row* with moments as FHIR instants."""
    return {name: instant(value) if hasattr(value, "astimezone") else value for name, value in row.items()}


def _delivery(delivery: Delivery) -> Json:
    return {
        "id": delivery.id,
        "destination": delivery.destination,
        "lane": delivery.lane,
        "kind": delivery.kind,
        "owner": delivery.owner,
        "control_id": delivery.control_id,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "created": instant(delivery.created_at),
        "next": instant(delivery.next_at) if delivery.state == "pending" else None,
        "acknowledged": instant(delivery.acked_at) if delivery.acked_at else None,
        "last_error": delivery.last_error,
        "size": len(delivery.payload),
        "task": f"Task/{delivery.task_id}" if delivery.task_id else "",
        "correlation_id": delivery.correlation_id,
    }


def _task(stored: Stored) -> Json:
    task = loads(stored.body)
    return {
        "task": f"Task/{stored.id}",
        "code": _code(task.get("code")),
        "status": task.get("status", ""),
        "business_status": _code(task.get("businessStatus")),
        "requester": _reference(task.get("requester")),
        "owner": _reference(task.get("owner")),
        "last_updated": instant(stored.last_updated),
    }


def _code(concept: Any) -> str:
    codings = concept.get("coding", ()) if isinstance(concept, Mapping) else ()
    return str(codings[0].get("code", "")) if codings else ""


def _reference(value: Any) -> str:
    return str(value.get("reference", "")) if isinstance(value, Mapping) else ""


def _act(event: Mapping[str, Any]) -> Json:
    subtype = event.get("subtype") or [{}]
    who = event.get("agent", [{}])[0]
    return {
        "recorded": event.get("recorded", ""),
        "what": subtype[0].get("code", ""),
        "action": event.get("action", ""),
        "outcome": event.get("outcome", ""),
        "who": who.get("who", {}).get("identifier", {}).get("value", ""),
        "entities": list(_references(event)),
    }


def _references(event: Mapping[str, Any]) -> Sequence[str]:
    found = (str(entity.get("what", {}).get("reference", "")) for entity in event.get("entity", ()))
    return [one for one in found if one]


def _moved(events: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the ids of the Tasks that *events* wrote."""
    return {
        one.removeprefix("Task/")
        for event in events
        if event.get("action") in {"C", "U"}
        for one in _references(event)
        if one.startswith("Task/")
    }
