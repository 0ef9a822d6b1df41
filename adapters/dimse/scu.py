"""C-FIND, C-MOVE and C-GET as SCU of another archive (PS3.7 sections 9.1.2 to 9.1.4; PS3.4 annex C.4).

An archive's word is not enough: a retrieval is complete only when the archive says success, counts no failure, and no
instance that it sent was refused here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapters.dimse import command as dimse
from adapters.dimse import status
from adapters.dimse.client import RejectedError, Requestor
from adapters.dimse.exchange import Exchange, Message
from adapters.dimse.negotiation import Context, Proposal
from adapters.dimse.outgoing import MAX_CONTEXTS, address, secured
from adapters.dimse.store import Store
from adapters.dimse.upper_layer import ConnectionEnd, ProtocolError, pdv_header
from fhir_mappings.dicom import identifier
from fhir_mappings.errors import MappingError
from hub.actor import Actor
from hub.envelope import new_correlation_id
from hub.errors import Category, HubError
from hub.ports import MemberEndpoint
from hub.priors import Found, Outcome

if TYPE_CHECKING:
    from hub.boot import Services

#: Study Root Query/Retrieve: the model that every archive has (IHE RAD TF-2, 4.14 and 4.16).
_MODEL = "1.2.840.10008.5.1.4.1.2.2."
FIND, MOVE, GET = _MODEL + "1", _MODEL + "2", _MODEL + "3"
_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
#: In what instances are taken: native, then compressed as they may be stored there, each for itself.
_SYNTAXES: tuple[tuple[str, ...], ...] = (
    (_EXPLICIT, _IMPLICIT),
    ("1.2.840.10008.1.2.4.70",),
    ("1.2.840.10008.1.2.4.90",),
    ("1.2.840.10008.1.2.4.80",),
    ("1.2.840.10008.1.2.5",),
    ("1.2.840.10008.1.2.4.50",),
    ("1.2.840.10008.1.2.4.91",),
)
#: An archive may fetch from slow media, but not for ever.
RETRIEVAL_S = 3600.0
#: Most answers to one query.
MAX_ANSWERS = 20_000
_VRS = {"PatientID": "LO", "IssuerOfPatientID": "LO", "StudyDate": "DA", "Modality": "CS", "ModalitiesInStudy": "CS"}
_TAGS = {
    "SOPClassUID": "00080016",
    "SOPInstanceUID": "00080018",
    "StudyDate": "00080020",
    "Modality": "00080060",
    "ModalitiesInStudy": "00080061",
    "PatientID": "00100020",
    "IssuerOfPatientID": "00100021",
    "StudyInstanceUID": "0020000D",
    "SeriesInstanceUID": "0020000E",
}
_PENDING = frozenset({status.PENDING, 0xFF01})


class Asker(Requestor):
    """A :class:`Requestor` that asks one archive; each method may be called several times."""

    def find(self, asked: Mapping[str, Any], *, charset: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the matches of the identifier *asked*, both as DICOM JSON.

        Raises:
            HubError: unavailable or unsupported when the archive fails the query, or answers without end.
            ConnectionEnd, ProtocolError: the association is of no more use.
            MappingError: an answer is no data set.
        """
        context_id, message_id = self._ask(FIND, dimse.C_FIND_RQ, asked)
        for _ in range(MAX_ANSWERS):
            answer = self._response(context_id, message_id, dimse.C_FIND_RSP)
            code, data = dimse.number(answer, dimse.STATUS), self._data(context_id, answer)
            if code not in _PENDING:
                _check(code, answer)
                return
            if data:
                yield identifier.read(
                    data, self.accepted[context_id].transfer_syntax, charset_override=charset
                ).attributes
        raise HubError(
            Category.UNSUPPORTED, f"The archive gives more than {MAX_ANSWERS} answers.", remedy="Ask for less."
        )

    def move(self, asked: Mapping[str, Any], destination: str) -> Outcome:
        """Have the archive send what *asked* names to the AE *destination*; returns how it says that it went."""
        context_id, message_id = self._ask(MOVE, dimse.C_MOVE_RQ, asked, {dimse.MOVE_DESTINATION: destination})
        deadline = time.monotonic() + RETRIEVAL_S
        while True:
            answer = self._response(context_id, message_id, dimse.C_MOVE_RSP)
            self._data(context_id, answer)
            if dimse.number(answer, dimse.STATUS) not in _PENDING:
                return _outcome(answer)
            _in_time(deadline)

    def get(self, asked: Mapping[str, Any], exchange: Callable[[Requestor], Exchange]) -> Outcome:
        """Take what *asked* names on this association into the hub; returns how it went on both sides.

        Args:
            exchange: makes what the receiving service sees of this association.
        """
        context_id, message_id = self._ask(GET, dimse.C_GET_RQ, asked)
        seen = exchange(self)
        store = Store(seen)
        deadline = time.monotonic() + RETRIEVAL_S
        try:
            while True:
                message: Message = seen.message(self._pdv())
                if message.kind == dimse.C_STORE_RQ and message.context.abstract_syntax in self._as_scp:
                    store.handle(message)
                    if seen.fatal is not None:
                        raise seen.fatal
                elif message.kind == dimse.C_GET_RSP and message.context_id == context_id:
                    if dimse.number(message.command, dimse.MESSAGE_ID_RESPONDED_TO) != message_id:
                        raise ProtocolError("answer-to-another-message")
                    seen.pass_over(message)
                    if dimse.number(message.command, dimse.STATUS) not in _PENDING:
                        return _outcome(message.command, stored=store.stored, refused=store.refused)
                else:
                    raise ProtocolError("unexpected-answer")
                _in_time(deadline)
        finally:
            store.ended()

    @property
    def layer(self) -> Any:
        """The connection, for the service that receives on it."""
        return self._layer

    def _ask(
        self, sop_class: str, kind: int, asked: Mapping[str, Any], more: Mapping[int, str] | None = None
    ) -> tuple[int, int]:
        """Send a request with its identifier; returns the context id and the message id of the answers."""
        found = [number for number, context in self.accepted.items() if context.abstract_syntax == sop_class]
        if not found:
            raise HubError(
                Category.UNSUPPORTED,
                "The archive does not offer the service.",
                where=sop_class,
                remedy="Have it allow the hub's AE title to query and retrieve.",
            )
        context_id, message_id = found[0], self._next_message_id()
        values: dict[int, int | str] = {
            dimse.AFFECTED_SOP_CLASS_UID: sop_class,
            dimse.COMMAND_FIELD: kind,
            dimse.MESSAGE_ID: message_id,
            dimse.PRIORITY: 0,
            dimse.COMMAND_DATA_SET_TYPE: dimse.DATA_SET,
            **(more or {}),
        }
        data = identifier.write(asked, self.accepted[context_id].transfer_syntax, character_set=identifier.UTF8)
        self._layer.send(dimse.pdu(context_id, values))
        size = self._fragment_bytes
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self._layer.send(pdv_header(context_id, 2 if start + size >= len(data) else 0, len(piece)), piece)
        return context_id, message_id

    def _response(self, context_id: int, message_id: int, kind: int) -> dimse.Command:
        answered_on, answer = self._command()
        if answered_on != context_id or dimse.number(answer, dimse.COMMAND_FIELD) != kind:
            raise ProtocolError("unexpected-answer")
        if dimse.number(answer, dimse.MESSAGE_ID_RESPONDED_TO) != message_id:
            raise ProtocolError("answer-to-another-message")
        return answer

    def _data(self, context_id: int, answer: dimse.Command) -> bytes:
        """Return the data set that follows *answer*, empty where there is none."""
        if dimse.number(answer, dimse.COMMAND_DATA_SET_TYPE) == dimse.NO_DATA_SET:
            return b""
        data = bytearray()
        while True:
            answered_on, control, piece = self._pdv()
            if answered_on != context_id or dimse.is_command(control):
                raise ProtocolError("command-inside-data")
            data += piece
            if len(data) > identifier.MAX_BYTES:
                raise ProtocolError("data-set-too-long", 0)
            if dimse.is_last(control):
                return bytes(data)


class DimseArchive:
    """The :class:`hub.priors.Archive` of a member that is reached by DIMSE; opens one association for each call."""

    def __init__(
        self, services: Services, endpoint: MemberEndpoint, *, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._services = services
        self._endpoint = endpoint
        self._stopping = stopping

    def find(self, level: str, keys: Mapping[str, str], wanted: Sequence[str]) -> Sequence[Found]:
        """Return the texts of the attributes *wanted* of what matches *keys*, both named by keyword."""
        asked = _identifier(level, {**dict.fromkeys(wanted, ""), **keys})
        charset: str | None = self._endpoint.settings.get("charset-in") or None
        with self._opened([Proposal(FIND, (_EXPLICIT, _IMPLICIT))]) as asker:
            return [
                {name: tuple(map(str, match.get(_TAGS[name], {}).get("Value", ()))) for name in wanted}
                for match in asker.find(asked, charset=charset)
            ]

    def move(self, level: str, keys: Mapping[str, str | Sequence[str]]) -> Outcome:
        """Have what *keys* name sent to the hub's own AE."""
        with self._opened([Proposal(MOVE, (_EXPLICIT, _IMPLICIT))]) as asker:
            return asker.move(_identifier(level, keys), self._services.settings.ae_title)

    def get(self, level: str, keys: Mapping[str, str | Sequence[str]], classes: Sequence[str]) -> Outcome:
        """Fetch what *keys* name, which are instances of *classes*, into the hub."""
        if not classes:
            raise HubError(
                Category.UNSUPPORTED,
                "The archive does not tell SOP classes, which C-GET needs.",
                remedy="Use via=move.",
            )
        # Where there are too many classes for so many syntaxes each, the rarer syntaxes go.
        each = max(min(len(_SYNTAXES), (MAX_CONTEXTS - 1) // max(len(classes), 1)), 1)
        storage = [Proposal(one, syntaxes, as_scp=True) for one in classes for syntaxes in _SYNTAXES[:each]]
        with self._opened([Proposal(GET, (_EXPLICIT, _IMPLICIT)), *storage[: MAX_CONTEXTS - 1]]) as asker:
            return asker.get(_identifier(level, keys), self._exchange)

    def _exchange(self, asker: Requestor) -> Exchange:
        assert isinstance(asker, Asker)
        host, port, _ = address(self._endpoint)
        return Exchange(
            services=self._services,
            layer=asker.layer,
            endpoint=self._endpoint,
            actor=Actor(
                institution=self._endpoint.member,
                client=self._endpoint.ae_title,
                address=host,
                roles=frozenset({"system"}),
            ),
            calling_ae=self._endpoint.ae_title,
            peer=f"{host}:{port}",
            contexts=asker.accepted,
            max_pdu_bytes=asker.max_peer_pdu_bytes,
            correlation_id=new_correlation_id(),
            stopping=self._stopping,
        )

    @contextlib.contextmanager
    def _opened(self, contexts: Sequence[Context | Proposal]) -> Iterator[Asker]:
        """Open an association for the block; every trouble with the archive is raised as HubError."""
        settings = self._services.settings
        where = self._endpoint.id
        try:
            host, port, tls = address(self._endpoint)
            asker = Asker(
                host,
                port,
                calling_ae=settings.ae_title,
                called_ae=self._endpoint.ae_title,
                contexts=contexts,
                timeout_s=settings.association_idle_s,
                max_pdu_bytes=settings.max_pdu_bytes,
                secured=secured(settings, host) if tls else None,
                meanwhile=self._meanwhile,
            )
            with asker:
                try:
                    yield asker
                    asker.release()
                except ProtocolError as error:
                    asker.abort(reason=error.reason)
                    raise
                except (HubError, MappingError, ConnectionEnd):
                    asker.abort()
                    raise
        except RejectedError as error:
            raise HubError(
                Category.UNAVAILABLE if error.transient else Category.FORBIDDEN,
                f"The archive rejected the association ({error}).",
                where=where,
                remedy="Have it know the hub's AE title and address.",
            ) from error
        except (ConnectionEnd, ProtocolError) as error:
            raise HubError(Category.UNAVAILABLE, f"The archive broke off: {error.why}.", where=where) from error
        except (MappingError, ValueError) as error:
            raise HubError(Category.INCORRECT, f"The archive cannot be understood: {error}", where=where) from error
        except OSError as error:
            raise HubError(
                Category.UNAVAILABLE, f"The connection to the archive failed: {type(error).__name__}.", where=where
            ) from error

    def _meanwhile(self) -> None:
        if self._stopping():
            raise HubError(Category.INTERRUPTED, "The hub is stopping.")


def open_archive(services: Services, endpoint: MemberEndpoint) -> DimseArchive:
    """Return the archive behind *endpoint*."""
    return DimseArchive(services, endpoint)


def _identifier(level: str, keys: Mapping[str, str | Sequence[str]]) -> dict[str, Any]:
    found: dict[str, Any] = {"00080052": {"vr": "CS", "Value": [level]}}
    for name, value in keys.items():
        values = [value] if isinstance(value, str) else list(value)
        element: dict[str, Any] = {"vr": _VRS.get(name, "UI")}
        if values != [""]:
            element["Value"] = values
        found[_TAGS[name]] = element
    return found


def _count(answer: dimse.Command, element: int) -> int:
    return dimse.number(answer, element) if element in answer else 0


def _outcome(answer: dimse.Command, *, stored: int | None = None, refused: int = 0) -> Outcome:
    return Outcome(
        status=dimse.number(answer, dimse.STATUS),
        completed=_count(answer, dimse.COMPLETED_SUB_OPERATIONS) if stored is None else stored,
        failed=_count(answer, dimse.FAILED_SUB_OPERATIONS) + refused,
        comment=dimse.text(answer, dimse.ERROR_COMMENT),
    )


def _check(code: int, answer: dimse.Command) -> None:
    if code != status.SUCCESS:
        said = dimse.text(answer, dimse.ERROR_COMMENT)
        raise HubError(
            Category.UNAVAILABLE if code >> 8 == 0xA7 else Category.UNSUPPORTED,
            f"The archive answered the query with {code:04X}{': ' + said if said else ''}.",
        )


def _in_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise HubError(Category.UNAVAILABLE, f"The archive takes longer than {RETRIEVAL_S:g} s.")
