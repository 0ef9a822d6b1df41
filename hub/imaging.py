"""DICOM instances in, studies complete, images found and fetched: the rules behind the DIMSE and DICOMweb doors.

Receiving writes the object first and then journal and index in one commit (DESIGN rule 1). It writes one index row for
each instance; what belongs to a study or series is touched when this process first meets the series, and again once in
half a quiet time, so that a timer in the database always outlives the last instance. When it fires on a quiet study,
:mod:`hub.study` makes the ImagingStudy.

Every query and retrieval carries the asker's scope and commits its audit line before the first byte leaves (rule 12).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fhir_mappings.dicom.instance import InstanceHeader
from fhir_mappings.json import loads
from hub import conflicts
from hub.access import Scope, scope_of
from hub.actor import Actor
from hub.attribute_matching import Level, Match, parse
from hub.envelope import Envelope
from hub.imaging_ids import patient_id, quiet_timer, study_resource_id
from hub.known_series import KnownSeries
from hub.ports import (
    AuditLine,
    InstanceRow,
    NewEntry,
    ObjectRef,
    ObjectStore,
    Spool,
    StudyChangedError,
    StudyKey,
    Timer,
    Tx,
)
from hub.series_metadata import SeriesMetadata, absent
from hub.study import StudyCompletion, raise_conflict

if TYPE_CHECKING:
    from hub.boot import Services

#: Most rows one query returns; Google's DICOM store has the same limits.
MAX_ROWS: Mapping[Level, int] = {"study": 5000, "series": 5000, "instance": 50_000}
_COMPARED_BYTES = 1 << 20


class _OtherBytesError(Exception):
    """Rolls an instance back whose SOP Instance UID is known with other bytes, until those are compared."""

    def __init__(self, digest: str) -> None:
        super().__init__()
        self.digest = digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One page of a query.

    Attributes:
        rows: mappings for studies and series, :class:`InstanceRow` for instances.
        total: number of matches in all when the page does not hold the last of them, else ``None``.
    """

    rows: Sequence[Any]
    total: int | None = None


class ImagingService(SeriesMetadata):
    """What the imaging doors and the worker call."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._known = KnownSeries()
        self._completion = StudyCompletion(services)

    # --- receiving -------------------------------------------------------------------------------------------

    def receive(self, envelope: Envelope, spool: Spool, header: InstanceHeader) -> str:
        """Keep one instance; returns ``new``, ``duplicate``, ``conflict`` or ``held`` once it is durable.

        The same data set again is a duplicate even where its file meta information differs. Other bytes under a known
        SOP Instance UID are kept beside the current ones, and a work item for the operator is raised once. An instance
        that names another patient than its study is kept and shown to nobody until that is settled (hub.conflicts). An
        instance that is marked deleted stays so when it is sent again (hub.deletion); the journal flags its arrival.

        Raises:
            HubError: unavailable, busy or fault when it could not be kept.
        """
        ref = self._services.objects.put(spool)
        owner = envelope.actor.institution
        series = (owner, header.StudyInstanceUID, header.SeriesInstanceUID)
        now = self._services.clock()
        who = (header.PatientID, header.IssuerOfPatientID, header.PatientName)
        touch = not self._known.fresh(series, who, now - self._quiet / 2)
        try:
            outcome, known = self._write(envelope, header, ref, touch=touch)
        except StudyChangedError:
            # Somebody has made the study another patient's, or this is one whose images are let in one by one.
            self._known.forget(series)
            touch = True
            outcome, known = self._write(envelope, header, ref, touch=True)
        if touch and known:
            # Only after the commit: a remembered series vouches for rows that are in the database. Whose the study is
            # does not rest on memory alone: the statement that writes an instance compares it.
            self._known.mark(series, who, now)
        return outcome

    def _write(self, envelope: Envelope, header: InstanceHeader, ref: ObjectRef, *, touch: bool) -> tuple[str, bool]:
        """Commit one instance; returns what came of it, and whether the study was found to be its patient's.

        Raises:
            StudyChangedError: without *touch*, the study is not the patient's; nothing was written.
        """
        write = self._services.database.write
        try:
            return write(lambda tx: self._record(tx, envelope, header, ref, touch=touch))
        except _OtherBytesError as other:
            if _same_data_set(self._services.objects, other.digest, ref.digest):
                return write(lambda tx: self._journal(tx, envelope, header, ref, "duplicate")), True
            return write(lambda tx: self._record(tx, envelope, header, ref, touch=touch, keep_both=True))

    @property
    def _quiet(self) -> timedelta:
        return timedelta(seconds=self._services.settings.study_quiet_s)

    def _record(
        self,
        tx: Tx,
        envelope: Envelope,
        header: InstanceHeader,
        ref: ObjectRef,
        *,
        touch: bool,
        keep_both: bool = False,
    ) -> tuple[str, bool]:
        owner = envelope.actor.institution
        outcome = tx.imaging.add(
            owner,
            header,
            ref,
            # The moment of this instance: an association's envelope may be hours older.
            self._services.clock(),
            patient_id(owner, header),
            envelope.correlation_id,
            resource_id=study_resource_id(owner, header.StudyInstanceUID) if touch else "",
            series_known=not touch,
        )
        if outcome in {"conflict", "rejected"} and not keep_both:
            mark = tx.imaging.deletions.marked(owner, header.SOPInstanceUID) if outcome == "rejected" else None
            known = mark.digest if mark is not None else tx.imaging.current_digest(owner, header.SOPInstanceUID)
            assert known is not None
            raise _OtherBytesError(known)
        if outcome in {"conflict", "rejected"}:
            raise_conflict(tx, self._services, owner, header, ref)
            outcome = "conflict"
        verdict: conflicts.Verdict = "own"
        if touch and outcome != "duplicate":
            verdict = conflicts.check(tx, self._services, owner, header)
        if verdict == "held":
            key = StudyKey(owner=owner, StudyInstanceUID=header.StudyInstanceUID)
            tx.imaging.set_aside(key, header.SOPInstanceUID, ref.digest, shown=False)
            return self._journal(tx, envelope, header, ref, "held"), False
        if touch and outcome == "new":
            key = StudyKey(owner=owner, StudyInstanceUID=header.StudyInstanceUID)
            tx.imaging.reopen(key)
            tx.timers.set(quiet_timer(key, self._services.clock() + self._quiet))
            tx.audit.write(self._audit(envelope, "C", (key.StudyInstanceUID,), ((owner, patient_id(owner, header)),)))
        return self._journal(tx, envelope, header, ref, outcome), verdict == "own"

    def _journal(self, tx: Tx, envelope: Envelope, header: InstanceHeader, ref: ObjectRef, outcome: str) -> str:
        flags = ["charset"] if header.charset_flagged else []
        if outcome != "new" and tx.imaging.deletions.marked(envelope.actor.institution, header.SOPInstanceUID):
            flags.append("deleted")
        tx.journal.append(
            NewEntry(
                door=envelope.door,
                institution=envelope.actor.institution,
                peer=envelope.peer,
                correlation_id=envelope.correlation_id,
                message_type=envelope.kind or ("STOW" if envelope.door == "stow" else "C-STORE"),
                digest=ref.digest,
                size=ref.size,
                received_at=self._services.clock(),
                sending_application=envelope.actor.client,
                control_id=header.SOPInstanceUID,
                charset=header.charset_used,
                state="done",
                outcome=outcome,
                flags=" ".join(flags),
                patient_id=patient_id(envelope.actor.institution, header),
                accession=header.AccessionNumber,
            )
        )
        return outcome

    def _audit(
        self, envelope: Envelope, action: str, entities: tuple[str, ...], patients: tuple[tuple[str, str], ...] = ()
    ) -> AuditLine:
        return AuditLine(
            type="dicom",
            action=action,
            subtype=envelope.kind or "C-STORE",
            actor=envelope.actor,
            recorded_at=self._services.clock(),
            patients=patients,
            entities=entities,
            correlation_id=envelope.correlation_id,
        )

    def association_ended(self, envelope: Envelope, studies: set[str]) -> None:
        """Start the quiet time of the *studies* that one association or request brought; durable on return."""
        if not studies:
            return
        due = self._services.clock() + self._quiet
        keys = [StudyKey(owner=envelope.actor.institution, StudyInstanceUID=uid) for uid in sorted(studies)]

        def work(tx: Tx) -> None:
            patients: set[tuple[str, str]] = set()
            for key in keys:
                row = tx.imaging.study(key)
                if row is not None:
                    tx.timers.set(quiet_timer(key, due))
                    patients.add((key.owner, row["patient_id"]))
            entities = tuple(key.StudyInstanceUID for key in keys)
            tx.audit.write(self._audit(envelope, "C", entities, tuple(sorted(patients))))

        self._services.database.write(work)

    # --- completion ------------------------------------------------------------------------------------------

    def on_study_quiet(self, tx: Tx, timer: Timer) -> StudyKey | None:
        """Complete the study of a timer that was taken in *tx*, or set the timer anew when instances came late.

        Returns the study when it is complete; :meth:`prepare_metadata` may follow outside the transaction.
        """
        key = StudyKey(owner=str(timer.payload["owner"]), StudyInstanceUID=str(timer.payload["study"]))
        latest = tx.imaging.latest_arrival(key)
        if latest is None:
            return None
        again = self._completion.not_before(tx, key, latest)
        if again > self._services.clock():
            tx.timers.set(quiet_timer(key, again))
            return None
        self._completion.complete(tx, key)
        return key

    def match_later(self, tx: Tx, service_request: Mapping[str, Any], *, owner: str) -> list[str]:
        """Match a new or changed order to complete studies that wait for one; returns ids of matched ImagingStudies."""
        return self._completion.match_later(tx, service_request, owner=owner)

    def match_orders(self, tx: Tx, changed: Iterable[str], *, owner: str) -> list[str]:
        """Match the orders among *changed* (``Type/id``), which have just been written, to studies that came before."""
        matched: list[str] = []
        for reference in changed:
            kind, _, id_ = reference.partition("/")
            if kind != "ServiceRequest":
                continue
            stored = tx.records.get(kind, id_, Scope(institution=owner))
            if stored is not None and stored.owner == owner and not stored.deleted:
                matched += self.match_later(tx, loads(stored.body), owner=owner)
        return matched

    def recount(self, tx: Tx, key: StudyKey) -> None:
        """Let counts and ImagingStudy of a study follow what has just been marked deleted or brought back."""
        self._completion.recount(tx, key)

    def settle_unmatched(self, tx: Tx, study: StudyKey, service_request_id: str | None, actor: Actor) -> None:
        """Decide by hand which order a study belongs to, or that it has none (``None``); closes its work item.

        Raises:
            HubError: not-found when the study or the order is not the actor's institution's.
        """
        self._completion.settle(tx, study, service_request_id, actor)

    # --- finding ---------------------------------------------------------------------------------------------

    def find(
        self,
        actor: Actor,
        level: Level,
        keys: Sequence[tuple[str, str]],
        *,
        limit: int | None = None,
        offset: int = 0,
        fuzzy: bool = False,
        owner: str | None = None,
        attributes: bool = False,
        subtype: str = "QIDO-RS",
    ) -> Found:
        """Return what *actor* may see on *level* that matches all *keys* (keyword, value); audited.

        With *attributes*, study and series rows carry the header of their first instance under ``attributes`` (DICOM
        JSON), and instance rows their own. Raises HubError(incorrect) for a key that cannot be matched.
        """
        matches = [match for name, value in keys if (match := parse(name, value, level=level, fuzzy=fuzzy)) is not None]
        scope, most = scope_of(actor), MAX_ROWS[level]
        wanted = min(most, limit) if limit is not None else most

        def work(tx: Tx) -> Found:
            if level == "instance":
                rows: list[Any] = list(
                    tx.imaging.instances(
                        scope, matches, limit=wanted + 1, offset=offset, owner=owner, attributes=attributes
                    )
                )
            else:
                query = tx.imaging.studies if level == "study" else tx.imaging.series
                rows = [dict(row) for row in query(scope, matches, limit=wanted + 1, offset=offset, owner=owner)]
            more = len(rows) > wanted
            rows = rows[:wanted]
            if attributes and level != "instance":
                _attach_attributes(tx, level, rows)
            return Found(rows=rows, total=tx.imaging.count(level, scope, matches, owner=owner) if more else None)

        found = self._services.database.read(work)
        self._write_audit(
            actor,
            "E",
            subtype,
            self._patients_of(level, found.rows),
            query=_query(level, matches),
            count=len(found.rows),
        )
        return found

    def _patients_of(self, level: Level, rows: Sequence[Any]) -> tuple[tuple[str, str], ...]:
        if level == "study":
            return tuple(sorted({(row["owner"], row["patient_id"]) for row in rows}))
        if level == "series":
            return tuple(sorted({(row["owner"], row["study"]["patient_id"]) for row in rows}))
        keys = {StudyKey(owner=row.owner, StudyInstanceUID=row.StudyInstanceUID) for row in rows}

        def work(tx: Tx) -> tuple[tuple[str, str], ...]:
            studies = [tx.imaging.study(key) for key in keys]
            return tuple(sorted({(row["owner"], row["patient_id"]) for row in studies if row is not None}))

        return self._services.database.read(work)

    def _write_audit(
        self,
        actor: Actor,
        action: str,
        subtype: str,
        patients: tuple[tuple[str, str], ...],
        *,
        entities: tuple[str, ...] = (),
        query: str = "",
        count: int | None = None,
    ) -> None:
        line = AuditLine(
            type="dicom",
            action=action,
            subtype=subtype,
            actor=actor,
            recorded_at=self._services.clock(),
            patients=patients,
            entities=entities,
            query=query,
            count=count,
        )
        self._services.database.write(lambda tx: tx.audit.write(line))

    # --- fetching --------------------------------------------------------------------------------------------

    def retrieve(
        self,
        actor: Actor,
        StudyInstanceUID: str,
        SeriesInstanceUID: str | None = None,
        SOPInstanceUID: str | None = None,
        *,
        owner: str | None = None,
        attributes: bool = False,
        subtype: str = "WADO-RS",
    ) -> Sequence[InstanceRow]:
        """Return the current instances of a study, a series or one instance; the audit line is durable on return.

        Where several institutions hold the study, the asker's own copy is meant, else the first that is in scope and has
        what was asked for; *owner* names one. Raises HubError(not-found) when there is none in scope.
        """

        def work(tx: Tx) -> tuple[Mapping[str, Any], Sequence[InstanceRow]]:
            for study in self._visible_studies(tx, actor, StudyInstanceUID, owner):
                key = StudyKey(owner=study["owner"], StudyInstanceUID=StudyInstanceUID)
                rows = tx.imaging.instances_of(key, SeriesInstanceUID, SOPInstanceUID, attributes=attributes)
                if rows:
                    return study, rows
            raise absent()

        study, rows = self._services.database.read(work)
        asked = tuple(uid for uid in (StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID) if uid)
        patients = ((study["owner"], study["patient_id"]),)
        self._write_audit(actor, "R", subtype, patients, entities=asked, count=len(rows))
        return rows

    def copy_of(self, actor: Actor, StudyInstanceUID: str, *, owner: str | None = None) -> StudyKey | None:
        """Return which institution's copy of a study *actor* means (see :meth:`retrieve`), or ``None``."""

        def work(tx: Tx) -> StudyKey | None:
            for study in self._visible_studies(tx, actor, StudyInstanceUID, owner):
                if study["NumberOfStudyRelatedInstances"]:
                    return StudyKey(owner=study["owner"], StudyInstanceUID=StudyInstanceUID)
            return None

        return self._services.database.read(work)

    def _visible_studies(
        self, tx: Tx, actor: Actor, StudyInstanceUID: str, owner: str | None
    ) -> list[Mapping[str, Any]]:
        uid = Match(keyword="StudyInstanceUID", vr="UI", kind="any", values=(StudyInstanceUID,))
        rows = tx.imaging.studies(scope_of(actor), [uid], limit=100, owner=owner)
        return sorted(rows, key=lambda row: (row["owner"] != actor.institution, row["owner"]))


def _attach_attributes(tx: Tx, level: Level, rows: list[dict[str, Any]]) -> None:
    if level == "series":
        keys = [(row["owner"], row["StudyInstanceUID"], row["SeriesInstanceUID"]) for row in rows]
        headers = tx.imaging.first_attributes(keys)
        for row, key in zip(rows, keys, strict=True):
            row["attributes"] = headers.get(key, b"{}")
        return
    for row in rows:
        study = StudyKey(owner=row["owner"], StudyInstanceUID=row["StudyInstanceUID"])
        first = next(iter(tx.imaging.instances_of(study)), None)
        found = tx.imaging.instances_of(study, SOPInstanceUID=first.SOPInstanceUID, attributes=True) if first else ()
        row["attributes"] = found[0].attributes if found else b"{}"


def _query(level: Level, matches: Sequence[Match]) -> str:
    """Return the query for the audit line; names are left out, numbers and dates are what an auditor asks for."""
    parts = []
    for match in matches:
        shown = "***" if match.vr == "PN" else "\\".join(match.values[:5])
        parts.append(f"{match.keyword}={shown}")
    return f"{level}?{'&'.join(parts)}"


def _same_data_set(objects: ObjectStore, one: str, other: str) -> bool:
    """Return whether two Part 10 files hold the same data set, whatever their file meta information says."""
    with objects.open(one) as left, objects.open(other) as right:
        for handle in (left, right):
            head = handle.read(144)
            # (0002,0000) UL gives the length of the rest of group 0002 (PS3.10 section 7.1).
            meta = head[128:140] == b"DICM\x02\x00\x00\x00UL\x04\x00"
            handle.seek(144 + int.from_bytes(head[140:144], "little") if meta else 0)
        while True:
            a, b = left.read(_COMPARED_BYTES), right.read(_COMPARED_BYTES)
            if a != b:
                return False
            if not a:
                return True
