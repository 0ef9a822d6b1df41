"""C-FIND as SCP: queries over patients, studies, series and instances (PS3.7 section 9.1.2; PS3.4 annex C.4.1).

The answers leave as they are found, page by page. Between two of them the peer may cancel, and the hub may stop; nothing
is looked up for answers that nobody will read.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import structlog
from pydicom.datadict import tag_for_keyword

from adapters.dimse import command as dimse
from adapters.dimse import metrics, status
from adapters.dimse.exchange import Exchange, Message, too_busy
from adapters.dimse.upper_layer import ConnectionEnd, ProtocolError
from fhir_mappings.dicom import identifier
from fhir_mappings.errors import MappingError
from hub.errors import Category, HubError
from hub.query import PATIENT_ROOT, PATIENT_STUDY_ONLY, STUDY_ROOT, Model, read_identifier
from hub.query_search import Search

_log = structlog.get_logger("adapters.dimse")

Json = dict[str, Any]

MODELS: Mapping[str, Model] = {
    "1.2.840.10008.5.1.4.1.2.1.1": PATIENT_ROOT,
    "1.2.840.10008.5.1.4.1.2.2.1": STUDY_ROOT,
    "1.2.840.10008.5.1.4.1.2.3.1": PATIENT_STUDY_ONLY,
}
#: Bytes of the extended negotiation (PS3.4 table C.5.1-1).
_RELATIONAL, _COMBINED, _FUZZY = range(3)


class Query(ABC):
    """Answers the C-FIND requests of one service class on one association."""

    name: ClassVar[str]

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._charset: str | None = exchange.endpoint.settings.get("charset-in") or None

    @abstractmethod
    def pages(self, message: Message, attributes: Mapping[str, Json]) -> tuple[int, Iterable[Sequence[Json]]]:
        """Return the status of each match, and the matches page by page.

        Raises:
            HubError: here or while the pages are read, when the query cannot be answered.
        """

    def handle(self, message: Message) -> None:
        """Answer one query: a Pending for each match, and the last status."""
        exchange = self._exchange
        if message.kind != dimse.C_FIND_RQ or not message.has_data:
            exchange.unknown(message)
            return
        data = exchange.dataset(message, max_bytes=identifier.MAX_BYTES)
        sent = 0
        try:
            asked = identifier.read(data, message.context.transfer_syntax, charset_override=self._charset)
            pending, pages = self.pages(message, asked.attributes)
            code, comment = status.SUCCESS, ""
            for answer in self._until_cancelled(message, pages):
                if answer is None:
                    code = status.CANCELLED
                    break
                if sent == exchange.settings.query_matches:
                    raise _too_many(sent)
                content = identifier.write(answer, message.context.transfer_syntax, character_set=asked.character_set)
                exchange.answer(message, pending, data=content)
                sent += 1
            self._finish(message, code, comment, sent)
        except (ConnectionEnd, ProtocolError):
            metrics.query_matches.labels(self.name).inc(sent)
            raise
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the peer is told that the list is not whole
            self._refuse(message, error, sent)

    def ended(self) -> None:  # noqa: B027 - the catalogue asks for it, and nothing outlives a query
        """Nothing outlives a query."""

    def extended(self, message: Message, byte: int) -> bool:
        """Return whether the *byte* of the extended negotiation was agreed on."""
        agreed = self._exchange.extended.get(message.context.abstract_syntax, b"")
        return len(agreed) > byte and agreed[byte] == 1

    def _until_cancelled(self, message: Message, pages: Iterable[Sequence[Json]]) -> Iterator[Json | None]:
        """Yield the answers, and ``None`` where the peer cancels; raises HubError when the hub is going down."""
        for page in pages:
            for answer in page:
                if self._exchange.cancelled(message):
                    yield None
                    return
                if self._exchange.stopping():
                    raise too_busy()
                yield answer
        if self._exchange.cancelled(message):
            yield None

    def _refuse(self, message: Message, error: Exception, sent: int) -> None:
        code, comment = self._exchange.refusal(error)
        if isinstance(error, HubError) and not error.fatal:
            code = status.QUERY_BY_CATEGORY[error.category]
        elif isinstance(error, MappingError):
            code = status.UNABLE_TO_PROCESS
        elif not isinstance(error, OSError):
            code = status.UNABLE_TO_PROCESS
            # The text of an unforeseen error may quote patient data, so only its kind is logged.
            _log.error(
                "query_fault",
                peer=self._exchange.peer,
                correlation_id=self._exchange.correlation_id,
                error=type(error).__name__,
            )
        # A keyword, or several where it stands in sequences: the outermost is the element that offends.
        where = error.where.partition(".")[0] if isinstance(error, HubError) else ""
        self._finish(message, code, comment, sent, offending=tag_for_keyword(where) if where else None)

    def _finish(self, message: Message, code: int, comment: str, sent: int, *, offending: int | None = None) -> None:
        metrics.query_matches.labels(self.name).inc(sent)
        metrics.queries.labels(self.name, f"{code:04X}").inc()
        if code not in {status.SUCCESS, status.CANCELLED}:
            _log.warning(
                "query_refused",
                peer=self._exchange.peer,
                correlation_id=self._exchange.correlation_id,
                service=self.name,
                status=f"{code:04X}",
                why=comment,
                sent=sent,
            )
        more: dict[int, int | str | bytes] = {}
        if offending is not None and code not in {status.SUCCESS, status.CANCELLED, status.OUT_OF_RESOURCES}:
            more[dimse.OFFENDING_ELEMENT] = struct.pack("<HH", offending >> 16, offending & 0xFFFF)
        self._exchange.answer(message, code, comment=comment, more=more)


class Find(Query):
    """Query/Retrieve: what the hub holds and the peer may see."""

    name = "find"

    def pages(self, message: Message, attributes: Mapping[str, Json]) -> tuple[int, Iterable[Sequence[Json]]]:
        """Return the matches of an identifier of one of :data:`MODELS`."""
        exchange = self._exchange
        asked = read_identifier(
            attributes,
            MODELS[message.context.abstract_syntax],
            relational=self.extended(message, _RELATIONAL),
            moments=self.extended(message, _COMBINED),
            fuzzy=self.extended(message, _FUZZY),
        )
        search = Search(exchange.services, exchange.actor, asked, correlation_id=exchange.correlation_id)
        return status.PENDING_PARTLY if asked.partly else status.PENDING, search.pages()


def _too_many(sent: int) -> HubError:
    return HubError(
        Category.BUSY, f"More than {sent} matches; the rest was not sent. Narrow the query.", remedy="Add keys."
    )
