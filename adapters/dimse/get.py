"""C-GET as SCP: instances come back on the association that asks for them (PS3.4 annex C.4.3).

Only presentation contexts serve for which the peer took the role of SCP. An instance that fits none of them, neither as
it is stored nor in what it can be turned into without loss, counts as failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adapters.dimse import command as dimse
from adapters.dimse import recode
from adapters.dimse.exchange import Message
from adapters.dimse.pace import Pacer, pacer_to
from adapters.dimse.recode import Pieces
from adapters.dimse.retrieve import Progress, RequestorGoneError, Retrieve
from adapters.dimse.upper_layer import ConnectionEnd, ProtocolError
from fhir_mappings.errors import MappingError
from hub import retrieval
from hub.envelope import Envelope
from hub.errors import HubError
from hub.retrieval import Item, Level


class Get(Retrieve):
    """Gives its peer what it asks for."""

    kind = dimse.C_GET_RQ
    name = "C-GET"

    def _retrieve(self, message: Message, envelope: Envelope, level: Level, keys: Mapping[str, Sequence[str]]) -> int:
        selection = retrieval.select(self._exchange.services, envelope, level, keys)
        progress = Progress(self._exchange, message, selection)
        usable = {
            (context.abstract_syntax, context.transfer_syntax): number
            for number, context in self._exchange.contexts.items()
            if context.peer_scp
        }
        # The asker's own line is the one that the instances go back on.
        pacer = pacer_to(self._exchange.services, self._exchange.endpoint)
        for item in selection.items:
            if not progress.goes_on():
                break
            self._send(item, usable, progress, pacer)
        return progress.finish()

    def _send(self, item: Item, usable: Mapping[tuple[str, str], int], progress: Progress, pacer: Pacer) -> None:
        syntaxes = (item.TransferSyntaxUID, *recode.targets(item.TransferSyntaxUID))
        syntax = next((one for one in syntaxes if (item.SOPClassUID, one) in usable), None)
        if syntax is None:
            progress.failed(item, "No accepted presentation context fits the instance.")
            return
        exchange = self._exchange
        objects = exchange.services.objects
        fragments = recode.fragments(exchange.settings, objects, item.digest, item.TransferSyntaxUID, syntax)
        pieces = Pieces(pacer.paced(fragments))
        try:
            code = exchange.store(usable[item.SOPClassUID, syntax], item.SOPInstanceUID, pieces)
        except (ConnectionEnd, ProtocolError) as end:
            raise RequestorGoneError(end) from end
        except (HubError, MappingError) as error:
            if pieces.begun:
                # The peer waits for the rest of a data set that does not come.
                raise RequestorGoneError(ConnectionEnd("object-unreadable")) from error
            progress.failed(item, error.message)
            return
        progress.note(item, code)
