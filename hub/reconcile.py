"""Which studies an institution says it has, and which the hub has of it: both ways, for one day.

Hospitals that tell of their studies by rows (:mod:`fhir_mappings.hl7v2.row`) send the images apart, so either can be lost by
itself. A day's rows are those that came in it, of each study the latest word; a day's studies are those of that Study Date.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.row import APPLICATION
from fhir_mappings.json import loads
from hub.access import scope_of
from hub.actor import Actor
from hub.attribute_matching import parse
from hub.errors import Category, HubError
from hub.ports import AuditLine, Entry, Tx

if TYPE_CHECKING:
    from hub.boot import Services

#: Most rows, and most studies, of one day; the largest hospitals make some ten thousand examinations a day.
MAX_ROWS = 50_000
_PAGE = 1_000
#: States after which there must be images.
_EXAMINED = frozenset({"检查完成", "报告完成"})

Json = dict[str, Any]


def reconcile(services: Services, actor: Actor, day: date) -> Json:
    """Return what *actor*'s institution announced and what is here of it on *day*, in the hub's zone; leaves an audit line.

    Raises:
        HubError: forbidden for who may not see the institution's studies; incorrect when the day holds more than :data:`MAX_ROWS`.
    """
    scope = scope_of(actor)
    if scope.directory_only or scope.patient is not None or scope.share is not None:
        raise HubError(Category.FORBIDDEN, "Only an institution reconciles.", where="Authorization", status=403)
    zone = ZoneInfo(services.settings.time_zone)
    start = datetime.combine(day, time(), zone).astimezone(UTC)
    end = datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)

    def work(tx: Tx) -> tuple[Json, int]:
        told = _announced(services, tx, actor.institution, start, end)
        found = _stored(tx, actor, "StudyDate", day.strftime("%Y%m%d"))
        return _compared(tx, actor, day, told, found), len(told) + len(found)

    made, count = services.database.read(work)
    line = AuditLine(
        type="hl7v2",
        action="R",
        subtype="reconcile",
        actor=actor,
        recorded_at=services.clock(),
        query=f"date={day.isoformat()}",
        count=count,
    )
    # Nothing is told before it is written down who asked.
    services.database.write(lambda tx: tx.audit.write(line))
    return made


def _announced(services: Services, tx: Tx, institution: str, start: datetime, end: datetime) -> list[Json]:
    """Return the latest word of each study that was told in that time."""
    latest: dict[str, Json] = {}
    for entry in _entries(tx, institution, start, end):
        row = _row(services, entry)
        number = str(row.get("accessionNumber") or row.get("studyUid") or "")
        # Entries come newest first; of two, the one that says the later time counts.
        if number and str(row.get("updateTime", "")) > str(latest.get(number, {}).get("updateTime", "")):
            latest[number] = row
    return list(latest.values())


def _entries(tx: Tx, institution: str, start: datetime, end: datetime) -> Iterator[Entry]:
    wanted = {
        "institution": institution,
        "sending_application": APPLICATION,
        "since": start.isoformat(),
        "until": end.isoformat(),
    }
    before, count = None, 0
    while page := tx.journal.search(wanted, limit=_PAGE, before_seq=before):
        count += len(page)
        if count > MAX_ROWS:
            raise _too_many()
        yield from (one for one in page if one.state in {"done", "received"})
        before = page[-1].seq


def _row(services: Services, entry: Entry) -> Json:
    body = entry.body if entry.body is not None else services.objects.read(entry.digest)
    try:
        row = loads(body)
    except MalformedError:
        # A sender may call itself as rows do and send something else.
        return {}
    return row if isinstance(row, dict) else {}


def _stored(tx: Tx, actor: Actor, keyword: str, value: str) -> Sequence[Mapping[str, Any]]:
    match = parse(keyword, value, level="study")
    assert match is not None
    found = tx.imaging.studies(scope_of(actor), [match], limit=MAX_ROWS + 1, owner=actor.institution)
    if len(found) > MAX_ROWS:
        raise _too_many()
    return found


def _compared(tx: Tx, actor: Actor, day: date, told: Sequence[Json], found: Sequence[Mapping[str, Any]]) -> Json:
    here = {str(one["StudyInstanceUID"]) for one in found}
    accessions = {str(one["AccessionNumber"]) for one in found if one["AccessionNumber"]}
    lacking: list[Json] = []
    for row in told:
        uid, accession = str(row.get("studyUid") or ""), str(row.get("accessionNumber") or "")
        if row.get("state") not in _EXAMINED or uid in here or (not uid and accession in accessions):
            continue
        # The examination may have been on another day than the word about it.
        keyword, value = ("StudyInstanceUID", uid) if uid else ("AccessionNumber", accession)
        if not _stored(tx, actor, keyword, value):
            lacking.append({"studyUid": uid, "accessionNumber": accession, "state": row["state"]})
    uids = {str(row.get("studyUid") or "") for row in told} - {""}
    numbers = {str(row.get("accessionNumber") or "") for row in told} - {""}
    silent = [
        {"studyUid": str(one["StudyInstanceUID"]), "accessionNumber": str(one["AccessionNumber"] or "")}
        for one in found
        if one["StudyInstanceUID"] not in uids and (one["AccessionNumber"] or "") not in numbers
    ]
    return {
        "date": day.isoformat(),
        "announced": {"total": len(told), **dict(sorted(Counter(str(row.get("state")) for row in told).items()))},
        "received": {"total": len(found)},
        "missingImages": lacking,
        "missingRows": silent,
    }


def _too_many() -> HubError:
    return HubError(
        Category.INCORRECT,
        f"The day holds more than {MAX_ROWS} studies.",
        where="date",
        remedy="Ask the operator to compare the lists.",
        status=413,
    )
