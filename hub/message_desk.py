"""What people look up among received messages and do with them; the command line and ``/ops`` share it.

The operator sees that a message came and not what it says; a member's administrator sees its own messages. Every act
leaves an audit line, and so does every look at a message's content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hub.actor import Actor
from hub.askers import capped, limit_of
from hub.clock import instant
from hub.errors import Category, HubError
from hub.message_search import MessageSearch, body_of, text_of
from hub.ports import AuditLine, Entry

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]


class MessageDesk:
    """The acts of one asker at a time upon the journal."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def messages(
        self, actor: Actor, criteria: Mapping[str, str], *, limit: int, before_seq: int | None = None
    ) -> list[Json]:
        """Return journal entries whose columns equal *criteria*, newest first, without their content.

        Raises:
            HubError: incorrect for a column that cannot be searched, or a ``since`` or ``until`` that is no moment.
        """
        listed: list[Json] = self.find(actor, criteria, limit=limit, before_seq=before_seq)["messages"]
        return listed

    def find(
        self,
        actor: Actor,
        criteria: Mapping[str, str],
        *,
        limit: int,
        before_seq: int | None = None,
        content: bool = True,
    ) -> Json:
        """Return one page of :mod:`hub.message_search`: ``messages``, newest first and without their content, and ``next``.

        ``next`` is the number to go on below; it is left out when there is no more. A page may hold fewer messages than
        *limit*, or none, and still not be the last one.

        Raises:
            HubError: as :meth:`hub.message_search.MessageSearch.page`.
        """
        search = MessageSearch(self._services, actor, criteria, content=content)
        entries, after = search.page(limit=capped(limit), before_seq=before_seq)
        found: Json = {"messages": [shown_entry(one) for one in entries]}
        return found if after is None else {**found, "next": after}

    def message(self, actor: Actor, seq: int, *, content: bool = True) -> Json:
        """Return one journal entry; with *content*, its text as it was read, which is a read of patient data.

        The operator gets no content over HTTP: what a member's message says is that member's.

        Raises:
            HubError: not-found.
        """
        entry = self.entry(actor, seq)
        shown: Json = {**shown_entry(entry), "acknowledgement": text_of(entry.ack or b"")}
        if not content:
            return shown
        line = AuditLine(
            type="hl7v2" if entry.control_id else "admin",
            action="R",
            subtype="message-read",
            actor=actor,
            recorded_at=self._services.clock(),
            patients=((entry.institution, entry.patient_id),) if entry.patient_id else (),
            correlation_id=entry.correlation_id,
            detail=f"message {seq}",
        )
        self._services.database.write(lambda tx: tx.audit.write(line))
        return {**shown, "content": text_of(body_of(self._services, entry))}

    def replay(self, actor: Actor, seq: int) -> str:
        """Process a v2 message again and return its new outcome; what stands already does not change.

        Raises:
            HubError: not-found; or why it still cannot be processed.
        """
        self.entry(actor, seq)
        return self._services.messages.replay(seq, actor)

    def entry(self, actor: Actor, seq: int) -> Entry:
        """Return the journal entry numbered *seq*.

        Raises:
            HubError: not-found when there is none within the asker's reach.
        """
        institution = limit_of(actor)
        entry = self._services.database.read(lambda tx: tx.journal.get(seq))
        if entry is None or (institution is not None and entry.institution != institution):
            raise HubError(Category.NOT_FOUND, "There is no such message.", where=f"message {seq}")
        return entry


def shown_entry(entry: Entry) -> Json:
    """Return what lists say of *entry*: everything but its content and its answer."""
    return {
        "seq": entry.seq,
        "received": instant(entry.received_at),
        "door": entry.door,
        "institution": entry.institution,
        "peer": entry.peer,
        "type": entry.message_type,
        "sender": "|".join(part for part in (entry.sending_application, entry.sending_facility) if part),
        "control_id": entry.control_id,
        "charset": entry.charset,
        "size": entry.size,
        "digest": entry.digest,
        "state": entry.state,
        "outcome": entry.outcome,
        "flags": entry.flags.split(),
        "correlation_id": entry.correlation_id,
    }
