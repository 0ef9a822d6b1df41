"""The answer to a message about prescriptions, dispenses or administrations (ORP^O10, RRE^O12, RRD^O14, RRA^O18).

What such a message commands is done or refused at once (:mod:`hub.prescriptions`), so that one answer holds all its orders.
It goes to a member whose Endpoint has the setting ``order-answers``, in the same commit as what it tells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from fhir_mappings.hl7v2.messages.order_groups import Order, read_orders
from fhir_mappings.hl7v2.outbound.encoding import encode_or_escape
from fhir_mappings.hl7v2.outbound.orp_o10 import ANSWERS, AnsweredOrder, orp_o10
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.segments import orc
from fhir_mappings.hl7v2.tokenizer import Message
from fhir_mappings.json import loads
from hub.access import scope_of
from hub.acknowledge import refused
from hub.arrival import Arrival
from hub.clock import Clock
from hub.config import Settings
from hub.directory import Directory
from hub.dispatch.order_answers import wants_answers
from hub.ports import MemberEndpoint, NewDelivery, Tx
from hub.prescriptions import Judged
from hub.v2_out import acknowledgements_of


class PrescriptionAnswers:
    """Writes the answers and puts them into the outbox."""

    def __init__(self, settings: Settings, directory: Directory, clock: Clock) -> None:
        self._settings = settings
        self._directory = directory
        self._clock = clock

    def reader(self, institution: str) -> MemberEndpoint | None:
        """Return the endpoint of *institution* that reads such answers; ``None`` for none."""
        endpoint = self._directory.reach(institution, "mllp")
        return endpoint if endpoint is not None and wants_answers(endpoint) else None

    def send(self, tx: Tx, arrival: Arrival, verdicts: Sequence[Judged], seq: int, patient_id: str) -> None:
        """Queue the answer to *arrival*, entry *seq* of the journal, if its sender reads it; once for each entry."""
        endpoint = self.reader(arrival.institution)
        if endpoint is None or arrival.message is None or arrival.event not in ANSWERS or not verdicts:
            return
        control_id = f"YX{hashlib.sha256(f'{seq}|prescriptions'.encode()).hexdigest()[:16].upper()}"
        if tx.outbox.deliveries({"control_id": control_id}, limit=1):
            return
        told = _told(arrival.message, verdicts)
        dialect = self._directory.dialect(endpoint)
        stored = tx.records.get("Patient", patient_id, scope_of(arrival.actor)) if patient_id else None
        text = orp_o10(
            told,
            asked_by=arrival.event,
            original_control_id=arrival.field("MSH-10"),
            original_version=arrival.field("MSH-12.1"),
            patient=loads(stored.body) if stored is not None and not stored.deleted else {},
            target=OutboundTarget(
                institution=endpoint.member,
                application=endpoint.sending_application or "HIS",
                facility=endpoint.sending_facility,
                dialect=dialect,
                acknowledgements=acknowledgements_of(endpoint),
                sending_application=self._settings.sending_application,
                sending_facility=self._settings.sending_facility,
            ),
            control_id=control_id,
            now=self._clock(),
        )
        payload, _ = encode_or_escape(text, dialect.charset_out)
        tx.outbox.enqueue(
            NewDelivery(
                destination=endpoint.id,
                lane=f"{endpoint.id}|{patient_id}",
                kind="mllp",
                payload=payload,
                owner=arrival.institution,
                control_id=control_id,
                content_type="x-application/hl7-v2+er7",
                correlation_id=arrival.correlation_id,
                patient_id=patient_id,
            )
        )


def _told(message: Message, verdicts: Sequence[Judged]) -> list[AnsweredOrder]:
    """Return what is said of each order that *verdicts* are about; others of the message are answered by their workflows."""
    groups = read_orders(message)
    told: list[AnsweredOrder] = []
    for verdict in verdicts:
        group = next(one for one in groups if _numbers(one) == verdict.numbers)
        groups.remove(group)
        error = refused(verdict.error).errors[0] if verdict.error is not None else None
        told.append(AnsweredOrder(orc=group.orc, error=error))
    return told


def _numbers(order: Order) -> tuple[str, str]:
    # As the translation reads them: a prescription has no OBR, and one beside it is about something else.
    found = orc.numbers(order.orc, None)
    return found.placer, found.filler
