"""Who asks about the hub's operation: the operator, who runs it, or the administrator of one member."""

from __future__ import annotations

from hub.actor import Actor
from hub.errors import Category, HubError

#: Rows of one answer.
MAX_LIST = 1000


def is_operator(actor: Actor) -> bool:
    """Return whether *actor* runs the hub itself."""
    return "operator" in actor.roles and actor.institution == "YY"


def limit_of(actor: Actor) -> str | None:
    """Return the institution that *actor* is limited to, ``None`` for the operator.

    Raises:
        HubError: forbidden for everybody who neither runs the hub nor administers a member.
    """
    if is_operator(actor):
        return None
    if "admin" in actor.roles:
        return actor.institution
    raise HubError(
        Category.FORBIDDEN,
        "Operating the hub needs the role operator or admin.",
        where="Authorization",
        remedy="Use a token of `hub token --institution YY --role operator`, or of your institution with --role admin.",
    )


def capped(limit: int) -> int:
    """Return *limit* between one and :data:`MAX_LIST`."""
    return max(1, min(MAX_LIST, limit))
