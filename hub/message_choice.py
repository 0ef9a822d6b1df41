"""The messages that an act on many is about: all that a search finds, oldest first, up to a bound, and a word for them.

Such an act is done in two steps. The first counts and gives the word; the second needs it, so that what is done is what
was looked at, and not what has come since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from hub.actor import Actor
from hub.batches import BATCHES
from hub.errors import Category, HubError
from hub.message_search import MessageSearch
from hub.pending import DOORS

if TYPE_CHECKING:
    from hub.boot import Services

_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The v2 messages that were chosen.

    Attributes:
        numbers: their numbers in the journal, oldest first.
        size: bytes of all their bodies.
        since, until: when the first and the last one came, ``None`` when there is none.
    """

    numbers: Sequence[int]
    size: int
    since: datetime | None
    until: datetime | None

    @property
    def word(self) -> str:
        """The word that stands for exactly these messages."""
        return hashlib.sha256(",".join(map(str, self.numbers)).encode("ascii")).hexdigest()[:12]


def choose(
    services: Services,
    actor: Actor,
    criteria: Mapping[str, str],
    *,
    most: int,
    content: bool = True,
    doors: Collection[str] = DOORS,
) -> Choice:
    """Return all v2 messages that *criteria* find; what came by other doors and broken batches are none.

    Raises:
        HubError: as :class:`hub.message_search.MessageSearch`; incorrect when there are more than *most*.
    """
    search = MessageSearch(services, actor, criteria, content=content)
    numbers: list[int] = []
    size = 0
    since = until = before = None
    while True:
        entries, before = search.page(limit=_PAGE, before_seq=before)
        for one in entries:
            if one.door not in doors or one.message_type in BATCHES:
                continue
            numbers.append(one.seq)
            size += one.size
            since, until = one.received_at, until or one.received_at
        if len(numbers) > most:
            raise HubError(
                Category.INCORRECT,
                f"These are more than {most} messages.",
                where="filter",
                remedy="Take a part at a time, for example with since and until.",
            )
        if before is None:
            return Choice(numbers=numbers[::-1], size=size, since=since, until=until)
