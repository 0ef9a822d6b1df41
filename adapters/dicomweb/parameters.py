"""Values of query parameters that several transactions have (PS3.18 section 8.3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hub.errors import Category, HubError

#: Ways of matching that may be asked for, and what the Warning says of those that are not offered (sections 8.3.4.5 and 6).
MATCHING: Final[Mapping[str, str]] = {
    "emptyvaluematching": "The emptyvaluematching parameter is not supported. Empty Value Matching has not been performed.",
    "multiplevaluematching": "The multiplevaluematching parameter is not supported. Each value of a list has been "
    "matched as a single value.",
}


def passed_over(name: str) -> bool:
    """Return whether the parameter *name* means nothing here.

    No attribute begins with an underscore; programs that must get round a cache add such a name (PS3.18 section 8.3: what
    is not supported is ignored). A name that may be a misspelt attribute is refused instead, since without that key the
    answer would hold other patients' studies.
    """
    return name.startswith("_")


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
