"""Under ``/ops``: what is marked deleted and what is on hold; :mod:`hub.deletion` says who may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import Path, Request, Response

from adapters.ops.parameters import Asker, WhyBody, desk_of
from adapters.ops.router.base import errors, router, who
from adapters.ops.study_models import DeletedInstances, HeldStudies, StudyDone, Why
from hub.clock import instant
from hub.deletion import MAX_LIST, Deletion

_HELD = "operator：全部；admin、system：本机构的 / operator: all; admin, system: its institution's"


@router.get(
    "/deletions",
    summary="标记删除的图像 / Images marked deleted",
    response_model=DeletedInstances,
    openapi_extra=who(_HELD),
)
async def deletions(request: Request, actor: Asker) -> Response:
    """The newest thousand; nobody is shown these images, and their bytes stay."""
    desk = desk_of(request)

    def work() -> Any:
        found = Deletion(desk.services).marks(actor, limit=MAX_LIST)
        return {
            "deletions": [
                {
                    "institution": one.owner,
                    "study": one.StudyInstanceUID,
                    "series": one.SeriesInstanceUID,
                    "instance": one.SOPInstanceUID,
                    "marked": instant(one.marked_at),
                    "by": one.marked_by,
                    "reason": one.reason,
                    "removed": instant(one.purged_at) if one.purged_at else None,
                }
                for one in found
            ]
        }

    return await desk.answer(request, DeletedInstances, work)


@router.get(
    "/holds",
    summary="封存的检查 / Studies on legal hold",
    response_model=HeldStudies,
    openapi_extra=who(_HELD),
)
async def holds(request: Request, actor: Asker) -> Response:
    """Nothing of them can be marked deleted, and they do not expire."""
    desk = desk_of(request)

    def work() -> Any:
        return {
            "holds": [
                {
                    "institution": one.key.owner,
                    "study": one.key.StudyInstanceUID,
                    "since": instant(one.held_at),
                    "by": one.held_by,
                    "reason": one.reason,
                }
                for one in Deletion(desk.services).holds(actor)
            ]
        }

    return await desk.answer(request, HeldStudies, work)


StudyId = Annotated[str, Path(description="ImagingStudy 的编号 / Id of the ImagingStudy")]


@router.post(
    "/studies/{study}/hold",
    summary="封存一次检查 / Put a study on legal hold",
    response_model=StudyDone,
    responses=errors(400, 404),
    openapi_extra=who(_HELD, Why),
)
async def hold(request: Request, actor: Asker, study: StudyId, body: WhyBody) -> Response:
    """What is marked deleted of it is held too; the reason is audited; durable when answered."""
    return await _with_study(request, actor, study, body.reason, "hold")


@router.post(
    "/studies/{study}/release",
    summary="解除封存 / End a legal hold",
    response_model=StudyDone,
    responses=errors(400, 404),
    openapi_extra=who(_HELD, Why),
)
async def release(request: Request, actor: Asker, study: StudyId, body: WhyBody) -> Response:
    """The reason is audited; durable when answered."""
    return await _with_study(request, actor, study, body.reason, "release")


@router.post(
    "/studies/{study}/restore",
    summary="恢复标记删除的图像 / Show again what is marked deleted of a study",
    response_model=StudyDone,
    responses=errors(400, 404),
    openapi_extra=who(_HELD, Why),
)
async def restore(request: Request, actor: Asker, study: StudyId, body: WhyBody) -> Response:
    """Each instance in the version that was current; the reason is audited; durable when answered."""
    return await _with_study(request, actor, study, body.reason, "restore")


async def _with_study(
    request: Request, actor: Asker, study: str, reason: str, done: Literal["hold", "release", "restore"]
) -> Response:
    desk = desk_of(request)

    def work() -> Any:
        deletion = Deletion(desk.services)
        key = deletion.key_of(actor, study)
        act: Callable[..., object] = getattr(deletion, done)
        act(actor, key.StudyInstanceUID, reason=reason, owner=key.owner)
        return {"study": f"ImagingStudy/{study}", "done": done}

    return await desk.answer(request, StudyDone, work)
