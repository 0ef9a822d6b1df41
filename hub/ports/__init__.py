"""What the rules need from the world, as Protocols.

Theory of operation. Everything that must survive goes through :class:`Database.write`: the caller hands over a
function of a :class:`Tx`; the store runs it inside a transaction (several callers' functions may share one commit),
and ``write`` returns only once that commit is durable. A function may run more than once when the database asks for
a retry, so it must not have effects outside its ``Tx``. ``read`` gives a consistent read-only view.

Object bytes are made durable before the transaction that names them; see :class:`ObjectStore`.
"""

from __future__ import annotations

from hub.ports.alerts import Alerts
from hub.ports.audit import AuditLine, AuditLog
from hub.ports.database import Database, Tx
from hub.ports.grants import Grant, Grants
from hub.ports.identity import Identity, Person
from hub.ports.imaging import Imaging, InstanceRow, StudyChangedError, StudyKey
from hub.ports.journal import Entry, Journal, Look, NewEntry, Old, Scanned
from hub.ports.members import Credentials, Member, MemberEndpoint, MemberPractitioner, Members
from hub.ports.objects import ObjectRef, ObjectStore, Spool, Uploaded, UploadingStore, Waiting
from hub.ports.outbox import Delivery, Interruptible, NewDelivery, Outbox, Sender, SendResult
from hub.ports.records import NewVersion, Page, Records, Stored
from hub.ports.timers import Timer, Timers

__all__ = [
    "Alerts",
    "AuditLine",
    "AuditLog",
    "Credentials",
    "Database",
    "Delivery",
    "Entry",
    "Grant",
    "Grants",
    "Identity",
    "Imaging",
    "InstanceRow",
    "Interruptible",
    "Journal",
    "Look",
    "Member",
    "MemberEndpoint",
    "MemberPractitioner",
    "Members",
    "NewDelivery",
    "NewEntry",
    "NewVersion",
    "ObjectRef",
    "ObjectStore",
    "Old",
    "Outbox",
    "Page",
    "Person",
    "Records",
    "Scanned",
    "SendResult",
    "Sender",
    "Spool",
    "Stored",
    "StudyChangedError",
    "StudyKey",
    "Timer",
    "Timers",
    "Tx",
    "Uploaded",
    "UploadingStore",
    "Waiting",
]
