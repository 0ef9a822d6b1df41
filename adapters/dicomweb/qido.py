"""QIDO-RS: searching studies, series and instances (PS3.18 section 10.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, actor_of, json_response
from adapters.dicomweb import attributes
from adapters.dicomweb.errors import uid
from adapters.dicomweb.negotiation import JSON_TYPE, require_json
from fhir_mappings.json import loads
from hub.actor import Actor
from hub.attribute_matching import Level
from hub.errors import Category, HubError

if TYPE_CHECKING:
    from hub.boot import Services

_MAX_OFFSET = 1_000_000
_MAX_PARAMETERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a search asks.

    Attributes:
        keys: (keyword, value) to match.
        include: tags asked for besides; ``everything`` for ``includefield=all``.
        ignored: tags asked for that do not belong to the level.
    """

    keys: tuple[tuple[str, str], ...]
    include: tuple[str, ...]
    everything: bool
    ignored: tuple[str, ...]
    fuzzy: bool
    limit: int | None
    offset: int


def question(request: Request, level: Level) -> Question:
    """Return the question of *request*; raises HubError(incorrect) naming the parameter that is wrong."""
    keys: list[tuple[str, str]] = []
    include: list[str] = []
    everything = fuzzy = False
    limit: int | None = None
    offset = 0
    items = request.query_params.multi_items()
    if len(items) > _MAX_PARAMETERS:
        raise HubError(Category.INCORRECT, f"The query has more than {_MAX_PARAMETERS} parameters.")
    for name, value in items:
        lower = name.lower()
        if lower == "limit":
            limit = _natural(name, value)
        elif lower == "offset":
            offset = min(_natural(name, value), _MAX_OFFSET)
        elif lower == "fuzzymatching":
            fuzzy = _truth(name, value)
        elif lower == "includefield":
            for part in value.split(","):
                if part.strip().lower() == "all":
                    everything = True
                elif part.strip():
                    include.append(attributes.tag_of(part))
        elif lower != "accept":
            keys.append((attributes.keyword_of(name), value))
    inside = [tag for tag in include if attributes.belongs(level, tag)]
    return Question(
        keys=tuple(_joined(keys)),
        include=tuple(inside),
        everything=everything,
        ignored=tuple(tag for tag in include if tag not in inside),
        fuzzy=fuzzy,
        limit=limit,
        offset=offset,
    )


def _joined(keys: list[tuple[str, str]]) -> list[tuple[str, str]]:
    # A key given twice is a list of values (PS3.18 section 8.3.4.1).
    joined: dict[str, str] = {}
    for name, value in keys:
        joined[name] = f"{joined[name]}\\{value}" if name in joined else value
    return list(joined.items())


def _natural(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise HubError(Category.INCORRECT, f"{name} is not a whole number.", where=name, remedy="Send 0 or more.")
    return int(value)


def _truth(name: str, value: str) -> bool:
    if value.lower() not in {"true", "false"}:
        raise HubError(Category.INCORRECT, f"{name} is neither true nor false.", where=name)
    return value.lower() == "true"


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
        require_json(request)
        actor = actor_of(request, self._services)
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
        return self._found(request, actor, level, asked, keys, owner, relational=study is None)

    def _found(
        self,
        request: Request,
        actor: Actor,
        level: Level,
        asked: Question,
        keys: list[tuple[str, str]],
        owner: str | None,
        *,
        relational: bool,
    ) -> Response:
        more = asked.everything or bool(asked.include)
        needed = more or level == "series" or (level == "instance" and relational)
        found = self._services.imaging.find(
            actor,
            level,
            keys,
            limit=asked.limit,
            offset=asked.offset,
            fuzzy=asked.fuzzy,
            owner=owner,
            attributes=needed,
        )
        base = f"{self._services.settings.public()}/dicom-web/studies"
        answer = [self._row(level, row, base, asked, relational=relational) for row in found.rows]
        headers: dict[str, str] = {}
        warnings = []
        if found.total is not None:
            left = max(found.total - asked.offset - len(found.rows), 0)
            warnings.append(f'299 yixie-hub "There are {left} additional results that can be requested"')
            headers["X-Total-Count"] = str(found.total)
        if asked.ignored:
            warnings.append(f'299 yixie-hub "Not returned on this level: {" ".join(asked.ignored)}"')
        if warnings:
            headers["Warning"] = ", ".join(warnings)
        return json_response(answer, request, media_type=JSON_TYPE, headers=headers)

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
        made = {**attributes.beyond(level, header, asked.include, everything=asked.everything), **made}
        return dict(sorted(made.items()))
