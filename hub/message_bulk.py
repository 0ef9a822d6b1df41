"""Many messages processed again: in the order they came, each in its own transaction, so that it can end anywhere.

A message that still cannot be processed stops nobody behind it; trouble of the hub itself (a database that does not
answer) ends the run, and what was done is done. One audit line tells of the whole, and one of each message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.actor import Actor
from hub.errors import Category, HubError
from hub.message_choice import Choice, choose
from hub.ports import AuditLine

if TYPE_CHECKING:
    from hub.boot import Services

#: Most messages of one run of the command, and of one request over HTTP, which somebody waits for.
MOST, MOST_HTTP = 10_000, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What became of one message; ``error`` says why it still cannot be processed."""

    seq: int
    outcome: str = ""
    error: HubError | None = None


class BulkReplay:
    """One filter's messages, counted and then processed again."""

    def __init__(
        self,
        services: Services,
        actor: Actor,
        criteria: Mapping[str, str],
        *,
        most: int = MOST,
        content: bool = True,
    ) -> None:
        """Choose the messages; nothing is done to them.

        Raises:
            HubError: as :func:`hub.message_choice.choose`.
        """
        self._services, self._actor = services, actor
        self._names = sorted(criteria)
        self.choice: Choice = choose(services, actor, criteria, most=most, content=content)

    def run(self, word: str) -> Iterator[Replayed]:
        """Process them again, oldest first, and yield what became of each once that is durable.

        Raises:
            HubError: conflict when *word* was given for other messages; transient or fatal when the hub cannot go on.
        """
        if not self.choice.numbers or word != self.choice.word:
            raise HubError(
                Category.CONFLICT,
                "These are no longer the messages that the word was given for.",
                where="confirm",
                remedy="Count them again without the word, look at them, and use the new word.",
            )
        line = AuditLine(
            type="admin",
            action="E",
            subtype="message-replay-all",
            actor=self._actor,
            recorded_at=self._services.clock(),
            count=len(self.choice.numbers),
            detail=f"by {' '.join(self._names)}",
        )
        self._services.database.write(lambda tx: tx.audit.write(line))
        for seq in self.choice.numbers:
            try:
                yield Replayed(seq=seq, outcome=self._services.messages.replay(seq, self._actor))
            except HubError as error:
                if error.transient or error.fatal:
                    raise
                yield Replayed(seq=seq, error=error)
