"""The unit of work that holds all stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from hub.ports.alerts import Alerts
from hub.ports.audit import AuditLog
from hub.ports.channels import Channels
from hub.ports.codes import UnmappedCodes
from hub.ports.facts import Facts
from hub.ports.feeds import Feeds
from hub.ports.grants import Grants
from hub.ports.identity import Identity
from hub.ports.imaging import Imaging
from hub.ports.journal import Journal
from hub.ports.members import Credentials, Members
from hub.ports.outbox import Outbox
from hub.ports.packing import Packings
from hub.ports.records import Records
from hub.ports.sharing import Sharing
from hub.ports.timers import Timers

T = TypeVar("T")


class Tx(Protocol):
    """All stores inside one transaction."""

    @property
    def journal(self) -> Journal: ...
    @property
    def feeds(self) -> Feeds: ...
    @property
    def records(self) -> Records: ...
    @property
    def imaging(self) -> Imaging: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def packings(self) -> Packings: ...
    @property
    def timers(self) -> Timers: ...
    @property
    def facts(self) -> Facts: ...
    @property
    def grants(self) -> Grants: ...
    @property
    def identity(self) -> Identity: ...
    @property
    def audit(self) -> AuditLog: ...
    @property
    def alerts(self) -> Alerts: ...
    @property
    def members(self) -> Members: ...
    @property
    def unmapped_codes(self) -> UnmappedCodes: ...
    @property
    def channels(self) -> Channels: ...
    @property
    def credentials(self) -> Credentials: ...
    @property
    def sharing(self) -> Sharing: ...


class Database(Protocol):
    def write(self, work: Callable[[Tx], T]) -> T:
        """Run *work* in a transaction and return its value once the commit is durable.

        Raises:
            HubError: whatever *work* raised (nothing is kept); unavailable when the database cannot commit now;
                fault with ``fatal`` when the disk failed and the node must stop taking data.
        """
        ...

    def read(self, work: Callable[[Tx], T]) -> T: ...
    def healthy(self) -> None: ...
    def close(self) -> None: ...
