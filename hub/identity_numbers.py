"""The numbers under which an asker knows a patient, and answers that carry them.

PS3.3 C.7.1.1 (Patient ID, Issuer of Patient ID, Other Patient IDs Sequence). Who is one person is :mod:`hub.identity`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fhir_mappings.identifiers import patient_key
from hub.access import Scope, scope_of
from hub.actor import Actor
from hub.attribute_matching import Match, fits, starred
from hub.imaging_ids import number_record_id
from hub.ports import Tx
from hub.ports.identity import Person

Json = dict[str, Any]

PATIENT_ID, _ISSUER, _TYPE, _OTHERS = "00100020", "00100021", "00100022", "00101002"
_ACCESSION, _ACCESSION_ISSUER, _LOCAL = "00080050", "00080051", "00400031"


def numbers_of(patient: Mapping[str, Any], owner: str) -> list[str]:
    """Return the PatientIDs by which *owner*'s images name *patient*: the numbers that its id was made of."""
    values = [str(one["value"]).strip() for one in patient.get("identifier", ()) if one.get("value")]
    return list(dict.fromkeys(one for one in values if number_record_id(owner, one) == patient.get("id")))


def plain(scope: Scope) -> bool:
    """Return whether *scope* is an institution's, which links serve; a patient's own access stays with one record."""
    return not (scope.everything or scope.directory_only or scope.patient is not None)


def issuer_fits(matches: Iterable[Match], institution: str) -> bool:
    """Return whether *matches* may mean numbers that *institution* gave out."""
    return all(fulfils(one, institution) for one in matches if one.keyword == "IssuerOfPatientID")


def own_number(persons: Sequence[Person], institution: str, matches: Sequence[Match]) -> str | None:
    """Return the number of *institution* that an answer about *persons* carries, or ``None`` where it keeps the source's."""
    if not issuer_fits(matches, institution):
        return None
    asked = [one for one in matches if one.keyword == "PatientID"]
    fitting = (
        next((number for number in person.numbers if all(fulfils(one, number) for one in asked)), None)
        for person in persons
    )
    found = [number for number in fitting if number is not None]
    return found[0] if len(found) == 1 else None


def joined(tx: Tx, actor: Actor, patients: Sequence[str], matches: Sequence[Match]) -> Mapping[str, Person]:
    """Return, for each of *patients* whose answers share a number of *actor*'s by a link, the person.

    Its ``others`` are those alone whose answers to *matches* carry that number.
    """
    if not plain(scope_of(actor)):
        return {}
    mine = actor.institution
    persons = tx.identity.persons(mine, patients)
    others = sorted({other for group in persons.values() for person in group for other in person.others})
    known = tx.identity.persons(mine, others)
    found: dict[str, Person] = {}
    for id_, group in persons.items():
        for person in group:
            shown = frozenset(
                one for one in person.others if own_number(known.get(one, ()), mine, matches) in person.numbers
            )
            if shown and id_ in {*person.own, *shown}:
                found[id_] = replace(person, others=shown)
    return found


def fulfils(match: Match, value: str) -> bool:
    if match.kind == "wildcard" and fits(match, [value]):
        return True
    same: Callable[[str], str] = patient_key if match.keyword == "PatientID" else str
    return any(same(one) == same(value) for one in match.values if match.kind != "wildcard" or not starred(one))


def renumbered(answer: Json, number: str, institution: str, owner: str) -> Json:
    """Return *answer* under the asker's number; nothing else of it changes but that issuers are told."""
    source = answer[PATIENT_ID].get("Value")
    if not source:
        return answer
    issuer = answer.get(_ISSUER, {}).get("Value") or [owner]
    item = {
        PATIENT_ID: {"vr": "LO", "Value": source},
        _ISSUER: {"vr": "LO", "Value": issuer},
        _TYPE: {"vr": "CS", "Value": ["TEXT"]},
    }
    before = answer.get(_OTHERS, {}).get("Value") or []
    made = {
        **answer,
        PATIENT_ID: {"vr": "LO", "Value": [number]},
        _ISSUER: {"vr": "LO", "Value": [institution]},
        _OTHERS: {"vr": "SQ", "Value": [item, *before]},
    }
    if answer.get(_ACCESSION, {}).get("Value") and not answer.get(_ACCESSION_ISSUER, {}).get("Value"):
        # A link says nothing of orders, so the accession number stays the source's and says whose it is.
        made[_ACCESSION_ISSUER] = {"vr": "SQ", "Value": [{_LOCAL: {"vr": "UT", "Value": [owner]}}]}
    return dict(sorted(made.items()))
