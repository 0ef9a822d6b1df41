"""Which instances a C-MOVE or a C-GET means, and who may have them (PS3.4 annex C.4.2, C.4.3).

The asker's scope decides what is found, as at every door. Where the instances go to another institution, that one's
scope decides as well: nothing is sent to whoever could not read it itself. The audit line is durable before the
selection is returned.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hub.access import Scope, scope_of
from hub.attribute_matching import Match
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.identity_numbers import joined
from hub.ports import AuditLine, InstanceRow, MemberEndpoint, StudyKey, Tx

if TYPE_CHECKING:
    from hub.boot import Services

Level = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]

#: The unique key of each level (PS3.4 section C.6.1.1).
UNIQUE_KEYS: Mapping[Level, str] = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
#: Most instances of one request. Their rows are held in memory, some 500 bytes each, because the presentation contexts
#: depend on all of them.
MAX_INSTANCES = 100_000
#: Studies looked up in one statement.
_BATCH = 500
#: UIDs that an audit line names; its count tells the rest.
_NAMED = 100


@dataclass(frozen=True, slots=True)
class Item:
    """One instance to send."""

    owner: str
    SOPClassUID: str
    SOPInstanceUID: str
    TransferSyntaxUID: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was asked for.

    Attributes:
        items: what may be sent.
        withheld: SOP Instance UIDs that the asker may see and the institution at the destination may not.
    """

    items: Sequence[Item]
    withheld: Sequence[str] = ()


def destination(services: Services, envelope: Envelope, ae_title: str) -> MemberEndpoint | None:
    """Return the AE that *ae_title* names for the asker: its own institution's first, else another member's."""
    found = [
        one
        for one in services.database.read(lambda tx: tx.members.endpoints(kind="dicom"))
        if one.active and one.address and one.ae_title == ae_title and services.directory.member(one.member)
    ]
    return min(found, key=lambda one: (one.member != envelope.actor.institution, one.id), default=None)


def select(
    services: Services,
    envelope: Envelope,
    level: Level,
    keys: Mapping[str, Sequence[str]],
    *,
    to: MemberEndpoint | None = None,
) -> Selection:
    """Return the instances that *keys* (values by keyword) name on *level*; audited.

    Where several institutions hold a study, the asker's own copy is meant, else the first that is in scope.

    Args:
        envelope: who asks; its kind (``C-MOVE``, ``C-GET``) is the subtype of the audit line.
        to: where the instances will go; ``None`` for the asker itself.

    Raises:
        HubError: conflict when a Patient ID means several patients, unsupported when more instances are meant than one
            request may have.
    """

    def work(tx: Tx) -> tuple[list[Item], list[str], tuple[tuple[str, str], ...], tuple[str, ...]]:
        studies = _studies(tx, envelope, level, keys)
        readable = _readable(tx, studies, to)
        items: list[Item] = []
        withheld: list[str] = []
        for study in studies:
            rows = _rows(tx, study, keys)
            if (study["owner"], study["StudyInstanceUID"]) in readable:
                items += map(_item, rows)
            else:
                withheld += [row.SOPInstanceUID for row in rows]
            if len(items) + len(withheld) > MAX_INSTANCES:
                raise HubError(
                    Category.UNSUPPORTED, f"More than {MAX_INSTANCES} instances.", remedy="Retrieve study by study."
                )
        patients = tuple(sorted({(study["owner"], study["patient_id"]) for study in studies}))
        return items, withheld, patients, tuple(study["StudyInstanceUID"] for study in studies)

    items, withheld, patients, found = services.database.read(work)
    asked = [uid for keyword, values in keys.items() if keyword != "PatientID" for uid in values]
    _write_audit(
        services,
        envelope,
        patients=patients,
        entities=found if level == "PATIENT" else asked,
        count=len(items),
        detail="" if to is None else f"to {to.id}; {len(withheld)} withheld",
    )
    return Selection(items=items, withheld=withheld)


def refused(services: Services, envelope: Envelope, ae_title: str) -> None:
    """Write down that the asker wanted instances sent to an AE that is unknown or not for it."""
    _write_audit(services, envelope, outcome="4", detail=f"destination refused: {ae_title[:16]}")


def _write_audit(
    services: Services,
    envelope: Envelope,
    *,
    patients: tuple[tuple[str, str], ...] = (),
    entities: Sequence[str] = (),
    count: int | None = None,
    outcome: str = "0",
    detail: str = "",
) -> None:
    line = AuditLine(
        type="dicom",
        action="R",
        subtype=envelope.kind,
        actor=envelope.actor,
        recorded_at=services.clock(),
        outcome=outcome,
        patients=patients,
        entities=tuple(entities[:_NAMED]),
        count=count,
        correlation_id=envelope.correlation_id,
        detail=detail,
    )
    services.database.write(lambda tx: tx.audit.write(line))


def _studies(tx: Tx, envelope: Envelope, level: Level, keys: Mapping[str, Sequence[str]]) -> list[Mapping[str, Any]]:
    """Return one row for each study that is meant."""
    scope, owner = scope_of(envelope.actor), envelope.actor.institution
    matches = (
        [Match(keyword="PatientID", vr="LO", kind="any", values=tuple(keys["PatientID"]))]
        if keys.get("PatientID")
        else []
    )
    rows: list[Mapping[str, Any]] = []
    if level == "PATIENT":
        issuer = next(iter(keys.get("IssuerOfPatientID", ())), "").strip()
        if issuer:
            matches.append(Match(keyword="IssuerOfPatientID", vr="LO", kind="any", values=(issuer,)))
        rows = list(tx.imaging.studies(scope, matches, limit=MAX_INSTANCES))
        persons = joined(tx, envelope.actor, sorted({row["patient_id"] for row in rows}), matches)
        return _one_patient(rows, owner, issuer, persons)
    for batch in _batches(keys["StudyInstanceUID"]):
        uids = Match(keyword="StudyInstanceUID", vr="UI", kind="any", values=batch)
        rows += tx.imaging.studies(scope, [uids, *matches], limit=MAX_INSTANCES)
    copies: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["owner"] != owner, row["owner"])):
        copies.setdefault(row["StudyInstanceUID"], []).append(row)
    # A copy that is still empty, or lacks what is asked for, is not meant.
    return [
        next((one for one in several if len(several) == 1 or _rows(tx, one, keys)), several[0])
        for several in copies.values()
    ]


def _one_patient(
    rows: Iterable[Mapping[str, Any]], owner: str, issuer: str, linked: Container[str]
) -> list[Mapping[str, Any]]:
    """Return the studies of the one patient that is meant: the same number elsewhere is somebody else's.

    A patient of another institution who is *linked* to the asker's of that number is the same one.
    """
    patients: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["patient_id"] in linked and row["owner"] != owner:
            patients.setdefault((owner, ""), []).append(row)
            continue
        said = str(row["IssuerOfPatientID"]).strip()
        patients.setdefault((row["owner"], said if said != row["owner"] else ""), []).append(row)
    if issuer:
        patients = {key: found for key, found in patients.items() if issuer == (key[1] or key[0])}
    if (owner, "") in patients:
        return patients[owner, ""]
    if len(patients) > 1:
        raise HubError(
            Category.CONFLICT,
            "This Patient ID means several patients.",
            where="(0010,0020)",
            remedy="Give Issuer of Patient ID, or retrieve study by study.",
        )
    return next(iter(patients.values()), [])


def _readable(tx: Tx, studies: Sequence[Mapping[str, Any]], to: MemberEndpoint | None) -> frozenset[tuple[str, str]]:
    """Return (owner, study) of those that the institution at the destination may see."""
    if to is None:
        return frozenset((study["owner"], study["StudyInstanceUID"]) for study in studies)
    readable: set[tuple[str, str]] = set()
    for batch in _batches([study["StudyInstanceUID"] for study in studies]):
        uids = Match(keyword="StudyInstanceUID", vr="UI", kind="any", values=batch)
        rows = tx.imaging.studies(Scope(institution=to.member), [uids], limit=MAX_INSTANCES)
        readable.update((row["owner"], row["StudyInstanceUID"]) for row in rows)
    return frozenset(readable)


def _rows(tx: Tx, study: Mapping[str, Any], keys: Mapping[str, Sequence[str]]) -> list[InstanceRow]:
    series, instances = (frozenset(keys.get(name, ())) for name in ("SeriesInstanceUID", "SOPInstanceUID"))
    return [
        row
        for row in tx.imaging.instances_of(
            StudyKey(owner=study["owner"], StudyInstanceUID=study["StudyInstanceUID"]),
            next(iter(series)) if len(series) == 1 else None,
            next(iter(instances)) if len(instances) == 1 else None,
        )
        if (not series or row.SeriesInstanceUID in series) and (not instances or row.SOPInstanceUID in instances)
    ]


def _item(row: InstanceRow) -> Item:
    # The same few texts stand in thousands of rows.
    return Item(
        sys.intern(row.owner),
        sys.intern(row.SOPClassUID),
        row.SOPInstanceUID,
        sys.intern(row.TransferSyntaxUID),
        row.digest,
    )


def _batches(values: Sequence[str]) -> Iterable[tuple[str, ...]]:
    return (tuple(values[start : start + _BATCH]) for start in range(0, len(values), _BATCH))
