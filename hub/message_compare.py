"""A message beside what came of it: its segments, and each resource in the version that it made.

The Provenance of the message (https://hl7.org/fhir/R4/provenance.html) names the resources; the version is the one that
stood when the Provenance was written. Records are read within the reach of the message's institution, whose they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fhir_mappings.identifiers import resource_id
from fhir_mappings.json import loads
from hub.access import Scope
from hub.actor import Actor
from hub.clock import instant
from hub.errors import Category, HubError
from hub.message_desk import MessageDesk, shown_entry
from hub.message_search import body_of, text_of
from hub.ports import AuditLine, Entry, Stored, Tx

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]
#: Versions of one Provenance and of one resource that are looked through; a message is seldom processed twice.
_VERSIONS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The two sides.

    Attributes:
        segments: lines of the message as it was read.
        resources: each in the version that the message made, in the order of the Provenance.
        gone: references of the Provenance for which no such version can be told.
    """

    entry: Entry
    segments: Sequence[str]
    resources: Sequence[Stored]
    gone: Sequence[str]

    def shown(self) -> Json:
        """Return both sides for an answer; bodies are the JSON that is stored, as text."""
        return {
            "message": {**shown_entry(self.entry), "acknowledgement": text_of(self.entry.ack or b"")},
            "segments": list(self.segments),
            "resources": [
                {
                    "reference": f"{one.type}/{one.id}",
                    "version": one.version,
                    "last_updated": instant(one.last_updated),
                    "deleted": one.deleted,
                    "body": one.body.decode("utf-8"),
                }
                for one in self.resources
            ],
            "gone": list(self.gone),
        }


def compare(services: Services, actor: Actor, seq: int, *, content: bool = True) -> Compared:
    """Return message *seq* beside what came of it; the look is audited for every record in it.

    Raises:
        HubError: not-found when there is no such message within the asker's reach; forbidden without *content*.
    """
    if not content:
        raise HubError(
            Category.FORBIDDEN,
            "The operator may not read what messages say.",
            where="Authorization",
            remedy="Ask an administrator of the institution, or run `hub messages compare` where the hub runs.",
        )
    entry = MessageDesk(services).entry(actor, seq)
    resources, gone = services.database.read(lambda tx: _made_of(tx, entry))
    patients = {one.patient_id or one.id for one in resources if one.patient_id or one.type == "Patient"}
    patients |= {entry.patient_id} - {""}
    line = AuditLine(
        type="hl7v2" if entry.control_id else "admin",
        action="R",
        subtype="message-compare",
        actor=actor,
        recorded_at=services.clock(),
        patients=tuple((entry.institution, one) for one in sorted(patients)),
        entities=tuple(f"{one.type}/{one.id}" for one in resources),
        correlation_id=entry.correlation_id,
        detail=f"message {seq}",
    )
    services.database.write(lambda tx: tx.audit.write(line))
    segments = [one for one in text_of(body_of(services, entry)).split("\n") if one]
    return Compared(entry=entry, segments=segments, resources=resources, gone=gone)


def _made_of(tx: Tx, entry: Entry) -> tuple[list[Stored], list[str]]:
    scope = Scope(institution=entry.institution)
    id_ = resource_id(entry.institution, "journal", "Provenance", str(entry.seq))
    made: dict[tuple[str, int], Stored] = {}
    gone: list[str] = []
    # Oldest first: a message that was processed again may have changed something more.
    for provenance in reversed(tx.records.history("Provenance", id_, scope, count=_VERSIONS)):
        if provenance.deleted:
            continue
        for target in loads(provenance.body).get("target", ()):
            reference = str(target.get("reference", ""))
            type_, _, resource = reference.partition("/")
            versions = tx.records.history(type_, resource, scope, count=_VERSIONS)
            found = next((one for one in versions if one.last_updated <= provenance.last_updated), None)
            if found is not None:
                made[reference, found.version] = found
            elif reference not in gone:
                gone.append(reference)
    return list(made.values()), gone
