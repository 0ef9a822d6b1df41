"""Under ``/ops``: what was received, and the way of one arrival; :mod:`hub.message_desk` says who may."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Request, Response

from adapters.ops.models import Message, MessageReplayed, Messages, Trace
from adapters.ops.parameters import Asker, MessageQuery, Row, desk_of
from adapters.ops.router.base import CONTENT, OWN, PARTS, errors, router, who
from hub.askers import is_operator


@router.get(
    "/messages",
    summary="查找收到的消息 / Find messages received",
    response_model=Messages,
    responses=errors(400),
    openapi_extra=who(OWN),
)
async def messages(request: Request, actor: Asker, query: Annotated[MessageQuery, Query()]) -> Response:
    """Journal entries that fit the parameters, newest first, without their content; go on with `before` = `next`.

    Words, flags, outcomes and end times are looked for in a bounded number of messages at a time, so a page may hold few
    or none and still not be the last one.
    """
    desk = desk_of(request)
    return await desk.answer(
        request,
        Messages,
        lambda: desk.messages.find(
            actor, query.criteria(), limit=query.limit, before_seq=query.before, content=not is_operator(actor)
        ),
    )


@router.get(
    "/messages/{number}",
    summary="一条消息 / One message",
    response_model=Message,
    responses=errors(404),
    openapi_extra=who(CONTENT),
)
async def message(request: Request, actor: Asker, number: Row) -> Response:
    """Its content is for the institution that sent it, not for the operator; a look at it is audited."""
    desk = desk_of(request)
    return await desk.answer(
        request, Message, lambda: desk.messages.message(actor, number, content=not is_operator(actor))
    )


@router.post(
    "/messages/{number}/replay",
    summary="重新处理一条消息 / Process a message again",
    response_model=MessageReplayed,
    responses=errors(404, 409),
    openapi_extra=who(OWN),
)
async def replay_message(request: Request, actor: Asker, number: Row) -> Response:
    """What stands already does not change; durable when answered."""
    desk = desk_of(request)
    return await desk.answer(
        request,
        MessageReplayed,
        lambda: {"seq": number, "outcome": desk.messages.replay(actor, number)},
    )


@router.get(
    "/trace/{id}",
    summary="一次到达的全过程 / The whole way of one arrival",
    response_model=Trace,
    responses=errors(404),
    openapi_extra=who(PARTS),
)
async def trace(
    request: Request, actor: Asker, id: Annotated[str, Path(description="关联编号 / Correlation id")]
) -> Response:
    """Journal, audited acts, records, Tasks of its group, deliveries and their acknowledgements."""
    desk = desk_of(request)
    return await desk.answer(request, Trace, lambda: desk.operations.trace(actor, id))
