"""Where orders stand, asked for by HL7 v2 (OSQ^Q06, answered by OSR^Q06; chapter 4.4). DESIGN rules 4, 5 and 12.

An asker sees the orders of its own institution and those that the open work of others shows it; a number that is nobody's in its
reach is unknown, whoever else may have given it out. One answer is about one patient. :mod:`hub.query_answers` says how
questions are answered; a feed asks where its Endpoint has the setting ``order-queries``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, Literal

from fhir_mappings.hl7v2.ack import AckError
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.queries import osq
from fhir_mappings.hl7v2.queries.osq import MAX_ORDERS, OrderQuestion, OrderResponse
from fhir_mappings.json import loads
from hub.access import Scope, scope_of
from hub.arrival import Arrival
from hub.errors import Category, HubError
from hub.ports import Stored, Tx
from hub.query_answers import Owners, QueryAnswers
from hub.workflows.task import plain, reference_in

Json = dict[str, Any]

#: Endpoint setting of a feed that may ask.
SETTING = "order-queries"
#: SNOMED CT "patient referral": a ServiceRequest that is no order.
_REFERRAL = "3457005"


class OrderQueries(QueryAnswers[OrderResponse]):
    """Answers questions for orders; safe for many threads."""

    setting = SETTING
    closed = "本接口未开通医嘱状态查询 / This feed may not ask for orders."
    versions = osq.VERSIONS

    def _found(
        self,
        arrival: Arrival,
        target: OutboundTarget,  # noqa: ARG002 - how the answer is written changes nothing of what is found
    ) -> tuple[OrderResponse | None, Owners, int | None]:
        assert arrival.message is not None
        work = partial(_answer, question=osq.read(arrival.message), scope=scope_of(arrival.actor))
        response, owners = self._services.database.read(work)
        return response, owners, len(response.orders)

    def _refusal(self, status: Literal["AE", "AR"], errors: Sequence[AckError]) -> OrderResponse:
        return osq.response_of(status, errors)

    def _text(
        self, arrival: Arrival, response: OrderResponse, target: OutboundTarget, control_id: str, now: datetime
    ) -> str:
        assert arrival.message is not None
        return osq.build(arrival.message, response, target=target, control_id=control_id, now=now)


def _answer(tx: Tx, *, question: OrderQuestion, scope: Scope) -> tuple[OrderResponse, Owners]:
    patients = _patients(tx, question.patient, scope) if question.patient else None
    found = _numbered(tx, question.numbers, scope) if question.numbers else _of_patients(tx, patients or (), scope)
    orders = [(one, body) for one in found.values() if _is_order(body := loads(one.body))]
    if patients is not None:
        orders = [(one, body) for one, body in orders if _subject(body) in patients]
    subjects = {_subject(body) for _, body in orders}
    if len(subjects) > 1 and patients is None:
        raise HubError(
            Category.INCORRECT,
            "这些医嘱号属于多名患者 / The order numbers are of several patients.",
            where="QRD-10",
            remedy="Name the patient in QRD-8, or ask for the orders of one patient at a time.",
            code=204,
        )
    if len(orders) > MAX_ORDERS:
        raise HubError(
            Category.INCORRECT,
            f"医嘱超过 {MAX_ORDERS} 条 / There are more than {MAX_ORDERS} orders.",
            where="QRD-10",
            remedy="Name the orders in QRD-10.",
            code=102,
        )
    known = [(kind, id_) for kind, _, id_ in (one.partition("/") for one in sorted(subjects))]
    stored = next((one for one in tx.records.get_many(known, scope).values() if not one.deleted), None)
    if not orders or stored is None:
        raise HubError(
            Category.NOT_FOUND,
            "未查到医嘱 / No order of this patient or number is known to this sender.",
            where="QRD-10" if question.numbers else "QRD-8",
            remedy="Send your own patient number in QRD-8, and order numbers as they were sent, in QRD-10.",
            code=204,
        )
    orders.sort(key=lambda pair: (pair[0].last_updated, pair[0].id), reverse=True)
    owners = {(one.owner, _subject(body).removeprefix("Patient/")) for one, body in orders}
    response = OrderResponse(status="AA", patient=loads(stored.body), orders=tuple(body for _, body in orders))
    return response, tuple(sorted(owners))


def _patients(tx: Tx, number: str, scope: Scope) -> frozenset[str]:
    """Return the references of the sender's own patient *number*, and of what its merges made the same person."""
    found = tx.records.by_identifier("Patient", None, number, scope, owner=scope.institution)
    ids = {same for one in found for same in (one.id, *tx.records.one_person(one.id))}
    return frozenset(f"Patient/{one}" for one in ids)


def _numbered(tx: Tx, numbers: Sequence[str], scope: Scope) -> dict[str, Stored]:
    return {
        one.id: one
        for number in numbers
        for one in tx.records.by_identifier("ServiceRequest", None, number, scope)
        if not one.deleted
    }


def _of_patients(tx: Tx, patients: Sequence[str] | frozenset[str], scope: Scope) -> dict[str, Stored]:
    return {
        one.id: one
        for patient in sorted(patients)
        for one in tx.records.referring("ServiceRequest", "patient", patient, scope, limit=MAX_ORDERS + 1)
        if not one.deleted
    }


def _subject(order: Json) -> str:
    return plain(reference_in(order.get("subject"))) or ""


def _is_order(request: Json) -> bool:
    codes = {coding.get("code") for one in request.get("category", ()) for coding in one.get("coding", ())}
    return bool(request.get("code")) and _REFERRAL not in codes
