"""Modality Worklist as SCP: what a modality of the asking institution is to do (PS3.4 annex K)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from adapters.dimse import status
from adapters.dimse.exchange import Message
from adapters.dimse.find import Json, Query
from hub.worklist import Worklist as Orders
from hub.worklist import read_identifier

SOP_CLASS = "1.2.840.10008.5.1.4.31"
#: Byte of the extended negotiation (PS3.4 table K.5-1).
_FUZZY = 2


class Worklist(Query):
    """Gives modalities their orders."""

    name = "worklist"

    def pages(self, message: Message, attributes: Mapping[str, Json]) -> tuple[int, Iterable[Sequence[Json]]]:
        """Return the worklist items that match."""
        exchange = self._exchange
        asked = read_identifier(attributes, fuzzy=self.extended(message, _FUZZY))
        orders = Orders(
            exchange.services, exchange.actor, asked, exchange.calling_ae, correlation_id=exchange.correlation_id
        )
        return status.PENDING_PARTLY if asked.partly else status.PENDING, orders.pages()
