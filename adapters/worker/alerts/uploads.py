"""Watches objects that wait on this node for their upload to S3."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from adapters.worker.alerts.watcher import OfKind
from hub.ports import UploadingStore

#: A count of what waits may be this old.
_AGE_S = 5.0


class Uploads(OfKind):
    """Alert ``uploads|{node}``; what waits on another node is for that node to tell."""

    def owns(self, key: str) -> bool:
        """Return whether *key* is of this node's uploads."""
        return key == self._key()

    def look(self, now: datetime, known: Mapping[str, datetime]) -> Mapping[str, str]:  # noqa: ARG002 - the port names them
        """Return the alert when the oldest object has waited too long."""
        objects, limit_s = self._services.objects, self._services.settings.objects_upload_alert_s
        if not isinstance(objects, UploadingStore) or objects.waiting(max_age_s=_AGE_S).oldest_s <= limit_s:
            return {}
        # How much waits is in the metrics and in /readyz.
        return {
            self._key(): f"本机暂存的对象等待上传 S3 已超过 {limit_s:g} 秒；数据仍安全，但磁盘会逐渐占满。"
            f" / an object has waited more than {limit_s:g} s for its upload to S3; nothing is lost, but the disk fills up."
        }

    def _key(self) -> str:
        return f"uploads|{self._services.settings.node('objects')}"
