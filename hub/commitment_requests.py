"""Storage commitment that the hub asks for: whether a partner vouches for what it was sent (PS3.4 annex J).

An AE whose Endpoint has the setting ``commitment`` is asked about every delivery of images that it acknowledges. What is
awaited is in the database alone: the request is a delivery of its own, its deadline is a timer, and the outcome is part of the
acknowledgement of the images. What a partner does not vouch for is sent to it once more; what it then still refuses, or never
reports on, becomes a work item that closes by itself when the last of its instances is committed.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from fhir_mappings.dicom.commitment import Information
from fhir_mappings.dicom.imaging_study import study_identifier
from fhir_mappings.identifiers import resource_id
from fhir_mappings.json import dumps, loads
from hub.access import UNRESTRICTED
from hub.actor import HUB, Actor
from hub.clock import instant
from hub.commitment import Request
from hub.delivery import asks_for, lane_name
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.ports import AuditLine, Delivery, Grant, MemberEndpoint, NewDelivery, NewEntry, NewVersion, Timer, Tx

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("hub.commitment")

#: ``NewDelivery.kind`` of a request, and the kind of the timer that ends the wait for its report.
KIND = "commitment-request"
OVERDUE = "commitment"
#: Code of the work item.
UNCOMMITTED = "uncommitted-images"
_DISPLAY = "对方未确认保存的影像 (images that a partner does not vouch for)"
#: What an acknowledgement of images says of their commitment.
ASKED, COMMITTED, FAILED, SILENT = "asked", "committed", "failed", "no-report"
#: Header of a delivery that repeats what was not committed: the delivery that it repeats.
_AGAIN = "commitment-again-of"
#: Why an instance that a report does not mention counts as not committed (0008,1197): processing failure.
_NOT_MENTIONED = 0x0110
#: Most deliveries of one study to one destination that are held against each other, as in hub.routing.
_DELIVERIES = 10_000
_LISTED = 50

Json = dict[str, Any]


class CommitmentRequests:
    """What the worker and the DIMSE door call."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def delivered(self, tx: Tx, delivery: Delivery) -> None:
        """Ask for commitment of what *delivery*, acknowledged in this transaction, has brought to its destination."""
        endpoint = self._services.directory.endpoint(delivery.destination)
        if delivery.kind != "dimse" or endpoint is None or not asks_for(endpoint, "commitment"):
            return
        transaction = f"2.25.{uuid.uuid4().int}"
        pairs = sorted({(one["SOPClassUID"], one["SOPInstanceUID"]) for one in _instances(delivery)})
        asked = {
            "transaction": transaction,
            "asker": self._services.settings.ae_title,
            "delivery": delivery.id,
            "references": pairs,
        }
        number = tx.outbox.enqueue(
            NewDelivery(
                destination=delivery.destination,
                # A partner that refuses the question must still get the patient's next images.
                lane=lane_name(delivery.destination, transaction, slot=KIND),
                kind=KIND,
                payload=dumps(asked),
                owner=delivery.owner,
                control_id=transaction,
                content_type="application/json",
                correlation_id=delivery.correlation_id,
                patient_id=delivery.patient_id,
            )
        )
        self._mark(tx, delivery.id, {"transaction": transaction, "outcome": ASKED})
        self._await(tx, transaction, number)

    def reported(self, envelope: Envelope, endpoint: MemberEndpoint, report: Information) -> None:
        """Record what *endpoint* reports; durable on return. The same report again changes nothing.

        Raises:
            HubError: not-found when its institution was not asked in such a transaction.
        """
        self._services.database.write(lambda tx: self._record(tx, envelope, endpoint, report))

    def overdue(self, tx: Tx, timer: Timer) -> None:
        """Raise the work item of a request whose report has not come in time; one that has not left yet waits on."""
        request = tx.outbox.get(int(timer.payload["request"]))
        if request is None:
            return
        images = _locked(tx, request)
        mark = _mark(images)
        if images is None or mark.get("transaction") != request.control_id or mark.get("outcome") != ASKED:
            return
        if request.state == "pending":
            self._await(tx, request.control_id, request.id)
            return
        log.warning("commitment_not_reported", destination=request.destination, request=request.id)
        self._mark(tx, images.id, {**mark, "outcome": SILENT})
        tx.audit.write(self._line(images, HUB, request, f"no report from {images.destination}", outcome="4"))
        self._work_item(tx, images, wanted=True)

    # --- what a report does --------------------------------------------------------------------------------------

    def _record(self, tx: Tx, envelope: Envelope, endpoint: MemberEndpoint, report: Information) -> None:
        request = self._request(tx, endpoint, report.TransactionUID)
        images = _locked(tx, request)
        mark = _mark(images)
        asked = {one.SOPInstanceUID for one in Request.unpacked(request.payload).references}
        reasons = _missing(asked, report)
        current = images is not None and mark.get("transaction") == report.TransactionUID
        known = current and mark.get("outcome") in {COMMITTED, FAILED}
        outcome = "duplicate" if known else FAILED if reasons else COMMITTED
        tx.journal.append(self._entry(envelope, report, asked, reasons, outcome))
        if images is None or not current or known:
            return
        said = f"{len(asked) - len(reasons)} of {len(asked)} committed by {images.destination}"
        tx.audit.write(self._line(images, envelope.actor, request, said, outcome="4" if reasons else "0"))
        tx.timers.cancel(OVERDUE, report.TransactionUID)
        if not reasons:
            self._mark(tx, images.id, {**mark, "outcome": COMMITTED})
            self._work_item(tx, images, wanted=False)
            return
        log.warning("not_committed", destination=images.destination, delivery=images.id, instances=len(reasons))
        failed = {uid: f"{reason:04X}" for uid, reason in sorted(reasons.items())}
        self._mark(tx, images.id, {**mark, "outcome": FAILED, "failed": failed})
        again = _AGAIN not in images.headers
        if again:
            self._send_again(tx, images, failed)
        self._work_item(tx, images, wanted=not again)

    def _request(self, tx: Tx, endpoint: MemberEndpoint, transaction: str) -> Delivery:
        found = tx.outbox.deliveries({"control_id": transaction, "kind": KIND}, limit=10) if transaction else []
        for one in found:
            # Some archives report by another AE title than the one that was asked, but none by another institution's.
            to = self._services.directory.endpoint(one.destination)
            if to is not None and to.member == endpoint.member:
                return one
        raise HubError(Category.NOT_FOUND, "The Transaction UID is of no request of the hub's.", where="(0008,1195)")

    def _send_again(self, tx: Tx, images: Delivery, failed: Mapping[str, str]) -> None:
        rows = [one for one in _instances(images) if one["SOPInstanceUID"] in failed]
        tx.outbox.enqueue(
            NewDelivery(
                destination=images.destination,
                lane=images.lane,
                kind="dimse",
                payload=dumps({"instances": rows}),
                owner=images.owner,
                control_id=images.control_id,
                content_type=images.content_type,
                headers={_AGAIN: str(images.id)},
                correlation_id=images.correlation_id,
                task_id=images.task_id,
                patient_id=images.patient_id,
            )
        )

    # --- parts -----------------------------------------------------------------------------------------------

    def _await(self, tx: Tx, transaction: str, request: int) -> None:
        due = self._services.clock() + timedelta(seconds=self._services.settings.commitment_wait_s)
        tx.timers.set(Timer(kind=OVERDUE, key=transaction, due_at=due, payload={"request": request}))

    def _mark(self, tx: Tx, images: int, mark: Mapping[str, Any]) -> None:
        stored = tx.outbox.get(images)
        assert stored is not None
        said = loads(stored.ack) if stored.ack else {}
        tx.outbox.annotate(images, ack=dumps({**said, "commitment": {**mark, "at": instant(self._services.clock())}}))

    def _entry(
        self, envelope: Envelope, report: Information, asked: set[str], reasons: Mapping[str, int], outcome: str
    ) -> NewEntry:
        # What was asked is in the outbox, so what was said of it is told whole by what is missing.
        body = dumps({"transaction": report.TransactionUID, "asked": len(asked), "failed": dict(reasons)})
        return NewEntry(
            door=envelope.door,
            institution=envelope.actor.institution,
            peer=envelope.peer,
            correlation_id=envelope.correlation_id,
            message_type="N-EVENT-REPORT",
            digest=hashlib.sha256(body).hexdigest(),
            size=len(body),
            body=body,
            received_at=self._services.clock(),
            sending_application=envelope.actor.client,
            control_id=report.TransactionUID,
            outcome=outcome,
        )

    def _line(self, images: Delivery, actor: Actor, request: Delivery, detail: str, *, outcome: str) -> AuditLine:
        return AuditLine(
            type="dicom",
            action="E",
            subtype="storage-commitment-report",
            actor=actor,
            recorded_at=self._services.clock(),
            outcome=outcome,
            patients=((images.owner, images.patient_id),) if images.patient_id else (),
            entities=(images.control_id, request.control_id),
            correlation_id=images.correlation_id,
            detail=f"delivery {images.id}: {detail}",
        )

    def _work_item(self, tx: Tx, images: Delivery, *, wanted: bool) -> None:
        """Bring the work item of study and destination up to date; it is opened where *wanted*, and closed when empty."""
        id_ = resource_id(images.owner, UNCOMMITTED, "Task", f"{images.control_id}|{images.destination}")
        stored = tx.records.get("Task", id_, UNRESTRICTED)
        before: Json | None = loads(stored.body) if stored is not None and not stored.deleted else None
        is_open = before is not None and before["status"] != "completed"
        if not is_open and not wanted:
            return
        missing = _uncommitted(tx, images)
        now = self._services.clock()
        task: Json
        if before is not None and is_open:
            task = before | {"lastModified": instant(now)}
            if not missing:
                task["status"] = "completed"
        else:
            task = self._task(tx, id_, images)
        if missing:
            task["input"] = _inputs(images, missing)
        tx.records.put_many([NewVersion(resource=task, owner=HUB.institution)])
        if images.owner != HUB.institution and not is_open:
            tx.grants.open(Grant(grantee=images.owner, target_type="Task", target_id=id_, task_id=id_), now=now)

    def _task(self, tx: Tx, id_: str, images: Delivery) -> Json:
        now = instant(self._services.clock())
        system = f"{self._services.settings.base_url}/CodeSystem/work-item"
        task: Json = {
            "resourceType": "Task",
            "id": id_,
            "status": "requested",
            "intent": "order",
            "code": {"coding": [{"system": system, "code": UNCOMMITTED, "display": _DISPLAY}]},
            "authoredOn": now,
            "lastModified": now,
            "focus": {"identifier": study_identifier(images.control_id)},
        }
        for element, code in (("owner", HUB.institution), ("requester", images.owner)):
            member = tx.members.get(code)
            if member is not None:
                task[element] = {"reference": f"Organization/{member.organization_id}"}
        return task


def _inputs(images: Delivery, missing: set[str]) -> list[Json]:
    listed = "\n".join(sorted(missing)[:_LISTED])
    return [
        {"type": {"text": "来源机构 (institution)"}, "valueString": images.owner},
        {"type": {"text": "检查 (Study Instance UID)"}, "valueString": images.control_id},
        {"type": {"text": "目的地 (destination)"}, "valueString": images.destination},
        {"type": {"text": "未确认影像数 (images)"}, "valueInteger": len(missing)},
        {"type": {"text": "影像 (SOP Instance UIDs)"}, "valueString": listed},
    ]


def _instances(images: Delivery) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = loads(images.payload)["instances"]
    return rows


def _locked(tx: Tx, request: Delivery) -> Delivery | None:
    """Return the delivery of images that *request* asks about; what is known of its study and destination stays until the end.

    The same report may come by two doors at once, and a deadline may pass while it comes.
    """
    number = int(loads(request.payload)["delivery"])
    images = tx.outbox.get(number)
    if images is None:
        return None
    tx.records.lock_condition(f"{UNCOMMITTED}|{images.owner}|{images.control_id}|{images.destination}")
    return tx.outbox.get(number)


def _mark(images: Delivery | None) -> Json:
    said: Json = loads(images.ack).get("commitment", {}) if images is not None and images.ack else {}
    return said


def _missing(asked: set[str], report: Information) -> dict[str, int]:
    """Return what is not committed of what was *asked*, each with its reason; no word is no promise."""
    promised = {one.SOPInstanceUID for one in report.references}
    reasons = {one.SOPInstanceUID: reason for one, reason in report.failed if one.SOPInstanceUID in asked}
    return {**dict.fromkeys(asked - promised, _NOT_MENTIONED), **reasons}


def _uncommitted(tx: Tx, images: Delivery) -> set[str]:
    """Return the instances of a study for which its destination was asked to vouch and does not."""
    criteria = {
        "control_id": images.control_id,
        "kind": "dimse",
        "owner": images.owner,
        "destination": images.destination,
    }
    safe: set[str] = set()
    asked: set[str] = set()
    for one in tx.outbox.deliveries(criteria, limit=_DELIVERIES):
        mark = _mark(one)
        named = {row["SOPInstanceUID"] for row in _instances(one)}
        failed = set(mark.get("failed", ()))
        if mark.get("outcome") in {FAILED, SILENT}:
            asked |= failed or named
        if mark.get("outcome") in {COMMITTED, FAILED}:
            safe |= named - failed
    return asked - safe
