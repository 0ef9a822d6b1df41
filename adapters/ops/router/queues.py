"""Under ``/ops``: queues, lanes and deliveries; :mod:`hub.operations` says who may."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query, Request, Response

from adapters.ops.parameters import Asker, DeliveryQuery, Row, SkipBody, desk_of
from adapters.ops.queue_models import Deliveries, DeliveryDone, Paused, Queues, Skip
from adapters.ops.router.base import DELIVERIES, DELIVERY, QUEUES, errors, router, who


@router.get(
    "/queue",
    summary="队列、通道与告警 / Queues, lanes and open alerts",
    response_model=Queues,
    openapi_extra=who(QUEUES),
)
async def queues(request: Request, actor: Asker) -> Response:
    """Destinations that ever had a delivery, lanes with something open, and alerts."""
    desk = desk_of(request)
    return await desk.answer(request, Queues, lambda: desk.operations.queues(actor))


@router.get(
    "/queue/deliveries",
    summary="查找投递 / Find deliveries",
    response_model=Deliveries,
    responses=errors(400),
    openapi_extra=who(DELIVERIES),
)
async def deliveries(request: Request, actor: Asker, query: Annotated[DeliveryQuery, Query()]) -> Response:
    """Deliveries whose values equal the parameters, newest first, without their payload."""
    desk = desk_of(request)
    return await desk.answer(
        request,
        Deliveries,
        lambda: {"deliveries": desk.operations.deliveries(actor, query.criteria(), limit=query.limit)},
    )


@router.post(
    "/queue/deliveries/{number}/replay",
    summary="重发一条投递 / Send a delivery once more",
    response_model=DeliveryDone,
    responses=errors(404, 409),
    openapi_extra=who(DELIVERY),
)
async def replay_delivery(request: Request, actor: Asker, number: Row) -> Response:
    """A dead letter goes in its old place, a finished delivery at the end of its lane; durable when answered."""
    desk = desk_of(request)

    def work() -> Any:
        desk.operations.replay(actor, number)
        return {"id": number, "done": "replay"}

    return await desk.answer(request, DeliveryDone, work)


@router.post(
    "/queue/deliveries/{number}/skip",
    summary="放弃一条投递 / Give up a delivery",
    response_model=DeliveryDone,
    responses=errors(400, 404, 409),
    openapi_extra=who(DELIVERY, Skip),
)
async def skip_delivery(request: Request, actor: Asker, number: Row, body: SkipBody) -> Response:
    """Its lane goes on with the next; the reason is audited; durable when answered."""
    desk = desk_of(request)

    def work() -> Any:
        desk.operations.skip(actor, number, body.reason)
        return {"id": number, "done": "skip"}

    return await desk.answer(request, DeliveryDone, work)


#: An endpoint id, which holds a slash.
Destination = Annotated[str, Path(description="端点 / Endpoint id, for example KN/mllp", examples=["KN/mllp"])]


@router.post(
    "/queue/{destination:path}/pause",
    summary="暂停一个目的地 / Hold a destination",
    response_model=Paused,
    responses=errors(404),
    openapi_extra=who(QUEUES),
)
async def pause(request: Request, actor: Asker, destination: Destination) -> Response:
    """Everything for it waits and nothing is lost; durable when answered."""
    return await _pause(request, actor, destination, paused=True)


@router.post(
    "/queue/{destination:path}/resume",
    summary="恢复一个目的地 / Let a destination go on",
    response_model=Paused,
    responses=errors(404),
    openapi_extra=who(QUEUES),
)
async def resume(request: Request, actor: Asker, destination: Destination) -> Response:
    """What waits for it goes out at once; durable when answered."""
    return await _pause(request, actor, destination, paused=False)


async def _pause(request: Request, actor: Asker, destination: str, *, paused: bool) -> Response:
    desk = desk_of(request)

    def work() -> Any:
        desk.operations.pause(actor, destination, paused)
        return {"destination": destination, "paused": paused}

    return await desk.answer(request, Paused, work)
