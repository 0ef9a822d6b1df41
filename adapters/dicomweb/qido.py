"""QIDO-RS: searching studies, series and instances (PS3.18 section 10.6).

Keys are matched as C-FIND matches them, combined dates and times among them (section 8.3.4.1.1). A page that does not
hold the last result says how many are left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, actor_of
from adapters.dicomweb import attributes
from adapters.dicomweb.errors import uid
from adapters.dicomweb.negotiation import wants_xml
from adapters.dicomweb.parameters import MATCHING, natural, passed_over, truth
from adapters.dicomweb.xml import datasets_response
from fhir_mappings.json import loads
from hub.actor import Actor
from hub.attribute_matching import Level, Match, combined, parse
from hub.errors import Category, HubError
from hub.imaging import MAX_ROWS, Found
from hub.ports import StudyKey
from hub.sequence_matching import SequenceKey, matching

if TYPE_CHECKING:
    from hub.boot import Services

_MAX_OFFSET = 1_000_000
_MAX_PARAMETERS = 100
#: Sequences inside one another in one key or field; the data dictionary has no use for more.
_MAX_STEPS = 8
_UID_OF: Mapping[Level, str] = {
    "study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"
}  # fmt: skip
#: Parameters that are no attributes; ``accept`` and ``charset`` are read with the media types.
_NOT_ATTRIBUTES = frozenset(["accept", "charset"])
#: Keys by which a patient's number is asked for.
_NUMBERS = frozenset(["PatientID", "IssuerOfPatientID"])
_REQUESTS = attributes.REQUEST_PATHS[0][0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a search asks.

    Attributes:
        keys: (keyword, value) to match.
        inside: keys inside sequences.
        include: paths asked for besides; ``everything`` for ``includefield=all``.
        ignored: tags asked for that do not belong to the level.
        remarks: what the answer says of ways of matching that are not offered.
    """

    keys: tuple[tuple[str, str], ...]
    inside: tuple[SequenceKey, ...]
    include: tuple[attributes.Path, ...]
    everything: bool
    ignored: tuple[str, ...]
    remarks: tuple[str, ...]
    fuzzy: bool
    limit: int | None
    offset: int


def question(request: Request, level: Level) -> Question:
    """Return the question of *request*; raises HubError(incorrect) naming the parameter that is wrong."""
    keys: list[tuple[str, str]] = []
    inside: list[SequenceKey] = []
    include: list[attributes.Path] = []
    remarks: list[str] = []
    everything = fuzzy = False
    limit: int | None = None
    offset = 0
    items = request.query_params.multi_items()
    if len(items) > _MAX_PARAMETERS:
        raise HubError(Category.INCORRECT, f"The query has more than {_MAX_PARAMETERS} parameters.")
    for name, value in items:
        lower = name.lower()
        if lower == "limit":
            limit = natural(name, value)
        elif lower == "offset":
            offset = min(natural(name, value), _MAX_OFFSET)
        elif lower == "fuzzymatching":
            fuzzy = truth(name, value)
        elif lower == "includefield":
            for part in value.split(","):
                if part.strip().lower() == "all":
                    everything = True
                elif part.strip():
                    include.append(_path(part))
        elif lower in MATCHING:
            remarks += [MATCHING[lower]] if truth(name, value) else []
        elif passed_over(name):
            continue
        elif "." in name:
            inside.append(_inside(level, name, value))
        elif lower not in _NOT_ATTRIBUTES:
            keys.append((attributes.keyword_of(name), value))
    fitting = [path for path in include if attributes.belongs(level, path[0])]
    return Question(
        keys=tuple(_joined(keys)),
        inside=tuple(inside),
        include=tuple(fitting),
        everything=everything,
        ignored=tuple(path[0] for path in include if path not in fitting),
        remarks=tuple(remarks),
        fuzzy=fuzzy,
        limit=limit,
        offset=offset,
    )


def _path(name: str) -> attributes.Path:
    if name.count(".") >= _MAX_STEPS:
        raise HubError(Category.INCORRECT, f"The path has more than {_MAX_STEPS} steps.", where=name[:128])
    return attributes.path_of(name)


def _inside(level: Level, name: str, value: str) -> SequenceKey:
    """Return the key that a dotted *name* means; raises HubError(incorrect) where it cannot be matched on *level*."""
    path = _path(name)
    vr = attributes.vr_of(path[-1])
    if not attributes.belongs(level, path[0]) or not vr or vr == "SQ" or len(path) < 2:
        raise HubError(
            Category.INCORRECT,
            f"{name[:128]} cannot be matched on the {level} level.",
            where=name[:128],
            remedy="Match by attributes of sequences that belong to the level, such as "
            "RequestAttributesSequence.ScheduledProcedureStepID of series.",
        )
    return SequenceKey(path=path, name=name, vr=vr, value=value)


def _joined(keys: list[tuple[str, str]]) -> list[tuple[str, str]]:
    # A key given twice is a list of values (PS3.18 section 8.3.4.1).
    joined: dict[str, str] = {}
    for name, value in keys:
        joined[name] = f"{joined[name]}\\{value}" if name in joined else value
    return list(joined.items())


class Search:
    """The search handlers over one set of services."""

    def __init__(self, services: Services, workers: Workers) -> None:
        self._services = services
        self._workers = workers

    async def studies(self, request: Request) -> Response:
        """GET /studies"""
        return await self._answer(request, "study")

    async def series(self, request: Request) -> Response:
        """GET /series and /studies/{study}/series"""
        return await self._answer(request, "series")

    async def instances(self, request: Request) -> Response:
        """GET /instances, /studies/{study}/instances and /studies/{study}/series/{series}/instances"""
        return await self._answer(request, "instance")

    async def _answer(self, request: Request, level: Level) -> Response:
        return await self._workers.run(lambda: self._search(request, level))

    def _search(self, request: Request, level: Level) -> Response:
        xml = wants_xml(request)
        actor = actor_of(request, self._services, shared=True)
        asked = question(request, level)
        owner = request.path_params.get("owner")
        study, series = uid(request, "study"), uid(request, "series")
        keys = list(asked.keys)
        if study is not None:
            copy = self._services.imaging.copy_of(actor, study, owner=owner)
            # Inside a study one copy is meant, never a mixture of two institutions' series.
            owner = copy.owner if copy is not None else owner
            keys.append(("StudyInstanceUID", study))
        if series is not None:
            keys.append(("SeriesInstanceUID", series))
        relational = study is None
        found = self._found(actor, level, asked, keys, owner, relational=relational)
        base = f"{self._services.settings.public()}/dicom-web"
        answer = [self._row(level, row, f"{base}/studies", asked, relational=relational) for row in found.rows]
        answer = self._services.identity.in_own_numbers(
            actor, answer, [_whose(level, row) for row in found.rows], _parsed(keys, level, asked)
        )
        return datasets_response(answer, request, xml=xml, headers=_notes(asked, found, base))

    def _found(
        self,
        actor: Actor,
        level: Level,
        asked: Question,
        keys: list[tuple[str, str]],
        owner: str | None,
        *,
        relational: bool,
    ) -> Found:
        more = asked.everything or bool(asked.include)
        needed = more or level == "series" or (level == "instance" and relational)
        fitting: frozenset[tuple[str, str]] | None = None
        spans = combined(keys)
        if asked.inside:
            fitting = frozenset().union(
                *(
                    matching(self._services, actor, level, span, asked.inside, owner=owner, fuzzy=asked.fuzzy)
                    for span in spans
                )
            )
            # What was found is then asked for by name, so that pages and audit lines are those of any other query. No
            # object has the UID 0, which is an arc of all UIDs.
            found = "\\".join(sorted({name for _, name in fitting})) or "0"
            keys = [*((name, value) for name, value in keys if name != _UID_OF[level]), (_UID_OF[level], found)]

        def page(span: Sequence[tuple[str, str]], limit: int | None, offset: int) -> Found:
            return self._services.imaging.find(
                actor, level, span, limit=limit, offset=offset, fuzzy=asked.fuzzy, owner=owner, attributes=needed
            )

        spans = combined(keys)
        if len(spans) == 1:
            whole = page(spans[0], asked.limit, asked.offset)
        else:
            wanted = MAX_ROWS[level] if asked.limit is None else min(asked.limit, MAX_ROWS[level])
            whole = _pieced(page, spans, wanted, asked.offset)
        if fitting is None:
            return whole
        # Two institutions may hold one UID with different headers; only what was looked into is answered.
        rows = [row for row in whole.rows if _identity(level, row) in fitting]
        return Found(rows=rows, total=whole.total)

    def _row(self, level: Level, row: Any, base: str, asked: Question, *, relational: bool) -> attributes.Json:
        if level == "study":
            header = loads(row["attributes"]) if "attributes" in row else {}
            made = attributes.study(row, f"{base}/{row['StudyInstanceUID']}")
        elif level == "series":
            header = loads(row["attributes"])
            url = f"{base}/{row['StudyInstanceUID']}/series/{row['SeriesInstanceUID']}"
            made = attributes.series(row, url, header)
            if relational:
                made = {**attributes.study(row["study"], url.partition("/series/")[0]), **made}
        else:
            header = loads(row.attributes) if row.attributes else {}
            made = attributes.instance(row, self._services.imaging.instance_url(row), header)
            if relational:
                made = {**attributes.parents(header), **made}
        include = asked.include
        if level == "series" and (asked.everything or any(path[0] == _REQUESTS for path in include)):
            # Who asks for more of the requests than a search always returns gets what he asked for besides.
            include = (*include, *attributes.REQUEST_PATHS)
            made.pop(_REQUESTS, None)
        made = {**attributes.beyond(level, header, include, everything=asked.everything), **made}
        return dict(sorted(made.items()))


def _pieced(
    page: Callable[[Sequence[tuple[str, str]], int | None, int], Found],
    spans: Sequence[Sequence[tuple[str, str]]],
    wanted: int,
    offset: int,
) -> Found:
    """Return one page over the answers to all *spans*, one behind the other."""
    rows: list[Any] = []
    total = 0
    first, last = offset, offset + wanted
    for span in spans:
        count = page(span, 0, 0).total or 0
        low, high = max(first - total, 0), min(last - total, count)
        if low < high:
            rows += page(span, high - low, low).rows
        total += count
    return Found(rows=rows, total=total if total > offset + len(rows) else None)


def _parsed(keys: Sequence[tuple[str, str]], level: Level, asked: Question) -> list[Match]:
    found = [parse(name, value, level=level, fuzzy=asked.fuzzy) for name, value in keys if name in _NUMBERS]
    return [one for one in found if one is not None]


def _whose(level: Level, row: Any) -> tuple[str, str] | StudyKey:
    """Return the patient of an answer, of an instance its study."""
    if level == "instance":
        return StudyKey(owner=row.owner, StudyInstanceUID=row.StudyInstanceUID)
    return row["owner"], (row if level == "study" else row["study"])["patient_id"]


def _identity(level: Level, row: Any) -> tuple[str, str]:
    if level == "instance":
        return row.owner, row.SOPInstanceUID
    return row["owner"], row[_UID_OF[level]]


def _notes(asked: Question, found: Found, service: str) -> dict[str, str]:
    """Return the headers that say what the answer does not hold (PS3.18 section 8.3.4.4)."""
    headers: dict[str, str] = {}
    warnings = [f'299 {service}: "{remark}"' for remark in asked.remarks]
    if found.total is not None:
        left = max(found.total - asked.offset - len(found.rows), 0)
        warnings.append(f'299 {service}: "There are {left} additional results that can be requested"')
        headers["X-Total-Count"] = str(found.total)
    if asked.ignored:
        warnings.append(f'299 {service}: "Not returned on this level: {" ".join(asked.ignored)}"')
    if warnings:
        headers["Warning"] = ", ".join(warnings)
    return headers
