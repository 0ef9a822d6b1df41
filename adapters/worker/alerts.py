"""Tells the operator once when something stays wrong and once when it is right again: log, metric, Communication.

https://hl7.org/fhir/R4/communication.html. One message at the start and one on clearing is what people who run such
queues ask for; repeating it floods them, and silence is how queues grow for days.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from fhir_mappings.identifiers import CANONICAL_BASE, resource_id
from hub.actor import HUB
from hub.clock import instant
from hub.ports import NewVersion, Tx, UploadingStore

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("adapters.worker.alerts")

_CATEGORY = "http://terminology.hl7.org/CodeSystem/communication-category"
#: Less free space than this share, and than this many bytes, is worth a warning; the object store refuses later.
DISK_SHARE = 0.15
DISK_BYTES = 20 << 30
_UPLOADS = "uploads|"
LONGEST_TURN_S = 5.0


class AlertLoop:
    """Compares what is wrong now with the alerts that are open."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def turn(self) -> float:
        """Open and clear alerts; returns the seconds until the next look.

        Raises:
            HubError: transient, when the stores cannot work now.
        """
        now = self._services.clock()
        wrong = {**self._queues(now), **_disk(self._services.settings.data_dir), **self._uploads()}
        known = {alert["key"]: alert for alert in self._services.database.read(lambda tx: tx.alerts.all())}
        for key in wrong.keys() - known.keys():
            self._open(key, wrong[key], now)
        for key in known.keys() - wrong.keys():
            # What waits on another node is for that node to tell.
            if not key.startswith(_UPLOADS) or key == self._uploads_key():
                self._clear(key, now)
        return max(0.2, min(LONGEST_TURN_S, self._services.settings.queue_alert_s / 4))

    def _queues(self, now: datetime) -> dict[str, str]:
        limit_s = self._services.settings.queue_alert_s
        found: dict[str, str] = {}
        for one in self._services.database.read(lambda tx: tx.outbox.destinations()):
            if one["oldest_at"] is None or (now - one["oldest_at"]).total_seconds() <= limit_s:
                continue
            found[f"queue|{one['destination']}"] = (
                f"目的地 {one['destination']}：最早一条已等待超过 {limit_s:g} 秒，共 {one['depth']} 条，死信 {one['dead']} 条"
                f"{'，已暂停' if one['paused'] else ''}。"
                f" / {one['destination']}: the oldest delivery has waited more than {limit_s:g} s; {one['depth']} wait,"
                f" {one['dead']} dead letters{', paused' if one['paused'] else ''}. Last error: {one['last_error'] or 'none'}"
            )
        return found

    def _uploads(self) -> dict[str, str]:
        settings, objects = self._services.settings, self._services.objects
        limit_s = settings.objects_upload_alert_s
        if not isinstance(objects, UploadingStore) or objects.waiting(max_age_s=LONGEST_TURN_S).oldest_s <= limit_s:
            return {}
        # As with the disk, the text names the limit: how much waits is in the metrics and in /readyz.
        return {
            self._uploads_key(): f"本机暂存的对象等待上传 S3 已超过 {limit_s:g} 秒；数据仍安全，但磁盘会逐渐占满。"
            f" / an object has waited more than {limit_s:g} s for its upload to S3; nothing is lost, but the disk fills up."
        }

    def _uploads_key(self) -> str:
        return f"{_UPLOADS}{self._services.settings.node('objects')}"

    def _open(self, key: str, detail: str, now: datetime) -> None:
        def work(tx: Tx) -> bool:
            if not tx.alerts.open(key, detail=detail, now=now):
                return False
            _communicate(tx, self._recipient(), key, now, f"告警开始 / Alert: {detail}", raised_at=now, cleared=False)
            return True

        if self._services.database.write(work):
            log.error("alert_started", key=key, detail=detail)

    def _clear(self, key: str, now: datetime) -> None:
        def work(tx: Tx) -> Mapping[str, Any] | None:
            was = tx.alerts.clear(key)
            if was is not None:
                text = f"告警解除 / Cleared: {was['detail']}"
                _communicate(tx, self._recipient(), key, now, text, raised_at=was["opened_at"], cleared=True)
            return was

        was = self._services.database.write(work)
        if was is not None:
            log.warning("alert_cleared", key=key, lasted_s=round((now - was["opened_at"]).total_seconds()))

    def _recipient(self) -> str | None:
        operator = self._services.directory.member(HUB.institution)
        return f"Organization/{operator.organization_id}" if operator is not None else None


def _communicate(
    tx: Tx, recipient: str | None, key: str, now: datetime, text: str, *, raised_at: datetime, cleared: bool
) -> None:
    business_key = f"{key}|{instant(raised_at)}"
    first = resource_id(HUB.institution, "alert", "Communication", business_key)
    resource: dict[str, Any] = {
        "resourceType": "Communication",
        "id": resource_id(HUB.institution, "alert", "Communication", f"{business_key}|cleared") if cleared else first,
        "identifier": [{"system": f"{CANONICAL_BASE}/NamingSystem/alert", "value": key}],
        "status": "completed",
        "category": [{"coding": [{"system": _CATEGORY, "code": "alert"}]}],
        "priority": "routine" if cleared else "urgent",
        "sent": instant(now),
        "payload": [{"contentString": text}],
    }
    if recipient is not None:
        resource["recipient"] = [{"reference": recipient}]
    if cleared:
        resource["inResponseTo"] = [{"reference": f"Communication/{first}"}]
    tx.records.put_many([NewVersion(resource=resource, owner=HUB.institution)])


def _disk(data_dir: Path) -> dict[str, str]:
    usage = shutil.disk_usage(data_dir)
    if usage.free >= DISK_BYTES or usage.free >= usage.total * DISK_SHARE:
        return {}
    # The text must not change with each look, so it names the limit and not the free space.
    return {"disk": f"数据盘剩余空间不足 {DISK_SHARE:.0%} / less than {DISK_SHARE:.0%} of the data disk is free."}
