"""Queries by HL7 v2 and how they are answered: who may ask, how often, and what is kept of it (DESIGN rules 4, 5 and 12).

Who sends from a member's address is less sure than who holds a token, so a feed is answered only where its Endpoint says so,
unless it is told no more than it was told before (:mod:`hub.referral_queries`).
A query is answered once, on its connection, by a response that holds patient data and is therefore not kept: the journal has
the question, the audit trail whose data went out, before it goes. A wrong question gets a response too, with AE or AR.
"""

from __future__ import annotations

import codecs
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar

from fhir_mappings.errors import MalformedError, MappingError, UnsupportedError
from fhir_mappings.hl7v2.ack import AckError, build_ack
from fhir_mappings.hl7v2.charset import encode_for
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.translate import VERSIONS
from hub.acknowledge import refused
from hub.arrival import Arrival
from hub.envelope import new_correlation_id
from hub.errors import Category, HubError
from hub.ports import AuditLine, Tx

if TYPE_CHECKING:
    from hub.boot import Services

#: What a kind of query is answered by.
R = TypeVar("R")
#: (owner, Patient id) of everybody whose data is in an answer.
Owners = tuple[tuple[str, str], ...]

#: Questions of one member a minute, in each process; a desk asks some, a program that copies a register thousands.
MAX_PER_MINUTE = 600
_WINDOW = timedelta(minutes=1)


class QueryAnswers(ABC, Generic[R]):
    """Answers one kind of query; safe for many threads.

    Attributes:
        setting: Endpoint setting of a feed that may ask; empty where every feed may.
        closed: what a feed without it is told.
        versions: of MSH-12 that such a query is taken in.
    """

    setting: ClassVar[str] = ""
    closed: ClassVar[str] = ""
    versions: ClassVar[frozenset[str]] = VERSIONS

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._asked: dict[str, deque[datetime]] = {}

    @abstractmethod
    def _found(self, arrival: Arrival, target: OutboundTarget) -> tuple[R | None, Owners, int | None]:
        """Return the response, whose data is in it, and how much was found; no response for a question taken back."""

    @abstractmethod
    def _refusal(self, status: Literal["AE", "AR"], errors: Sequence[AckError]) -> R:
        """Return the response that refuses a question."""

    @abstractmethod
    def _text(self, arrival: Arrival, response: R, target: OutboundTarget, control_id: str, now: datetime) -> str:
        """Return *response* as the message that answers *arrival*; *now* is in the asker's time zone."""

    def answer(self, arrival: Arrival) -> bytes:
        """Return the answer to *arrival*, a query of a known sender, once its audit line is durable.

        Raises:
            HubError: transient, when the database cannot work now; the sender asks again.
        """
        assert arrival.message is not None
        target = self._target(arrival)
        owners: Owners = ()
        state, outcome = "done", ""
        count: int | None = 0
        try:
            self._check(arrival)
            response, owners, count = self._found(arrival, target)
            answer = self._written(arrival, response, target)
        except (MappingError, HubError) as error:
            if isinstance(error, HubError) and (error.transient or error.fatal) and error.category is not Category.BUSY:
                raise
            verdict = refused(error)
            status: Literal["AE", "AR"] = "AR" if verdict.outcome == "refused" else "AE"
            state, outcome, owners, count = "refused", verdict.reason, (), 0
            answer = self._written(arrival, self._refusal(status, verdict.errors), target, lossy=True)
        self._note(arrival, state, outcome, owners, count)
        return answer

    # --- whether ---------------------------------------------------------------------------------------------

    def _check(self, arrival: Arrival) -> None:
        assert arrival.endpoint is not None
        version = arrival.field("MSH-12")
        if version not in self.versions:
            raise UnsupportedError(
                f"HL7 version {version[:8] or '(not valued)'} is not supported.",
                where="MSH-12 of segment 1",
                remedy="Send 2.5.",
                code=203,
            )
        if not arrival.field("MSH-10"):
            raise MalformedError(
                "MSH-10 is not valued.",
                where="MSH-10 of segment 1",
                remedy="Give every message its own control id.",
                code=101,
            )
        arrival.check_processing_id()
        if self.setting and arrival.endpoint.settings.get(self.setting) is not True:
            raise HubError(
                Category.UNSUPPORTED,
                self.closed,
                where="MSH-9 of segment 1",
                remedy=f"Ask the operator to set {self.setting} at the endpoint.",
                code=200,
            )
        now = self._services.clock()
        with self._lock:
            asked = self._asked.setdefault(arrival.institution, deque())
            while asked and now - asked[0] >= _WINDOW:
                asked.popleft()
            if len(asked) >= MAX_PER_MINUTE:
                raise HubError(
                    Category.BUSY,
                    f"一分钟内查询超过 {MAX_PER_MINUTE} 次 / More than {MAX_PER_MINUTE} queries in a minute.",
                    where="MSH-9 of segment 1",
                    remedy="Ask again in a minute.",
                    code=207,
                )
            asked.append(now)

    # --- the answer ------------------------------------------------------------------------------------------

    def _target(self, arrival: Arrival) -> OutboundTarget:
        settings, endpoint = self._services.settings, arrival.endpoint
        return OutboundTarget(
            institution=arrival.institution,
            application=arrival.field("MSH-3.1"),
            facility=arrival.field("MSH-4.1"),
            dialect=self._services.directory.dialect(endpoint),
            sending_application=settings.sending_application,
            sending_facility=settings.sending_facility,
        )

    def _written(self, arrival: Arrival, response: R | None, target: OutboundTarget, *, lossy: bool = False) -> bytes:
        assert arrival.message is not None
        control_id = new_correlation_id()[:20]
        now = self._services.clock().astimezone(target.dialect.zone)
        if response is None:
            text = build_ack(arrival.message, code="AA", control_id=control_id, now=now)
        else:
            text = self._text(arrival, response, target, control_id, now)
        charset = arrival.decoded.charset
        if codecs.lookup(charset).name == "ascii":
            charset = target.dialect.charset_out
        try:
            return encode_for(text, charset)
        except UnsupportedError:
            if not lossy:
                # A name with question marks in it would be somebody else's.
                raise
            return text.encode(charset, "replace")

    def _note(self, arrival: Arrival, state: str, outcome: str, owners: Owners, count: int | None) -> None:
        line = AuditLine(
            type="hl7v2",
            action="E",
            subtype=arrival.event,
            actor=arrival.actor,
            recorded_at=self._services.clock(),
            outcome="4" if state == "refused" else "0",
            patients=owners,
            query=arrival.event,
            count=count,
            correlation_id=arrival.correlation_id,
        )
        entry = arrival.entry(state=state, outcome=outcome)

        def work(tx: Tx) -> None:
            tx.journal.append(entry)
            tx.audit.write(line)

        if arrival.is_large:
            self._services.objects.put_bytes(arrival.raw)
        self._services.database.write(work)
