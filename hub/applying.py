"""One HL7 v2 message applied in one transaction: resources, Provenance, workflow steps and the audit line.

DESIGN rules 1, 6 and 7. What a message is at the door and when it is answered is :mod:`hub.messages`; here it becomes
records, or nothing of it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import structlog

from fhir_mappings.hl7v2.base import Translation
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.translate import translate
from hub import commands, prescriptions, uncarried_orders
from hub.access import scope_of
from hub.arrival import Arrival
from hub.dispatch.prescription_answers import PrescriptionAnswers
from hub.errors import Category, HubError
from hub.ports import AuditLine, Entry, NewDelivery, ObjectRef, Tx
from hub.provenance import Context
from hub.translate import Applied, apply, store_attachments
from hub.unmapped_codes import UnmappedCounter

if TYPE_CHECKING:
    from hub.boot import Services

T = TypeVar("T")

log = structlog.get_logger("hub.applying")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A message whose translation is at hand, before the transaction."""

    arrival: Arrival
    translation: Translation
    mapping: MappingContext
    attachments: dict[str, ObjectRef]


class Applying:
    """What the door and the worker share: a message made ready, applied and noted."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._unmapped = UnmappedCounter(services.clock)
        self._prescriptions = PrescriptionAnswers(services.settings, services.directory, services.clock)

    def ready(self, arrival: Arrival) -> Ready:
        """Return *arrival* translated, its attachments durable; done before the transaction.

        Raises:
            MappingError: it cannot be translated.
            HubError: its feed does not take it, or the object store cannot work now.
        """
        assert arrival.message is not None
        assert arrival.endpoint is not None
        arrival.check_processing_id()
        directory = self._services.directory
        mapping = replace(directory.context(arrival.endpoint), received_at=arrival.received_at)
        translation = translate(arrival.message, mapping)
        return Ready(
            arrival=arrival,
            translation=translation,
            mapping=mapping,
            attachments=store_attachments(self._services.objects, translation),
        )

    def apply(self, tx: Tx, ready: Ready, seq: int, later: NewDelivery | None, *, again: bool = False) -> Applied:
        """Write all that a message means inside *tx* and return what changed; *later* is sent when that is durable.

        A message that is applied *again* is not counted anew.

        Raises:
            HubError: the records or the workflow refuse it; nothing of it may then be committed.
        """
        arrival = ready.arrival
        # A partner's answer belongs to the request it answers, which another institution owns.
        translation = self._services.tasks.relinked(
            tx, ready.translation, arrival.actor, correlation_id=arrival.correlation_id
        )
        translation, verdicts = prescriptions.judged(tx, translation, scope_of(arrival.actor))
        translation = uncarried_orders.withdrawn(tx, translation, scope_of(arrival.actor))
        applied = apply(
            tx,
            translation,
            Context(
                owner=arrival.institution,
                base=ready.mapping.base,
                journal_seq=seq,
                correlation_id=arrival.correlation_id,
                now=self._services.clock(),
                repairs=_repairs(arrival),
            ),
            ready.attachments,
        )
        verdicts = prescriptions.after(verdicts, applied.superseded)
        loud = next((one.error for one in verdicts if one.error is not None and one.must_be_heard), None)
        if loud is not None and self._prescriptions.reader(arrival.institution) is None:
            # Nobody would tell its sender; the message is refused as a whole, in its acknowledgement.
            raise loud
        self._services.imaging.match_orders(tx, applied.changed, owner=arrival.institution)
        self._services.identity.suggest(tx, applied.changed, owner=arrival.institution)
        self._services.news.changed(
            tx, applied.changed, origin=arrival.institution, correlation_id=arrival.correlation_id
        )
        if translation.workflow_events:
            carried_out = self._services.tasks.on_message_events(
                tx, translation, actor=arrival.actor, correlation_id=arrival.correlation_id
            )
            issues = carried_out.issues
            if not carried_out.tasks:
                issues += commands.unmoved(translation)
            applied = replace(applied, issues=(*applied.issues, *issues))
        self._prescriptions.send(tx, arrival, verdicts, seq, applied.patient_id or "")
        if later is not None:
            tx.outbox.enqueue(later)
        self.audit(tx, arrival, applied)
        if not again:
            self._unmapped.note(tx, arrival.institution, ready.translation.unmapped, seq)
        return applied

    def write(self, work: Callable[[Tx], T]) -> T:
        """Commit *work* and return what it returns; it may run twice."""
        try:
            return self._services.database.write(work)
        except HubError as error:
            if error.category is not Category.CONFLICT:
                raise
            # Another node wrote one of the same resources first; on its result the message is judged anew.
            return self._services.database.write(work)

    def audit(self, tx: Tx, arrival: Arrival, applied: Applied, outcome: str = "0") -> None:
        """Write the audit line of a message; *outcome* is a code of AuditEvent.outcome."""
        tx.audit.write(
            AuditLine(
                type="hl7v2",
                action="C" if outcome == "0" else "E",
                subtype=arrival.event,
                actor=arrival.actor,
                recorded_at=self._services.clock(),
                outcome=outcome,
                patients=((arrival.institution, applied.patient_id),) if applied.patient_id else (),
                entities=applied.changed[:100],
                correlation_id=arrival.correlation_id,
            )
        )


def outcome_of(applied: Applied) -> str:
    """Return what the journal says of a message that was applied; empty when there is nothing to say."""
    notes = ["held: nothing was applied until a person decides who is meant"] if applied.held else []
    if applied.superseded:
        notes.append(f"superseded-on-arrival: {', '.join(applied.superseded[:20])}")
    warnings = [issue for issue in applied.issues if issue.severity == "warning"]
    notes += [f"{issue.where}: {issue.message}" for issue in warnings[:20]]
    return "; ".join(notes)


def _repairs(arrival: Arrival) -> tuple[str, ...]:
    decoded = arrival.decoded
    if decoded.flagged or decoded.disagrees:
        declared = decoded.declared or "not valued"
        return (f"Text read as {decoded.charset} on the evidence '{decoded.evidence}'; MSH-18 was {declared}.",)
    return ()


def log_fault(subject: Arrival | Entry, error: Exception) -> None:
    """Log an unforeseen *error* over *subject*, without a word of the message."""
    # The text of an unforeseen error may quote the message, so only its kind and place are logged.
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else ""
    log.error(
        "message_fault",
        institution=subject.institution,
        correlation_id=subject.correlation_id,
        error=type(error).__name__,
        place=place,
    )
