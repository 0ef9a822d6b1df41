"""The unit of work: every store on one connection, made when first used."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Connection

from hub.clock import Clock

if TYPE_CHECKING:
    from storage.sql.alerts import SqlAlerts
    from storage.sql.audit import SqlAuditLog
    from storage.sql.channels import SqlChannels
    from storage.sql.credentials import SqlCredentials
    from storage.sql.facts import SqlFacts
    from storage.sql.feeds import SqlFeeds
    from storage.sql.grants import SqlGrants
    from storage.sql.identity import SqlIdentity
    from storage.sql.imaging import SqlImaging
    from storage.sql.journal import SqlJournal
    from storage.sql.members import SqlMembers
    from storage.sql.outbox import SqlOutbox
    from storage.sql.packings import SqlPackings
    from storage.sql.records import SqlRecords
    from storage.sql.sharing import SqlSharing
    from storage.sql.timers import SqlTimers
    from storage.sql.unmapped_codes import SqlUnmappedCodes


class SqlTx:
    """The :class:`hub.ports.Tx` over one open connection.

    Attributes:
        audit_tail: last sequence number and hash of this node's audit chain; the writer keeps it between batches.
    """

    def __init__(
        self, connection: Connection, *, node: str, clock: Clock, audit_tail: dict[str, Any] | None = None
    ) -> None:
        self.connection = connection
        self.node = node
        self.clock = clock
        self.audit_tail: dict[str, Any] = audit_tail if audit_tail is not None else {}

    @property
    def sqlite(self) -> bool:
        """Whether the dialect is SQLite."""
        return self.connection.dialect.name == "sqlite"

    @cached_property
    def journal(self) -> SqlJournal:
        from storage.sql.journal import SqlJournal

        return SqlJournal(self)

    @cached_property
    def records(self) -> SqlRecords:
        from storage.sql.records import SqlRecords

        return SqlRecords(self)

    @cached_property
    def imaging(self) -> SqlImaging:
        from storage.sql.imaging import SqlImaging

        return SqlImaging(self)

    @cached_property
    def outbox(self) -> SqlOutbox:
        from storage.sql.outbox import SqlOutbox

        return SqlOutbox(self)

    @cached_property
    def packings(self) -> SqlPackings:
        from storage.sql.packings import SqlPackings

        return SqlPackings(self)

    @cached_property
    def timers(self) -> SqlTimers:
        from storage.sql.timers import SqlTimers

        return SqlTimers(self)

    @cached_property
    def facts(self) -> SqlFacts:
        from storage.sql.facts import SqlFacts

        return SqlFacts(self)

    @cached_property
    def grants(self) -> SqlGrants:
        from storage.sql.grants import SqlGrants

        return SqlGrants(self)

    @cached_property
    def identity(self) -> SqlIdentity:
        from storage.sql.identity import SqlIdentity

        return SqlIdentity(self)

    @cached_property
    def audit(self) -> SqlAuditLog:
        from storage.sql.audit import SqlAuditLog

        return SqlAuditLog(self)

    @cached_property
    def alerts(self) -> SqlAlerts:
        from storage.sql.alerts import SqlAlerts

        return SqlAlerts(self)

    @cached_property
    def feeds(self) -> SqlFeeds:
        from storage.sql.feeds import SqlFeeds

        return SqlFeeds(self)

    @cached_property
    def members(self) -> SqlMembers:
        from storage.sql.members import SqlMembers

        return SqlMembers(self)

    @cached_property
    def credentials(self) -> SqlCredentials:
        from storage.sql.credentials import SqlCredentials

        return SqlCredentials(self)

    @cached_property
    def channels(self) -> SqlChannels:
        from storage.sql.channels import SqlChannels

        return SqlChannels(self)

    @cached_property
    def unmapped_codes(self) -> SqlUnmappedCodes:
        from storage.sql.unmapped_codes import SqlUnmappedCodes

        return SqlUnmappedCodes(self)

    @cached_property
    def sharing(self) -> SqlSharing:
        from storage.sql.sharing import SqlSharing

        return SqlSharing(self)
