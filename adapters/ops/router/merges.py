"""Under ``/ops``: merged patients of one sender, taken back or kept; :mod:`hub.unmerging` says who may."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request, Response

from adapters.ops.merge_models import DecidedMerge, DecideMerge, MergeItems, ShownMerge
from adapters.ops.parameters import Asker, body_of, desk_of
from adapters.ops.router.base import NUMBERS, errors, router, who
from hub.askers import is_operator
from hub.unmerging import MergeDesk

_Former = Annotated[str, Path(description="被并入他人的 Patient 的编号 / Id of the Patient that was merged away")]
_Body = Annotated[DecideMerge, Depends(body_of(DecideMerge))]


@router.get(
    "/merges",
    summary="待决定的患者合并 / Patient merges that wait for a decision",
    response_model=MergeItems,
    openapi_extra=who(NUMBERS),
)
async def merges(request: Request, actor: Asker) -> Response:
    """Numbers merged away that are in use again, and merges that contradict each other, oldest first."""
    desk = desk_of(request)
    return await desk.answer(
        request,
        MergeItems,
        lambda: {"merges": MergeDesk(desk.services).waiting(actor, numbers=not is_operator(actor))},
    )


@router.get(
    "/merges/{patient}",
    summary="一次患者合并 / One merge",
    response_model=ShownMerge,
    responses=errors(404, 409),
    openapi_extra=who(NUMBERS),
)
async def merge(request: Request, actor: Asker, patient: _Former) -> Response:
    """The message that made it and what came since, under whose number; a look at it is audited."""
    desk = desk_of(request)
    return await desk.answer(
        request, ShownMerge, lambda: MergeDesk(desk.services).shown(actor, patient, numbers=not is_operator(actor))
    )


@router.post(
    "/merges/{patient}/settle",
    summary="撤销或保留患者合并 / Take a merge back, or keep it",
    response_model=DecidedMerge,
    responses=errors(400, 404, 409),
    openapi_extra=who(NUMBERS, DecideMerge),
)
async def settle_merge(request: Request, actor: Asker, patient: _Former, body: _Body) -> Response:
    """Applies the messages that waited; durable when answered, and harmless the second time."""
    desk = desk_of(request)
    merge_desk = MergeDesk(desk.services)
    decide = merge_desk.undo if body.decision == "undo" else merge_desk.keep
    return await desk.answer(request, DecidedMerge, lambda: decide(actor, patient, body.reason))
