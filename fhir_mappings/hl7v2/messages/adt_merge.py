"""ADT merges: two numbers are one patient, one visit or one account (HL7 v2 chapter 3.6).

Which numbers an event merges, by the age of the standard: A18 (v2.1, all that MRG names), A34 to A36 (v2.2 and v2.3),
A30 and A40 (patients), A41 and A49 (accounts), A42 and A50 (visits), A47 (a number that was wrong is replaced). The
v2-to-FHIR maps have MRG[Account] alone; what a merge does is :class:`fhir_mappings.hl7v2.base.Merge`.
"""

from __future__ import annotations

from typing import Any, Literal

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Place
from fhir_mappings.hl7v2.base import Replace
from fhir_mappings.hl7v2.segments import account, convert, pid, pv1
from fhir_mappings.hl7v2.tokenizer import Segment

Json = dict[str, Any]
Level = Literal["patient", "account", "visit"]

#: Event -> what it merges; the first must be there, the others are merged where MRG names them.
LEVELS: dict[str, tuple[Level, ...]] = {
    "A18": ("patient", "account", "visit"),
    "A30": ("patient",),
    "A34": ("patient",),
    "A35": ("account",),
    "A36": ("patient", "account"),
    "A40": ("patient",),
    "A41": ("account",),
    "A42": ("visit",),
    "A47": ("patient",),
    "A49": ("account",),
    "A50": ("visit",),
}


def merge(assembly: Assembly, trigger: str) -> None:
    """Add a merge for each MRG with the PID and PV1 before it; PID and MRG may repeat (chapter 3.3.40).

    Raises:
        MalformedError: a PID or an MRG is missing (100) or names nobody (101).
    """
    assembly.require("PID")
    assembly.require("MRG")
    levels = LEVELS[trigger]
    survivor: Segment | None = None
    first: str | None = None
    segments = assembly.message.segments
    for place, segment in enumerate(segments):
        if segment.name == "PID":
            survivor = segment
        elif segment.name == "MRG" and survivor is not None:
            if levels[0] == "patient":
                survivor_id = _merge_patients(survivor, segment, assembly)
            else:
                survivor_id = _same_patient(survivor, assembly)
            first = first or survivor_id
            if "account" in levels:
                _merge_accounts(survivor, segment, assembly, required=levels[0] == "account")
            if "visit" in levels:
                visit = next((one for one in segments[place + 1 :] if one.name in {"PV1", "PID"}), None)
                visit = visit if visit is not None and visit.name == "PV1" else None
                _merge_visits(visit, segment, assembly, required=levels[0] == "visit")
    assembly.patient_id = first


def _same_patient(segment: Segment, assembly: Assembly) -> str:
    filled = pid.patient(segment, assembly)
    assembly.intern({"active": True, **filled.elements})
    return str(filled.elements["id"])


def _merge_patients(survivor: Segment, dead: Segment, assembly: Assembly) -> str:
    dead_id = pid.number_id(dead.field(1), assembly, dead.get(4).strip())
    if dead_id is None:
        raise assembly.missing(dead, 1, "Send the number of the record that is merged away in MRG-1.")
    filled = pid.patient(survivor, assembly)
    survivor_id = str(filled.elements["id"])
    old_numbers = [{**item, "use": "old"} for item in convert.identifiers(dead.field(1), Place(assembly, dead, 1))]
    if survivor_id == dead_id:
        Place(assembly, dead, 1).warn("MRG-1 and PID-3 name the same record; nothing was merged.", code="duplicate")
    else:
        present = {(item["system"], item["value"]) for item in filled.elements.get("identifier", [])}
        extra = [item for item in old_numbers if (item["system"], item["value"]) not in present]
        filled.elements.setdefault("identifier", []).extend(extra)
    assembly.upsert(filled.elements, cleared=filled.open_clears(), guard="demographics", defaults={"active": True})
    if survivor_id != dead_id:
        stub: Json = {
            "resourceType": "Patient",
            "id": dead_id,
            "identifier": old_numbers,
            "active": False,
            "managingOrganization": convert.institution(assembly.ctx.institution, assembly.ctx),
        }
        names = convert.names(dead.field(7), Place(assembly, dead, 7))
        if names:
            stub["name"] = [{**name, "use": "old"} for name in names]
        # A record nobody sent before still has to exist, inactive, for its number to lead to the survivor.
        assembly.intern(stub)
        assembly.merge(survivor_id, dead_id)
    return survivor_id


def _merge_accounts(survivor: Segment, dead: Segment, assembly: Assembly, *, required: bool) -> None:
    old, new = dead.field(3), survivor.field(18)
    old_account, new_account = account.account(old, assembly), account.account(new, assembly)
    if old_account is None or new_account is None:
        if required:
            segment, number = (dead, 3) if old_account is None else (survivor, 18)
            raise assembly.missing(segment, number, "Send the old account in MRG-3 and the one that stays in PID-18.")
        return
    _replace("Account", {"status": "active", **new_account}, {"status": "inactive", **old_account}, assembly)


def _merge_visits(survivor: Segment | None, dead: Segment, assembly: Assembly, *, required: bool) -> None:
    number = convert.first(dead, 5)
    filled = pv1.encounter(survivor, assembly) if survivor is not None else None
    if not number or filled is None or survivor is None:
        if required:
            if not number:
                raise assembly.missing(dead, 5, "Send the visit number that is merged away in MRG-5.")
            raise assembly.missing(survivor or assembly.require("PV1"), 19, "Send the visit that stays in PV1-19.")
        return
    stays: Json = {"status": "unknown", "class": pv1.UNKNOWN_CLASS, **filled.elements}
    gone: Json = {
        "resourceType": "Encounter",
        "id": assembly.ctx.id("Encounter", "visit", number),
        "identifier": [datatypes.visit_identifier(dead.field(5).first, assembly.ctx)],
        "status": "entered-in-error",
        "class": stays["class"],
        "subject": pid.patient_reference(assembly),
        "serviceProvider": convert.institution(assembly.ctx.institution, assembly.ctx),
    }
    _replace("Encounter", stays, gone, assembly)


def _replace(kind: Literal["Encounter", "Account"], stays: Json, gone: Json, assembly: Assembly) -> None:
    if stays["id"] == gone["id"]:
        segment = assembly.require("MRG")
        number = 3 if kind == "Account" else 5
        Place(assembly, segment, number).warn("Both numbers are the same; nothing was merged.", code="duplicate")
        return
    assembly.intern(stays)
    assembly.intern(gone)
    assembly.changes.append(Replace(resource_type=kind, survivor_id=stays["id"], dead_id=gone["id"]))
