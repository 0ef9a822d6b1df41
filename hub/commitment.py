"""Storage commitment: the hub vouches for an instance only after it has read it again (PS3.4 annex J).

A request is queued as a delivery to the asker, so that it survives a restart and the answer is tried until the asker has
it. The judgement is made when the answer leaves: each object is read from the store and its SHA-256 recomputed. An
institution is answered about its own objects only; those of others are unknown to it, as everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fhir_mappings.dicom.commitment import MAX_REFERENCES, Information, Reference
from fhir_mappings.dicom.scanner import valid_uid
from fhir_mappings.json import dumps, loads
from hub.access import Scope
from hub.attribute_matching import Match
from hub.delivery import lane_name
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.ports import AuditLine, InstanceRow, MemberEndpoint, NewDelivery, NewEntry, Tx

if TYPE_CHECKING:
    from hub.boot import Services

#: ``NewDelivery.kind`` of a report.
KIND = "commitment"
#: Failure Reason (0008,1197), PS3.3 C.14.1.1.
NO_SUCH_INSTANCE, CLASS_CONFLICT, PROCESSING_FAILURE = 0x0112, 0x0119, 0x0110
_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one transaction asks.

    Attributes:
        asker: the AE title that asked and gets the answer.
    """

    TransactionUID: str
    references: tuple[Reference, ...]
    asker: str

    def packed(self) -> bytes:
        """Return the payload of the delivery that answers this request."""
        pairs = [[one.SOPClassUID, one.SOPInstanceUID] for one in self.references]
        return dumps({"transaction": self.TransactionUID, "asker": self.asker, "references": pairs})

    @classmethod
    def unpacked(cls, payload: bytes) -> Request:
        """Return the request of a delivery; raises ValueError, KeyError or TypeError when it is none."""
        content = loads(payload)
        return cls(
            TransactionUID=str(content["transaction"]),
            asker=str(content["asker"]),
            references=tuple(Reference(str(one), str(other)) for one, other in content["references"]),
        )


class CommitmentService:
    """What the DIMSE door and the sender of reports call."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def accept(self, envelope: Envelope, request: Request, endpoint: MemberEndpoint) -> None:
        """Queue *request* for *endpoint*, whose AE asked; durable on return. The same request again changes nothing.

        Raises:
            HubError: incorrect when the request breaks PS3.4 J.3.2; conflict when its Transaction UID was used for
                other instances.
        """
        check(request)
        payload = request.packed()

        def work(tx: Tx) -> None:
            earlier = tx.outbox.deliveries({"control_id": request.TransactionUID, "destination": endpoint.id}, limit=10)
            mine = [one for one in earlier if one.kind == KIND]
            if any(one.payload != payload for one in mine):
                raise HubError(
                    Category.CONFLICT,
                    "The Transaction UID was used for other instances.",
                    where="(0008,1195)",
                    remedy="Give each request a UID of its own.",
                )
            tx.journal.append(self._entry(envelope, request, payload))
            tx.audit.write(self._line(envelope, request))
            if not any(one.state == "pending" for one in mine):
                tx.outbox.enqueue(
                    NewDelivery(
                        destination=endpoint.id,
                        # Reports need no order among them, so one that is refused holds up no other.
                        lane=lane_name(endpoint.id, request.TransactionUID, slot=KIND),
                        kind=KIND,
                        payload=payload,
                        owner=envelope.actor.institution,
                        control_id=request.TransactionUID,
                        content_type="application/json",
                        correlation_id=envelope.correlation_id,
                    )
                )

        self._services.database.write(work)

    def record(self, envelope: Envelope, request: Request) -> None:
        """Journal and audit a *request* that is answered at once, on the association it came by; durable on return.

        Raises:
            HubError: incorrect as :meth:`accept`.
        """
        check(request)

        def work(tx: Tx) -> None:
            tx.journal.append(self._entry(envelope, request, request.packed()))
            tx.audit.write(self._line(envelope, request))

        self._services.database.write(work)

    def report(self, request: Request, *, owner: str, stopping: Callable[[], bool] = lambda: False) -> Information:
        """Return what can be vouched for: each object of *owner* is read again and its hash recomputed.

        Raises:
            HubError: unavailable when database or object store cannot answer now, interrupted when the hub is *stopping*;
                nothing is said of any instance then.
        """
        committed: list[Reference] = []
        failed: list[tuple[Reference, int]] = []
        for page in _pages(request.references):
            rows = self._rows(page, owner)
            for reference in page:
                if stopping():
                    raise HubError(Category.INTERRUPTED, "The hub is stopping.", remedy="Ask again in a minute.")
                reason = self._judge(reference, rows.get(reference.SOPInstanceUID))
                if reason:
                    failed.append((reference, reason))
                else:
                    committed.append(reference)
        return Information(TransactionUID=request.TransactionUID, references=tuple(committed), failed=tuple(failed))

    def _judge(self, reference: Reference, row: InstanceRow | None) -> int:
        if row is None:
            return NO_SUCH_INSTANCE
        if row.SOPClassUID != reference.SOPClassUID:
            return CLASS_CONFLICT
        try:
            sound = self._services.objects.verify(row.digest)
        except HubError as error:
            if error.transient:
                raise
            sound = False
        return 0 if sound else PROCESSING_FAILURE

    def _rows(self, references: Sequence[Reference], owner: str) -> Mapping[str, InstanceRow]:
        wanted = Match(
            keyword="SOPInstanceUID", vr="UI", kind="any", values=tuple({one.SOPInstanceUID for one in references})
        )
        rows = self._services.database.read(
            lambda tx: tx.imaging.instances(Scope(institution=owner), [wanted], limit=2 * _PAGE, owner=owner)
        )
        return {row.SOPInstanceUID: row for row in rows}

    def _entry(self, envelope: Envelope, request: Request, payload: bytes) -> NewEntry:
        return NewEntry(
            door=envelope.door,
            institution=envelope.actor.institution,
            peer=envelope.peer,
            correlation_id=envelope.correlation_id,
            message_type="N-ACTION",
            digest=hashlib.sha256(payload).hexdigest(),
            size=len(payload),
            # Inline whatever its length: it names objects and is none, and so needs no place in the object store.
            body=payload,
            received_at=self._services.clock(),
            sending_application=envelope.actor.client,
            control_id=request.TransactionUID,
            outcome="queued",
        )

    def _line(self, envelope: Envelope, request: Request) -> AuditLine:
        return AuditLine(
            type="dicom",
            action="E",
            subtype="storage-commitment",
            actor=envelope.actor,
            recorded_at=self._services.clock(),
            entities=(request.TransactionUID,),
            count=len(request.references),
            correlation_id=envelope.correlation_id,
        )


def check(request: Request) -> None:
    """Raise HubError(incorrect) unless *request* has what PS3.4 table J.3-1 demands."""
    if not valid_uid(request.TransactionUID):
        raise HubError(Category.INCORRECT, "Transaction UID is missing or not a UID.", where="(0008,1195)")
    if not 1 <= len(request.references) <= MAX_REFERENCES:
        raise HubError(
            Category.INCORRECT,
            f"Referenced SOP Sequence needs 1 to {MAX_REFERENCES} items.",
            where="(0008,1199)",
            remedy="Ask in several transactions.",
        )
    if not all(valid_uid(one.SOPClassUID) and valid_uid(one.SOPInstanceUID) for one in request.references):
        raise HubError(Category.INCORRECT, "A referenced UID is missing or not a UID.", where="(0008,1199)")


def _pages(references: Iterable[Reference]) -> Iterator[list[Reference]]:
    page: list[Reference] = []
    for reference in references:
        page.append(reference)
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page
