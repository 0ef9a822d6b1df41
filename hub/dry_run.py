"""New settings tried against what a feed has sent: which FHIR elements would come out otherwise, and in which messages.

Nothing is stored and nothing of any message is shown but numbers and the names of elements. Each message is translated
twice, as it is read now and as it would be read, one after the other, so that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fhir_mappings.code_maps import NO_MAPS
from fhir_mappings.definitions.check import check
from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.base import Attachment, Translation, Upsert
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate
from hub.actor import Actor
from hub.arrival import Arrival
from hub.askers import limit_of
from hub.batches import BATCHES
from hub.differences import Kind, differences
from hub.directory import dialect_of
from hub.directory_records import Consortium, consortium
from hub.errors import Category, HubError
from hub.outcome import findings_error
from hub.pending import DOORS
from hub.ports import AuditLine, Entry, MemberEndpoint

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]

#: Most messages of one run, and how many stand in memory at a time.
MAX_MESSAGES = 10_000
_PAGE = 20
_EXAMPLES = 3
#: Lines of the answer; a sender can make no more names of elements than FHIR has, but what refuses may differ by place.
_MAX_LINES = 500


@dataclass(slots=True)
class _Tally:
    """In how many messages something was met, and in which."""

    count: int = 0
    examples: list[int] = field(default_factory=list)

    def add(self, seq: int) -> None:
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(seq)


@dataclass(slots=True)
class _Report:
    """What came out so far."""

    messages: int = 0
    differing: int = 0
    unmapped: tuple[set[Any], set[Any]] = field(default_factory=lambda: (set(), set()))
    warnings: list[int] = field(default_factory=lambda: [0, 0])
    elements: dict[tuple[str, Kind], _Tally] = field(default_factory=dict)
    verdicts: dict[tuple[str, str], _Tally] = field(default_factory=dict)

    def element(self, path: str, kind: Kind, seq: int) -> None:
        if (path, kind) in self.elements or len(self.elements) < _MAX_LINES:
            self.elements.setdefault((path, kind), _Tally()).add(seq)

    def verdict(self, now: str, then: str, seq: int) -> None:
        if (now, then) in self.verdicts or len(self.verdicts) < _MAX_LINES:
            self.verdicts.setdefault((now, then), _Tally()).add(seq)


def proposal(resources: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return *resources* that came from somewhere else, each checked to be a FHIR resource.

    Raises:
        HubError: incorrect or 422, with every finding.
    """
    for number, one in enumerate(resources):
        if not isinstance(one.get("resourceType"), str) or not isinstance(one.get("id"), str):
            raise HubError(
                Category.INCORRECT,
                "This is no FHIR resource with an id.",
                where=f"resources[{number}]",
                remedy="Give Endpoints and ConceptMaps as for an import.",
            )
        findings = check(dict(one))
        if findings:
            raise findings_error(findings, prefix=f"resources[{number}]: ")
    return [dict(one) for one in resources]


class DryRun:
    """One asker's trials."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def run(
        self,
        actor: Actor,
        endpoint: str,
        resources: Sequence[Mapping[str, Any]] = (),
        settings: Mapping[str, str] | None = None,
        *,
        last: int = 100,
        since: datetime | None = None,
    ) -> Json:
        """Translate the newest messages of *endpoint* as now and as with *resources* and *settings*; return what differs.

        Args:
            endpoint: for example ``KN/mllp``.
            resources: Endpoints, ConceptMaps and so on that are proposed, in the place of the stored ones.
            settings: settings of the endpoint that are proposed, laid over all others.
            last: messages to try, from the newest down; at most :data:`MAX_MESSAGES`.
            since: none that came before it.

        Raises:
            HubError: not-found for an endpoint that is none or out of reach; incorrect or 422, as an import of what is
                proposed would be refused.
        """
        limit = limit_of(actor)
        now, then = self._services.database.read(
            lambda tx: (consortium(tx), consortium(tx, resources, owner=actor.institution))
        )
        point = now.endpoint(endpoint)
        if point.kind != "mllp" or (limit is not None and point.member != limit):
            raise HubError(
                Category.NOT_FOUND,
                "There is no such feed of HL7 v2.",
                where="endpoint",
                remedy="`hub members list` shows the names, for example KN/mllp.",
            )
        then = then.with_settings(endpoint, settings or {})
        report = _Report()
        for entry in self._entries(point, min(last, MAX_MESSAGES), since):
            body = entry.body if entry.body is not None else self._services.objects.read(entry.digest)
            _compare(report, entry.seq, _read(entry, body, endpoint, now), _read(entry, body, endpoint, then))
        line = AuditLine(
            type="admin",
            action="E",
            subtype="feed-dry-run",
            actor=actor,
            recorded_at=self._services.clock(),
            detail=f"{endpoint}: {report.messages} messages",
        )
        self._services.database.write(lambda tx: tx.audit.write(line))
        return _told(endpoint, report)

    def _entries(self, point: MemberEndpoint, last: int, since: datetime | None) -> Iterator[Entry]:
        criteria = {"institution": point.member}
        if point.sending_facility:
            criteria["sending_facility"] = point.sending_facility
        if point.sending_application:
            criteria["sending_application"] = point.sending_application
        if since is not None:
            criteria["since"] = since.isoformat()
        before: int | None = None
        while last > 0:
            page = self._services.database.read(
                lambda tx, before=before: tx.journal.search(criteria, limit=_PAGE, before_seq=before)  # type: ignore[misc]
            )
            for entry in page:
                if entry.door in DOORS and entry.message_type not in BATCHES and last > 0:
                    last -= 1
                    yield entry
            if len(page) < _PAGE:
                return
            before = page[-1].seq


def _read(entry: Entry, body: bytes, endpoint: str, directory: Consortium) -> Translation | str:
    """Return what *entry* says under *directory*, or why it would be refused, in words without patient data."""
    point = directory.endpoint(endpoint)
    dialect = dialect_of(point, directory.endpoints, {one.code for one in directory.members if one.active})
    decoded = decode_message(body, override=dialect.charset_in) if dialect.charset_in else decode_message(body)
    try:
        message = parse(decoded.text)
        Arrival(
            raw=body,
            peer=entry.peer,
            door=entry.door,
            received_at=entry.received_at,
            correlation_id=entry.correlation_id,
            digest=entry.digest,
            decoded=decoded,
            message=message,
            endpoint=point,
        ).check_processing_id()
        context = MappingContext(
            institution=point.member,
            dialect=dialect,
            received_at=entry.received_at,
            maps=directory.maps.get(point.member, NO_MAPS),
        )
        return translate(message, context)
    except (MappingError, HubError) as error:
        return f"{error.where}: {error.message}"


def _compare(report: _Report, seq: int, now: Translation | str, then: Translation | str) -> None:
    report.messages += 1
    for number, read in enumerate((now, then)):
        if isinstance(read, Translation):
            report.unmapped[number].update(read.unmapped)
            report.warnings[number] += sum(issue.severity == "warning" for issue in read.issues)
    if isinstance(now, str) or isinstance(then, str):
        was, would_be = (f"refused: {one}" if isinstance(one, str) else "taken" for one in (now, then))
        if was != would_be:
            report.differing += 1
            report.verdict(was, would_be, seq)
        return
    found = _differences(now, then)
    report.differing += bool(found)
    for path, kind in found.items():
        report.element(path, kind, seq)


def _differences(now: Translation, then: Translation) -> dict[str, Kind]:
    """Return what differs between two readings of one message, by ``Type.element``."""
    found: dict[str, Kind] = {}

    def note(more: Mapping[str, Kind]) -> None:
        for path, kind in more.items():
            found[path] = kind if found.get(path, kind) == kind else "changed"

    for before, after in _pairs(_resources(now), _resources(then)):
        type_ = str((before or after or {}).get("resourceType", ""))
        if before is None or after is None:
            note({type_: "added" if before is None else "removed"})
        else:
            note(differences(before, after, type_))
    if _other_changes(now) != _other_changes(then):
        # Merges, moves, lists and attachments are no resources; that they differ is all that can be said of them.
        note({"(merge, move, list or attachment)": "changed"})
    if now.workflow_events != then.workflow_events:
        note({"(workflow)": "changed"})
    return found


def _resources(translation: Translation) -> list[Json]:
    return [one.resource for one in translation.changes if isinstance(one, Upsert)]


def _other_changes(translation: Translation) -> list[Any]:
    return [
        (one.binary_id, one.content_type, len(one.data)) if isinstance(one, Attachment) else one
        for one in translation.changes
        if not isinstance(one, Upsert)
    ]


def _pairs(before: list[Json], after: list[Json]) -> Iterator[tuple[Json | None, Json | None]]:
    """Yield what stands for the same: of one id, else of one type in the order of the message."""
    waiting: dict[str, list[Json]] = {}
    by_id: dict[tuple[str, str], list[Json]] = {}
    for one in after:
        by_id.setdefault((one["resourceType"], one["id"]), []).append(one)
    left: list[Json] = []
    for one in before:
        same = by_id.get((one["resourceType"], one["id"]))
        if same:
            yield one, same.pop(0)
        else:
            left.append(one)
    for found in by_id.values():
        for one in found:
            waiting.setdefault(one["resourceType"], []).append(one)
    for one in left:
        others = waiting.get(one["resourceType"])
        yield one, others.pop(0) if others else None
    for found in waiting.values():
        for one in found:
            yield None, one


def _told(endpoint: str, report: _Report) -> Json:
    return {
        "endpoint": endpoint,
        "messages": report.messages,
        "differing": report.differing,
        "warnings": {"now": report.warnings[0], "then": report.warnings[1]},
        "unmapped": {"now": len(report.unmapped[0]), "then": len(report.unmapped[1])},
        "verdicts": [
            {"now": now, "then": then, "count": one.count, "examples": one.examples}
            for (now, then), one in sorted(report.verdicts.items(), key=lambda item: -item[1].count)
        ],
        "elements": [
            {"path": path, "change": kind, "count": one.count, "examples": one.examples}
            for (path, kind), one in sorted(report.elements.items(), key=lambda item: (-item[1].count, item[0]))
        ],
    }
