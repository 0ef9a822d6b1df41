"""The FHIR interactions, without any protocol around them (https://hl7.org/fhir/R4/http.html).

Every method takes the :class:`Envelope` of the request (who asks, from where, under which correlation id) and returns an
:class:`Answer`; errors are :class:`HubError`. A write is durable on return: resources, index, workflow effects, journal
entry and audit line in one commit.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fhir_mappings.json import dumps
from hub.access import DIRECTORY_TYPES
from hub.answer import Answer
from hub.bundles import Bundles
from hub.capability import capability
from hub.clock import instant
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.interaction import Change
from hub.outcome import outcome_of_findings
from hub.ports import AuditLine, NewEntry, Stored, Tx
from hub.read_parameters import Pairs
from hub.reading import Reader, known_type
from hub.transitions import read_transition
from hub.validation import validate
from hub.writable import refuse_role
from hub.writing import Writer

if TYPE_CHECKING:
    from hub.boot import Services

T = TypeVar("T")

#: Bodies up to this size stand in the journal itself, larger ones in the object store.
INLINE_MAX_BYTES = 64 * 1024


class ResourceService:
    """FHIR interactions for every door of one process; safe for many threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.reader = Reader(services)
        self.writer = Writer(services, self.reader.bases)
        self._bundles = Bundles(self)
        self._capability = b""

    # --- reading ---------------------------------------------------------------------------------------------

    def read(self, envelope: Envelope, type: str, id: str, *, pairs: Pairs = (), raw: bool = False) -> Answer:
        """Return the current version of a resource; see :meth:`hub.reading.Reader.read`."""
        return self.reader.read(envelope, type, id, pairs=pairs, raw=raw)

    def vread(self, envelope: Envelope, type: str, id: str, version: str) -> Answer:
        """Return one version of a resource."""
        return self.reader.vread(envelope, type, id, version)

    def history(self, envelope: Envelope, type: str | None, id: str | None, pairs: Pairs = ()) -> Answer:
        """Return versions of a resource, of a type or of all, newest first."""
        return self.reader.history(envelope, type, id, pairs)

    def search(self, envelope: Envelope, type: str, pairs: Pairs, *, lenient: bool = False) -> Answer:
        """Return one page of a search."""
        return self.reader.search(envelope, type, pairs, lenient=lenient)

    def everything(self, envelope: Envelope, id: str, pairs: Pairs = (), *, lenient: bool = False) -> Answer:
        """Return one page of a Patient's record."""
        return self.reader.everything(envelope, id, pairs, lenient=lenient)

    def capability(self) -> bytes:
        """Return the CapabilityStatement."""
        if not self._capability:
            self._capability = dumps(capability(self.reader.base, instant(self._services.clock())))
        return self._capability

    # --- writing ---------------------------------------------------------------------------------------------

    def create(
        self, envelope: Envelope, type: str, raw: bytes, *, if_none_exist: Pairs | None = None, media_type: str = ""
    ) -> Answer:
        """Store a new resource under an id of the hub: 201, or 200 when a conditional create finds it already there.

        Args:
            media_type: of a Binary sent as its bytes.
        """
        self._may_write(envelope, type)
        if media_type:
            value: Any = {
                "resourceType": "Binary",
                "contentType": media_type,
                "data": base64.b64encode(raw).decode(),
            }
        else:
            value = self.writer.decode(raw)
        resource = self.writer.resource(value, type)
        condition = None if if_none_exist is None else tuple(if_none_exist)
        change = Change(method="POST", type=type, source=resource, condition=condition)
        return self._one(envelope, change, raw, "create")

    def update(self, envelope: Envelope, type: str, id: str, raw: bytes, *, if_match: int | None = None) -> Answer:
        """Store a new version, or a new resource under an id of the sender's: 200 or 201."""
        self._may_write(envelope, type)
        resource = self.writer.resource(self.writer.decode(raw), type)
        if resource.get("id") != id:
            raise HubError(
                Category.INCORRECT,
                "The id in the body is not the one in the URL.",
                where=f"{type}.id",
                remedy="Send the id of the URL in the body.",
            )
        return self._one(
            envelope, Change(method="PUT", type=type, given_id=id, source=resource, if_match=if_match), raw, "update"
        )

    def conditional_update(self, envelope: Envelope, type: str, raw: bytes, condition: Pairs) -> Answer:
        """Update the one resource that fulfils *condition*, or create it: 200 or 201; 412 for several."""
        self._may_write(envelope, type)
        resource = self.writer.resource(self.writer.decode(raw), type)
        change = Change(method="PUT", type=type, source=resource, condition=tuple(condition))
        return self._one(envelope, change, raw, "update")

    def patch(
        self,
        envelope: Envelope,
        type: str,
        id: str | None,
        raw: bytes,
        *,
        if_match: int | None = None,
        condition: Pairs | None = None,
    ) -> Answer:
        """Apply a JSON Patch to the resource *id*, or to the one that fulfils *condition*."""
        self._may_write(envelope, type)
        operations = self.writer.decode(raw)
        change = Change(
            method="PUT",
            type=type,
            given_id=id,
            patch=operations,
            if_match=if_match,
            condition=None if condition is None else tuple(condition),
        )
        return self._one(envelope, change, raw, "patch")

    def delete(
        self,
        envelope: Envelope,
        type: str,
        id: str | None,
        *,
        if_match: int | None = None,
        condition: Pairs | None = None,
    ) -> Answer:
        """Mark the resource deleted; 204 also when it was already."""
        self._may_write(envelope, type)
        change = Change(
            method="DELETE",
            type=type,
            given_id=id,
            if_match=if_match,
            condition=None if condition is None else tuple(condition),
        )
        return self._one(envelope, change, b"", "delete")

    def bundle(self, envelope: Envelope, raw: bytes, *, representation: bool = False) -> Answer:
        """Carry out a batch or a transaction; see :mod:`hub.bundles`."""
        return self._bundles.process(envelope, raw, representation=representation)

    def transition(self, envelope: Envelope, id: str, raw: bytes, *, if_match: int | None = None) -> Answer:
        """Move a Task by one event of its workflow (``Task/$transition``).

        Raises:
            HubError: 409 or 422 naming the allowed events.
        """
        self._may_write(envelope, "Task")
        asked = read_transition(self.writer.decode(raw), self.reader.bases)

        def work(tx: Tx) -> Stored:
            self.writer.linker.check_targets(tx, asked.references(), envelope.actor)
            stored = self._services.tasks.transition(
                tx,
                id,
                asked.event,
                envelope.actor,
                reason=asked.reason,
                note=asked.note,
                inputs=asked.inputs,
                outputs=asked.outputs,
                assignee=asked.assignee,
                expected_at=asked.expected_at,
                expected_version=if_match,
                correlation_id=envelope.correlation_id,
            )
            self.journal(tx, envelope, raw, f"transition {asked.event}", (stored,), digest)
            return stored

        digest = self.keep(raw)
        stored = self.refused_is_audited(envelope, "transition", "Task", lambda: self._services.database.write(work))
        return Answer(status=200, body=stored.body, stored=stored)

    def validate(self, type: str | None, raw: bytes) -> Answer:
        """Return an OperationOutcome of what is wrong with the resource in the body; stores nothing."""
        value = self.writer.decode(raw)
        if isinstance(value, dict) and value.get("resourceType") == "Parameters" and type != "Parameters":
            parts = [one for one in value.get("parameter", ()) if isinstance(one, dict)]
            value = next((one.get("resource") for one in parts if one.get("name") == "resource"), None)
        return Answer(status=200, body=dumps(outcome_of_findings(validate(value, type))))

    # --- shared with bundles ---------------------------------------------------------------------------------

    def commit(self, envelope: Envelope, changes: Sequence[Change], raw: bytes | None, kind: str) -> None:
        """Carry out *changes* with journal entry (unless *raw* is ``None``) and audit line in one durable commit."""
        digest = self.keep(raw) if raw is not None else ""

        def work(tx: Tx) -> None:
            self.writer.carry_out(tx, changes, envelope)
            results = [one.result for one in changes if one.result is not None]
            if raw is not None:
                self.journal(tx, envelope, raw, kind, results, digest)
            tx.audit.write(
                AuditLine(
                    type="rest",
                    action=_action(changes),
                    subtype=kind.partition(" ")[0],
                    actor=envelope.actor,
                    recorded_at=envelope.received_at,
                    patients=self.reader.patients(tx, results),
                    entities=tuple(f"{one.type}/{one.id}" for one in results),
                    correlation_id=envelope.correlation_id,
                    count=len(changes) if len(changes) > 1 else None,
                )
            )

        self._services.database.write(work)
        if any(one.type in DIRECTORY_TYPES for one in changes):
            self._services.directory.refresh()

    def write(self, work: Callable[[Tx], T]) -> T:
        """Run *work* in a transaction of its own; durable on return."""
        return self._services.database.write(work)

    def keep(self, raw: bytes) -> str:
        """Return the digest of *raw*; a large body is durable in the object store on return."""
        if len(raw) > INLINE_MAX_BYTES:
            return self._services.objects.put_bytes(raw).digest
        return hashlib.sha256(raw).hexdigest()

    def journal(
        self, tx: Tx, envelope: Envelope, raw: bytes, kind: str, results: Sequence[Stored], digest: str
    ) -> None:
        """Write what was received into the journal of *tx*."""
        tx.journal.append(
            NewEntry(
                door=envelope.door,
                institution=envelope.actor.institution,
                peer=envelope.peer,
                correlation_id=envelope.correlation_id,
                message_type=kind,
                digest=digest,
                size=len(raw),
                received_at=envelope.received_at,
                body=raw if len(raw) <= INLINE_MAX_BYTES else None,
                version="4.0.1",
                charset="UTF-8",
                outcome=" ".join(f"{one.type}/{one.id}/_history/{one.version}" for one in results[:20]),
                patient_id=next((one.patient_id for one in results if one.patient_id), ""),
            )
        )

    def refused_is_audited(self, envelope: Envelope, kind: str, type: str, work: Callable[[], T]) -> T:
        """Return what *work* returns; a refusal for want of rights leaves an audit line of its own."""
        try:
            return work()
        except HubError as error:
            if error.category in {Category.FORBIDDEN, Category.NOT_FOUND}:
                line = AuditLine(
                    type="rest",
                    action="U",
                    subtype=kind,
                    actor=envelope.actor,
                    recorded_at=envelope.received_at,
                    outcome="8" if error.category is Category.FORBIDDEN else "4",
                    query=type,
                    correlation_id=envelope.correlation_id,
                )
                self._services.database.write(lambda tx: tx.audit.write(line))
            raise

    def _may_write(self, envelope: Envelope, type: str) -> None:
        known_type(type)
        self.refused_is_audited(envelope, "write", type, lambda: refuse_role(envelope.actor, type))

    def _one(self, envelope: Envelope, change: Change, raw: bytes, kind: str) -> Answer:
        self.refused_is_audited(
            envelope, kind, change.type, lambda: self.commit(envelope, (change,), raw, f"{kind} {change.type}")
        )
        return answer_of(change)


def answer_of(change: Change) -> Answer:
    """Return the answer to one change that was carried out."""
    if change.method == "DELETE":
        return Answer(status=204, stored=change.result)
    assert change.result is not None
    return Answer(
        status=201 if change.created else 200, body=change.result.body, stored=change.result, created=change.created
    )


def _action(changes: Sequence[Change]) -> str:
    if len(changes) != 1:
        return "E"
    [one] = changes
    if one.method == "DELETE":
        return "D"
    return "R" if one.skipped else "C" if one.created else "U"
