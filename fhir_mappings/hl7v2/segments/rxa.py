"""RXA: what was given (HL7 v2 chapter 4.14.7): the parts that FHIR Immunization and MedicationAdministration share.

v2-to-FHIR: RXA[Immunization], ORC[Immunization], ORC[MedicationAdministration].
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, Place
from fhir_mappings.hl7v2.segments import convert, orc, rxc
from fhir_mappings.hl7v2.tokenizer import Segment

Json = dict[str, Any]

_V2_0443 = "http://terminology.hl7.org/CodeSystem/v2-0443"
#: RXA-20 (table 0322) to the status, v2-to-FHIR CompletionStatus.
_COMPLETION = {"CP": "completed", "PA": "completed", "RE": "not-done", "NA": "not-done"}


def status(rxa: Segment, assembly: Assembly) -> str:
    """Return the status: RXA-21 ``D`` withdraws, RXA-20 says whether it was given, without both it was."""
    if rxa.get(21).strip().upper() == "D":
        return "entered-in-error"
    code = rxa.get(20).strip().upper()
    if code and code not in _COMPLETION:
        Place(assembly, rxa, 20).warn("The code is none of table 0322; it was read as given.", code="code-invalid")
    return _COMPLETION.get(code, "completed")


def key(rxa: Segment, control: Segment | None, code: Json, assembly: Assembly) -> tuple[str, str]:
    """Return (authority, number) that names one administration.

    The filler's number names it with the counters of RXA-1 and RXA-2, else the time. Immunization registries write
    ``9999`` where there is no number (CDC implementation guide for immunization messaging); then, and without ORC,
    the patient, what was given and when do.
    """
    found = orc.numbers(control, None).filler_key if control is not None else None
    if found is None or found[1] == "9999":
        name = code["coding"][0]["code"] if code.get("coding") else code.get("text", "")
        return "administration", f"{assembly.patient_id}|{name}|{rxa.get(3).strip()[:8]}|{rxa.get(2).strip()}"
    counter = rxa.get(2).strip()
    which = counter if counter not in {"", "0"} else rxa.get(3).strip()
    return found[0], f"{found[1]}|{rxa.get(1).strip()}|{which}"


def amount(rxa: Segment, assembly: Assembly) -> Json | None:
    """Return RXA-6 and RXA-7 as a Quantity; ``999`` is how an unknown amount is written (chapter 4.14.7.6)."""
    return None if rxa.get(6).strip() == "999" else rxc.quantity(rxa, 6, 7, assembly)


def performers(rxa: Segment, control: Segment | None, assembly: Assembly) -> list[Json]:
    """Return who gave it (AP) and who ordered it (OP), each with the function of table 0443."""
    made: list[Json] = []
    for segment, number, code in ((rxa, 10, "AP"), (control, 12, "OP")):
        if segment is None:
            continue
        for reference in convert.practitioners(segment.field(number), Place(assembly, segment, number)):
            made.append({"function": {"coding": [{"system": _V2_0443, "code": code}]}, "actor": reference})
    return made


def reasons(rxa: Segment, assembly: Assembly) -> Json:
    """Return ``reasonCode`` (RXA-19) and ``statusReason`` (RXA-18), as lists."""
    made: Json = {}
    for number, name in ((19, "reasonCode"), (18, "statusReason")):
        found = convert.concepts(rxa.field(number), Place(assembly, rxa, number))
        if found:
            made[name] = found
    return made


def location(rxa: Segment, assembly: Assembly) -> Json | None:
    """Return where it was given: RXA-27, before v2.7 RXA-11, whose first components are those of a PL."""
    for number in (27, 11):
        found = convert.location(rxa.field(number), Place(assembly, rxa, number))
        if found:
            return found
    return None


def note_texts(rxa: Segment) -> list[str]:
    """Return the words of RXA-9; its codes of origin are the immunization's own affair."""
    found = []
    for one in rxa.field(9).repetitions:
        code = one.component(1).strip()
        if not (code.isascii() and code.isdigit()):
            found.append(one.component(2).strip() or one.component(5).strip() or code)
    return [text for text in found if text]
