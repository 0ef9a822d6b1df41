"""The index of studies, series and instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from fhir_mappings.dicom.instance import InstanceHeader
from hub.access import Scope
from hub.attribute_matching import Level, Match
from hub.ports.objects import ObjectRef


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
    """Study, series and instance index. Rows are mappings by column; attributes of DICOM keep their keywords.

    A query for a PatientID finds what came under the numbers merged into it too; see ``one_person`` of the records.
    """

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

    def versions_of(self, key: StudyKey) -> Sequence[InstanceRow]:
        """Return every instance of the study with its attributes, current and not, in the order of arrival."""
        ...

    def set_aside(self, key: StudyKey, SOPInstanceUID: str, digest: str) -> None:
        """Let the version *digest* of an instance no longer be current; nothing takes its place."""
        ...

    def make_current(self, key: StudyKey, SOPInstanceUID: str, digest: str) -> None:
        """Let the version *digest* of an instance be the current one, as if it had arrived now."""
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
