"""How something arrived: what is known before its content is looked at."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime

from hub.actor import Actor
from hub.clock import utc_now


def new_correlation_id() -> str:
    """Return a fresh id that follows one arrival to its last delivery."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One arrival.

    Attributes:
        door: ``dimse``, ``mllp``, ``fhir``, ``stow``, ``hl7-http``.
        actor: the sender as the door has proved it.
        peer: network address of the peer, ``host:port``.
        kind: the protocol's word, for example ``C-STORE`` or ``ADT^A01``.
    """

    door: str
    actor: Actor
    peer: str
    kind: str = ""
    received_at: datetime = field(default_factory=utc_now)
    correlation_id: str = field(default_factory=new_correlation_id)
