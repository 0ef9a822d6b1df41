"""Tells the operator that an alert starts or clears: the log, a FHIR Communication, and webhooks through the outbox.

https://hl7.org/fhir/R4/communication.html. All that is stored goes in the transaction that opens or closes the alert, so
it is told once, whichever node saw it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog

from fhir_mappings.identifiers import CANONICAL_BASE, resource_id
from fhir_mappings.json import dumps
from hub.actor import HUB
from hub.clock import instant
from hub.delivery import lane_name
from hub.ports import NewDelivery, NewVersion, Tx

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("adapters.worker.alerts")

_CATEGORY = "http://terminology.hl7.org/CodeSystem/communication-category"


class Telling:
    """Opens and clears alerts, each with its message."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def opened(self, key: str, detail: str, now: datetime) -> None:
        """Open the alert *key* and tell of it, unless it is open; durable on return."""

        def work(tx: Tx) -> bool:
            if not tx.alerts.open(key, detail=detail, now=now):
                return False
            self._communicate(tx, key, now, f"告警开始 / Alert: {detail}", raised_at=now, cleared=False)
            self._call(tx, "alert-started", key, detail, raised_at=now, now=now)
            return True

        if self._services.database.write(work):
            log.error("alert_started", key=key, detail=detail)

    def cleared(self, key: str, now: datetime) -> None:
        """Clear the alert *key* and tell of it, unless another node has; durable on return."""

        def work(tx: Tx) -> Mapping[str, Any] | None:
            was = tx.alerts.clear(key)
            if was is not None:
                text = f"告警解除 / Cleared: {was['detail']}"
                self._communicate(tx, key, now, text, raised_at=was["opened_at"], cleared=True)
                self._call(tx, "alert-cleared", key, str(was["detail"]), raised_at=was["opened_at"], now=now)
            return was

        was = self._services.database.write(work)
        if was is not None:
            log.warning("alert_cleared", key=key, lasted_s=round((now - was["opened_at"]).total_seconds()))

    def _call(self, tx: Tx, event: str, key: str, detail: str, *, raised_at: datetime, now: datetime) -> None:
        """Queue what the operator's webhooks are told; the lane is the alert's, so that it starts before it clears."""
        id_ = resource_id(HUB.institution, "alert-webhook", "Communication", f"{key}|{instant(raised_at)}|{event}")
        said = {
            "id": id_,
            "event": event,
            "key": key,
            "detail": detail,
            "since": instant(raised_at),
            "at": instant(now),
        }
        for endpoint in self._services.directory.endpoints(HUB.institution, "webhook"):
            if endpoint.active and endpoint.address:
                tx.outbox.enqueue(
                    NewDelivery(
                        destination=endpoint.id,
                        lane=lane_name(endpoint.id, key),
                        kind="webhook",
                        payload=dumps(said),
                        owner=HUB.institution,
                        control_id=id_,
                        content_type="application/json",
                    )
                )

    def _recipient(self) -> str | None:
        operator = self._services.directory.member(HUB.institution)
        return f"Organization/{operator.organization_id}" if operator is not None else None

    def _communicate(self, tx: Tx, key: str, now: datetime, text: str, *, raised_at: datetime, cleared: bool) -> None:
        business_key = f"{key}|{instant(raised_at)}"
        first = resource_id(HUB.institution, "alert", "Communication", business_key)
        resource: dict[str, Any] = {
            "resourceType": "Communication",
            "id": resource_id(HUB.institution, "alert", "Communication", f"{business_key}|cleared")
            if cleared
            else first,
            "identifier": [{"system": f"{CANONICAL_BASE}/NamingSystem/alert", "value": key}],
            "status": "completed",
            "category": [{"coding": [{"system": _CATEGORY, "code": "alert"}]}],
            "priority": "routine" if cleared else "urgent",
            "sent": instant(now),
            "payload": [{"contentString": text}],
        }
        recipient = self._recipient()
        if recipient is not None:
            resource["recipient"] = [{"reference": recipient}]
        if cleared:
            resource["inResponseTo"] = [{"reference": f"Communication/{first}"}]
        tx.records.put_many([NewVersion(resource=resource, owner=HUB.institution)])
