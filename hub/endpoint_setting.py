"""One row of the table of endpoint settings (:mod:`hub.endpoint_settings`), and what values of the common kinds look like."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from fhir_mappings.text import codec_for

#: The words of a setting that is on or off.
SWITCH = "true or false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting.

    Attributes:
        kinds: of the endpoints that may carry it (:class:`hub.ports.MemberEndpoint`).
        fits: whether a value, as text, can be used.
        words: what values there are, for the message that refuses another.
        meaning: in Chinese and English, for the operators' page.
    """

    name: str
    kinds: tuple[str, ...]
    fits: Callable[[str], bool]
    words: str
    meaning: str

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off; such a value is kept as a truth value, however it was written."""
        return self.words == SWITCH


def is_zone(value: str) -> bool:
    """Return whether *value* names a time zone."""
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        return False
    return True


def is_switch(value: str) -> bool:
    """Return whether *value* is on or off."""
    return value.lower() in {"true", "false"}


def is_network(value: str) -> bool:
    """Return whether *value* is a network like 10.1.0.0/16."""
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return True


def is_charset(value: str) -> bool:
    """Return whether *value* names a character set that the hub reads and writes."""
    return codec_for(value) is not None


def is_text(value: str) -> bool:
    """Return whether *value* is words without controls."""
    return bool(value) and value.isprintable()
