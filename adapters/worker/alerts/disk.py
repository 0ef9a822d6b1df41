"""Watches the free space of the data disk; the object store refuses later than this warns."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import datetime

from adapters.worker.alerts.watcher import OfKind

#: Less free space than this share, and than this many bytes, is worth a warning.
SHARE = 0.15
BYTES = 20 << 30
#: It is over when there is so much more than that.
_MORE = 1.1


class Disk(OfKind):
    """Alert ``disk``, or ``{node}-disk`` where several nodes have one each."""

    def owns(self, key: str) -> bool:
        """Return whether *key* is of this node's disk."""
        return key == self._key()

    def look(self, now: datetime, known: Mapping[str, datetime]) -> Mapping[str, str]:  # noqa: ARG002 - the port names them
        """Return the alert when space is short, or the disk cannot be asked."""
        try:
            usage = shutil.disk_usage(self._services.settings.data_dir)
        except OSError as error:
            # Nothing is known of its room, and no other watcher may go blind with it.
            return {
                self._key(): f"数据盘无法读取（{error.strerror}），请检查挂载与硬件 / the data disk cannot be read"
                f" ({error.strerror}): look after its mount and its hardware."
            }
        more = _MORE if known else 1.0
        if usage.free >= BYTES * more or usage.free >= usage.total * SHARE * more:
            return {}
        return {self._key(): f"数据盘剩余空间不足 {SHARE:.0%} / less than {SHARE:.0%} of the data disk is free."}

    def _key(self) -> str:
        return self._services.settings.node("disk")
