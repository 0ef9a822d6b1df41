"""How much of the hub one member may take with its HL7 v2 messages, and what happens beyond that.

``weight=2 messages-per-minute=600 bytes-per-minute=20000000 connections=8 bytes-per-day=2000000000 over=slow`` as the
setting ``intake`` of a member; every part may be left out. A member with twice the weight is served twice as often while
several wait, and no weight keeps another from its turn (:mod:`hub.fairness`). What goes beyond a quota is slowed: it stays
unread in the socket, so that the sender's own queue holds it. With ``over=refuse`` its sender is told so, in enhanced mode
by CE, else by AE (HL7 v2 chapter 2.9), and nothing of the message is kept. The quotas by the minute count what this node
receives at all doors of v2 messages and documents (:mod:`hub.quotas`), ``connections`` counts MLLP, and ``bytes-per-day`` what
all nodes and doors have stored of the member's messages since midnight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

#: Name of the setting of a member's Organization.
SETTING = "intake"
MOST_WEIGHT = 100
_MOST = 10**12
_NUMBERS = ("weight", "messages-per-minute", "bytes-per-minute", "connections", "bytes-per-day")


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakePolicy:
    """What a member may take.

    Attributes:
        weight: its share while several wait, beside the others' weights.
        messages_per_minute: ``None`` for no quota, like the next three.
        connections: of which a message may be in hand at once; those beyond it wait.
        refuse: whether what goes beyond a quota is refused instead of slowed.
    """

    weight: int = 1
    messages_per_minute: int | None = None
    bytes_per_minute: int | None = None
    connections: int | None = None
    bytes_per_day: int | None = None
    refuse: bool = False

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the policy that *text* says; raises ValueError with the part that is no use."""
        said: dict[str, Any] = {}
        for part in text.split():
            name, _, value = part.partition("=")
            field = name.replace("-", "_")
            if name == "over" and value in {"slow", "refuse"} and "refuse" not in said:
                said["refuse"] = value == "refuse"
                continue
            most = MOST_WEIGHT if name == "weight" else _MOST
            number = int(value) if name in _NUMBERS and value.isascii() and value.isdigit() else 0
            if field in said or not 1 <= number <= most:
                raise ValueError(part)
            said[field] = number
        return cls(**said)


def wrong_part(text: str) -> str | None:
    """Return the part of *text* that cannot be used, ``None`` when it is a policy."""
    try:
        IntakePolicy.of(text)
    except ValueError as error:
        return str(error)
    return None


def policy_of(settings: Mapping[str, Any]) -> IntakePolicy:
    """Return the policy that a member's *settings* say, which were checked when it was imported."""
    return IntakePolicy.of(str(settings.get(SETTING, "")))
