"""The index of studies, series and instances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from fhir_mappings.dicom.instance import InstanceHeader
from hub.access import Scope
from hub.attribute_matching import Level, Match
from hub.ports.objects import ObjectRef


class StudyChangedError(Exception):
    """The study of an instance is not, or no longer, the patient's for whom the caller vouched; its write is to be undone."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """An instance that is marked deleted.

    Attributes:
        digest: of the version that was current then.
        marked_by: who, as ``institution/practitioner`` or ``institution/client``.
        purged_at: when its bytes were removed because retention had run out, else ``None``.
    """

    owner: str
    StudyInstanceUID: str
    SeriesInstanceUID: str
    SOPInstanceUID: str
    digest: str
    reason: str
    marked_by: str
    marked_at: datetime
    purged_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A study on legal hold, since when and why."""

    key: StudyKey
    reason: str
    held_by: str
    held_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a study that retention may end for keeps.

    Attributes:
        received_at: when the newest of its instances came.
        instances, size: number and bytes of all its versions, what is marked deleted among them.
    """

    key: StudyKey
    resource_id: str
    patient_id: str
    StudyDate: str
    modalities: tuple[str, ...]
    received_at: datetime
    instances: int
    size: int


class Deletions(Protocol):
    """What is marked deleted, what is on hold, and the removal of what retention no longer asks for."""

    def mark(self, rows: Sequence[InstanceRow], *, reason: str, by: str, at: datetime) -> None:
        """Let nobody be shown the current instances *rows* any more; their bytes and rows stay."""
        ...

    def unmark(self, key: StudyKey, SOPInstanceUID: str) -> None: ...
    def marked(self, owner: str, SOPInstanceUID: str) -> Mark | None:
        """Return the mark of an instance whose bytes are still here."""
        ...

    def of_study(self, key: StudyKey) -> Sequence[Mark]:
        """Return the marks of a study whose bytes are still here, in the order of their UIDs."""
        ...

    def newest(self, *, owner: str | None, limit: int) -> Sequence[Mark]:
        """Return marks, the newest first."""
        ...

    def enforce(self, key: StudyKey) -> int:
        """Set marked instances aside that a sender brought back in the very moment of the mark; returns how many."""
        ...

    def hold(self, hold: Hold) -> None: ...
    def release(self, key: StudyKey) -> bool:
        """End a hold; returns whether there was one."""
        ...

    def held(self, key: StudyKey) -> Hold | None: ...
    def holds(self, *, owner: str | None = None) -> Sequence[Hold]: ...
    def older(self, owner: str, *, day: str, before: datetime, only: StudyKey | None = None) -> Sequence[Kept]:
        """Return the owner's studies with bytes that were made before *day* (``YYYYMMDD``), the oldest first.

        All of them must have been received before *before*; a study without a date counts as made before any day.
        """
        ...

    def of_patients(self, owner: str, patients: Sequence[str]) -> Sequence[Kept]:
        """Return the owner's studies of *patients* that have bytes."""
        ...

    def granted(self, kept: Kept, patients: Sequence[str], *, now: datetime) -> bool:
        """Return whether an open grant lets somebody see the study, or the whole record of one of *patients*."""
        ...

    def purge(self, key: StudyKey, *, reason: str, by: str, at: datetime) -> Sequence[ObjectRef]:
        """Forget a study for good: its instances, series and its patient's data; returns the objects that were its own.

        Of each instance a mark with its UIDs remains. Objects go later, when a sweep finds that no row names them.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of the change feed.

    Attributes:
        action: ``create``, ``update`` or ``delete``.
        state: what became of it since: ``current``, ``replaced`` or ``deleted``.
    """

    sequence: int
    owner: str
    StudyInstanceUID: str
    SeriesInstanceUID: str
    SOPInstanceUID: str
    patient_id: str
    action: str
    at: datetime
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Writers:
    """How far the journal has numbered, and who may still commit a number up to there."""

    last: int
    open: frozenset[str]


class Changes(Protocol):
    """The change feed: arrivals as the journal numbers them, and rows of its own for what became of them later."""

    def announce(self, owner: str, SOPInstanceUID: str, action: str) -> None:
        """Write one change to the feed; durable with the transaction."""
        ...

    def writers(self) -> Writers: ...
    def between(self, scope: Scope, *, since: int, until: int, limit: int, newest: bool = False) -> Sequence[Change]:
        """Return what *scope* shows of the changes with ``since < sequence <= until``, in order, or the newest first."""
        ...


class Imaging(Protocol):
    """Study, series and instance index. Rows are mappings by column; attributes of DICOM keep their keywords.

    A query for a PatientID finds what came under the numbers merged into it too; see ``one_person`` of the records.
    """

    @property
    def deletions(self) -> Deletions: ...
    @property
    def changes(self) -> Changes: ...

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

        Other bytes of an instance that is marked deleted are ``rejected``, and non-current too.

        With *series_known* the caller vouches that the rows of study and series are committed and the study is
        *patient_id*'s; else they are written when they are missing, the study's with *patient_id* and *resource_id*,
        which then never change.

        Raises:
            StudyChangedError: with *series_known*, the study is another patient's by now, or is being changed at this
                moment; the transaction must not commit.
        """
        ...

    def hold_arrivals(self, key: StudyKey) -> None:
        """Wait for the instances of a study that are on their way in, and let no other in until the transaction ends.

        Whoever decides about a study asks for this before reading what is in it.
        """
        ...

    def versions_of(self, key: StudyKey) -> Sequence[InstanceRow]:
        """Return every instance of the study with its attributes, current and not, in the order of arrival."""
        ...

    def newest_headers(self, key: StudyKey, series: str, *, but: str) -> Iterator[bytes]:
        """Yield the attributes (DICOM JSON) of the current instances of a study but one (*but*, its SOP Instance UID),
        some of *series* before all others, else newest first, as far as they are asked for.
        """
        ...

    def set_aside(self, key: StudyKey, SOPInstanceUID: str, digest: str, *, shown: bool = True) -> None:
        """Let the version *digest* of an instance no longer be current; nothing takes its place.

        The change feed tells of it, unless nobody was ever *shown* it.
        """
        ...

    def make_current(self, key: StudyKey, SOPInstanceUID: str, digest: str) -> None:
        """Let the version *digest* of an instance be the current one, as if it had arrived now.

        A mark that the instance is deleted goes, and the change feed tells of it.
        """
        ...

    def assign(self, key: StudyKey, *, patient_id: str, **columns: str) -> None:
        """Make the study another patient's; *columns* are those of the study row that describe the patient."""
        ...

    def current_digest(self, owner: str, SOPInstanceUID: str) -> str | None: ...
    def studies(
        self,
        scope: Scope,
        filters: Sequence[Match],
        *,
        limit: int,
        offset: int = 0,
        owner: str | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> Sequence[Mapping[str, Any]]:
        """Return study rows; with *after*, the last row of the page before, those that stand behind it."""
        ...

    def series(
        self,
        scope: Scope,
        filters: Sequence[Match],
        *,
        limit: int,
        offset: int = 0,
        owner: str | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> Sequence[Mapping[str, Any]]:
        """Return series rows with their study's row under ``study``; *after* as in :meth:`studies`."""
        ...

    def instances(
        self,
        scope: Scope,
        filters: Sequence[Match],
        *,
        limit: int,
        offset: int = 0,
        owner: str | None = None,
        after: InstanceRow | None = None,
        attributes: bool = False,
    ) -> Sequence[InstanceRow]:
        """Return current instances; ``attributes`` of a row is empty unless asked for; *after* as in :meth:`studies`."""
        ...

    def patients(
        self, scope: Scope, filters: Sequence[Match], *, limit: int, after: str | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """Return the row of the newest study of each patient with a study that matches, by ``patient_id``.

        A patient is a number of one issuer at one institution. ``related_studies``, ``related_series`` and
        ``related_instances`` count what matches; *after* is the ``patient_id`` of the last row of the page before.
        """
        ...

    def count(self, level: Level, scope: Scope, filters: Sequence[Match], *, owner: str | None = None) -> int: ...
    def first_attributes(self, keys: Sequence[tuple[str, str, str]]) -> Mapping[tuple[str, str, str], bytes]:
        """Return the header of the first instance of each (owner, study, series) as DICOM JSON."""
        ...

    def study_attributes(self, keys: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], bytes]:
        """Return the header of the first instance of each (owner, study) as DICOM JSON."""
        ...

    def study(self, key: StudyKey) -> Mapping[str, Any] | None: ...
    def study_by_resource(self, owner: str, resource_id: str) -> Mapping[str, Any] | None: ...
    def series_of(self, key: StudyKey) -> Sequence[Mapping[str, Any]]: ...
    def series_uids(self, key: StudyKey) -> Sequence[str]:
        """Return the UIDs of all series of a study that may have something to show, in the order of their numbers."""
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
        """Set the state (``receiving``, ``complete`` or ``empty``: nothing of it is shown) and any of ``match``, ``counted_at`` and ``correlation_id``."""
        ...

    def reopen(self, key: StudyKey) -> None:
        """Let a study that was complete, or of which nothing is shown, receive again, because an instance came late."""
        ...

    def unmatched(self, owner: str, *, patient_id: str, accessions: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """Return the owner's complete studies without an order that are the person's or have an accession number.

        The person's are those of *patient_id* and of every record that merges of its owner join with it.
        """
        ...

    def series_version(self, key: StudyKey, SeriesInstanceUID: str) -> tuple[int, int]:
        """Return number and newest row id of the series' current instances; any arrival changes them."""
        ...

    def series_metadata(self, key: StudyKey, SeriesInstanceUID: str) -> tuple[str, str] | None:
        """Return (etag, object digest) of the cached gzip metadata of the series, or ``None``."""
        ...

    def set_series_metadata(self, key: StudyKey, SeriesInstanceUID: str, etag: str, digest: str) -> None: ...
