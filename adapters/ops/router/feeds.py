"""Under ``/ops``: what a member's feed is made of; :mod:`hub.feed_stats` says who may."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Request, Response

from adapters.ops.feed_models import FeedStatistics as Told
from adapters.ops.parameters import Asker, FeedQuery, desk_of
from adapters.ops.router.base import OWN, errors, router, who
from hub.feed_stats import FeedStatistics

#: Messages that one request reads; the command reads more.
_MOST = 1_000

Name = Annotated[str, Path(description="端点 / Endpoint id, for example KN/mllp", examples=["KN/mllp"])]


@router.get(
    "/feeds/{name:path}/statistics",
    summary="接口字段使用统计 / What a feed is made of",
    response_model=Told,
    responses=errors(400, 404),
    openapi_extra=who(OWN),
)
async def statistics(request: Request, actor: Asker, name: Name, query: Annotated[FeedQuery, Query()]) -> Response:
    """Which fields are valued, how often and how long; values are counted and not told. Audited."""
    desk = desk_of(request)
    return await desk.answer(
        request, Told, lambda: FeedStatistics(desk.services).run(actor, name, last=min(_MOST, max(1, query.last)))
    )
