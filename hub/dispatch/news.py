"""What partners are told of records that change: HL7 v2 events that a member's Endpoint asks for by the setting ``send``.

A workflow's ``Send`` speaks of the work. This is about what stands behind it: the patient of an open referral gets
another name (ADT^A08 or A31), two numbers turn out to be one person (ADT^A40), a report or document is issued that the
partner may see (ORU^R01, MDM^T02 and following), a booking is made, moved or ended (SIU^S12 and following). A partner is told of nothing that a grant does not let it see at that
moment: each record is read in its scope, and what only somebody else may see is not so much as named. The message is
queued in the transaction of the change and leaves an audit line there; a partner that asks for nothing costs nothing.

An institution is not told of its own records, nor of what it has just said itself, nor of a report that the workflow of
its request sends by itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import structlog

from fhir_mappings.hl7v2.outbound.adt import adt_a08, adt_a40
from fhir_mappings.hl7v2.outbound.encoding import encode_or_escape
from fhir_mappings.hl7v2.outbound.siu_s12 import siu_s12
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.json import dumps, loads
from hub.access import UNRESTRICTED, Scope
from hub.actor import HUB
from hub.clock import Clock
from hub.config import Settings
from hub.directory import Directory
from hub.dispatch.bookings import booked_patient, booking_event
from hub.dispatch.documents import Documents, is_issued, same_content
from hub.dispatch.related import people_of
from hub.ports import AuditLine, Grant, MemberEndpoint, NewDelivery, ObjectStore, Stored, Tx
from hub.rows import replaced_by
from hub.v2_out import BOOKINGS, wanted_events
from hub.workflows.task import plain, reference_in

log = structlog.get_logger("hub.news")

Json = dict[str, Any]

#: Types whose changes can be news; other changes are passed over without a look.
TOLD = frozenset({"Patient", "DiagnosticReport", "DocumentReference", "Appointment"})


class News:
    """Tells partners; safe for many threads."""

    def __init__(self, settings: Settings, directory: Directory, objects: ObjectStore, clock: Clock) -> None:
        self._settings = settings
        self._directory = directory
        self._clock = clock
        self._documents = Documents(settings, directory, objects, clock)

    def listeners(self) -> list[MemberEndpoint]:
        """Return the endpoints that ask for any event and can be reached."""
        return [
            one
            for one in self._directory.all_endpoints()
            if one.kind == "mllp" and one.address and _wanted(one) and self._directory.member(one.member) is not None
        ]

    def changed(self, tx: Tx, references: Iterable[str], *, origin: str, correlation_id: str) -> None:
        """Queue what listeners are to know of *references*, which *origin* has just given a new version in *tx*."""
        wanted = [one for one in references if one.partition("/")[0] in TOLD]
        listeners = [one for one in self.listeners() if one.member != origin] if wanted else []
        if not listeners:
            return
        for reference in wanted:
            kind, _, id_ = reference.partition("/")
            stored = tx.records.get(kind, id_, UNRESTRICTED)
            if stored is None:
                continue
            before = tx.records.version(kind, id_, stored.version - 1, UNRESTRICTED) if stored.version > 1 else None
            before = None if before is None or before.deleted else before
            if stored.deleted:
                self._deleted(tx, listeners, before, correlation_id)
                continue
            for endpoint in listeners:
                if not _sees(tx, endpoint.member, stored):
                    continue
                if kind == "Patient":
                    self._patient(tx, endpoint, stored, before, correlation_id)
                else:
                    self._document(tx, endpoint, stored, before, correlation_id)

    def _deleted(self, tx: Tx, listeners: Sequence[MemberEndpoint], before: Stored | None, correlation_id: str) -> None:
        """Tell whoever could see the report or document *before* it was deleted that it was taken back."""
        if before is None or before.type == "Patient" or before.visibility == "consortium":
            return
        gone = replace(before, body=dumps({**loads(before.body), "status": "entered-in-error"}))
        for endpoint in listeners:
            scope = Scope(institution=endpoint.member)
            if before.owner != endpoint.member and tx.records.version(before.type, before.id, before.version, scope):
                self._document(tx, endpoint, gone, before, correlation_id)

    def opened(self, tx: Tx, grants: Sequence[Grant], *, correlation_id: str) -> None:
        """Queue the reports and documents that *grants* have just opened, which were there before."""
        listeners = self.listeners()
        for grant in grants:
            if grant.target_type not in TOLD - {"Patient"}:
                continue
            stored = tx.records.get(grant.target_type, grant.target_id, UNRESTRICTED)
            for endpoint in listeners:
                if endpoint.member == grant.grantee and stored is not None and _sees(tx, endpoint.member, stored):
                    self._document(tx, endpoint, stored, None, correlation_id, task_id=grant.task_id)

    # --- patients --------------------------------------------------------------------------------------------

    def _patient(
        self, tx: Tx, endpoint: MemberEndpoint, stored: Stored, before: Stored | None, correlation_id: str
    ) -> None:
        if before is None:
            # Nobody can have a record that was not there.
            return
        new, old, wanted = loads(stored.body), loads(before.body), _wanted(endpoint)
        survivor_id = replaced_by(new)
        target = self._target(endpoint)
        if survivor_id is not None:
            if "ADT^A40" in wanted and survivor_id != replaced_by(old):
                survivor = self._survivor(tx, endpoint.member, survivor_id, stored.owner, known=old)
                if survivor is not None:
                    self._queue(
                        tx, endpoint, "ADT^A40", stored, correlation_id,
                        lambda id_: adt_a40(survivor, new, target=target, control_id=id_, now=self._clock()),
                    )  # fmt: skip
            return
        event: Literal["A08", "A31"] | None = "A08" if "ADT^A08" in wanted else "A31" if "ADT^A31" in wanted else None
        if event is None:
            return
        new, now = with_own_numbers(tx, new, endpoint.member), self._clock()
        old = with_own_numbers(tx, old, endpoint.member)
        # What the message would not say, as an address, is no news to its reader.
        was, is_ = (adt_a08(one, target=target, control_id="=", now=now, event=event) for one in (old, new))
        if was != is_:
            self._queue(
                tx, endpoint, f"ADT^{event}", stored, correlation_id,
                lambda id_: adt_a08(new, target=target, control_id=id_, now=now, event=event),
            )  # fmt: skip

    def _survivor(self, tx: Tx, member: str, id_: str, owner: str, *, known: Json) -> Json | None:
        """Return who survives as *member* may know them: by number alone where it may not see that record."""
        stored = tx.records.get("Patient", id_, UNRESTRICTED)
        if stored is None or stored.deleted or stored.owner != owner:
            # A link to another institution's record leads nowhere.
            return None
        survivor: Json = loads(stored.body)
        if tx.records.get("Patient", id_, Scope(institution=member)) is not None:
            return with_own_numbers(tx, survivor, member)
        ours = f"{self._settings.base_url}/NamingSystem/"
        numbers = [one for one in survivor.get("identifier", ()) if str(one.get("system", "")).startswith(ours)]
        # What the partner knows of the person stays as it is; only the number by which to ask is new to it.
        return {**known, "id": id_, "identifier": numbers}

    # --- reports and documents -------------------------------------------------------------------------------

    def _document(
        self,
        tx: Tx,
        endpoint: MemberEndpoint,
        stored: Stored,
        before: Stored | None,
        correlation_id: str,
        task_id: str = "",
    ) -> None:
        body: Json = loads(stored.body)
        old: Json | None = None if before is None else loads(before.body)
        if old is not None and same_content(old, body):
            return
        if stored.type == "Appointment":
            self._booking(tx, endpoint, stored, old, correlation_id, task_id)
            return
        wanted = _wanted(endpoint)
        known = old if old is not None and is_issued(old) else None
        event = self._documents.event(body, known, wanted)
        if event is None or self._documents.is_sent_by_workflow(tx, body, endpoint.member):
            return
        reference = plain(reference_in(body.get("subject"))) or ""
        kind, _, patient_id = reference.partition("/")
        scope = Scope(institution=endpoint.member)
        patient = tx.records.get("Patient", patient_id, scope) if kind == "Patient" else None
        if patient is None or patient.deleted:
            log.info("document_without_patient_in_reach", reference=f"{stored.type}/{stored.id}", to=endpoint.id)
            return
        person, target = with_own_numbers(tx, loads(patient.body), endpoint.member), self._target(endpoint)
        self._queue(
            tx, endpoint, event, stored, correlation_id,
            lambda id_: self._documents.message(
                tx, body, event=event, patient=person, target=target, control_id=id_, owner=stored.owner
            ),
            patient=patient, task_id=task_id,
        )  # fmt: skip

    def _booking(
        self, tx: Tx, endpoint: MemberEndpoint, stored: Stored, old: Json | None, correlation_id: str, task_id: str
    ) -> None:
        body: Json = loads(stored.body)
        event = booking_event(body, old) if BOOKINGS in _wanted(endpoint) else None
        if event is None:
            return
        patient = booked_patient(tx, body, endpoint.member)
        if patient is None:
            log.info("booking_without_patient_in_reach", reference=f"{stored.type}/{stored.id}", to=endpoint.id)
            return
        person, now = with_own_numbers(tx, loads(patient.body), endpoint.member), self._clock()
        self._queue(
            tx, endpoint, event, stored, correlation_id,
            lambda id_: siu_s12(
                body, patient=person, target=self._target(endpoint), control_id=id_, now=now,
                event=event.partition("^")[2], practitioners=people_of(tx, {"author": _actors(body)}),
            ),
            patient=patient, task_id=task_id,
        )  # fmt: skip

    # --- sending ---------------------------------------------------------------------------------------------

    def _target(self, endpoint: MemberEndpoint) -> OutboundTarget:
        return self._documents.v2.target(endpoint, self._directory.dialect(endpoint))

    def _queue(
        self,
        tx: Tx,
        endpoint: MemberEndpoint,
        event: str,
        about: Stored,
        correlation_id: str,
        build: Callable[[str], str],
        *,
        patient: Stored | None = None,
        task_id: str = "",
    ) -> None:
        control_id = f"YX{secrets.token_hex(8).upper()}"
        payload, missing = encode_or_escape(build(control_id), self._directory.dialect(endpoint).charset_out)
        if missing:
            log.warning("characters_escaped", destination=endpoint.id, control_id=control_id, count=missing)
        person = patient or about
        tx.outbox.enqueue(
            NewDelivery(
                destination=endpoint.id,
                # The lane of what the workflow tells of the same patient, so that neither overtakes the other.
                lane=f"{endpoint.id}|{person.id}",
                kind="mllp",
                payload=payload,
                owner=endpoint.member,
                control_id=control_id,
                content_type="x-application/hl7-v2+er7",
                correlation_id=correlation_id,
                task_id=task_id,
                patient_id=person.id,
            )
        )
        tx.audit.write(
            AuditLine(
                type="hl7v2",
                action="R",
                subtype=event,
                actor=HUB,
                recorded_at=self._clock(),
                patients=((person.owner, person.id),),
                entities=(f"{about.type}/{about.id}",),
                correlation_id=correlation_id,
                detail=f"to {endpoint.id}",
            )
        )


def with_own_numbers(tx: Tx, patient: Json, member: str) -> Json:
    """Return *patient* with the numbers that *member* itself knows the person by, where a link says so for certain."""
    persons = tx.identity.persons(member, [str(patient["id"])]).get(str(patient["id"]), ())
    if len(persons) != 1 or not persons[0].own:
        return patient
    own = tx.records.get("Patient", persons[0].own[0], Scope(institution=member))
    if own is None or own.deleted or own.id == patient["id"]:
        return patient
    numbers = [
        one
        for one in loads(own.body).get("identifier", ())
        if one.get("use") != "old" and str(one.get("value", "")) in persons[0].numbers
    ]
    return {**patient, "identifier": [*numbers, *patient.get("identifier", ())]}


def _actors(appointment: Json) -> list[Json]:
    return [one["actor"] for one in appointment.get("participant", ()) if "actor" in one]


def _wanted(endpoint: MemberEndpoint) -> frozenset[str]:
    return wanted_events(str(endpoint.settings.get("send", "")))


def _sees(tx: Tx, member: str, stored: Stored) -> bool:
    """Return whether a grant lets *member* see another institution's *stored*."""
    if stored.owner == member or stored.deleted or stored.visibility == "consortium":
        return False
    return tx.records.get(stored.type, stored.id, Scope(institution=member)) is not None
