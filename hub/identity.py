"""One patient at several institutions: links that people make, work items that suggest them, answers in the asker's numbers.

DESIGN rule 4: a link is explicit, reversible and rewrites no source record. It is a FHIR ``Linkage``
(https://hl7.org/fhir/R4/linkage.html) of the operator's institution over two Patients of different ones, which nobody else
can read; unlinking deletes it, and its history stays.

*Who makes one.* The operator settles a work item (``patient-link``), or the desks of both institutions say the same of
their own patient (``Patient/$link``). The hub itself never links. It raises the work item when a strong identifier agrees:
a resident identity number of GB 11643 that passes its check, together with name and birth date, or a health card. Name
and birth date by themselves are everyday in China and suggest nothing. A pair that was settled is not suggested again.

*What a link gives.* Nothing to see: the access predicate does not know of it. Inside what an asker sees anyway, a query
for a PatientID (0010,0020) of the asker's own finds the linked patient's studies too, and answers about those carry the
asker's number, the source's standing in Other Patient IDs Sequence (0010,1002). What a desk says is answered alike
whether or not there is such a patient elsewhere, and a member learns of a link only by what it may see already.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Final, Literal

from fhir_mappings.identifiers import (
    resource_id,
)
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED, Scope, scope_of
from hub.actor import HUB, Actor
from hub.attribute_matching import Match
from hub.clock import instant
from hub.errors import Category, HubError
from hub.identity_evidence import agree, replaced, spellings, strong
from hub.identity_numbers import PATIENT_ID, Json, own_number, plain, renumbered
from hub.imaging_ids import number_record_id
from hub.ports import AuditLine, NewVersion, Stored, StudyKey, Tx
from hub.ports.identity import Person

if TYPE_CHECKING:
    from hub.boot import Services

Decision = Literal["link", "refuse", "unlink"]
#: One Patient, as (owner institution, id).
Side = tuple[str, str]

CODE: Final = "patient-link"
#: Roles that may say which patient of another institution one of their own is.
DESK: Final = frozenset({"desk", "admin"})

_DISPLAY = "两家机构的患者可能是同一人 (patients of two institutions may be one person)"
_SIDE, _EVIDENCE, _STATED = "患者 (patient)", "依据 (evidence)", "机构声明 (stated by)"
_STATES = {"link": "linked", "refuse": "refused", "unlink": "unlinked"}
_DECISION, _BY = "处理决定 (decision)", "决定者 (decided by)"
#: Most records of one strong identifier that are looked at; more than this is a number that everybody was given.
_MAX_SHARED = 20


class IdentityService:
    """Links between institutions' patients, for every door; safe for many threads."""

    def __init__(self, services: Services) -> None:
        self._services = services

    # --- what people say -------------------------------------------------------------------------------------

    def state(self, actor: Actor, patient: str, institution: str, number: str, *, same: bool = True) -> None:
        """Note that *actor*'s Patient *patient* is (or is not) the one whom *institution* calls *number*.

        Once both institutions have said so the link is made; one of them that takes it back ends it. The answer tells
        nothing of the other side. Durable and audited on return.

        Raises:
            HubError: forbidden for who is not at the desk; not-found when *patient* is not the institution's own;
                incorrect for an institution that cannot be meant.
        """
        if not actor.roles & DESK or actor.patient is not None:
            raise HubError(
                Category.FORBIDDEN,
                "只有登记台可以声明同一患者 / Only the desk says that patients are the same.",
                where="Patient/$link",
                remedy="Use a token with the role desk or admin.",
            )
        if institution == actor.institution or self._services.directory.member(institution) is None:
            raise HubError(
                Category.INCORRECT,
                "须为另一成员机构 / This names no other member.",
                where="institution",
                remedy="Send the code of the other institution. Numbers of one institution are merged by ADT^A40.",
                status=422,
            )
        here: Side = (actor.institution, patient)
        there: Side = (institution, number_record_id(institution, number))

        def work(tx: Tx) -> None:
            stored = tx.records.get("Patient", patient, Scope(institution=actor.institution))
            if stored is None or stored.deleted or stored.owner != actor.institution:
                raise HubError(
                    Category.NOT_FOUND,
                    "本机构无此患者 / The institution has no such patient.",
                    where=f"Patient/{patient[:64]}",
                )
            tx.records.lock_condition(_key("Linkage", here, there))
            task = _task(tx, here, there) or self._new_task(tx, here, there, ())
            stated = [one for one in _inputs(task, _STATED) if one != actor.institution]
            if same:
                stated.append(actor.institution)
                _set_inputs(task, _STATED, stated)
                both = {institution, actor.institution} <= set(stated)
                if both and _linkage(tx, here, there) is None:
                    self._decide(tx, task, "link", "/".join(sorted(stated)))
                elif not both and _linkage(tx, here, there) is None:
                    task["status"] = "requested"
            else:
                # Who takes it back ends it for both; to link anew both must say so anew.
                _set_inputs(task, _STATED, ())
                self._decide(tx, task, "unlink", actor.institution)
            self._keep(tx, task)
            self._audit(tx, actor, "patient-link" if same else "patient-unlink", patients=(here,))

        self._services.database.write(work)

    def settle(self, actor: Actor, task_id: str, decision: Decision) -> None:
        """Decide about the pair of work item *task_id*: link it, refuse it, or end its link; durable on return.

        Raises:
            HubError: not-found for everybody but the operator, and when there is no such work item; conflict when one
                of the two is no longer stored, or there is no link to end.
        """

        def work(tx: Tx) -> None:
            stored = tx.records.get("Task", task_id, UNRESTRICTED)
            task: Json = loads(stored.body) if stored is not None and not stored.deleted else {}
            operator = "operator" in actor.roles and actor.institution == HUB.institution
            if not operator or _code(task) != CODE:
                raise HubError(Category.NOT_FOUND, "There is no such work item.", where=f"Task/{task_id[:64]}")
            sides = _sides(task)
            tx.records.lock_condition(_key("Linkage", *sides))
            if decision == "unlink" and _linkage(tx, *sides) is None:
                raise HubError(Category.CONFLICT, "两者未关联 / The two are not linked.", where=f"Task/{task_id}")
            if decision != "link":
                _set_inputs(task, _STATED, ())
            self._decide(tx, task, decision, actor.client or actor.practitioner or actor.institution)
            self._keep(tx, task)
            # The two patients are named in the work item alone: an audit line of theirs is read by their institutions.
            self._audit(tx, actor, f"settle-{CODE}", entities=(f"Task/{task_id}",), detail=decision)

        self._services.database.write(work)

    def listed(self, actor: Actor) -> list[Json]:
        """Return the pairs that wait and those that were settled, by ids alone, newest first; for the operator.

        Raises:
            HubError: forbidden for everybody else, because a link tells that a patient is known elsewhere.
        """
        if "operator" not in actor.roles or actor.institution != HUB.institution:
            raise HubError(
                Category.FORBIDDEN,
                "只有运营方可以查看 / Only the operator sees links.",
                where="Authorization",
                remedy="Use a token of `hub token --institution YY --role operator`.",
            )
        from hub.search import parse

        system = f"{self._services.settings.base_url}/CodeSystem/work-item"
        query = parse("Task", [("code", f"{system}|{CODE}"), ("_sort", "-_lastUpdated"), ("_count", "1000")])

        def work(tx: Tx) -> list[Json]:
            found = []
            for stored in tx.records.search(query, UNRESTRICTED).matches:
                task = loads(stored.body)
                found.append(
                    {
                        "task": f"Task/{stored.id}",
                        "state": "open" if task["status"] == "requested" else _STATES[_output(task, _DECISION)],
                        "since": task["authoredOn"],
                        "changed": task["lastModified"],
                        "patients": [
                            {"institution": owner, "patient": f"Patient/{id_}"} for owner, id_ in _sides(task)
                        ],
                        "evidence": _inputs(task, _EVIDENCE),
                        "stated_by": _inputs(task, _STATED),
                    }
                )
            return found

        return self._services.database.read(work)

    def _decide(self, tx: Tx, task: Json, decision: Decision, by: str) -> None:
        """Write *decision* into *task* and let the Linkage follow it."""
        one, other = _sides(task)
        linkage = _linkage(tx, one, other)
        if decision == "link":
            owners = tx.identity.owners([one[1], other[1]])
            if any(owners.get(id_) != owner for owner, id_ in (one, other)):
                raise HubError(
                    Category.CONFLICT,
                    "其中一名患者尚无档案 / One of the two patients has no record.",
                    where=f"Task/{task['id']}",
                    remedy="Wait for its institution's ADT message, then settle it.",
                )
            if linkage is None:
                tx.records.put_many([NewVersion(resource=self._linkage(tx, one, other), owner=HUB.institution)])
        elif linkage is not None:
            tx.records.delete("Linkage", linkage.id, owner=HUB.institution)
        task["status"] = "completed"
        task["output"] = [
            {"type": {"text": _DECISION}, "valueString": decision},
            {"type": {"text": _BY}, "valueString": by},
        ]

    @staticmethod
    def _linkage(tx: Tx, one: Side, other: Side) -> Json:
        found: Json = {
            "resourceType": "Linkage",
            "id": _key("Linkage", one, other),
            "active": True,
            "item": [
                {"type": kind, "resource": {"reference": f"Patient/{id_}"}}
                for kind, (_, id_) in zip(("source", "alternate"), sorted((one, other)), strict=True)
            ],
        }
        operator = tx.members.get(HUB.institution)
        if operator is not None:
            found["author"] = {"reference": f"Organization/{operator.organization_id}"}
        return found

    # --- what the hub suggests -------------------------------------------------------------------------------

    def suggest(self, tx: Tx, changed: Iterable[str], *, owner: str) -> None:
        """Raise work items for the Patients among *changed* (``Type/id``), which have just been written, in *tx*."""
        ids = [("Patient", one.removeprefix("Patient/")) for one in changed if one.startswith("Patient/")]
        for stored in tx.records.get_many(ids, UNRESTRICTED).values() if ids else ():
            if stored.owner == owner and not stored.deleted:
                self._suggest(tx, stored)

    def _suggest(self, tx: Tx, stored: Stored) -> None:
        patient = loads(stored.body)
        if replaced(patient):
            return
        found: dict[Side, set[str]] = {}
        for system, value in strong(patient):
            for spelt in spellings(system, value):
                same = tx.records.by_identifier("Patient", system, spelt, UNRESTRICTED)
                for one in same if len(same) <= _MAX_SHARED else ():
                    other = loads(one.body)
                    if one.owner != stored.owner and not one.deleted and not replaced(other):
                        evidence = agree(system, patient, other)
                        if evidence:
                            found.setdefault((one.owner, one.id), set()).add(evidence)
        here: Side = (stored.owner, stored.id)
        for there, evidence_of in sorted(found.items()):
            if _known(tx, here, there):
                continue
            tx.records.lock_condition(_key("Linkage", here, there))
            if _task(tx, here, there) is None:
                task = self._new_task(tx, here, there, sorted(evidence_of))
                self._keep(tx, task)
                self._audit(tx, HUB, f"suggest-{CODE}", action="C", entities=(f"Task/{task['id']}",))

    # --- answers in the asker's numbers ----------------------------------------------------------------------

    def in_own_numbers(
        self, actor: Actor, answers: Sequence[Json], rows: Sequence[Side | StudyKey], matches: Sequence[Match]
    ) -> list[Json]:
        """Return *answers* (DICOM JSON), those about a linked patient of another institution in the asker's number.

        The number goes into Patient ID (0010,0020) with the asker's institution as its issuer (0010,0021), the
        source's into Other Patient IDs Sequence. An answer never contradicts its question: one that was found by the
        source's number, or issuer, keeps it. So does one whose patient is several of the asker's.

        Args:
            rows: whose each answer is, as (owner, Patient id); of an instance its study.
            matches: the keys that found them.
        """
        if not plain(scope_of(actor)):
            return list(answers)
        foreign = [
            at
            for at, row in enumerate(rows)
            if (row[0] if isinstance(row, tuple) else row.owner) != actor.institution and PATIENT_ID in answers[at]
        ]
        if not foreign:
            return list(answers)

        def work(tx: Tx) -> tuple[dict[int, Side], Mapping[str, Sequence[Person]]]:
            studies: dict[StudyKey, Side] = {}
            sides: dict[int, Side] = {}
            for at in foreign:
                row = rows[at]
                if isinstance(row, StudyKey):
                    if row not in studies:
                        study = tx.imaging.study(row)
                        studies[row] = (row.owner, study["patient_id"] if study is not None else "")
                    row = studies[row]
                sides[at] = row
            return sides, tx.identity.persons(actor.institution, sorted({id_ for _, id_ in sides.values()}))

        sides, persons = self._services.database.read(work)
        found = list(answers)
        for at, (owner, id_) in sides.items():
            number = own_number(persons.get(id_, ()), actor.institution, matches)
            if number is not None:
                found[at] = renumbered(answers[at], number, actor.institution, owner)
        return found

    # --- work items ------------------------------------------------------------------------------------------

    def _new_task(self, tx: Tx, one: Side, other: Side, evidence: Collection[str]) -> Json:
        """Return the work item of a pair: ids alone, as text, so that nothing leads from it to a patient's data."""
        now = instant(self._services.clock())
        task: Json = {
            "resourceType": "Task",
            "id": _key("Task", one, other),
            "status": "requested",
            "intent": "order",
            "code": {
                "coding": [
                    {
                        "system": f"{self._services.settings.base_url}/CodeSystem/work-item",
                        "code": CODE,
                        "display": _DISPLAY,
                    }
                ]
            },
            "authoredOn": now,
            "input": [
                {"type": {"text": _SIDE}, "valueString": f"{owner} Patient/{id_}"}
                for owner, id_ in sorted((one, other))
            ],
        }
        _set_inputs(task, _EVIDENCE, evidence)
        operator = tx.members.get(HUB.institution)
        if operator is not None:
            task["owner"] = {"reference": f"Organization/{operator.organization_id}"}
        return task

    def _keep(self, tx: Tx, task: Json) -> None:
        task["lastModified"] = instant(self._services.clock())
        tx.records.put_many([NewVersion(resource=task, owner=HUB.institution)])

    def _audit(
        self,
        tx: Tx,
        actor: Actor,
        subtype: str,
        *,
        action: str = "U",
        patients: tuple[Side, ...] = (),
        entities: tuple[str, ...] = (),
        detail: str = "",
    ) -> None:
        tx.audit.write(
            AuditLine(
                type="admin",
                action=action,
                subtype=subtype,
                actor=actor,
                recorded_at=self._services.clock(),
                patients=patients,
                entities=entities,
                detail=detail,
            )
        )


def _known(tx: Tx, one: Side, other: Side) -> bool:
    """Return whether somebody decided, or is to decide, about the two: merges carry that along."""
    if _task(tx, one, other) is not None:
        return True
    pairs = product(tx.records.one_person(one[1]), tx.records.one_person(other[1]))
    ids = [("Task", _key("Task", (one[0], a), (other[0], b))) for a, b in pairs]
    return any(not stored.deleted for stored in tx.records.get_many(ids, UNRESTRICTED).values())


# --- reading work items ------------------------------------------------------------------------------------------


def _key(type_: str, one: Side, other: Side) -> str:
    pair = "|".join(f"{owner}/{id_}" for owner, id_ in sorted((one, other)))
    return resource_id(HUB.institution, CODE, type_, pair)


def _task(tx: Tx, one: Side, other: Side) -> Json | None:
    stored = tx.records.get("Task", _key("Task", one, other), UNRESTRICTED)
    return None if stored is None or stored.deleted else loads(stored.body)


def _linkage(tx: Tx, one: Side, other: Side) -> Stored | None:
    stored = tx.records.get("Linkage", _key("Linkage", one, other), UNRESTRICTED)
    return None if stored is None or stored.deleted else stored


def _code(task: Mapping[str, Any]) -> str:
    return str(((task.get("code") or {}).get("coding") or [{}])[0].get("code", ""))


def _sides(task: Mapping[str, Any]) -> tuple[Side, Side]:
    one, other = (text.split(" Patient/", 1) for text in _inputs(task, _SIDE))
    return (one[0], one[1]), (other[0], other[1])


def _inputs(task: Mapping[str, Any], name: str) -> list[str]:
    return [str(one["valueString"]) for one in task.get("input", ()) if one["type"].get("text") == name]


def _set_inputs(task: Json, name: str, values: Iterable[str]) -> None:
    rest = [one for one in task["input"] if one["type"].get("text") != name]
    task["input"] = [*rest, *({"type": {"text": name}, "valueString": one} for one in values)]


def _output(task: Mapping[str, Any], name: str) -> str:
    found = (str(one["valueString"]) for one in task.get("output", ()) if one["type"].get("text") == name)
    return next(found, "")
