"""Metadata of series as DICOM JSON: made once for each state of a series, kept as an object, found by its entity tag.

PS3.18 section 10.4.1.1.2 and annex F.2.
"""

from __future__ import annotations

import gzip
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hub.actor import Actor
from hub.errors import Category, HubError
from hub.ports import InstanceRow, StudyKey, Tx

if TYPE_CHECKING:
    from hub.boot import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cached:
    """The metadata of one series: its present tag, and the object that holds it if one does."""

    SeriesInstanceUID: str
    etag: str
    digest: str
    count: int


class SeriesMetadata(ABC):
    """The metadata of what an asker may see; who may and how it is audited is the subclass's."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @abstractmethod
    def _visible_studies(
        self, tx: Tx, actor: Actor, StudyInstanceUID: str, owner: str | None
    ) -> Sequence[Mapping[str, Any]]: ...

    @abstractmethod
    def _write_audit(
        self,
        actor: Actor,
        action: str,
        subtype: str,
        patients: tuple[tuple[str, str], ...],
        *,
        entities: tuple[str, ...] = (),
        query: str = "",
        count: int | None = None,
    ) -> None: ...

    def metadata(
        self, actor: Actor, StudyInstanceUID: str, SeriesInstanceUID: str | None = None, *, owner: str | None = None
    ) -> tuple[str, Sequence[Callable[[], bytes]]]:
        """Return the entity tag of the metadata of a study or series, and a function for each of its series.

        Each function gives one series as gzip of a DICOM JSON array; the first asker after a change builds it, later
        ones get the stored object. Audited and failing as :meth:`retrieve`.
        """

        def work(tx: Tx) -> tuple[Mapping[str, Any], list[_Cached]]:
            for study in self._visible_studies(tx, actor, StudyInstanceUID, owner):
                key = StudyKey(owner=study["owner"], StudyInstanceUID=StudyInstanceUID)
                wanted = [SeriesInstanceUID] if SeriesInstanceUID else tx.imaging.series_uids(key)
                found = [self._cached(tx, key, uid) for uid in wanted]
                found = [one for one in found if one.count]
                if found:
                    return study, found
            raise absent()

        study, found = self._services.database.read(work)
        key = StudyKey(owner=study["owner"], StudyInstanceUID=StudyInstanceUID)
        self._write_audit(
            actor,
            "R",
            "WADO-RS metadata",
            ((study["owner"], study["patient_id"]),),
            entities=tuple(uid for uid in (StudyInstanceUID, SeriesInstanceUID) if uid),
            count=sum(one.count for one in found),
        )
        etag = hashlib.sha256("|".join(one.etag for one in found).encode()).hexdigest()[:32]
        return etag, [partial(self._metadata_of, key, one) for one in found]

    def _cached(self, tx: Tx, key: StudyKey, SeriesInstanceUID: str) -> _Cached:
        version = tx.imaging.series_version(key, SeriesInstanceUID)
        etag = self._etag(key, SeriesInstanceUID, version)
        stored = tx.imaging.series_metadata(key, SeriesInstanceUID)
        digest = stored[1] if stored is not None and stored[0] == etag else ""
        return _Cached(SeriesInstanceUID=SeriesInstanceUID, etag=etag, digest=digest, count=version[0])

    def _metadata_of(self, key: StudyKey, cached: _Cached) -> bytes:
        if cached.digest:
            try:
                return self._services.objects.read(cached.digest)
            except HubError as error:
                # A copy that can be made again must not stop a reader; fsck reports the loss.
                if error.category not in {Category.NOT_FOUND, Category.FAULT}:
                    raise
        return self._build_metadata(key, cached.SeriesInstanceUID)

    def prepare_metadata(self, key: StudyKey) -> None:
        """Store the metadata of every series of a complete study whose stored copy is missing or out of date."""

        for one in self._services.database.read(
            lambda tx: [self._cached(tx, key, uid) for uid in tx.imaging.series_uids(key)]
        ):
            if one.count and not one.digest:
                self._build_metadata(key, one.SeriesInstanceUID)

    def _build_metadata(self, key: StudyKey, SeriesInstanceUID: str) -> bytes:
        def work(tx: Tx) -> tuple[tuple[int, int], Sequence[InstanceRow]]:
            return tx.imaging.series_version(key, SeriesInstanceUID), tx.imaging.instances_of(
                key, SeriesInstanceUID, attributes=True
            )

        version, rows = self._services.database.read(work)
        body = b"[" + b",".join(self.instance_metadata(row) for row in rows) + b"]"
        # No file name and no time in the gzip header, so that the same metadata is the same object.
        packed = gzip.compress(body, compresslevel=4, mtime=0)
        ref = self._services.objects.put_bytes(packed)
        etag = self._etag(key, SeriesInstanceUID, version)
        self._services.database.write(
            lambda tx: tx.imaging.set_series_metadata(key, SeriesInstanceUID, etag, ref.digest)
        )
        return packed

    def _etag(self, key: StudyKey, SeriesInstanceUID: str, version: tuple[int, int]) -> str:
        said = f"{self._services.settings.public()}|{key.owner}|{key.StudyInstanceUID}|{SeriesInstanceUID}|{version}"
        return hashlib.sha256(said.encode()).hexdigest()[:32]

    def headers(self, rows: Sequence[InstanceRow]) -> Iterator[InstanceRow]:
        """Yield *rows*, which :meth:`retrieve` gave its asker, with their headers; those of one series are held at a time.

        Raises:
            HubError: busy when one of them is no longer what it was.
        """
        groups: dict[tuple[StudyKey, str], list[InstanceRow]] = {}
        for row in rows:
            key = StudyKey(owner=row.owner, StudyInstanceUID=row.StudyInstanceUID)
            groups.setdefault((key, row.SeriesInstanceUID), []).append(row)
        for (key, series), asked in groups.items():
            found = {
                (row.SOPInstanceUID, row.digest): row
                for row in self._services.database.read(partial(_with_headers, key=key, SeriesInstanceUID=series))
            }
            for row in asked:
                if (row.SOPInstanceUID, row.digest) not in found:
                    raise HubError(Category.BUSY, "The study changed while it was read.", remedy="Ask again.")
                yield found[row.SOPInstanceUID, row.digest]

    def instance_metadata(self, row: InstanceRow) -> bytes:
        """Return the stored header as DICOM JSON with absolute BulkDataURIs (PS3.18 section F.2.6)."""
        place = f'"BulkDataURI":"{self.instance_url(row)}/bulk/'.encode()
        # Inside a JSON text every quote of a value is escaped, so these bytes can only be a member that we wrote.
        return row.attributes.replace(b'"BulkDataURI":"bulk/', place)

    def instance_url(self, row: InstanceRow) -> str:
        """Return the URL under which DICOMweb serves the instance."""
        return (
            f"{self._services.settings.public()}/dicom-web/studies/{row.StudyInstanceUID}"
            f"/series/{row.SeriesInstanceUID}/instances/{row.SOPInstanceUID}"
        )


def _with_headers(tx: Tx, *, key: StudyKey, SeriesInstanceUID: str) -> Sequence[InstanceRow]:
    return tx.imaging.instances_of(key, SeriesInstanceUID, attributes=True)


def absent() -> HubError:
    """Return the error for images that are not there, or out of reach."""
    return HubError(
        Category.NOT_FOUND,
        "There is no such study, series or instance.",
        remedy="Search with QIDO-RS for what you may see.",
    )
