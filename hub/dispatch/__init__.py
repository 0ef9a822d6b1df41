"""From a workflow's ``Send`` to a delivery in the partner's own protocol, dialect and character set.

The message is built inside the transaction that moves the Task, so that what the partner gets is exactly the state that
was decided; the outbox carries it from there. A partner without an endpoint works in the portal or by FHIR and reads
the Task there, so nothing is sent. :mod:`hub.dispatch.v2` and :mod:`hub.dispatch.fhir` say what goes by which way.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import structlog

from fhir_mappings.hl7v2.ack import AckError
from fhir_mappings.hl7v2.outbound.encoding import encode_or_escape
from hub import workflows
from hub.clock import Clock
from hub.config import Settings
from hub.directory import Directory
from hub.dispatch.fhir import FhirBundles
from hub.dispatch.order_answers import Asked, answered, control_id_of, wants_answers
from hub.dispatch.related import LEAVES, PART_OF_WORK, get, references
from hub.dispatch.v2 import V2Messages
from hub.ports import MemberEndpoint, NewDelivery, ObjectStore, Tx
from hub.workflows.task import plain, reference_in

__all__ = ["LEAVES", "PART_OF_WORK", "Dispatcher", "references"]

log = structlog.get_logger("hub.dispatch")

Json = dict[str, Any]

#: Kinds of endpoints that take resources.
_BY_FHIR = ("fhir", "fhir-message")


class Dispatcher:
    """Builds messages and puts them into the outbox."""

    def __init__(self, settings: Settings, directory: Directory, objects: ObjectStore, clock: Clock) -> None:
        self._directory = directory
        self._objects = objects
        self._v2 = V2Messages(settings, directory, objects, clock)
        self._fhir = FhirBundles(settings, directory, objects, clock)

    def _endpoint(self, institution: str) -> MemberEndpoint | None:
        return self._directory.reach(institution, "mllp", *_BY_FHIR)

    def sends_resources(self, institution: str) -> bool:
        """Return whether *institution* is reached by FHIR, so that it is sent what it may see."""
        endpoint = self._endpoint(institution)
        return endpoint is not None and endpoint.kind in _BY_FHIR

    def send(
        self,
        tx: Tx,
        effect: workflows.Send,
        task: Json,
        *,
        correlation_id: str,
        reason: str = "",
        errors: Sequence[AckError] = (),
    ) -> bool:
        """Queue the message of *effect* for the institution it names, by the first way that institution can be reached.

        *reason* and *errors* say why a command is refused. Returns whether the institution is or has been told.
        """
        endpoint = self._endpoint(effect.institution)
        if endpoint is None:
            log.info("no_endpoint", institution=effect.institution, message=effect.message, task=task["id"])
            return False
        patient = get(tx, plain(reference_in(task.get("for"))))
        control_id = f"YX{secrets.token_hex(8).upper()}"
        asked: Asked | None = None
        if effect.message == "orr_o02":
            asked = self._asked(tx, effect, task, endpoint, correlation_id)
            if asked is None:
                return False
            control_id = control_id_of(task, asked, asked.answer)
            if tx.outbox.deliveries({"control_id": control_id}, limit=1):
                # A Task that is given back and taken on again has been taken on all the time, as its requester sees it.
                return True
        if endpoint.kind in _BY_FHIR:
            kind, content_type = "fhir", "application/fhir+json"
            payload = self._fhir.bundle(tx, effect, task, endpoint, control_id)
        else:
            kind, content_type = "mllp", "x-application/hl7-v2+er7"
            dialect = self._directory.dialect(endpoint)
            text = self._v2.message(
                tx, effect, task, patient or {}, endpoint, dialect, control_id, asked, reason, errors
            )
            if text is None:
                return False
            payload, missing = encode_or_escape(text, dialect.charset_out)
            if missing:
                log.warning("characters_escaped", destination=endpoint.id, control_id=control_id, count=missing)
        group = str(task.get("groupIdentifier", {}).get("value", "")) or correlation_id
        patient_id = str((patient or {}).get("id", ""))
        tx.outbox.enqueue(
            NewDelivery(
                destination=endpoint.id,
                lane=f"{endpoint.id}|{patient_id}",
                kind=kind,
                payload=payload,
                owner=effect.institution,
                control_id=control_id,
                content_type=content_type,
                correlation_id=group,
                task_id=task["id"],
                patient_id=patient_id,
                on_ack="deliver" if effect.message == "oru_r01" else "",
            )
        )
        return True

    def _asked(
        self, tx: Tx, effect: workflows.Send, task: Json, endpoint: MemberEndpoint, correlation_id: str
    ) -> Asked | None:
        """Return the message that *effect* answers; ``None`` where none was sent, or no answer is read."""
        if endpoint.kind in _BY_FHIR or not wants_answers(endpoint):
            # Who works by FHIR reads the Task.
            return None
        request = get(tx, plain(reference_in(task.get("focus")))) or {}
        target = self._v2.target(endpoint, self._directory.dialect(endpoint))
        began = str(task.get("groupIdentifier", {}).get("value", ""))
        return answered(tx, self._objects, request, effect.control, endpoint, target, (correlation_id, began))
