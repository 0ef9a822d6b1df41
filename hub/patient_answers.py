"""What a question for patients finds within its asker's reach (IHE ITI-9, ITI-21); :mod:`hub.patient_queries` says who may ask.

Every read carries the asker's scope. A record that was merged away answers by its survivor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.queries import qbp, rsp
from fhir_mappings.hl7v2.queries.qbp import Demands, Question
from fhir_mappings.hl7v2.queries.rsp import Cx, Hit, Response
from fhir_mappings.identifiers import RESIDENT_ID, check_resident_id, is_uuid, patient_key
from fhir_mappings.json import loads
from fhir_mappings.text import fold, full_pinyin
from hub.access import Scope
from hub.errors import Category, HubError
from hub.ports import Stored, Tx
from hub.rows import replaced_by
from hub.search.parse import parse as parse_search

Json = dict[str, Any]

#: Most patients that one question may find.
MAX_FOUND = 500
_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One question within its asker's reach.

    Attributes:
        number: the domain of the number that is asked by, as (institution, "") or ("", OID).
        wanted: the domains whose numbers are asked for; empty for all.
    """

    question: Question
    scope: Scope
    target: OutboundTarget
    number: tuple[str, str] | None
    wanted: tuple[tuple[str, str], ...]

    def people(self, tx: Tx) -> tuple[Response, tuple[tuple[str, str], ...]]:
        """Answer Q21 and Q22: who fulfils the demands."""
        found = self._by_number(tx) if self.question.number else self._by_demands(tx)
        hits: list[tuple[Stored, Hit]] = []
        for stored in sorted(found.values(), key=lambda one: one.id):
            patient = loads(stored.body)
            numbers = self._wanted(rsp.numbers(patient, self.target))
            if numbers and _fulfils(patient, self.question.demands):
                hits.append((stored, Hit(numbers=tuple(numbers), patient=patient)))
        if len(hits) > MAX_FOUND:
            raise _too_many()
        pointer = self.question.pointer
        if pointer and not is_uuid(pointer):
            raise HubError(
                Category.INCORRECT,
                "DSC-1 is no place in an answer.",
                where="DSC-1",
                remedy="Send DSC-1 of the last part as it came, with the same query.",
                code=102,
            )
        left = [one for one in hits if one[0].id > pointer]
        given = left[: self.question.quantity]
        rest = len(left) - len(given)
        response = Response(
            status="OK" if hits else "NF",
            hits=tuple(hit for _, hit in given),
            total=len(hits),
            remaining=rest,
            pointer=given[-1][0].id if rest else "",
        )
        return response, tuple((one.owner, one.id) for one, _ in given)

    def corresponding(self, tx: Tx) -> tuple[Response, tuple[tuple[str, str], ...]]:
        """Answer Q23: the other numbers of whom the number names."""
        asked = self.question.number
        assert asked is not None
        found = self._by_number(tx)
        if not found:
            raise HubError(
                Category.NOT_FOUND,
                "患者号码未知 / The patient number is unknown.",
                where="QPD-3.1",
                remedy="Send a number that the named authority gave out.",
                code=204,
            )
        persons = tx.identity.persons(self.scope.institution, sorted(found))
        ids = {*found, *(id_ for group in persons.values() for one in group for id_ in (*one.own, *one.others))}
        if len(found) > 1 and any(one not in persons for one in found):
            raise HubError(
                Category.INCORRECT,
                "该号码对应多名患者 / The number names several patients.",
                where="QPD-3",
                remedy="Say in CX.5 what kind of number it is.",
                code=204,
            )
        # Records that a link leads to count only as far as the asker may read them anyway.
        seen = tx.records.get_many([("Patient", one) for one in sorted(ids)], self.scope)
        people = [one for one in seen.values() if not one.deleted and replaced_by(loads(one.body)) is None]
        numbers: list[Cx] = []
        given: list[Stored] = []
        for stored in people:
            new = [
                one
                for one in self._wanted(rsp.numbers(loads(stored.body), self.target))
                if one not in numbers and not (self._of(one) and _same(one.value, asked.value))
            ]
            numbers += new
            if new:
                given.append(stored)
        response = Response(
            status="OK" if numbers else "NF",
            hits=(Hit(numbers=tuple(numbers)),) if numbers else (),
            total=1 if numbers else 0,
        )
        return response, tuple((one.owner, one.id) for one in (given or people))

    # --- candidates ------------------------------------------------------------------------------------------

    def _by_number(self, tx: Tx) -> dict[str, Stored]:
        number = self.question.number
        assert number is not None
        kind = self.target.dialect.cx_types.get(number.type, "") if number.type else ""
        found: dict[str, Stored] = {}
        for spelt in {number.value, patient_key(number.value), check_resident_id(number.value).value}:
            for one in tx.records.by_identifier("Patient", None, spelt, self.scope):
                listed = rsp.numbers(loads(one.body), self.target, old=True)
                if any(
                    _same(cx.value, number.value) and self._of(cx) and (not kind or cx.kind == kind) for cx in listed
                ):
                    living = _living(tx, one, self.scope)
                    if living is not None:
                        found[living.id] = living
        return found

    def _by_demands(self, tx: Tx) -> dict[str, Stored]:
        demands = self.question.demands
        pairs: list[tuple[str, str]] = [("_count", str(_PAGE))]
        if demands.name:
            first, longest = demands.name.split("*")[0], max(demands.name.split("*"), key=len)
            pairs.append(("name", _literal(first)) if first else ("name:contains", _literal(longest)))
        if demands.birth:
            pairs.append(("birthdate", demands.birth))
        if demands.sex:
            pairs.append(("gender", demands.sex))
        if demands.phone:
            pairs.append(("phone", _literal(demands.phone)))
        if demands.resident_id:
            pairs.append(("identifier", f"{RESIDENT_ID}|{_literal(check_resident_id(demands.resident_id).value)}"))
        query = parse_search("Patient", pairs)
        found: dict[str, Stored] = {}
        looked = 0
        while True:
            page = tx.records.search(query, self.scope)
            for one in page.matches:
                looked += 1
                if not _fulfils(loads(one.body), demands):
                    continue
                living = _living(tx, one, self.scope)
                if living is not None:
                    found[living.id] = living
            if page.next_cursor is None:
                return found
            if len(found) > MAX_FOUND or looked > 10 * MAX_FOUND:
                raise _too_many()
            query = replace(query, cursor=page.next_cursor)

    def _of(self, cx: Cx) -> bool:
        """Return whether *cx* is of the domain that the question's number is of."""
        return (cx.authority, cx.oid) == self.number

    def _wanted(self, numbers: list[Cx]) -> list[Cx]:
        return [one for one in numbers if not self.wanted or (one.authority, one.oid) in self.wanted]


def _living(tx: Tx, stored: Stored, scope: Scope) -> Stored | None:
    """Return the record that *stored* was merged into, or itself; ``None`` where the asker may not read that one."""
    one: Stored | None = stored
    passed: set[str] = set()
    while one is not None and not one.deleted and one.id not in passed:
        passed.add(one.id)
        survivor = replaced_by(loads(one.body))
        if survivor is None:
            return one
        found = tx.records.get("Patient", survivor, scope)
        one = found if found is not None and found.owner == one.owner else None
    return None


def _same(stored: str, asked: str) -> bool:
    return stored == asked or patient_key(stored) == patient_key(asked) or stored == check_resident_id(asked).value


def _fulfils(patient: Json, demands: Demands) -> bool:
    if demands.birth and not str(patient.get("birthDate", "")).startswith(demands.birth):
        return False
    if demands.sex and patient.get("gender") != demands.sex:
        return False
    if demands.phone and demands.phone not in {one.get("value") for one in patient.get("telecom", [])}:
        return False
    if demands.resident_id:
        wanted = check_resident_id(demands.resident_id).value
        numbers = [one for one in patient.get("identifier", []) if one.get("system") == RESIDENT_ID]
        if wanted not in {one.get("value") for one in numbers}:
            return False
    return not demands.name or any(qbp.fits(demands.name, form) for form in _forms(patient))


def _forms(patient: Json) -> set[str]:
    """Return the spellings by which a name is found: as written, its family name alone, and in pinyin."""
    forms: set[str] = set()
    for name in patient.get("name", []):
        text, family = str(name.get("text", "")), str(name.get("family", ""))
        parts = family + "".join(str(one) for one in name.get("given", []))
        for spelt in filter(None, (text, parts, family)):
            forms |= {fold(spelt), full_pinyin(spelt)}
    return forms


def _literal(text: str) -> str:
    r"""Return *text* as a value of a FHIR search, in which ``\``, ``,``, ``|`` and ``$`` are escaped."""
    for char in "\\,|$":
        text = text.replace(char, f"\\{char}")
    return text


def _too_many() -> HubError:
    return HubError(
        Category.INCORRECT,
        f"符合条件的患者超过 {MAX_FOUND} 名 / More than {MAX_FOUND} patients fulfil the query.",
        where="QPD-3",
        remedy="Demand more: a number, the whole name, the birth date.",
        code=102,
    )
