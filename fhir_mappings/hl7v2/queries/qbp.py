"""QBP^Q21, Q22 and Q23 as typed questions: QPD, RCP and DSC (HL7 v2.5 chapter 3.3.57 to 3.3.59, 5.4; IHE ITI-9, ITI-21).

What is asked for is bounded here: a parameter that the hub does not search by is refused and never ignored, since ignoring it
would answer another question with more patients than were meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fhir_mappings.errors import MalformedError, UnsupportedError
from fhir_mappings.hl7v2.assembly import where
from fhir_mappings.hl7v2.quantities import dtm_date
from fhir_mappings.hl7v2.tokenizer import Message, Repetition, Segment
from fhir_mappings.text import fold, has_han

#: Event -> the response's event and structure.
RESPONSES: Mapping[str, tuple[str, str]] = {
    "Q21": ("K21", "RSP_K21"),
    "Q22": ("K22", "RSP_K21"),
    "Q23": ("K23", "RSP_K23"),
}
#: Parameters of ITI-21 that the hub searches by, in the words of QIP.1 with unneeded ones cut off.
_PARAMETERS: Mapping[str, str] = {
    "PID.3": "number",
    "PID.3.1": "number",
    "PID.3.4": "domain",
    "PID.3.4.1": "domain",
    "PID.3.4.2": "oid",
    "PID.3.5": "type",
    "PID.5": "family",
    "PID.5.1": "family",
    "PID.5.1.1": "family",
    "PID.5.2": "given",
    "PID.7": "birth",
    "PID.7.1": "birth",
    "PID.8": "sex",
    "PID.13": "phone",
    "PID.13.1": "phone",
    "PID.19": "resident-id",
}
_IGNORABLE = frozenset({"PID.3.4.3"})
_SEX = {"M": "male", "F": "female", "O": "other", "U": "unknown", "男": "male", "女": "female"}
MAX_PARAMETERS = 20
MAX_QUANTITY = 100
_QUANTITY = re.compile(r"[0-9]{1,4}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """An assigning authority as it was written: the name (HD.1) and the OID (HD.2), at least one of them.

    Attributes:
        place: where it stood, for the error that refuses it.
    """

    name: str
    oid: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number that was asked by; *domain* is ``None`` where none was named."""

    value: str
    domain: Domain | None
    type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What candidates must fulfil; empty and ``None`` demand nothing.

    Attributes:
        name: pattern over the whole name, ``*`` for any characters.
    """

    name: str = ""
    birth: str = ""
    sex: str = ""
    phone: str = ""
    resident_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One query.

    Attributes:
        kind: ``person`` (Q21), ``candidates`` (Q22), ``corresponding`` (Q23).
        tag: QPD-2.
        domains: in which the numbers are to be returned; empty for all.
        quantity: most patients of one answer (RCP-2).
        pointer: where an earlier answer ended (DSC-1); empty at the beginning.
    """

    event: str
    kind: Literal["person", "candidates", "corresponding"]
    tag: str
    number: Number | None
    demands: Demands
    domains: tuple[Domain, ...]
    quantity: int
    pointer: str


def is_query(message: Message) -> bool:
    """Return whether *message* asks for an answer of its own kind (QBP) or takes such a question back (QCN)."""
    return message.get("MSH-9.1").strip().upper() in {"QBP", "QCN"}


def read(message: Message) -> Question:
    """Return what *message*, a QBP, asks.

    Raises:
        UnsupportedError: an event (201) or a parameter (103) that the hub does not do.
        MalformedError: QPD is missing (100), a required field is (101), or a value cannot be read (102); ``where`` names it.
    """
    event = message.get("MSH-9.2").strip().upper()
    if event not in RESPONSES:
        raise UnsupportedError(
            f"Query {event[:8] or '(not valued)'} is not supported.",
            where="MSH-9 of segment 1",
            remedy=f"Send QBP with one of {', '.join(RESPONSES)}.",
            code=201,
        )
    qpd = message.first("QPD")
    if qpd is None:
        raise MalformedError("The query has no QPD segment.", where="after segment 1", remedy="Send QPD.", code=100)
    for number, what in ((1, "the query name"), (2, "the query tag")):
        if not qpd.get(number).strip():
            raise _wrong(qpd, number, f"QPD-{number}, {what}, is not valued.", f"Send {what}.", 101)
    found, demands = _demographics(qpd) if event == "Q22" else (_person(qpd), Demands())
    return Question(
        event=event,
        kind={"Q21": "person", "Q22": "candidates", "Q23": "corresponding"}[event],  # type: ignore[arg-type]
        tag=qpd.get(2).strip(),
        number=found,
        demands=demands,
        # ITI-21 has the domains in QPD-8, ITI-9 and Q21 in QPD-4.
        domains=_domains(qpd, 8 if event == "Q22" else 4),
        quantity=_quantity(message),
        pointer=message.get("DSC-1").strip(),
    )


def _person(qpd: Segment) -> Number:
    """The CX of QPD-3 (Person Identifier): the number and who gave it out."""
    repetition = qpd.field(3).first
    value = repetition.component(1).strip()
    if not value:
        raise _wrong(qpd, 3, "QPD-3, the person's number, is not valued.", "Send number and assigning authority.", 101)
    domain = _domain(repetition, f"{where(qpd, 3)}")
    return Number(value=value, domain=domain, type=repetition.component(5).strip())


def _demographics(qpd: Segment) -> tuple[Number | None, Demands]:
    given: dict[str, str] = {}
    repetitions = [one for one in qpd.field(3).repetitions if one.raw]
    if len(repetitions) > MAX_PARAMETERS:
        raise _wrong(qpd, 3, f"QPD-3 has more than {MAX_PARAMETERS} parameters.", "Ask for less at once.", 102)
    for repetition in repetitions:
        path, value = repetition.component(1).strip().lstrip("@").upper(), repetition.component(2).strip()
        if not value or path in _IGNORABLE:
            continue
        name = _PARAMETERS.get(path)
        if name is None:
            raise UnsupportedError(
                "QPD-3 asks by a parameter that is not searched by.",
                where=where(qpd, 3),
                remedy=f"Ask by {', '.join(sorted(_PARAMETERS))}.",
                code=103,
            )
        given[name] = value
    number = None
    if "number" in given:
        domain = None
        if given.get("domain") or given.get("oid"):
            domain = Domain(name=given.get("domain", ""), oid=given.get("oid", ""), place=where(qpd, 3))
        number = Number(value=given["number"], domain=domain, type=given.get("type", ""))
    birth = dtm_date(given["birth"]) if "birth" in given else ""
    if birth is None:
        raise _wrong(qpd, 3, "PID.7 is no date.", "Send YYYYMMDD.", 102)
    sex = _SEX.get(given.get("sex", "").upper(), "") if "sex" in given else ""
    if "sex" in given and not sex:
        raise _wrong(qpd, 3, "PID.8 is no sex of table 0001.", "Send M, F, O or U.", 103)
    demands = Demands(
        # Where only the given name is asked for, any family name stands before it.
        name=_name(qpd, given.get("family", ""), given.get("given", "")),
        birth=birth,
        sex=sex,
        phone=given.get("phone", ""),
        resident_id=given.get("resident-id", ""),
    )
    if number is None and not (demands.name or demands.birth or demands.phone or demands.resident_id):
        raise _wrong(qpd, 3, "QPD-3 demands too little.", "Ask by number, name, birth date or telephone.", 101)
    return number, demands


def _name(qpd: Segment, family: str, given: str) -> str:
    if not family and not given:
        return ""
    pattern = "*".join(fold(part) for part in f"{family or '*'}{given}".split("*"))
    said = pattern.replace("*", "")
    if not said or (len(said) < 2 and not has_han(said)):
        raise _wrong(qpd, 3, "PID.5 demands too little.", "Send a Chinese character or two letters at least.", 102)
    return pattern


def _domains(qpd: Segment, number: int) -> tuple[Domain, ...]:
    found = []
    for index, repetition in enumerate(one for one in qpd.field(number).repetitions if one.raw):
        domain = _domain(repetition, where(qpd, number))
        if domain is None:
            raise _wrong(qpd, number, f"Repetition {index + 1} names no domain.", "Name it in component 4.", 101)
        found.append(domain)
    return tuple(found)


def _domain(repetition: Repetition, place: str) -> Domain | None:
    name, oid = repetition.component(4).strip(), repetition.component(4, 2).strip()
    return Domain(name=name, oid=oid, place=place) if name or oid else None


def _quantity(message: Message) -> int:
    rcp = message.first("RCP")
    if rcp is None:
        return MAX_QUANTITY
    priority = rcp.get(1).strip().upper()
    if priority not in {"", "I"}:
        raise _wrong(rcp, 1, "RCP-1 asks for a deferred answer.", "Send I; the answer comes at once.", 103)
    written = rcp.get(2).strip()
    if not written:
        return MAX_QUANTITY
    unit = rcp.get(2, 2).strip().upper()
    if _QUANTITY.fullmatch(written) is None or int(written) == 0 or unit not in {"", "RD"}:
        raise _wrong(rcp, 2, "RCP-2 is no number of records.", "Send a number and RD, as in 10^RD.", 102)
    return min(int(written), MAX_QUANTITY)


def _wrong(segment: Segment, number: int, message: str, remedy: str, code: int) -> MalformedError:
    return MalformedError(message, where=where(segment, number), remedy=remedy, code=code)


def fits(pattern: str, candidate: str) -> bool:
    """Return whether *candidate* is what *pattern* says, ``*`` standing for any characters; linear, both folded."""
    parts = pattern.split("*")
    if len(parts) == 1:
        return candidate == pattern
    if not candidate.startswith(parts[0]) or not candidate.endswith(parts[-1]):
        return False
    at, end = len(parts[0]), len(candidate) - len(parts[-1])
    for part in parts[1:-1]:
        found = candidate.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return at <= end
