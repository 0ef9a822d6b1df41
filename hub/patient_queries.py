"""Patients asked for by HL7 v2: Patient Demographics Query (ITI-21: QBP^Q21, Q22) and PIX Query (ITI-9: QBP^Q23).

DESIGN rules 4, 5 and 12. An asker sees its own patients and those that open grants give it, through the predicate that every
read carries; of another institution's numbers it learns those alone that stand in records it may read. A link between two
institutions' patients (:mod:`hub.identity`) says which records are one person's, and opens none of them.

Who sends from a member's address is less sure than who holds a token, so a feed is answered only where its Endpoint says so
(setting ``patient-queries``). A query is answered once, on its connection, by a response that holds patient data and is
therefore not kept: the journal has the question, the audit trail whose data went out, before it goes. A wrong question gets a
response too, with AE or AR in QAK-2. A question that too many patients fit is refused, so that nobody lists a hospital by it.
"""

from __future__ import annotations

import codecs
import threading
from collections import deque
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from fhir_mappings.errors import MalformedError, MappingError, UnsupportedError
from fhir_mappings.hl7v2.ack import build_ack
from fhir_mappings.hl7v2.charset import encode_for
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.queries import qbp, rsp
from fhir_mappings.hl7v2.queries.qbp import Domain, Number, Question
from fhir_mappings.hl7v2.queries.rsp import Response
from fhir_mappings.hl7v2.translate import VERSIONS
from fhir_mappings.identifiers import canonical_system
from hub.access import scope_of
from hub.acknowledge import refused
from hub.arrival import Arrival
from hub.envelope import new_correlation_id
from hub.errors import Category, HubError
from hub.patient_answers import Asking
from hub.ports import AuditLine, Tx

if TYPE_CHECKING:
    from hub.boot import Services


#: Endpoint setting of a feed that may ask for patients.
SETTING = "patient-queries"
#: Questions of one member a minute, in each process; a desk asks some, a program that copies a register thousands.
MAX_PER_MINUTE = 600
_WINDOW = timedelta(minutes=1)


class PatientQueries:
    """Answers questions for patients; safe for many threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._asked: dict[str, deque[datetime]] = {}

    def answer(self, arrival: Arrival) -> bytes:
        """Return the answer to *arrival*, a QBP or QCN of a known sender, once its audit line is durable.

        Raises:
            HubError: transient, when the database cannot work now; the sender asks again.
        """
        assert arrival.message is not None
        target = self._target(arrival)
        owners: tuple[tuple[str, str], ...] = ()
        state, outcome = "done", ""
        try:
            self._check(arrival)
            if arrival.field("MSH-9.1").upper() == "QCN":
                # Each part of an answer stands for itself, so there is nothing here to forget.
                response = None
            else:
                response, owners = self._found(arrival, qbp.read(arrival.message), target)
            answer = self._written(arrival, response, target)
        except (MappingError, HubError) as error:
            if isinstance(error, HubError) and (error.transient or error.fatal) and error.category is not Category.BUSY:
                raise
            verdict = refused(error)
            status: Literal["AE", "AR"] = "AR" if verdict.outcome == "refused" else "AE"
            state, outcome, owners = "refused", verdict.reason, ()
            response = Response(status=status, errors=verdict.errors)
            answer = self._written(arrival, response, target, lossy=True)
        self._note(arrival, state, outcome, owners, None if response is None else response.total)
        return answer

    # --- whether ---------------------------------------------------------------------------------------------

    def _check(self, arrival: Arrival) -> None:
        assert arrival.endpoint is not None
        version = arrival.field("MSH-12")
        if version not in VERSIONS:
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
        if arrival.endpoint.settings.get(SETTING) is not True:
            raise HubError(
                Category.UNSUPPORTED,
                "本接口未开通患者查询 / This feed may not ask for patients.",
                where="MSH-9 of segment 1",
                remedy=f"Ask the operator to set {SETTING} at the endpoint.",
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

    # --- what is found ---------------------------------------------------------------------------------------

    def _found(
        self, arrival: Arrival, question: Question, target: OutboundTarget
    ) -> tuple[Response, tuple[tuple[str, str], ...]]:
        """Return the response, and (owner, Patient id) of everybody in it."""
        asking = Asking(
            question=question,
            scope=scope_of(arrival.actor),
            target=target,
            number=self._number_domain(arrival, question.number, target) if question.number else None,
            wanted=tuple(self._domain(arrival, one) for one in question.domains),
        )
        return self._services.database.read(asking.corresponding if question.kind == "corresponding" else asking.people)

    def _number_domain(self, arrival: Arrival, number: Number, target: OutboundTarget) -> tuple[str, str]:
        """Return the domain of a number; where none is named its type says one (CX.5), or it is the asker's own."""
        if number.domain is not None:
            return self._domain(arrival, number.domain)
        national = rsp.national_oid(target.dialect.cx_types.get(number.type, ""))
        return ("", national) if national else (arrival.institution, "")

    def _domain(self, arrival: Arrival, domain: Domain) -> tuple[str, str]:
        """Return (institution, "") or ("", OID) of a domain."""
        assert arrival.endpoint is not None
        context = self._services.directory.context(arrival.endpoint)
        oid = canonical_system(domain.oid).removeprefix("urn:oid:")
        if oid in rsp.OIDS:
            return "", oid
        owner = context.owner(domain.name) if domain.name else None
        if owner is None:
            raise HubError(
                Category.NOT_FOUND,
                "标识域未知 / The assigning authority is unknown.",
                where=domain.place,
                remedy="Send a member's code or its name in MSH-4, or the OID of a national number.",
                code=204,
            )
        return owner, ""

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

    def _written(
        self, arrival: Arrival, response: Response | None, target: OutboundTarget, *, lossy: bool = False
    ) -> bytes:
        assert arrival.message is not None
        control_id = new_correlation_id()[:20]
        now = self._services.clock().astimezone(target.dialect.zone)
        if response is None:
            text = build_ack(arrival.message, code="AA", control_id=control_id, now=now)
        else:
            text = rsp.build(arrival.message, response, target=target, control_id=control_id, now=now)
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

    def _note(
        self, arrival: Arrival, state: str, outcome: str, owners: tuple[tuple[str, str], ...], count: int | None
    ) -> None:
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
