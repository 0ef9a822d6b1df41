"""What a member's feed is made of: which fields it values, how often and how long, in which character sets and versions.

Whoever connects a hospital asks this first, and again when the feed changes under his hands. Values are counted and not
shown, but those of coded fields (HL7 v2 chapter 2.A, types ID and IS) that are short and often met: a table's code says
nothing of a patient, and what a careless system writes into such a field once is not repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.charset import Decoded, decode_message
from fhir_mappings.hl7v2.coverage import valued
from fhir_mappings.hl7v2.tokenizer import NULL, Message, parse
from hub.actor import Actor
from hub.askers import limit_of
from hub.errors import Category, HubError
from hub.feed_figures import traffic
from hub.feeds import V2_DOORS, feed_of
from hub.ports import AuditLine, MemberEndpoint

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]

MAX_MESSAGES = 10_000
#: Different values of one field that are told apart; more are "this many and more".
MAX_DISTINCT = 1_000
#: Fields of one feed; a sender that makes up segment names must not fill the memory.
MAX_FIELDS = 5_000
#: A value of a coded field is shown when it is so short, was met so often, and is one of the most frequent.
CODE_MAX_CHARS, CODE_LEAST, CODES_SHOWN = 12, 3, 20
_CODED = frozenset({"ID", "IS"})


@dataclass(slots=True)
class _Field:
    """What is known of one field of one event."""

    valued: int = 0
    nulls: int = 0
    longest: int = 0
    repetitions: int = 0
    distinct: set[int] = field(default_factory=set)
    codes: Counter[str] = field(default_factory=Counter)


class Usage:
    """Adds up messages one by one; bounded memory, however many there are."""

    def __init__(self) -> None:
        self._messages = 0
        self._unreadable = 0
        self._doubtful = 0
        self._events: Counter[str] = Counter()
        self._charsets: Counter[tuple[str, str]] = Counter()
        self._versions: Counter[str] = Counter()
        self._segments: Counter[tuple[str, str]] = Counter()
        self._fields: dict[tuple[str, str, int], _Field] = {}

    def add(self, decoded: Decoded) -> None:
        """Count one message; one that cannot be cut into segments is counted as such."""
        self._messages += 1
        self._charsets[decoded.charset, decoded.declared[:32]] += 1
        self._doubtful += decoded.flagged or decoded.disagrees
        try:
            message = parse(decoded.text)
        except MappingError:
            self._unreadable += 1
            return
        event = f"{message.get('MSH-9.1')[:8]}^{message.get('MSH-9.2')[:8]}"
        version = message.get("MSH-12.1")[:8]
        self._events[event] += 1
        self._versions[version] += 1
        self._count(message, event, version)

    def _count(self, message: Message, event: str, version: str) -> None:
        for segment in message.segments:
            self._segments[event, segment.name] += 1
            for number in valued(segment):
                key = (event, segment.name, number)
                if key not in self._fields and len(self._fields) >= MAX_FIELDS:
                    continue
                one = self._fields.setdefault(key, _Field())
                content = segment.field(number)
                if content.raw == NULL:
                    one.nulls += 1
                    continue
                one.valued += 1
                one.longest = max(one.longest, len(content.raw))
                one.repetitions = max(one.repetitions, content.raw.count(message.delimiters.repetition) + 1)
                if len(one.distinct) < MAX_DISTINCT:
                    one.distinct.add(hash(content.raw))
                code = content.raw.strip()
                shown = len(code) <= CODE_MAX_CHARS and code.isascii() and is_coded(segment.name, number, version)
                if shown and (code in one.codes or len(one.codes) < MAX_DISTINCT):
                    one.codes[code] += 1

    def told(self) -> Json:
        """Return what was counted."""
        return {
            "messages": self._messages,
            "unreadable": self._unreadable,
            "charset_doubtful": self._doubtful,
            "events": dict(self._events.most_common()),
            "versions": dict(self._versions.most_common()),
            "charsets": [
                {"charset": charset, "declared": declared, "messages": count}
                for (charset, declared), count in self._charsets.most_common()
            ],
            "fields": [self._row(key, one) for key, one in sorted(self._fields.items())],
        }

    def _row(self, key: tuple[str, str, int], one: _Field) -> Json:
        event, segment, number = key
        count = self._segments[event, segment]
        shown = {code: met for code, met in one.codes.most_common(CODES_SHOWN) if met >= CODE_LEAST}
        return {
            "event": event,
            "field": f"{segment}-{number}",
            "segments": count,
            "valued": round(one.valued / count, 4),
            "null": round(one.nulls / count, 4),
            "distinct": len(one.distinct),
            "distinct_capped": len(one.distinct) >= MAX_DISTINCT,
            "longest": one.longest,
            "repetitions": one.repetitions,
            "codes": shown,
        }


@lru_cache(maxsize=4096)
def is_coded(segment: str, number: int, version: str) -> bool:
    """Return whether the standard of that *version* gives the field a table's codes alone (ID, IS)."""
    from hl7apy import load_reference
    from hl7apy.exceptions import HL7apyException

    try:
        fields = load_reference(segment, "Segment", version)[1]
    except (HL7apyException, KeyError):
        return False
    name = f"{segment}_{number}"
    return any(one[0] == name and one[1][2] in _CODED for one in fields)


class FeedStatistics:
    """The statistics of what a feed has sent, from the journal."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def run(self, actor: Actor, endpoint: str, *, last: int) -> Json:
        """Return the statistics of the *last* messages of *endpoint* (``KN/mllp``, or ``KN`` for its first one); audited.

        Raises:
            HubError: not-found when it is no feed of HL7 v2, or none of the asker's; forbidden as :func:`limit_of`.
        """
        limit = limit_of(actor)
        point = feed_point(self._services, endpoint)
        if point is None or limit not in {None, point.member}:
            raise HubError(
                Category.NOT_FOUND,
                "没有这个 HL7 v2 接口 / There is no such feed of HL7 v2.",
                where=endpoint[:64],
                remedy="`hub members list` shows the names, for example KN or KN/mllp.",
            )
        usage = Usage()
        for body in self._bodies(point, min(last, MAX_MESSAGES)):
            usage.add(decode_message(body, override=self._services.directory.dialect(point).charset_in))
        figures = traffic(self._services, point, last=min(last, MAX_MESSAGES))
        told = {"endpoint": point.id, **usage.told(), "traffic": figures}
        line = AuditLine(
            type="admin",
            action="E",
            subtype="feed-statistics",
            actor=actor,
            recorded_at=self._services.clock(),
            detail=f"{point.id}: {told['messages']} messages",
        )
        self._services.database.write(lambda tx: tx.audit.write(line))
        return told

    def _bodies(self, point: MemberEndpoint, last: int) -> Iterator[bytes]:
        feed = feed_of(point)
        assert feed is not None
        numbers = [one.seq for one in self._services.database.read(lambda tx: tx.feeds.recent(feed, limit=last))]
        for seq in numbers:
            entry = self._services.database.read(lambda tx, seq=seq: tx.journal.get(seq))  # type: ignore[misc]
            if entry is not None and entry.door in V2_DOORS:
                yield entry.body if entry.body is not None else self._services.objects.read(entry.digest)


def feed_point(services: Services, name: str) -> MemberEndpoint | None:
    """Return the endpoint *name*, or the first of the member *name*, that sends HL7 v2."""
    points = services.directory.endpoints(name.partition("/")[0], "mllp")
    return next((one for one in points if name in {one.id, one.member} and feed_of(one) is not None), None)
