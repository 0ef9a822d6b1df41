"""From a parsed HL7 v2 message to what it asserts: the one door into the message tables.

A new message type is one file in :mod:`fhir_mappings.hl7v2.messages` and one row in :data:`MESSAGES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from fhir_mappings.errors import MalformedError, UnsupportedError
from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.ack import is_ack
from fhir_mappings.hl7v2.assembly import Assembly
from fhir_mappings.hl7v2.base import Issue, Translation
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.messages import (
    adt,
    mdm_t02,
    mfn,
    omp_o09,
    orm_o01,
    orr_o02,
    oru_r01,
    ppr_pc1,
    ras_o17,
    rds_o13,
    ref_i12,
    rri_i12,
    siu_s12,
    siu_s23,
    vxu_v04,
)
from fhir_mappings.hl7v2.tokenizer import Message

Translator = Callable[[Assembly, str], None]

#: HL7 table 0104 as far as the segments used here did not change their meaning.
VERSIONS = frozenset(
    {"2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2", "2.9"}
)

MESSAGES: Mapping[str, Mapping[str, Translator]] = {
    "ADT": adt.EVENTS,
    "ORM": {"O01": orm_o01.translate},
    "OML": dict.fromkeys(("O21", "O33", "O35"), orm_o01.translate),
    "OMG": {"O19": orm_o01.translate},
    "OMI": {"O23": orm_o01.translate},
    # The answers to orders, and to prescriptions below.
    "ORR": {"O02": orr_o02.translate},
    "ORL": dict.fromkeys(("O22", "O34", "O36"), orr_o02.translate),
    "ORG": {"O20": orr_o02.translate},
    "ORI": {"O24": orr_o02.translate},
    "OSU": {"O51": orr_o02.translate},
    # Before v2.4 the pharmacy messages were all of the event O01.
    "OMP": {"O09": omp_o09.translate},
    "RDE": dict.fromkeys(("O11", "O25", "O01"), omp_o09.translate),
    "RDS": dict.fromkeys(("O13", "O01"), rds_o13.translate),
    "RAS": dict.fromkeys(("O17", "O01"), ras_o17.translate),
    "ORP": {"O10": orr_o02.translate},
    "RRE": dict.fromkeys(("O12", "O26", "O02"), orr_o02.translate),
    "RRD": dict.fromkeys(("O14", "O02"), orr_o02.translate),
    "RRA": dict.fromkeys(("O18", "O02"), orr_o02.translate),
    "VXU": {"V04": vxu_v04.translate},
    "PPR": dict.fromkeys(("PC1", "PC2", "PC3"), ppr_pc1.translate),
    "ORU": {"R01": oru_r01.translate},
    # Chinese laboratory systems send results as OUL^R21, whose orders and results stand in the same order as in ORU.
    "OUL": dict.fromkeys(("R21", "R22", "R23", "R24"), oru_r01.translate),
    "REF": dict.fromkeys(("I12", "I13", "I14"), ref_i12.translate),
    # REF^I15 asks and states nothing (:mod:`fhir_mappings.hl7v2.queries.ref_i15`); its answer does.
    "RRI": dict.fromkeys(("I12", "I13", "I14", "I15"), rri_i12.translate),
    "SIU": {
        **dict.fromkeys(
            ("S12", "S13", "S14", "S15", "S16", "S17", "S18", "S19", "S20", "S21", "S22", "S26"), siu_s12.translate
        ),
        **dict.fromkeys(("S23", "S24"), siu_s23.translate),
    },
    "MFN": dict.fromkeys(("M02", "M05"), mfn.translate),
    "MDM": dict.fromkeys(
        ("T01", "T02", "T03", "T04", "T05", "T06", "T07", "T08", "T09", "T10", "T11"), mdm_t02.translate
    ),
}


def translate(message: Message, ctx: MappingContext) -> Translation:
    """Return what *message* asserts. Pure and repeatable: the same message gives the same ids and changes.

    Raises:
        MalformedError: a required segment (100) or field (101) is missing, or data cannot be read (102, 103, 204);
            ``where`` names the place.
        UnsupportedError: message type (200), event (201) or version (203) are none that the hub does; an
            acknowledgement is never translated.
    """
    event, translator = _recognised(message)
    trigger = event.partition("^")[2]
    assembly = Assembly(message=message, ctx=ctx, event=event, asserted_at=_asserted_at(message, ctx))
    _compare_event(message, trigger, assembly)
    translator(assembly, trigger)
    return assembly.finish()


def check_header(message: Message) -> str:
    """Return the event of *message* (``ADT^A01``) if :func:`translate` would take it on, from its MSH alone.

    Raises:
        MalformedError: the type or the control id is missing (101), or a second header follows (100).
        UnsupportedError: message type (200), event (201) or version (203) are none that the hub does.
    """
    return _recognised(message)[0]


def _recognised(message: Message) -> tuple[str, Translator]:
    if is_ack(message):
        raise UnsupportedError(
            "An acknowledgement is an answer and not a message to file.",
            where="MSH-9 of segment 1",
            remedy="Send acknowledgements on the connection of the message they answer.",
            code=200,
        )
    headers = message.all("MSH")
    if len(headers) > 1:
        # One answer would have to serve both, and what the second one says would be told of the first one's patient.
        raise MalformedError(
            "There is a second message inside this one.",
            where=f"MSH of segment {headers[1].index + 1}",
            remedy="Frame each message by itself.",
            code=100,
        )
    code, trigger = _type(message)
    event = f"{code}^{trigger}"
    _check_header(message, event)
    return event, _translator(code, trigger)


def supported_events() -> tuple[str, ...]:
    """Every ``type^event`` that :func:`translate` takes, for the conformance statement."""
    return tuple(f"{code}^{trigger}" for code, events in MESSAGES.items() for trigger in events)


def _type(message: Message) -> tuple[str, str]:
    code = message.get("MSH-9.1").strip().upper()
    # Up to v2.2 senders also write the structure alone (ORU_R01), with the event inside.
    trigger = message.get("MSH-9.2").strip().upper()
    if "_" in code and not trigger:
        code, _, trigger = code.partition("_")
    if not code:
        raise MalformedError(
            "MSH-9 is not valued, so nobody can tell what this message is.",
            where="MSH-9 of segment 1",
            remedy="Send the message type and the event in MSH-9.",
            code=101,
        )
    if code == "ADT" and not trigger:
        # In v2.1 MSH-9 is the type alone, and EVN-1 says the event.
        trigger = message.get("EVN-1").strip().upper()
    if not trigger and len(MESSAGES.get(code, {})) == 1:
        # ORM and ORU have one event each, which v2.1 senders leave out.
        trigger = next(iter(MESSAGES[code]))
    return code, trigger


def _check_header(message: Message, event: str) -> None:
    version = message.get("MSH-12").strip()
    if version not in VERSIONS:
        raise UnsupportedError(
            f"HL7 version {version[:8] or '(not valued)'} is not supported.",
            where="MSH-12 of segment 1",
            remedy=f"Send one of {', '.join(sorted(VERSIONS))}.",
            code=203,
        )
    if not message.get("MSH-10").strip():
        raise MalformedError(
            f"MSH-10 is required in {event} and is not valued.",
            where="MSH-10 of segment 1",
            remedy="Give every message its own control id.",
            code=101,
        )


def _translator(code: str, trigger: str) -> Translator:
    events = MESSAGES.get(code)
    if events is None:
        raise UnsupportedError(
            f"Message type {code[:8]} is not supported.",
            where="MSH-9 of segment 1",
            remedy=f"Send one of {', '.join(MESSAGES)}.",
            code=200,
        )
    translator = events.get(trigger)
    if translator is None:
        raise UnsupportedError(
            f"Event {trigger[:8] or '(not valued)'} of message type {code} is not supported.",
            where="MSH-9 of segment 1",
            remedy=f"Send one of {', '.join(events)}.",
            code=201,
        )
    return translator


def _asserted_at(message: Message, ctx: MappingContext) -> datetime:
    """The moment the message speaks of: EVN-6, else EVN-2, else MSH-7, else when it came."""
    for path in ("EVN-6", "EVN-2", "MSH-7"):
        text = message.get(path).strip()
        # A bare date would put the message at midnight, before what was said earlier the same day.
        moment = datatypes.dtm_instant(text, ctx) if len(text) >= 12 else None
        if moment is not None:
            return moment
    return ctx.received_at


def _compare_event(message: Message, trigger: str, assembly: Assembly) -> None:
    stated = message.get("EVN-1").strip().upper()
    if stated and stated != trigger:
        assembly.issues.append(
            Issue(
                severity="information",
                code="conflict",
                message="EVN-1 names another event than MSH-9, which decides.",
                where="EVN-1 of segment 2",
            )
        )
