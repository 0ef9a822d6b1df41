"""C-MOVE as SCP: instances go to a registered AE by associations of the hub's own (PS3.4 annex C.4.2).

The destination is an AE of the asker's institution, or one of a partner that may read the studies itself; all others are
answered alike, so that nobody learns which AEs there are. The presentation contexts are proposed from what is stored: for
each SOP class the transfer syntax that the object has, then those it can be turned into without loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import structlog

from adapters.dimse import command as dimse
from adapters.dimse import recode, status
from adapters.dimse.client import RejectedError, StoreClient
from adapters.dimse.exchange import Message
from adapters.dimse.negotiation import Context
from adapters.dimse.outgoing import MAX_CONTEXTS, address, secured
from adapters.dimse.pace import pacer_to
from adapters.dimse.recode import Pieces
from adapters.dimse.retrieve import Progress, RequestorGoneError, Retrieve
from adapters.dimse.upper_layer import ConnectionEnd, ProtocolError
from fhir_mappings.errors import MappingError
from hub import retrieval
from hub.envelope import Envelope
from hub.errors import HubError
from hub.ports import MemberEndpoint
from hub.retrieval import Item, Level

_log = structlog.get_logger("adapters.dimse")

#: A destination that has had no room so often in a row is not sent the rest.
_PATIENCE = 10
_NO_CONTEXT = "The destination takes no transfer syntax that can be made."


class Move(Retrieve):
    """Moves what its peer asks for."""

    kind = dimse.C_MOVE_RQ
    name = "C-MOVE"

    def _retrieve(self, message: Message, envelope: Envelope, level: Level, keys: Mapping[str, Sequence[str]]) -> int:
        services = self._exchange.services
        ae_title = dimse.text(message.command, dimse.MOVE_DESTINATION)
        to = retrieval.destination(services, envelope, ae_title)
        if to is not None:
            selection = retrieval.select(services, envelope, level, keys, to=to)
            if selection.items or to.member == envelope.actor.institution:
                progress = Progress(self._exchange, message, selection)
                if selection.items:
                    progress.tell(now=True)
                    _Moving(self, message, to, progress).run(selection.items)
                return progress.finish()
        retrieval.refused(services, envelope, ae_title)
        self._exchange.answer(message, status.DESTINATION_UNKNOWN, comment="The destination is not known for this AE.")
        return status.DESTINATION_UNKNOWN


class _Moving:
    """The way of one request's instances to their destination."""

    def __init__(self, move: Move, message: Message, to: MemberEndpoint, progress: Progress) -> None:
        self._exchange = move._exchange  # noqa: SLF001 - one class in two parts
        self._originator = (self._exchange.calling_ae, message.id)
        self._to = to
        self._pacer = pacer_to(self._exchange.services, to)
        self._progress = progress
        self._full = 0

    def run(self, items: Sequence[Item]) -> None:
        """Send *items* while the asker wants them, over as many associations as their contexts need."""
        position = 0
        for end, contexts in _batches(items):
            while position < end and self._progress.goes_on():
                reached = self._associate(items, position, end, contexts)
                # Where nobody is there, where the first instance broke the association, and where there is no room, the
                # rest would go the same way.
                if reached < end and (reached <= position + 1 or self._full >= _PATIENCE) and self._progress.goes_on():
                    for item in items[reached:]:
                        self._progress.failed(item, "The destination cannot be reached or does not take instances.")
                    return
                position = reached

    def _associate(self, items: Sequence[Item], position: int, end: int, contexts: Sequence[Context]) -> int:
        """Send *items* from *position* to *end* over one association; return how far it came."""
        settings = self._exchange.settings
        progress = self._progress
        try:
            host, port, tls = address(self._to)
            client = StoreClient(
                host,
                port,
                calling_ae=settings.ae_title,
                called_ae=self._to.ae_title,
                contexts=contexts,
                timeout_s=settings.delivery_timeout_s,
                max_pdu_bytes=settings.max_pdu_bytes,
                secured=secured(settings, host) if tls else None,
                meanwhile=progress.meanwhile,
            )
        except (HubError, RejectedError, ConnectionEnd, ProtocolError, OSError, ValueError) as error:
            _log.warning("destination_unreachable", destination=self._to.id, error=type(error).__name__)
            return position
        with client:
            try:
                while position < end and self._full < _PATIENCE and progress.goes_on():
                    position += 1
                    if not self._store(client, items[position - 1]):
                        client.abort()
                        return position
            except RequestorGoneError:
                client.abort()
                raise
            client.release()
        return position

    def _store(self, client: StoreClient, item: Item) -> bool:
        """Send one instance and count it; return whether the association is of further use."""
        progress = self._progress
        context = next((one for one in _contexts(item) if client.takes(one)), None)
        if context is None:
            progress.failed(item, _NO_CONTEXT)
            return True
        services = self._exchange.services
        pieces = None
        try:
            fragments = recode.fragments(
                services.settings, services.objects, item.digest, item.TransferSyntaxUID, context.transfer_syntax
            )
            pieces = Pieces(self._pacer.paced(fragments), progress.meanwhile)
            code = client.store(context, item.SOPInstanceUID, pieces, originator=self._originator)
        except (ConnectionEnd, ProtocolError):
            progress.failed(item, "The association with the destination broke.")
            return False
        except (HubError, MappingError) as error:
            progress.failed(item, error.message)
            return pieces is not None and not pieces.begun and not self._exchange.stopping()
        self._full = self._full + 1 if code >> 8 == 0xA7 else 0
        progress.note(item, code)
        return True


def _contexts(item: Item) -> Sequence[Context]:
    return recode.contexts(item.SOPClassUID, item.TransferSyntaxUID)


def _batches(items: Sequence[Item]) -> Iterator[tuple[int, list[Context]]]:
    """Yield (end, contexts) of the parts of *items* that one association can carry each."""
    contexts: dict[Context, None] = {}
    known: set[tuple[str, str]] = set()
    for position, item in enumerate(items):
        pair = (item.SOPClassUID, item.TransferSyntaxUID)
        if pair in known:
            continue
        wanted = _contexts(item)
        if len(contexts.keys() | set(wanted)) > MAX_CONTEXTS:
            yield position, list(contexts)
            contexts, known = {}, set()
        contexts.update(dict.fromkeys(wanted))
        known.add(pair)
    yield len(items), list(contexts)
