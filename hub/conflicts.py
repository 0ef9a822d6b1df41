"""Images that contradict what is already here: kept, set aside, and settled by a person (DESIGN rule 2).

Three contradictions are told apart. Other bytes under a known SOP Instance UID are a ``imaging-conflict``
(:func:`hub.study.raise_conflict`). A study whose later instances name another patient is a ``patient-conflict``: they are
kept byte for byte and shown to nobody until somebody says whose they are. A study whose later instances give the same
patient another name is a ``name-conflict``; its images stay visible, because the number is what identifies. Each is a
Task of the operator that the sender sees too, and its decision is recorded in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from fhir_mappings.dicom.imaging_study import study_identifier
from fhir_mappings.dicom.instance import InstanceHeader
from fhir_mappings.dicom.performed_step import first
from fhir_mappings.identifiers import patient_key, resource_id
from fhir_mappings.json import loads
from fhir_mappings.text import fold, full_pinyin, has_han
from hub.access import UNRESTRICTED
from hub.actor import HUB, Actor
from hub.attribute_matching import name_search
from hub.clock import instant
from hub.errors import Category, HubError
from hub.imaging_ids import patient_id, quiet_timer
from hub.ports import AuditLine, Grant, InstanceRow, NewVersion, Stored, StudyKey, Tx

if TYPE_CHECKING:
    from hub.boot import Services

PATIENT, NAME, BYTES = "patient-conflict", "name-conflict", "imaging-conflict"
_DISPLAY = {
    PATIENT: "同一检查出现另一患者 (another patient in a known study)",
    NAME: "同一检查患者姓名不同 (the patient's name differs within a study)",
}
#: ``keep`` what was here first; ``accept`` the later ones beside it; ``replace`` the first by the later ones.
Decision = Literal["keep", "accept", "replace"]
_DECISIONS: Mapping[str, frozenset[str]] = {
    PATIENT: frozenset({"keep", "accept", "replace"}),
    NAME: frozenset({"keep", "accept"}),
    BYTES: frozenset({"keep", "replace"}),
}
_DECISION = "处理决定 (decision)"
_PATIENT_TAGS = {
    "PatientID": "00100020", "IssuerOfPatientID": "00100021", "PatientBirthDate": "00100030", "PatientSex": "00100040",
}  # fmt: skip

Json = dict[str, Any]


#: The study is this very patient's; another's whom a merge or a decision lets in; another's, to be set aside.
Verdict = Literal["own", "let-in", "held"]


def check(tx: Tx, services: Services, owner: str, header: InstanceHeader) -> Verdict:
    """Hold a new instance against its study; returns what is to become of it, and raises the work item for it."""
    key = StudyKey(owner=owner, StudyInstanceUID=header.StudyInstanceUID)
    study = tx.imaging.study(key)
    if study is None:
        return "own"
    said = patient_id(owner, header)
    known = study["patient_id"]
    if (
        said != known
        and not (
            _says_less(owner, study, header)
            and _stored(tx, owner, PATIENT, _about(key, said)) is None
            and not _has_another_issuer(tx, key, header)
        )
        and known not in tx.records.one_person(said)
        and said not in tx.records.one_person(known)
    ):
        if _decided(tx, owner, PATIENT, _about(key, said)) == "accept":
            return "let-in"
        _raise(tx, services, key, PATIENT, _about(key, said))
        return "held"
    if _differs(study["PatientName"], study["PatientNamePinyin"], header.PatientName, header.PatientNamePinyin):
        about = _about(key, f"{header.PatientName}|{header.PatientNamePinyin}")
        if not _decided(tx, owner, NAME, about):
            _raise(tx, services, key, NAME, about)
    return "own" if said == known else "let-in"


def settle(tx: Tx, services: Services, task_id: str, decision: str, actor: Actor) -> StudyKey:
    """Do what *decision* says about the conflict that *task_id* is; returns the study it is about.

    Raises:
        HubError: not-found when there is no such conflict in the actor's reach; conflict when it is settled; incorrect
            when its kind knows no such decision.
    """
    stored = tx.records.get("Task", task_id, UNRESTRICTED)
    task: Json = loads(stored.body) if stored is not None and not stored.deleted else {}
    kind = str(((task.get("code") or {}).get("coding") or [{}])[0].get("code", ""))
    owner = _input(task, "来源机构")
    if kind not in _DECISIONS or actor.institution not in {owner, HUB.institution}:
        raise HubError(Category.NOT_FOUND, "There is no such conflict.", where=f"Task/{task_id[:64]}")
    if task["status"] == "completed":
        raise HubError(Category.CONFLICT, "The conflict is settled.", where=f"Task/{task_id}")
    if decision not in _DECISIONS[kind]:
        raise HubError(
            Category.INCORRECT,
            f"A {kind} cannot be settled by {decision[:32]!r}.",
            where="decision",
            remedy=f"Use one of {', '.join(sorted(_DECISIONS[kind]))}.",
        )
    key = StudyKey(owner=owner, StudyInstanceUID=_input(task, "检查"))
    # Before anything is read of the study: the decision is about all that is here when it is made.
    tx.imaging.hold_arrivals(key)
    if kind == PATIENT and decision != "keep":
        _admit(tx, services, key, task, replace=decision == "replace")
    elif kind == BYTES and decision == "replace":
        _supersede(tx, key, task)
    task["status"] = "completed"
    task["lastModified"] = instant(services.clock())
    task["output"] = [{"type": {"text": _DECISION}, "valueString": decision}]
    tx.records.put_many([NewVersion(resource=task, owner=HUB.institution)])
    study = tx.imaging.study(key)
    tx.audit.write(
        AuditLine(
            type="dicom",
            action="U",
            subtype=f"settle-{kind}",
            actor=actor,
            recorded_at=services.clock(),
            patients=((owner, study["patient_id"]),) if study is not None else (),
            entities=(key.StudyInstanceUID, f"Task/{task_id}"),
            detail=decision,
        )
    )
    return key


# --- what a decision does ----------------------------------------------------------------------------------------


def _admit(tx: Tx, services: Services, key: StudyKey, task: Json, *, replace: bool) -> None:
    """Show the instances that *task* set aside; with *replace* the study becomes their patient's."""
    theirs = _input(task, "患者")
    rows = [row for row in tx.imaging.versions_of(key) if _patient(key.owner, row) == theirs]
    newest: dict[str, InstanceRow] = {}
    for row in sorted(rows, key=lambda one: one.received_at):
        newest[row.SOPInstanceUID] = row
    if replace:
        for row in tx.imaging.instances_of(key, attributes=True):
            if _patient(key.owner, row) != theirs:
                tx.imaging.set_aside(key, row.SOPInstanceUID, row.digest)
        if rows:
            tx.imaging.assign(key, patient_id=theirs, **_demographics(rows[-1]))
    for row in newest.values():
        tx.imaging.make_current(key, row.SOPInstanceUID, row.digest)
    _again(tx, services, key)


def _supersede(tx: Tx, key: StudyKey, task: Json) -> None:
    uid = str(task["focus"]["identifier"]["value"]).removeprefix("urn:oid:")
    tx.imaging.make_current(key, uid, _input(task, "后到文件摘要"))


def _again(tx: Tx, services: Services, key: StudyKey) -> None:
    """Let the study be completed anew, with what is now current in it."""
    tx.imaging.reopen(key)
    tx.timers.set(quiet_timer(key, services.clock()))


def _patient(owner: str, row: InstanceRow) -> str:
    attributes = loads(row.attributes)
    return patient_id(
        owner,
        InstanceHeader(
            StudyInstanceUID=row.StudyInstanceUID,
            SeriesInstanceUID=row.SeriesInstanceUID,
            SOPInstanceUID=row.SOPInstanceUID,
            SOPClassUID=row.SOPClassUID,
            TransferSyntaxUID=row.TransferSyntaxUID,
            PatientID=first(attributes, _PATIENT_TAGS["PatientID"]),
            IssuerOfPatientID=first(attributes, _PATIENT_TAGS["IssuerOfPatientID"]),
        ),
    )


def _demographics(row: InstanceRow) -> dict[str, str]:
    attributes = loads(row.attributes)
    found = {keyword: first(attributes, tag) for keyword, tag in _PATIENT_TAGS.items()}
    names = (attributes.get("00100010", {}).get("Value") or [{}])[0] or {}
    name = str(names.get("Ideographic") or names.get("Alphabetic") or names.get("Phonetic") or "")
    pinyin = str(names.get("Alphabetic", ""))
    return {**found, "PatientName": name, "PatientNamePinyin": pinyin, "name_search": name_search(name, pinyin)}


# --- the work items ----------------------------------------------------------------------------------------------


def _about(key: StudyKey, what: str) -> str:
    return f"{key.StudyInstanceUID}|{what}"


def _task_id(owner: str, kind: str, about: str) -> str:
    return resource_id(owner, kind, "Task", about)


def _stored(tx: Tx, owner: str, kind: str, about: str) -> Stored | None:
    stored = tx.records.get("Task", _task_id(owner, kind, about), UNRESTRICTED)
    return None if stored is None or stored.deleted else stored


def _decided(tx: Tx, owner: str, kind: str, about: str) -> str:
    """Return how the conflict was settled before; empty when it was not."""
    stored = _stored(tx, owner, kind, about)
    for output in loads(stored.body).get("output", ()) if stored is not None else ():
        if output["type"].get("text") == _DECISION:
            return str(output["valueString"])
    return ""


def _raise(tx: Tx, services: Services, key: StudyKey, kind: str, about: str) -> None:
    """Open the work item of a conflict; one that is open stays, one that is settled is opened again."""
    id_ = _task_id(key.owner, kind, about)
    stored = _stored(tx, key.owner, kind, about)
    if stored is not None and loads(stored.body)["status"] != "completed":
        return
    now = services.clock()
    task: Json = {
        "resourceType": "Task",
        "id": id_,
        "status": "requested",
        "intent": "order",
        "code": {
            "coding": [
                {
                    "system": f"{services.settings.base_url}/CodeSystem/work-item",
                    "code": kind,
                    "display": _DISPLAY[kind],
                }
            ]
        },
        "authoredOn": instant(now),
        "lastModified": instant(now),
        "focus": {"identifier": study_identifier(key.StudyInstanceUID)},
        "input": [
            {"type": {"text": "来源机构 (institution)"}, "valueString": key.owner},
            {"type": {"text": "检查 (Study Instance UID)"}, "valueString": key.StudyInstanceUID},
        ],
    }
    if kind == PATIENT:
        task["input"].append(
            {"type": {"text": "患者 (Patient id of the later images)"}, "valueString": about.partition("|")[2]}
        )
    for element, code in (("owner", HUB.institution), ("requester", key.owner)):
        member = tx.members.get(code)
        if member is not None:
            task[element] = {"reference": f"Organization/{member.organization_id}"}
    tx.records.put_many([NewVersion(resource=task, owner=HUB.institution)])
    if key.owner != HUB.institution:
        tx.grants.open(Grant(grantee=key.owner, target_type="Task", target_id=id_, task_id=id_), now=now)


def _input(task: Mapping[str, Any], name: str) -> str:
    for one in task.get("input", ()):
        if str(one["type"].get("text", "")).startswith(name):
            return str(one.get("valueString", ""))
    return ""


def _says_less(owner: str, study: Mapping[str, Any], header: InstanceHeader) -> bool:
    """Return whether study and *header* name one patient, only that one of them leaves out who issued the number.

    Issuer of Patient ID is optional (PS3.3 C.7.1.1), and workstations drop what the modality wrote, or the other way
    round. Within one study of one institution that contradicts nothing, as long as nothing else of the patient does. The
    institution's own code says no more than nothing does: the worklist answers with it. Where another image of that
    number has contradicted, so that a person was asked, the answer goes for this one too.
    """
    issuers = {study["IssuerOfPatientID"].strip(), header.IssuerOfPatientID.strip()}
    if not header.PatientID.strip() or patient_key(study["PatientID"]) != patient_key(header.PatientID):
        return False
    both = ((study["PatientBirthDate"], header.PatientBirthDate), (study["PatientSex"], header.PatientSex))
    return (
        bool(issuers & {"", owner})
        and all(one == other for one, other in both if one and other)
        and not _differs(study["PatientName"], study["PatientNamePinyin"], header.PatientName, header.PatientNamePinyin)
    )


def _has_another_issuer(tx: Tx, key: StudyKey, header: InstanceHeader) -> bool:
    """Return whether the study shows the number of *header* by another issuer, and by none that is the same.

    A study whose first image leaves the issuer out lets in who names one; two that are named are two patients, though.
    """
    nobody = {"", key.owner}
    issuer = header.IssuerOfPatientID.strip()
    if issuer in nobody:
        return False
    # Two processes may each be about to let in the first image that names an issuer.
    tx.records.lock_condition(f"{key.owner}|{_PATIENT_TAGS['IssuerOfPatientID']}|{key.StudyInstanceUID}")
    another = False
    for raw in tx.imaging.newest_headers(key, header.SeriesInstanceUID, but=header.SOPInstanceUID):
        attributes = loads(raw)
        if patient_key(first(attributes, _PATIENT_TAGS["PatientID"])) != patient_key(header.PatientID):
            continue
        found = first(attributes, _PATIENT_TAGS["IssuerOfPatientID"]).strip()
        if found == issuer:
            return False
        another = another or found not in nobody
    return another


def _differs(name: str, pinyin: str, other: str, other_pinyin: str) -> bool:
    """Return whether two names have no way of writing in common; a name that is missing differs from none."""
    ways, others = _ways(name, pinyin), _ways(other, other_pinyin)
    return bool(ways and others and not ways & others)


def _ways(*names: str) -> frozenset[str]:
    """Return a name as it may be written whole: folded, in pinyin, and with its parts in either order."""
    ways: set[str] = set()
    for name in names:
        parts = [fold(part) for part in re.split(r"[\^=\s]+", name) if part]
        whole = "".join(parts)
        if whole:
            ways |= {whole, "".join(reversed(parts))}
            if has_han(whole):
                ways.add(full_pinyin(whole))
    return frozenset(ways)
