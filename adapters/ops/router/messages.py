"""Under ``/ops``: what was received, and the way of one arrival; :mod:`hub.message_desk` says who may."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query, Request, Response

from adapters.ops.message_models import Comparison, Message, MessageFile, MessageReplayed, Messages, Replay, Replayed
from adapters.ops.parameters import Asker, MessageFileQuery, MessageQuery, ReplayBody, Row, desk_of
from adapters.ops.router.base import CONTENT, CONTENT_ONLY, OWN, PARTS, errors, router, who
from adapters.ops.trace_models import Trace
from hub import message_bulk, message_export
from hub.askers import is_operator
from hub.clock import instant
from hub.message_bulk import BulkReplay
from hub.message_compare import compare
from hub.message_export import Export


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


# Before the address of one message, which would take any word for a number.
@router.get(
    "/messages/export",
    summary="导出消息 / Write messages out",
    response_model=MessageFile,
    responses=errors(400),
    openapi_extra=who(CONTENT_ONLY),
)
async def export_messages(request: Request, actor: Asker, query: Annotated[MessageFileQuery, Query()]) -> Response:
    """All v2 messages that fit, oldest first, at most 500 and 16 MiB; each one is audited."""
    desk = desk_of(request)

    def work() -> Any:
        export = Export(
            desk.services,
            actor,
            query.criteria(),
            query.format,
            most=message_export.MOST_HTTP,
            most_bytes=message_export.MOST_HTTP_BYTES,
            content=not is_operator(actor),
        )
        content = b"".join(export.parts()).decode("utf-8")
        return {"format": query.format, "count": export.count, "skipped": export.skipped, "content": content}

    return await desk.answer(request, MessageFile, work)


@router.post(
    "/messages/replay",
    summary="批量重新处理 / Process many messages again",
    response_model=Replayed,
    responses=errors(400, 409),
    openapi_extra=who(OWN, Replay),
)
async def replay_messages(request: Request, actor: Asker, body: ReplayBody) -> Response:
    """Without `confirm` they are counted; with the word of that count at most 500 are processed, oldest first."""
    desk = desk_of(request)

    def work() -> Any:
        bulk = BulkReplay(
            desk.services, actor, body.filter, most=message_bulk.MOST_HTTP, content=not is_operator(actor)
        )
        done = list(bulk.run(body.confirm)) if body.confirm else []
        chosen = bulk.choice
        times = {"since": chosen.since, "until": chosen.until}
        return {
            "count": len(chosen.numbers),
            **{name: instant(moment) for name, moment in times.items() if moment is not None},
            "confirm": chosen.word,
            "processed": len(done),
            "refused": [{"seq": one.seq, "why": one.error.message} for one in done if one.error is not None],
        }

    return await desk.answer(request, Replayed, work)


@router.get(
    "/messages/{number}/compare",
    summary="消息与其结果对照 / A message beside what came of it",
    response_model=Comparison,
    responses=errors(404),
    openapi_extra=who(CONTENT_ONLY),
)
async def compare_message(request: Request, actor: Asker, number: Row) -> Response:
    """Its segments, and each resource in the version that it made; the look is audited."""
    desk = desk_of(request)
    return await desk.answer(
        request, Comparison, lambda: compare(desk.services, actor, number, content=not is_operator(actor)).shown()
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
