"""The share door: pages by which a patient opens a shared study, and a member's doctor makes the link (``/share``)."""

from __future__ import annotations

from adapters.share.application import application

__all__ = ["application"]
