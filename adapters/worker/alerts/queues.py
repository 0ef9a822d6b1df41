"""Watches what waits for partners: its age, how much it is, and what was given up (DESIGN rule 8)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from adapters.worker.alerts.watcher import OfKind, passes
from hub.alert_limits import AlertLimits


class Queues(OfKind):
    """Alerts ``queue|KN/mllp`` (age), ``depth|KN/mllp`` and ``dead|KN/mllp`` (dead letters)."""

    kinds = ("queue", "depth", "dead")

    def look(self, now: datetime, known: Mapping[str, datetime]) -> Mapping[str, str]:
        """Return the queues that are too old, too deep, or hold dead letters."""
        found: dict[str, str] = {}
        for one in self._services.database.read(lambda tx: tx.outbox.destinations()):
            name = str(one["destination"])
            endpoint = self._services.directory.endpoint(name)
            limits = AlertLimits.of(self._services.settings, endpoint.settings if endpoint is not None else None)
            age_s = (now - one["oldest_at"]).total_seconds() if one["oldest_at"] is not None else 0.0
            if passes(age_s, limits.queue_age_s, opened=f"queue|{name}" in known):
                found[f"queue|{name}"] = _old(one, limits.queue_age_s)
            if passes(one["depth"], limits.queue_depth, opened=f"depth|{name}" in known):
                found[f"depth|{name}"] = (
                    f"目的地 {name}：等待的投递超过 {limits.queue_depth} 条{_paused(one)[0]}。"
                    f" / {name}: more than {limits.queue_depth} deliveries wait{_paused(one)[1]}."
                )
            if one["dead"]:
                found[f"dead|{name}"] = (
                    f"目的地 {name}：有死信，其通道已停；用 `hub queue list --state dead` 查看，再重发或跳过。"
                    f" / {name}: there are dead letters, and their lanes stand; see `hub queue list --state dead`,"
                    " then replay or skip them."
                )
        return found


def _old(one: Mapping[str, Any], limit_s: float) -> str:
    return (
        f"目的地 {one['destination']}：最早一条已等待超过 {limit_s:g} 秒，共 {one['depth']} 条，死信 {one['dead']} 条"
        f"{_paused(one)[0]}。"
        f" / {one['destination']}: the oldest delivery has waited more than {limit_s:g} s; {one['depth']} wait,"
        f" {one['dead']} dead letters{_paused(one)[1]}. Last error: {one['last_error'] or 'none'}"
    )


def _paused(one: Mapping[str, Any]) -> tuple[str, str]:
    return ("，已暂停", ", paused") if one["paused"] else ("", "")
