"""MFN^M02 (staff) and MFN^M05 (places) as the sender's own Practitioner, PractitionerRole, Location and HealthcareService.

HL7 v2 chapter 8 (MFI, MFE, MFA 8.5; STF, PRA 8.7 and 15.4; LOC, LDP 8.9). A record is applied or refused by itself, and the
answer MFK says which (:mod:`fhir_mappings.hl7v2.mfk`). Ids are made of the numbers by which the sender's other messages name the
same people and places, so an MFN fills the records that these made.

What a sender states is visible to the whole consortium, so of its staff it is what a colleague elsewhere must know: number, name,
sex, work, and how to call at work. Address, birth date and identity numbers stay in the original message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fhir_mappings.errors import MalformedError, MappingError, UnsupportedError
from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Place, where
from fhir_mappings.hl7v2.base import Issue
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.cx import kind_concept
from fhir_mappings.hl7v2.segments import convert
from fhir_mappings.hl7v2.tokenizer import Message, Segment

Json = dict[str, Any]

#: Record-level event code (table 0180) -> whether the record is in use. The hub keeps what other records point at, so a deleted
#: one is out of use.
_ACTIONS = {"MAD": True, "MUP": True, "MAC": True, "MDC": False, "MDL": False}
_FILES = {"M02": frozenset({"STF", "PRA"}), "M05": frozenset({"LOC"})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One MFE with the segments that belong to it.

    Attributes:
        error: why it is refused; ``None`` where it is applied.
    """

    mfe: Segment
    segments: tuple[Segment, ...]
    error: MappingError | None = None

    def first(self, name: str) -> Segment | None:
        """Return the record's first segment *name*."""
        return next((one for one in self.segments if one.name == name), None)


def translate(assembly: Assembly, trigger: str) -> None:
    """Add every record that can be applied; the others become issues.

    Raises:
        MalformedError: MFI or every MFE is missing (100), or the file is not one of this event (103).
        UnsupportedError: the message replaces the whole file (103).
    """
    for record in records(assembly.message, assembly.ctx):
        if record.error is not None:
            assembly.issues.append(
                Issue(
                    severity="warning",
                    code="processing",
                    message=f"The record was refused: {record.error.message}",
                    where=record.error.where,
                )
            )
            continue
        _apply(record, trigger, assembly)


def records(message: Message, ctx: MappingContext) -> list[Record]:
    """Return the records of *message* in their order, each judged.

    Raises:
        MalformedError, UnsupportedError: as :func:`translate`.
    """
    mfi = message.first("MFI")
    if mfi is None or message.first("MFE") is None:
        raise MalformedError(
            "A master file message has MFI and one MFE for each record.",
            where=f"after segment {len(message.segments)}",
            remedy="Send MFI and MFE as the message structure says.",
            code=100,
        )
    if mfi.get(3).strip().upper() != "UPD":
        # A replaced file retires whatever it does not list; half a file sent by mistake would retire the rest of a hospital.
        raise UnsupportedError(
            "MFI-3 is not UPD; a whole file is not replaced.",
            where=where(mfi, 3),
            remedy="Send UPD, and MDC for each record that is out of use.",
            code=103,
        )
    trigger = message.get("MSH-9.2").strip().upper()
    return [_judged(mfe, segments, trigger, ctx) for mfe, segments in _groups(message)]


def _groups(message: Message) -> Iterator[tuple[Segment, tuple[Segment, ...]]]:
    mfe: Segment | None = None
    inside: list[Segment] = []
    for segment in message.segments:
        if segment.name == "MFE":
            if mfe is not None:
                yield mfe, tuple(inside)
            mfe, inside = segment, []
        elif mfe is not None:
            inside.append(segment)
    if mfe is not None:
        yield mfe, tuple(inside)


def _judged(mfe: Segment, segments: tuple[Segment, ...], trigger: str, ctx: MappingContext) -> Record:
    record = Record(mfe=mfe, segments=segments)
    try:
        _check(record, trigger, ctx)
    except MappingError as error:
        return Record(mfe=mfe, segments=segments, error=error)
    return record


def _check(record: Record, trigger: str, ctx: MappingContext) -> None:
    mfe = record.mfe
    if mfe.get(1).strip().upper() not in _ACTIONS:
        raise _wrong(mfe, 1, "MFE-1 is no code of table 0180.", f"Send {', '.join(_ACTIONS)}.", 103)
    moment = datatypes.dtm_instant(mfe.get(3), ctx) if mfe.get(3).strip() else None
    if moment is not None and moment > ctx.received_at:
        raise _wrong(mfe, 3, "MFE-3 lies in the future.", "Send the record when it takes effect.", 102)
    main = "STF" if trigger == "M02" else "LOC"
    stated = record.first(main)
    key = _key(record, main)
    if not key:
        raise _wrong(mfe, 4, "MFE-4, the key of the record, is not valued.", "Send the record's own number.", 101)
    if stated is None and _ACTIONS[mfe.get(1).strip().upper()]:
        raise _wrong(mfe, None, f"The record has no {main}.", f"Send {main} behind its MFE.", 100)
    if stated is not None and mfe.get(4).strip() and stated.get(1).strip() and _differ(mfe, stated):
        raise _wrong(stated, 1, f"{main}-1 is another key than MFE-4.", "Send the same key in both.", 102)
    if trigger == "M05" and not _places(record, ctx):
        raise _wrong(mfe, 4, "The key names no place (PL).", "Send ward, room and bed as in PV1-3.", 102)


def _key(record: Record, main: str) -> str:
    stated = record.first(main)
    return record.mfe.field(4).text().strip() or (stated.field(1).text().strip() if stated is not None else "")


def _differ(mfe: Segment, stated: Segment) -> bool:
    return [mfe.get(4, number).strip() for number in range(1, 9)] != [
        stated.get(1, number).strip() for number in range(1, 9)
    ]


def _apply(record: Record, trigger: str, assembly: Assembly) -> None:
    action = record.mfe.get(1).strip().upper()
    apply: Callable[[Record, bool, Assembly], None] = _staff if trigger == "M02" else _place
    apply(record, _ACTIONS[action], assembly)
    known = _FILES[trigger] | {"LDP"}
    for segment in record.segments:
        if segment.name not in known:
            assembly.skip(segment)


# --- staff ------------------------------------------------------------------------------------------------------


def _staff(record: Record, active: bool, assembly: Assembly) -> None:
    ctx, stf = assembly.ctx, record.first("STF")
    code = record.mfe.get(4).strip() or (stf.get(1).strip() if stf is not None else "")
    identity = ctx.id("Practitioner", "practitioner", code)
    if stf is not None and stf.get(7).strip().upper() == "I":
        active = False
    person: Json = {
        "resourceType": "Practitioner",
        "id": identity,
        "active": active,
        "identifier": [{"type": kind_concept("practitioner", ""), "system": ctx.system("practitioner"), "value": code}],
    }
    role: Json = {
        "resourceType": "PractitionerRole",
        "id": ctx.id("PractitionerRole", "practitioner", code),
        "active": active,
        "practitioner": {"reference": f"Practitioner/{identity}"},
        "organization": convert.institution(ctx.institution, ctx),
    }
    if stf is not None:
        _fill_person(person, stf, assembly)
        role["practitioner"].update({"display": person["name"][0]["text"]} if person.get("name") else {})
        _fill_role(role, stf, record.first("PRA"), assembly)
    assembly.upsert(person, guard="demographics", update_only=stf is None)
    assembly.upsert(role, guard="demographics", update_only=stf is None)


def _fill_person(person: Json, stf: Segment, assembly: Assembly) -> None:
    names = convert.names(stf.field(3), Place(assembly, stf, 3))
    if names:
        person["name"] = names
    if stf.get(5).strip():
        mapped = Place(assembly, stf, 5).mapped("administrative_sex", stf.get(5).strip())
        if mapped is not None:
            person["gender"] = mapped.target


def _fill_role(role: Json, stf: Segment, pra: Segment | None, assembly: Assembly) -> None:
    kinds: list[Json] = []
    for segment, number in ((stf, 4), (stf, 18), (stf, 19), (pra, 3)):
        if segment is not None:
            found = convert.concepts(segment.field(number), Place(assembly, segment, number))
            kinds += [one for one in found if one not in kinds]
    if kinds:
        role["code"] = kinds
    specialties: list[Json] = []
    if pra is not None:
        for repetition in pra.field(5).repetitions:
            name = repetition.component(1).strip()
            if name and not repetition.is_null:
                specialties.append({"text": name})
    if specialties:
        role["specialty"] = specialties
    departments = [
        {"reference": f"HealthcareService/{_department_id(one.component(1).strip(), assembly.ctx)}", "display": text}
        for one in stf.field(8).repetitions
        if one.component(1).strip() and (text := one.component(2).strip() or one.component(1).strip())
    ]
    if departments:
        for one, repetition in zip(departments, stf.field(8).repetitions, strict=False):
            assembly.intern(_department(repetition.component(1).strip(), one["display"], assembly.ctx))
        role["healthcareService"] = departments
    phones = [
        one
        for one in convert.telecoms(stf.field(10), Place(assembly, stf, 10))
        # A home number is the person's own affair; feeds write it without a use, so only what says work goes on.
        if one.get("use") == "work"
    ]
    if phones:
        role["telecom"] = phones
    period = {
        name: made
        for name, number in (("start", 12), ("end", 13))
        if (made := datatypes.dtm_datetime(stf.get(number), assembly.ctx))
    }
    if period:
        role["period"] = period


# --- places -----------------------------------------------------------------------------------------------------


def _places(record: Record, ctx: MappingContext) -> list[Json]:
    loc = record.first("LOC")
    field = record.mfe.field(4)
    if loc is not None and (field.is_absent or field.is_null):
        field = loc.field(1)
    return datatypes.pl_locations(field.first, ctx)


def _place(record: Record, active: bool, assembly: Assembly) -> None:
    ctx, loc = assembly.ctx, record.first("LOC")
    *larger, place = _places(record, ctx)
    for one in larger:
        assembly.intern(one)
    place |= {
        "status": "active" if active else "inactive",
        "managingOrganization": convert.institution(ctx.institution, ctx),
    }
    if loc is not None:
        if described := loc.field(2).text().strip():
            place["name"] = described
        kinds = convert.concepts(loc.field(3), Place(assembly, loc, 3))
        if kinds:
            place["type"] = kinds
        homes = convert.addresses(loc.field(5), Place(assembly, loc, 5))
        if homes:
            place["address"] = homes[0]
        phones = convert.work_telecoms(loc.field(6), Place(assembly, loc, 6))
        if phones:
            place["telecom"] = phones
    assembly.upsert(place, guard="demographics", update_only=loc is None)
    for ldp in (one for one in record.segments if one.name == "LDP"):
        _service(ldp, place, active, assembly)


def _service(ldp: Segment, place: Json, active: bool, assembly: Assembly) -> None:
    code = ldp.get(2).strip()
    if not code:
        Place(assembly, ldp, 2).warn("The department has no code; it was left out.")
        return
    made = _department(code, ldp.get(2, 2).strip() or code, assembly.ctx)
    made["active"] = active and ldp.get(6).strip().upper() != "I"
    kinds = convert.concepts(ldp.field(3), Place(assembly, ldp, 3))
    if kinds:
        made["type"] = kinds
    specialties = convert.concepts(ldp.field(4), Place(assembly, ldp, 4))
    if specialties:
        made["specialty"] = specialties
    made["location"] = [{"reference": f"Location/{place['id']}", "display": place["name"]}]
    assembly.upsert(made, guard="demographics")


def _department_id(code: str, ctx: MappingContext) -> str:
    return ctx.id("HealthcareService", "department", code)


def _department(code: str, name: str, ctx: MappingContext) -> Json:
    return {
        "resourceType": "HealthcareService",
        "id": _department_id(code, ctx),
        "identifier": [{"system": ctx.system("department"), "value": code}],
        "active": True,
        "providedBy": convert.institution(ctx.institution, ctx),
        "name": name,
    }


def _wrong(segment: Segment, number: int | None, message: str, remedy: str, code: int) -> MalformedError:
    return MalformedError(message, where=where(segment, number), remedy=remedy, code=code)
