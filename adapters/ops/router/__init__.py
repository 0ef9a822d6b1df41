"""The operations under ``/ops``, one file for each subject; each puts its own on the one router."""

from __future__ import annotations

from adapters.ops.router import codes, exports, feeds, merges, messages, queues, studies, work
from adapters.ops.router.base import SCHEMAS, router

__all__ = ["SCHEMAS", "codes", "exports", "feeds", "merges", "messages", "queues", "router", "studies", "work"]
