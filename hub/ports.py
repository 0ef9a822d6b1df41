"""What the rules need from the world, as Protocols.

Theory of operation. Everything that must survive goes through :class:`Database.write`: the caller hands over a
function of a :class:`Tx`; the store runs it inside a transaction (several callers' functions may share one commit),
and ``write`` returns only once that commit is durable. A function may run more than once when the database asks for
a retry, so it must not have effects outside its ``Tx``. ``read`` gives a consistent read-only view.

Object bytes are made durable before the transaction that names them; see :class:`ObjectStore`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO, Protocol, Self, TypeVar

from fhir_mappings.dicom.instance import InstanceHeader
from hub.access import Scope
from hub.actor import Actor
from hub.attribute_matching import Level, Match
from hub.search.ast import Query

T = TypeVar("T")


# --- objects ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """A stored object: hex SHA-256 of its bytes, and their number."""

    digest: str
    size: int


class Spool(Protocol):
    """A temporary file that counts, hashes and caps while it receives; gone on exit unless it was put."""

    @property
    def size(self) -> int: ...
    @property
    def digest(self) -> str:
        """Hex SHA-256 of all bytes written so far."""
        ...

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append *data*; raises HubError(incorrect) beyond the cap, HubError(unavailable) on a full disk."""
        ...

    def open(self) -> BinaryIO:
        """Return a new read handle over what was written."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


class ObjectStore(Protocol):
    """Content-addressed bytes."""

    def spool(self, *, max_bytes: int) -> Spool: ...
    def put(self, spool: Spool) -> ObjectRef:
        """Keep the spooled bytes under their digest; on return they would survive a power cut."""
        ...

    def put_bytes(self, data: bytes) -> ObjectRef: ...
    def open(self, digest: str, *, verify: bool = False) -> BinaryIO: ...
    def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes: ...
    def stream(self, digest: str, *, chunk_bytes: int = 1 << 20, verify: bool = True) -> Iterator[bytes]: ...
    def stat(self, digest: str) -> ObjectRef | None: ...
    def verify(self, digest: str) -> bool: ...
    def delete(self, digest: str) -> None: ...
    def digests(self) -> Iterator[ObjectRef]: ...
    def guarantees(self) -> Mapping[str, str]: ...
    def healthy(self) -> None:
        """Raise HubError(unavailable) when the store cannot take data."""
        ...


# --- journal ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """Something that was received, before it has a sequence number.

    Attributes:
        body: the bytes as they came when they are at most 64 KiB; else ``None`` and ``digest`` names the object.
        state: ``received`` (to be processed later), ``done``, ``refused`` or ``failed``.
    """

    door: str
    institution: str
    peer: str
    correlation_id: str
    message_type: str
    digest: str
    size: int
    received_at: datetime
    body: bytes | None = None
    sending_application: str = ""
    sending_facility: str = ""
    control_id: str = ""
    version: str = ""
    charset: str = ""
    state: str = "done"
    outcome: str = ""
    ack: bytes | None = None
    flags: str = ""
    patient_id: str = ""
    placer: str = ""
    filler: str = ""
    accession: str = ""
    visit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(NewEntry):
    """A journal row."""

    seq: int
    finished_at: datetime | None = None


class Journal(Protocol):
    def append(self, entry: NewEntry) -> int:
        """Write *entry*; returns its sequence number."""
        ...

    def get(self, seq: int) -> Entry | None: ...
    def find_message(
        self, *, institution: str, sending_application: str, sending_facility: str, control_id: str
    ) -> Sequence[Entry]:
        """Return earlier entries with the same sender and control id, oldest first."""
        ...

    def finish(
        self, seq: int, *, state: str, outcome: str = "", ack: bytes | None = None, patient_id: str = ""
    ) -> None: ...
    def pending(self, *, door: str, limit: int) -> Sequence[Entry]:
        """Return entries in state ``received``, oldest first."""
        ...

    def search(self, criteria: Mapping[str, str], *, limit: int, before_seq: int | None = None) -> Sequence[Entry]:
        """Return entries whose columns equal *criteria* (``since``/``until`` bound the receipt time), newest first."""
        ...

    def by_correlation(self, correlation_id: str) -> Sequence[Entry]: ...


# --- records ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One version of a resource as stored; ``body`` is the JSON that was stored, byte for byte."""

    type: str
    id: str
    version: int
    owner: str
    visibility: str
    patient_id: str
    deleted: bool
    last_updated: datetime
    body: bytes
    method: str = "PUT"
    asserted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """A version to be written.

    Attributes:
        resource: the whole resource; the store sets ``id``, ``meta.versionId`` and ``meta.lastUpdated``.
        expected_version: refuse with conflict (412) unless this is the current version; 0 = must not exist yet;
            ``None`` = whatever is current.
        visibility: ``institution`` or ``consortium`` (directory data).
        asserted_at: the sender's own time of the statement, kept for the guard against older news.
    """

    resource: dict[str, Any]
    owner: str
    visibility: str = "institution"
    method: str = "PUT"
    expected_version: int | None = None
    asserted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a search: matches in order, what they include, and where to go on."""

    matches: tuple[Stored, ...]
    included: tuple[Stored, ...] = ()
    total: int | None = None
    next_cursor: str | None = None


class Records(Protocol):
    """FHIR resources with full history. Every read takes the asker's scope."""

    def get(self, type: str, id: str, scope: Scope) -> Stored | None:
        """Return the current version (``deleted`` may be true), or ``None`` when absent or out of scope."""
        ...

    def get_many(self, refs: Sequence[tuple[str, str]], scope: Scope) -> dict[tuple[str, str], Stored]: ...
    def version(self, type: str, id: str, version: int, scope: Scope) -> Stored | None: ...
    def history(
        self,
        type: str | None,
        id: str | None,
        scope: Scope,
        *,
        count: int,
        since: datetime | None = None,
        before: tuple[datetime, str] | None = None,
    ) -> Sequence[Stored]: ...
    def put_many(self, versions: Sequence[NewVersion]) -> list[Stored]:
        """Write versions in order; a version equal to the current one in all but ``meta`` writes nothing.

        Such a version still moves ``asserted_at`` on, so that what was said in between does not win when it comes late.

        Raises:
            HubError: conflict (status 412) when ``expected_version`` does not hold; forbidden when another
                institution owns the id.
        """
        ...

    def delete(self, type: str, id: str, *, owner: str, expected_version: int | None = None) -> Stored | None:
        """Mark the resource deleted; returns the new version, or ``None`` when there was nothing to delete."""
        ...

    def search(self, query: Query, scope: Scope) -> Page: ...
    def find_ids(self, query: Query, scope: Scope, *, limit: int) -> list[str]:
        """Return logical ids of at most *limit* matches, for conditional interactions."""
        ...

    def by_identifier(
        self, type: str, system: str | None, value: str, scope: Scope, *, owner: str | None = None
    ) -> list[Stored]: ...
    def referring(self, type: str, param: str, target: str, scope: Scope, *, limit: int = 100) -> list[Stored]:
        """Return resources of *type* whose search parameter *param* points at *target* (``Patient/x``)."""
        ...

    def compartment(
        self, patient_id: str, scope: Scope, *, types: Sequence[str] | None, count: int, after: str | None
    ) -> Page: ...
    def lock_condition(self, key: str) -> None:
        """Hold *key* until the transaction ends, so that two conditional writes of one condition cannot race."""
        ...


# --- imaging ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyKey:
    owner: str
    StudyInstanceUID: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """A stored SOP Instance; ``current`` is false for later bytes sent under the same SOP Instance UID."""

    owner: str
    StudyInstanceUID: str
    SeriesInstanceUID: str
    SOPInstanceUID: str
    SOPClassUID: str
    TransferSyntaxUID: str
    InstanceNumber: str
    NumberOfFrames: int | None
    Rows: int | None
    Columns: int | None
    BitsAllocated: int | None
    digest: str
    size: int
    current: bool
    received_at: datetime
    attributes: bytes
    pixel_offset: int | None


class Imaging(Protocol):
    """Study, series and instance index. Rows are mappings by column; attributes of DICOM keep their keywords."""

    def add(
        self,
        owner: str,
        header: InstanceHeader,
        ref: ObjectRef,
        received_at: datetime,
        patient_id: str,
        correlation_id: str,
        *,
        resource_id: str = "",
        series_known: bool = False,
    ) -> str:
        """Index one instance; returns ``new``, ``duplicate`` (same bytes) or ``conflict`` (other bytes, non-current).

        With *series_known* the caller vouches that the rows of study and series are committed; else they are written
        when they are missing, the study's with *patient_id* and *resource_id*, which then never change.
        """
        ...

    def current_digest(self, owner: str, SOPInstanceUID: str) -> str | None: ...
    def studies(
        self, scope: Scope, filters: Sequence[Match], *, limit: int, offset: int = 0, owner: str | None = None
    ) -> Sequence[Mapping[str, Any]]: ...
    def series(
        self, scope: Scope, filters: Sequence[Match], *, limit: int, offset: int = 0, owner: str | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """Return series rows with their study's row under ``study``."""
        ...

    def instances(
        self,
        scope: Scope,
        filters: Sequence[Match],
        *,
        limit: int,
        offset: int = 0,
        owner: str | None = None,
        attributes: bool = False,
    ) -> Sequence[InstanceRow]:
        """Return current instances; ``attributes`` of a row is empty unless asked for."""
        ...

    def count(self, level: Level, scope: Scope, filters: Sequence[Match], *, owner: str | None = None) -> int: ...
    def first_attributes(self, keys: Sequence[tuple[str, str, str]]) -> Mapping[tuple[str, str, str], bytes]:
        """Return the header of the first instance of each (owner, study, series) as DICOM JSON."""
        ...

    def study(self, key: StudyKey) -> Mapping[str, Any] | None: ...
    def study_by_resource(self, owner: str, resource_id: str) -> Mapping[str, Any] | None: ...
    def series_of(self, key: StudyKey) -> Sequence[Mapping[str, Any]]: ...
    def series_uids(self, key: StudyKey) -> Sequence[str]:
        """Return the UIDs of all series of a study, in the order of their numbers."""
        ...

    def instances_of(
        self,
        key: StudyKey,
        SeriesInstanceUID: str | None = None,
        SOPInstanceUID: str | None = None,
        *,
        attributes: bool = False,
    ) -> Sequence[InstanceRow]: ...
    def latest_arrival(self, key: StudyKey) -> datetime | None: ...
    def refresh_study(self, key: StudyKey) -> Mapping[str, Any]:
        """Recount the study's series and instances from its instance rows, and return the study row."""
        ...

    def set_study_state(self, key: StudyKey, state: str, **columns: Any) -> None:
        """Set the state (``receiving`` or ``complete``) and any of ``match``, ``counted_at`` and ``correlation_id``."""
        ...

    def reopen(self, key: StudyKey) -> None:
        """Let a complete study receive again, because an instance came late."""
        ...

    def unmatched(self, owner: str, *, patient_id: str, accessions: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """Return the owner's complete studies without an order that are the patient's or have an accession number."""
        ...

    def series_version(self, key: StudyKey, SeriesInstanceUID: str) -> tuple[int, int]:
        """Return number and newest row id of the series' current instances; any arrival changes them."""
        ...

    def series_metadata(self, key: StudyKey, SeriesInstanceUID: str) -> tuple[str, str] | None:
        """Return (etag, object digest) of the cached gzip metadata of the series, or ``None``."""
        ...

    def set_series_metadata(self, key: StudyKey, SeriesInstanceUID: str, etag: str, digest: str) -> None: ...


# --- outbox ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """Something to be handed to a partner.

    Attributes:
        destination: member endpoint id, for example ``KN/mllp``.
        lane: destination and patient; deliveries of one lane go in order (DESIGN rule 8).
        kind: sender name: ``mllp``, ``fhir``, ``dimse``.
        payload: the exact bytes to send, or for ``dimse`` JSON naming the objects.
        control_id: MSH-10 of the message, or another id the partner's answer must name.
    """

    destination: str
    lane: str
    kind: str
    payload: bytes
    owner: str
    control_id: str = ""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    correlation_id: str = ""
    task_id: str = ""
    patient_id: str = ""
    on_ack: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(NewDelivery):
    id: int
    state: str
    attempts: int
    next_at: datetime
    created_at: datetime
    last_error: str = ""
    ack: bytes | None = None
    acked_at: datetime | None = None


class Outbox(Protocol):
    def enqueue(self, delivery: NewDelivery) -> int: ...
    def lease(
        self, worker: str, *, now: datetime, lease_s: float, limit: int, busy: Collection[str] = ()
    ) -> Sequence[tuple[str, int, Delivery]]:
        """Lease up to *limit* lanes whose head is due, none of the *busy* destinations; returns (lane, epoch, head)."""
        ...

    def renew(self, worker: str, *, until: datetime) -> None:
        """Keep every lane that *worker* holds until *until*."""
        ...

    def give_back(self, worker: str, *, lanes: Sequence[str] | None = None) -> None:
        """End the leases of *worker* (on *lanes*, or all) without an attempt, so that another may take them at once."""
        ...

    def succeeded(self, lane: str, epoch: int, delivery_id: int, *, ack: bytes, now: datetime) -> bool:
        """Record the stored acknowledgement and release the lane; ``False`` when the lease was lost."""
        ...

    def failed(
        self,
        lane: str,
        epoch: int,
        delivery_id: int,
        *,
        error: str,
        next_at: datetime | None,
        now: datetime,
        reached: bool = True,
        ack: bytes = b"",
    ) -> bool:
        """Record a failed attempt; ``next_at=None`` moves the delivery to the dead letters and parks its lane.

        When the partner was not reached, the whole destination rests until *next_at*.
        """
        ...

    def lanes(self) -> Sequence[Mapping[str, Any]]:
        """Return one mapping per lane: lane, destination, state, depth, oldest_at, attempts, next_at, last_error, paused."""
        ...

    def destinations(self) -> Sequence[Mapping[str, Any]]:
        """Return one mapping per destination: destination, depth, dead, oldest_at, paused, failures, last_error, last_ok_at."""
        ...

    def deliveries(self, criteria: Mapping[str, str], *, limit: int) -> Sequence[Delivery]: ...
    def get(self, delivery_id: int) -> Delivery | None: ...
    def set_paused(self, destination: str, paused: bool) -> None: ...
    def replay(self, delivery_id: int, *, now: datetime) -> None: ...
    def skip(self, delivery_id: int, *, now: datetime, reason: str) -> None: ...
    def by_correlation(self, correlation_id: str) -> Sequence[Delivery]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """What came of one attempt to deliver.

    Attributes:
        ack: the partner's answer as it came; stored whether it accepts or refuses.
        error: empty on success; else what happened, without patient data.
        permanent: the partner refused this very content (AR, CR, HTTP 4xx, DICOM failure other than out-of-resources);
            sending it again cannot help.
        reached: the partner answered at all; a connection failure never counts towards giving up.
    """

    ack: bytes = b""
    error: str = ""
    permanent: bool = False
    reached: bool = True


class Sender(Protocol):
    """Hands one delivery to a partner; one file per protocol in the adapters."""

    def send(self, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        """Send and wait for the matching acknowledgement; never raises for a partner's fault."""
        ...

    def close(self) -> None: ...


# --- timers, grants, audit, members ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    kind: str
    key: str
    due_at: datetime
    payload: Mapping[str, Any]


class Timers(Protocol):
    """Deadlines kept in the database; each fires once, whichever node takes it. Leases end at theirs."""

    def set(self, timer: Timer, *, earliest_wins: bool = False) -> None:
        """Set or move the timer (kind, key)."""
        ...

    def cancel(self, kind: str, key: str) -> None: ...
    def due(self, now: datetime, *, limit: int) -> Sequence[Timer]: ...
    def take(self, timer: Timer) -> bool:
        """Remove the timer inside this transaction; ``False`` when another node has already taken it."""
        ...

    def lease(self, name: str, holder: str, *, now: datetime, lease_s: float) -> int | None:
        """Take the right to do *name*, which one node at a time has, for *lease_s*.

        Returns the epoch to work under, ``None`` while another *holder* has it. Who holds it already gets a new epoch,
        so that what it did before it was started anew cannot go on.
        """
        ...

    def leased(self, name: str, *, now: datetime) -> str:
        """Return who has the right to do *name* now, or an empty text."""
        ...

    def hold(self, name: str, epoch: int, *, now: datetime, lease_s: float) -> bool:
        """Keep the right for *lease_s* more, and for sure until this transaction ends; ``False`` when it passed on."""
        ...

    def release(self, name: str, epoch: int) -> None:
        """Give the right back, if it has not passed on."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Leave for one institution to see one target while a Task is open.

    Attributes:
        target_type: a resource type (``Task``, ``ImagingStudy``, ...) or ``patient-record`` for a Patient's whole record.
        until: end of the leave, or ``None`` while the Task is open.
    """

    grantee: str
    target_type: str
    target_id: str
    task_id: str
    until: datetime | None = None


class Grants(Protocol):
    def open(self, grant: Grant, *, now: datetime) -> None: ...
    def close(self, task_id: str, *, grantee: str | None, until: datetime, patient_record: bool | None = None) -> None:
        """Let the grants of *task_id* end at *until*; with *patient_record* only those of that kind, or all others."""
        ...

    def of_task(self, task_id: str) -> Sequence[Grant]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """One access to patient data or one change of rules, in the words of FHIR AuditEvent.

    Attributes:
        type: ``rest``, ``dicom``, ``hl7v2``, ``login``, ``admin``.
        action: C, R, U, D or E (AuditEvent.action).
        subtype: interaction, for example ``read``, ``search``, ``C-STORE``.
        patients: (owner institution, Patient id) of those whose data was touched.
        entities: resource references or UIDs touched.
        query: the query text of a search, without values of free-text parameters.
    """

    type: str
    action: str
    subtype: str
    actor: Actor
    recorded_at: datetime
    outcome: str = "0"
    patients: tuple[tuple[str, str], ...] = ()
    entities: tuple[str, ...] = ()
    query: str = ""
    count: int | None = None
    correlation_id: str = ""
    detail: str = ""


class AuditLog(Protocol):
    def write(self, line: AuditLine) -> None:
        """Append *line* to this node's hash chain; durable with the transaction."""
        ...

    def search(
        self, criteria: Mapping[str, str], *, institution: str | None, limit: int, before: int | None
    ) -> Sequence[Mapping[str, Any]]:
        """Return AuditEvent resources, newest first; *institution* limits them to its patients and its own acts."""
        ...

    def get(self, id: str, *, institution: str | None) -> Mapping[str, Any] | None: ...
    def checkpoint(self, sign: Callable[[bytes], bytes], *, now: datetime) -> int:
        """Sign the present end of every chain that has grown; returns how many did."""
        ...

    def verify(self, check: Callable[[bytes, bytes], bool]) -> Iterator[str]:
        """Yield one sentence for each break found in any chain; *check* takes (text, signature)."""
        ...


class Alerts(Protocol):
    """What is wrong now; an alert is told once when it opens and once when it clears."""

    def open(self, key: str, *, detail: str, now: datetime) -> bool:
        """Open the alert *key*; ``False`` when it is already open, on whichever node."""
        ...

    def clear(self, key: str) -> Mapping[str, Any] | None:
        """Close the alert and return what it was (``key``, ``opened_at``, ``detail``), or ``None`` when none is open."""
        ...

    def all(self) -> Sequence[Mapping[str, Any]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberEndpoint:
    """How a member is reached or recognised, distilled from a FHIR Endpoint.

    Attributes:
        id: ``CODE/kind`` or ``CODE/kind/name``; names the destination of deliveries.
        kind: ``dicom``, ``mllp``, ``fhir``, ``dicom-web``.
        ae_title: for ``dicom``.
        address: ``host:port`` or URL for sending; empty when the member only sends.
        sending_application, sending_facility: MSH-3 and MSH-4 the member writes (empty application = any).
        cidr: networks the member may connect from; empty = any.
        settings: dialect, charset-in, charset-out, version, ack, services and so on.
    """

    id: str
    member: str
    kind: str
    address: str = ""
    ae_title: str = ""
    sending_application: str = ""
    sending_facility: str = ""
    cidr: tuple[str, ...] = ()
    active: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    code: str
    organization_id: str
    name: str
    active: bool = True
    kind: str = ""
    entitlements: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberPractitioner:
    """A person at a member: business code, logical ids, display name and hub roles."""

    member: str
    code: str
    practitioner_id: str
    role_id: str
    name: str
    roles: tuple[str, ...]
    active: bool = True


class Members(Protocol):
    def replace(
        self,
        members: Sequence[Member],
        endpoints: Sequence[MemberEndpoint],
        practitioners: Sequence[MemberPractitioner],
    ) -> None:
        """Insert or update the given rows; rows not given stay."""
        ...

    def all(self) -> Sequence[Member]: ...
    def get(self, code: str) -> Member | None: ...
    def endpoints(self, *, member: str | None = None, kind: str | None = None) -> Sequence[MemberEndpoint]: ...
    def practitioner(self, member: str, code: str) -> MemberPractitioner | None: ...
    def practitioners(self, member: str | None = None) -> Sequence[MemberPractitioner]: ...
    def version(self) -> int:
        """Return a number that grows with each change, so that doors can cache the directory."""
        ...


class Credentials(Protocol):
    def add_client(
        self, *, client_id: str, secret_hash: str, institution: str, roles: Sequence[str], now: datetime
    ) -> None: ...
    def client(self, client_id: str) -> Mapping[str, Any] | None: ...
    def add_token(self, *, token_hash: str, actor: Actor, expires_at: datetime, now: datetime) -> None: ...
    def token(self, token_hash: str, *, now: datetime) -> Actor | None: ...
    def revoke(self, token_hash: str, *, now: datetime) -> None: ...


# --- the unit of work --------------------------------------------------------------------------------------------


class Tx(Protocol):
    """All stores inside one transaction."""

    @property
    def journal(self) -> Journal: ...
    @property
    def records(self) -> Records: ...
    @property
    def imaging(self) -> Imaging: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def timers(self) -> Timers: ...
    @property
    def grants(self) -> Grants: ...
    @property
    def audit(self) -> AuditLog: ...
    @property
    def alerts(self) -> Alerts: ...
    @property
    def members(self) -> Members: ...
    @property
    def credentials(self) -> Credentials: ...


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
