"""Patients asked for by HL7 v2: Patient Demographics Query (ITI-21: QBP^Q21, Q22) and PIX Query (ITI-9: QBP^Q23).

DESIGN rules 4, 5 and 12. An asker sees its own patients and those that open grants give it, through the predicate that every
read carries; of another institution's numbers it learns those alone that stand in records it may read. A link between two
institutions' patients (:mod:`hub.identity`) says which records are one person's, and opens none of them.

A feed asks where its Endpoint has the setting ``patient-queries``; :mod:`hub.query_answers` says how it is answered. A wrong
question gets AE or AR in QAK-2. One that too many patients fit is refused, so that nobody lists a hospital by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from fhir_mappings.hl7v2.ack import AckError
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.queries import qbp, rsp
from fhir_mappings.hl7v2.queries.qbp import Domain, Number, Question
from fhir_mappings.hl7v2.queries.rsp import Response
from fhir_mappings.identifiers import canonical_system
from hub.access import scope_of
from hub.arrival import Arrival
from hub.errors import Category, HubError
from hub.patient_answers import Asking
from hub.query_answers import MAX_PER_MINUTE, Owners, QueryAnswers

__all__ = ["MAX_PER_MINUTE", "SETTING", "PatientQueries"]

#: Endpoint setting of a feed that may ask for patients.
SETTING = "patient-queries"


class PatientQueries(QueryAnswers[Response]):
    """Answers questions for patients; safe for many threads."""

    setting = SETTING
    closed = "本接口未开通患者查询 / This feed may not ask for patients."

    # --- what is found ---------------------------------------------------------------------------------------

    def _found(self, arrival: Arrival, target: OutboundTarget) -> tuple[Response | None, Owners, int | None]:
        assert arrival.message is not None
        if arrival.field("MSH-9.1").upper() == "QCN":
            # Each part of an answer stands for itself, so there is nothing here to forget.
            return None, (), None
        response, owners = self._answer(arrival, qbp.read(arrival.message), target)
        return response, owners, response.total

    def _refusal(self, status: Literal["AE", "AR"], errors: Sequence[AckError]) -> Response:
        return Response(status=status, errors=tuple(errors))

    def _text(
        self, arrival: Arrival, response: Response, target: OutboundTarget, control_id: str, now: datetime
    ) -> str:
        assert arrival.message is not None
        return rsp.build(arrival.message, response, target=target, control_id=control_id, now=now)

    def _answer(self, arrival: Arrival, question: Question, target: OutboundTarget) -> tuple[Response, Owners]:
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
