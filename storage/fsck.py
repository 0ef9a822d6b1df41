"""Do rows and objects agree: objects that no row names, rows whose object is missing, and bytes that are not their hash.

Objects are written before their row (DESIGN rule 1), so a crash leaves at most an object without a row; a row without
its object means damage. Nothing is deleted here without a copy: orphans go to ``{data_dir}/quarantine``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import sqlalchemy as sa

from hub.ports import Database, ObjectRef
from storage.objects import SweepableStore
from storage.objects.packed import PackedStore, behind
from storage.objects.spooled import SpooledStore
from storage.objects.sweep import Damage, Swept, check
from storage.objects.sweep import scrub as scrub_objects
from storage.objects.sweep import sweep as sweep_objects
from storage.sql.schema import imaging_instance, imaging_series, journal, object_packing, record, record_history

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from storage.sql.transaction import SqlTx

T = TypeVar("T")

#: An orphan younger than this may still get its row.
QUARANTINE_AFTER_S = 24 * 3600.0
_PAGE = 1000
#: Any hash in a Binary counts as named, so that no spelling of the extension can cost an object.
_DIGEST = re.compile(rb'"([0-9a-f]{64})"')
#: Doors whose objects are named by the imaging index.
_IMAGING_DOORS = ("dimse", "stow")


@dataclass(slots=True, kw_only=True)
class Report:
    """What was found and done.

    Attributes:
        repaired: whether what could be mended was mended.
        missing, wrong: digests of objects that rows name and that are gone, or whose bytes are not their name.
        orphans: digests that no row names and that were left alone.
        quarantined: digests that were moved to the quarantine.
        mended: of objects in a spool and in S3, digests with a copy that was damaged or missing and what takes its place.
        forgotten: cached metadata whose object was missing or wrong; it is made again when somebody asks.
    """

    repaired: bool
    objects: int = 0
    rows: int = 0
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether every row has its object, unchanged; a copy that could be mended and was not is no sound one."""
        return not (self.missing or self.wrong or (self.mended and not self.repaired))


def fsck(database: Database, store: SweepableStore, data_dir: Path, *, repair: bool, deep: bool = True) -> Report:
    """Compare rows and objects; with *repair* mend what another copy can mend and move old orphans away.

    An orphan of at least a day goes to the quarantine.

    Args:
        deep: read every object that a row names and compare its hash; else its presence and size only.
    """
    report = Report(repaired=repair)
    whole, store = store, behind(store)
    cached = set(_read(database, _cached_metadata))

    def rows() -> Iterator[ObjectRef]:
        for one in named(database):
            report.rows += 1
            # What is packed has only its packed form; the original may still stand beside it.
            yield one.ref if one.packed is None or store.stat(one.ref.digest) is not None else one.packed

    seen: set[str] = set()
    damages = check(store, rows(), deep=deep)
    if isinstance(store, SpooledStore):
        damages = _check_copies(store, rows(), report, deep=deep)
    for damage in damages:
        if damage.digest not in seen:
            seen.add(damage.digest)
            lost = _read(database, partial(_original_of, packed=damage.digest))
            seen.add(lost)
            (report.missing if damage.reason == "missing" else report.wrong).append(lost)
    if deep and isinstance(whole, PackedStore):
        for one in named(database):
            if one.packed is not None and one.ref.digest not in seen and not whole.verify(one.ref.digest):
                seen.add(one.ref.digest)
                report.wrong.append(one.ref.digest)
    for digest in sorted(cached):
        if store.stat(digest) is None or (deep and not store.verify(digest)):
            report.forgotten.append(digest)
    if repair and report.forgotten:
        _forget(database, report.forgotten)
    swept = sweep_objects(store, referenced(database), dry_run=True)
    report.objects = swept.seen
    for digest in swept.orphans:
        moved = repair and _quarantine(store, data_dir / "quarantine", digest)
        (report.quarantined if moved else report.orphans).append(digest)
    return report


def _check_copies(store: SpooledStore, rows: Iterable[ObjectRef], report: Report, *, deep: bool) -> Iterator[Damage]:
    """Compare both copies of each row's object; yield what no copy can mend."""
    for row in rows:
        found = store.examine(row, deep=deep, repair=report.repaired)
        line = f"{row.digest}: {found.mended}"
        if found.mended and line not in report.mended:
            report.mended.append(line)
        if found.damage:
            yield Damage(digest=row.digest, reason=found.damage)


def sweep(database: Database, store: SweepableStore) -> Swept:
    """Remove orphans that nobody has touched for days; returns what was seen and removed."""
    known = referenced(database)

    def named_by_rows(digests: Sequence[str]) -> Collection[str]:
        _came_back(database, digests)
        return known(digests)

    swept = sweep_objects(store, named_by_rows)
    _forget_packings(database)
    return swept


def scrub(store: SweepableStore, day: int) -> Iterator[str]:
    """Re-hash the day's share of the store and yield the digests of damaged objects."""
    return scrub_objects(store, day=day)


# --- what rows name ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """An object that a row needs, and its packed form if it has one."""

    ref: ObjectRef
    packed: ObjectRef | None


def named(database: Database) -> Iterator[Named]:
    """Yield every object that a row needs, page by page, so that a running hub is not held up."""
    packing = object_packing
    instances = sa.select(
        imaging_instance.c.iid.label("key"),
        imaging_instance.c.digest,
        imaging_instance.c.size,
        packing.c.packed_digest,
        packing.c.packed_size,
    ).join(packing, packing.c.digest == imaging_instance.c.digest, isouter=True)
    none = sa.null()
    messages = sa.select(
        journal.c.seq.label("key"),
        journal.c.digest,
        journal.c.size,
        none.label("packed_digest"),
        none.label("packed_size"),
    ).where(journal.c.body.is_(None), journal.c.size > 0, journal.c.door.not_in(_IMAGING_DOORS))
    yield from _pages(database, instances, imaging_instance.c.iid)
    yield from _pages(database, messages, journal.c.seq)


def _pages(database: Database, statement: sa.Select[Any], key: sa.Column[int]) -> Iterator[Named]:
    last = 0
    while True:
        page_statement = statement.where(key > last).order_by(key).limit(_PAGE)
        page = _read(database, lambda connection, of=page_statement: list(connection.execute(of)))  # type: ignore[misc]
        if not page:
            return
        last = page[-1].key
        for row in page:
            packed = ObjectRef(digest=row.packed_digest, size=row.packed_size) if row.packed_digest else None
            yield Named(ref=ObjectRef(digest=row.digest, size=row.size), packed=packed)


def referenced(database: Database) -> Callable[[Sequence[str]], Collection[str]]:
    """Return a function that tells which of some digests a row names.

    What is not indexed by digest (large messages, attachments) is read once, now; an object that gets its row after that
    is younger than any orphan that may be touched.
    """
    elsewhere = _read(database, _elsewhere)

    def known(digests: Sequence[str]) -> Collection[str]:
        found = {digest for digest in digests if bytes.fromhex(digest) in elsewhere}
        rest = [digest for digest in digests if digest not in found]
        return found | _read(database, lambda connection: _of_images(connection, rest))

    return known


def _of_images(connection: Connection, digests: Sequence[str]) -> set[str]:
    statement = sa.select(imaging_instance.c.digest).where(imaging_instance.c.digest.in_(digests))
    packed = (
        sa.select(object_packing.c.packed_digest)
        .join(imaging_instance, imaging_instance.c.digest == object_packing.c.digest)
        .where(object_packing.c.packed_digest != "", object_packing.c.packed_digest.in_(digests))
    )
    return {*connection.execute(statement).scalars(), *connection.execute(packed).scalars()}


def _original_of(connection: Connection, *, packed: str) -> str:
    """Return the digest of the object that *packed* is the packed form of; another object is its own."""
    packing = object_packing
    statement = sa.select(packing.c.digest).where(packing.c.packed_digest != "", packing.c.packed_digest == packed)
    return connection.execute(statement).scalar() or packed


def _came_back(database: Database, digests: Sequence[str]) -> None:
    """Let originals that were sent again after they were packed be removed again."""
    packing = object_packing
    there = packing.c.settled & packing.c.digest.in_(digests)
    found = _read(
        database, lambda connection: list(connection.execute(sa.select(packing.c.digest).where(there)).scalars())
    )
    if found:
        again = sa.update(packing).where(packing.c.digest.in_(found)).values(settled=False)
        database.write(lambda tx: cast("SqlTx", tx).connection.execute(again))


def _forget_packings(database: Database) -> None:
    """Remove what is said of objects that no instance names any more."""
    packing = object_packing
    nobody = sa.select(packing.c.digest).where(
        ~sa.exists(sa.select(imaging_instance.c.iid).where(imaging_instance.c.digest == packing.c.digest))
    )
    found = _read(database, lambda connection: list(connection.execute(nobody).scalars()))
    for page in (found[start : start + _PAGE] for start in range(0, len(found), _PAGE)):
        gone = sa.delete(packing).where(packing.c.digest.in_(page))
        database.write(lambda tx, of=gone: cast("SqlTx", tx).connection.execute(of))  # type: ignore[misc]


def _cached_metadata(connection: Connection) -> list[str]:
    column = imaging_series.c.metadata_digest
    return list(connection.execute(sa.select(column).where(column != "")).scalars())


def _elsewhere(connection: Connection) -> set[bytes]:
    found = {bytes.fromhex(digest) for digest in _cached_metadata(connection)}
    stream = connection.execution_options(yield_per=_PAGE)
    found.update(
        bytes.fromhex(digest)
        for digest in stream.execute(
            sa.select(journal.c.digest).where(journal.c.body.is_(None), journal.c.door.not_in(_IMAGING_DOORS))
        ).scalars()
        if digest
    )
    for table in (record, record_history):
        for body in stream.execute(sa.select(table.c.body).where(table.c.type == "Binary")).scalars():
            found.update(bytes.fromhex(digest.decode()) for digest in _DIGEST.findall(bytes(body)))
    return found


def _read(database: Database, work: Callable[[Connection], T]) -> T:
    return database.read(lambda tx: work(cast("SqlTx", tx).connection))


def _forget(database: Database, digests: Sequence[str]) -> None:
    def work(connection: Connection) -> None:
        connection.execute(
            sa.update(imaging_series)
            .where(imaging_series.c.metadata_digest.in_(digests))
            .values(metadata_digest="", metadata_etag="")
        )

    database.write(lambda tx: work(cast("SqlTx", tx).connection))


def _quarantine(store: SweepableStore, folder: Path, digest: str) -> bool:
    """Move one orphan to *folder*; returns whether it was old enough."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh, kept = folder / f".{digest}", folder / digest
    with fresh.open("wb") as file:
        for chunk in store.stream(digest, verify=False):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if store.discard(digest, idle_s=QUARANTINE_AFTER_S):
        fresh.replace(kept)
        return True
    fresh.unlink()
    return False
