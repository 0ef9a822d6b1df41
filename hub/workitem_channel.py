"""The event channel of an AE: what it is told of workitems by WebSocket (PS3.18 sections 8.10 and 11.13).

Events wait in the database, so whichever process holds the socket finds them there. Of an AE one channel is open; the one
that opens later takes the place of the earlier. What happens while none is open waits, up to :data:`KEPT` events for
each AE, and goes out first when the AE is back. An event is forgotten after it was handed to the connection, so a connection
that breaks may cost a repetition. Whether the AE's institution may still see the item is asked when the event leaves.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from fhir_mappings.json import dumps, loads
from hub import metrics
from hub.access import Scope
from hub.envelope import Envelope
from hub.ports import AuditLine, Tx
from hub.ports.channels import ChannelEvent, NewChannelEvent
from hub.workitem_rules import Reason, WorkitemError, may_change

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("hub.workitems")

#: Events that wait for one AE at most; the oldest go first.
KEPT = 1000
#: Events that one turn hands over at most.
_TURN = 32
_PUSH = "1.2.840.10008.5.1.4.34.6.1"
#: Command Field of N-EVENT-REPORT-RQ, and a Command Data Set Type that says that a data set follows (PS3.7 section 10.3.1).
_EVENT_REPORT, _WITH_DATA_SET = 0x0100, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """An event that leaves: its number here, and the data set as DICOM JSON without a Message ID."""

    id: int
    attributes: Mapping[str, Any]


def has_ae(services: Services, member: str, title: str) -> bool:
    """Return whether *title* is an AE of *member*; unlike one that is called by DIMSE it needs no address."""
    points = services.directory.endpoints(member, "dicom")
    return bool(title) and any(one.active and one.ae_title == title for one in points)


def tell(tx: Tx, event: NewChannelEvent) -> None:
    """Let *event* wait for its AE, in the caller's transaction."""
    lost = tx.channels.tell(event, keep=KEPT)
    if lost:
        metrics.count("channel_events", lost, kind="workitems", outcome="dropped")
        log.warning("channel_events_dropped", institution=event.institution, ae_title=event.ae_title, number=lost)


class WorkitemChannel:
    """One open channel.

    Args:
        envelope: who opened it and by what.
        title: AE title of the subscriber.
    """

    def __init__(self, services: Services, envelope: Envelope, title: str) -> None:
        self._services = services
        self._envelope = envelope
        self._member = envelope.actor.institution
        self._title = title
        self._holder = secrets.token_hex(16)

    def open(self) -> None:
        """Take the channel of the AE, from whoever has it; audited.

        Raises:
            WorkitemError: UNKNOWN_RECEIVER with status 404 when it is no AE of the asker's institution.
            HubError: forbidden for those who only read.
        """
        may_change(self._envelope.actor)
        if not has_ae(self._services, self._member, self._title):
            raise WorkitemError(
                Reason.UNKNOWN_RECEIVER, where="aetitle", remedy="Name an AE of your institution.", status=404
            )

        def work(tx: Tx) -> None:
            tx.facts.keep(self._name, self._holder)
            tx.audit.write(self._line(entities=(self._title,)))

        self._services.database.write(work)

    def is_mine(self) -> bool:
        """Return whether no later channel has taken the place of this one, and the AE is still its institution's."""
        held = self._services.database.read(lambda tx: tx.facts.get(self._name))
        return held == self._holder and has_ae(self._services, self._member, self._title)

    def turn(self, sent: Collection[int]) -> Sequence[Handed]:
        """Forget the events *sent*, and return the next ones; each that leaves is audited before it does."""
        database = self._services.database
        if not sent and not database.read(lambda tx: tx.channels.waiting(self._member, self._title, limit=1)):
            return ()

        def work(tx: Tx) -> list[Handed]:
            tx.channels.remove(sent)
            if tx.facts.get(self._name) != self._holder:
                return []
            found = tx.channels.waiting(self._member, self._title, limit=_TURN)
            hidden = [one for one in found if not self._sees(tx, one)]
            tx.channels.remove([one.id for one in hidden])
            if hidden:
                metrics.count("channel_events", len(hidden), kind="workitems", outcome="withheld")
            for one in found:
                tx.audit.write(self._of(one, withheld=one in hidden))
            return [Handed(id=one.id, attributes=_report(one)) for one in found if one not in hidden]

        return database.write(work)

    def forget(self, sent: Collection[int]) -> None:
        """Forget the events *sent*, when nothing more is to come."""
        self._services.database.write(lambda tx: tx.channels.remove(sent))

    # --- parts -----------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"event channel {self._member} {self._title}"

    def _sees(self, tx: Tx, event: ChannelEvent) -> bool:
        scope = Scope(institution=self._member)
        return event.owner == self._member or tx.records.get("Task", event.task_id, scope) is not None

    def _line(self, *, entities: tuple[str, ...]) -> AuditLine:
        return AuditLine(
            type="dicom",
            action="E",
            subtype=self._envelope.kind,
            actor=self._envelope.actor,
            recorded_at=self._services.clock(),
            entities=entities,
            correlation_id=self._envelope.correlation_id,
        )

    def _of(self, event: ChannelEvent, *, withheld: bool) -> AuditLine:
        return replace(
            self._line(entities=(event.item,)),
            action="E" if withheld else "R",
            subtype="withheld" if withheld else "workitem-event",
            outcome="4" if withheld else "0",
            patients=((event.owner, event.patient_id),) if event.patient_id else (),
            correlation_id=event.correlation_id,
            detail=f"event channel of {self._title}",
        )


def payload(kind: int, information: Mapping[str, Any]) -> bytes:
    """Return what is kept of one event."""
    return dumps({"type": kind, "information": information})


def _report(event: ChannelEvent) -> Mapping[str, Any]:
    """Return the event as PS3.18 sends it: the command's attributes and the event information in one data set."""
    said = loads(event.payload)
    return {
        "00000002": {"vr": "UI", "Value": [_PUSH]},
        "00000100": {"vr": "US", "Value": [_EVENT_REPORT]},
        "00000800": {"vr": "US", "Value": [_WITH_DATA_SET]},
        "00001000": {"vr": "UI", "Value": [event.item]},
        "00001002": {"vr": "US", "Value": [said["type"]]},
        **said["information"],
    }
