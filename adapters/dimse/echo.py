"""C-ECHO as SCP (PS3.7 section 9.1.5; PS3.4 annex A)."""

from __future__ import annotations

from adapters.dimse import command as dimse
from adapters.dimse import status
from adapters.dimse.exchange import Exchange, Message


class Echo:
    """Answers whoever asks whether the hub is there."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def handle(self, message: Message) -> None:
        """Answer a C-ECHO with success, anything else as unknown."""
        if message.kind != dimse.C_ECHO_RQ:
            self._exchange.unknown(message)
            return
        self._exchange.pass_over(message)
        self._exchange.answer(message, status.SUCCESS)

    def ended(self) -> None:
        """Nothing is left to do."""
