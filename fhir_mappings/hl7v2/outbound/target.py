"""Whom a message is for: names, version and dialect of the receiver, and the MSH that follows (HL7 v2 chapter 2.14.9)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from fhir_mappings.errors import UnsupportedError
from fhir_mappings.hl7v2.ack import v2_time
from fhir_mappings.hl7v2.builder import FieldValue, MessageBuilder
from fhir_mappings.hl7v2.context import Dialect
from fhir_mappings.identifiers import CANONICAL_BASE

#: What a receiver is asked for beside what its message calls for: ``original`` leaves MSH-15 and MSH-16 empty, so that one
#: answer comes from the application; ``accept`` asks for the receipt alone; ``both`` for the application's answer to everything.
Acknowledgements = Literal["", "original", "accept", "both"]

#: Types that want somebody to decide, and whose answer may be more than an acknowledgement.
_REQUESTS: Final = frozenset({"REF", "ORM", "OML", "OMG", "OMI", "SIU"})
#: Types that answer; the application is never asked to answer an answer.
_ANSWERS: Final = frozenset({"RRI", "ORR", "ORL", "ORG", "ORI", "ORP", "RRE", "RRD", "RRA", "RSP", "OSR"})


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundTarget:
    """The receiver of a message.

    Attributes:
        institution: code of the institution, for example ``KN``; its own numbers go into PID-3 and OBR-2.
        application: MSH-5.
        facility: MSH-6.
        dialect: version, MSH-18, CX types and time zone of what it reads; the caller encodes in its ``charset_out``.
        acknowledgements: what it is asked for, where that is not what the message calls for.
        country: MSH-17.
    """

    institution: str
    application: str
    facility: str
    dialect: Dialect
    acknowledgements: Acknowledgements = ""
    country: str = "CHN"
    processing_id: str = "P"
    sending_application: str = "YIXIE"
    sending_facility: str = "HUB"
    base: str = CANONICAL_BASE

    @property
    def modern(self) -> bool:
        """Whether the version has CWE, DTM and message structures for every event (v2.5 and later)."""
        return self.dialect.version_out not in {"2.1", "2.2", "2.3", "2.3.1", "2.4"}

    def asks(self, code: str) -> tuple[str, str]:
        """Return MSH-15 and MSH-16 of a message of type *code* (chapter 2.9.3, table 0155)."""
        if self.acknowledgements == "original":
            return "", ""
        wanted = code in _REQUESTS if self.acknowledgements == "" else self.acknowledgements == "both"
        return "AL", "AL" if wanted and code not in _ANSWERS else "NE"

    @property
    def has_cwe(self) -> bool:
        """Whether coded fields are CWE, which has room for the original text beside the codes (v2.6 and later)."""
        return self.modern and self.dialect.version_out not in {"2.5", "2.5.1"}


def start(target: OutboundTarget, message: str, *, control_id: str, now: datetime) -> MessageBuilder:
    """Return a builder that holds the MSH of *message* (``ORU^R01^ORU_R01``).

    Raises:
        UnsupportedError: *control_id* is longer than the 20 characters that MSH-10 holds before v2.7.
    """
    if not control_id or len(control_id) > 20:
        raise UnsupportedError(
            "The control id must have 1 to 20 characters.",
            where="MSH-10",
            remedy="Make a shorter control id.",
            code=102,
        )
    code, event, structure = message.split("^")
    # v2.4 has MSH-9.3, but its Chinese readers compare MSH-9 with "ORU^R01".
    kind: FieldValue = [code, event, structure] if target.modern else [code, event]
    accept, application = target.asks(code)
    return MessageBuilder().segment(
        "MSH",
        {
            3: target.sending_application,
            4: target.sending_facility,
            5: target.application,
            6: target.facility,
            7: v2_time(now.astimezone(target.dialect.zone)),
            9: kind,
            10: control_id,
            11: target.processing_id,
            12: target.dialect.version_out,
            15: accept,
            16: application,
            17: target.country,
            18: target.dialect.msh_18_out,
        },
    )
