"""Operating the hub: health, metrics and ``/ops`` over HTTP; the supervisor and the logs of its processes."""

from __future__ import annotations

from adapters.ops.routes import application, routes

__all__ = ["application", "routes"]
