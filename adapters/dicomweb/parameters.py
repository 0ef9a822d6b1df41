"""Values of query parameters that several transactions have (PS3.18 section 8.3.4)."""

from __future__ import annotations

from hub.errors import Category, HubError


def natural(name: str, value: str) -> int:
    """Return the whole number that the parameter *name* gives; raises HubError(incorrect) for anything else."""
    if not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise HubError(Category.INCORRECT, f"{name} is not a whole number.", where=name, remedy="Send 0 or more.")
    return int(value)


def truth(name: str, value: str) -> bool:
    """Return whether the parameter *name* says ``true``; raises HubError(incorrect) where it says neither."""
    if value.lower() not in {"true", "false"}:
        raise HubError(Category.INCORRECT, f"{name} is neither true nor false.", where=name)
    return value.lower() == "true"
