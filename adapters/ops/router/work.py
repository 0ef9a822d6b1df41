"""Under ``/ops``: what waits for a decision by hand; :mod:`hub.operations` and :mod:`hub.identity` say who may."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Request, Response

from adapters.ops.parameters import Asker, DecideBody, JudgeBody, SettleBody, desk_of
from adapters.ops.router.base import LINKS, OWN, errors, router, who
from adapters.ops.work_models import Decide, Decided, Judge, Judged, PatientLinks, Settle, Settled, WorkItems


@router.get(
    "/work-items",
    summary="待人工处理的事项 / What waits for a decision by hand",
    response_model=WorkItems,
    openapi_extra=who(OWN),
)
async def work_items(request: Request, actor: Asker) -> Response:
    """Open Tasks of the code system work-item, oldest first."""
    desk = desk_of(request)
    return await desk.answer(request, WorkItems, lambda: {"work_items": desk.operations.work_items(actor)})


@router.post(
    "/studies/{study}/settle",
    summary="为检查指定申请 / Match a study to an order, or to none",
    response_model=Settled,
    responses=errors(400, 404, 409),
    openapi_extra=who(OWN, Settle),
)
async def settle(
    request: Request,
    actor: Asker,
    study: Annotated[str, Path(description="ImagingStudy 的编号 / Id of the ImagingStudy")],
    body: SettleBody,
) -> Response:
    """Ends the work item of the study; durable when answered."""
    desk = desk_of(request)
    order = body.service_request
    order_id = order.removeprefix("ServiceRequest/") if order is not None else None

    def work() -> Any:
        desk.operations.settle(actor, study, order_id)
        return {"study": f"ImagingStudy/{study}", "service_request": order}

    return await desk.answer(request, Settled, work)


@router.post(
    "/conflicts/{task}/settle",
    summary="处理互相矛盾的影像 / Decide about images that contradict what was here",
    response_model=Decided,
    responses=errors(400, 404, 409),
    openapi_extra=who(OWN, Decide),
)
async def settle_conflict(
    request: Request,
    actor: Asker,
    task: Annotated[str, Path(description="待办事项的编号 / Id of the work item")],
    body: DecideBody,
) -> Response:
    """Ends the work item of a patient-conflict, name-conflict or imaging-conflict; durable when answered."""
    desk = desk_of(request)

    def work() -> Any:
        desk.operations.settle_conflict(actor, task, body.decision)
        return {"conflict": f"Task/{task}", "decision": body.decision}

    return await desk.answer(request, Decided, work)


@router.get(
    "/patient-links",
    summary="患者关联：建议与结果 / Links between institutions' patients: what waits and what was settled",
    response_model=PatientLinks,
    openapi_extra=who(LINKS),
)
async def patient_links(request: Request, actor: Asker) -> Response:
    """By ids alone; the institutions' desks know whose they are."""
    desk = desk_of(request)
    return await desk.answer(request, PatientLinks, lambda: {"patient_links": desk.services.identity.listed(actor)})


@router.post(
    "/patient-links/{task}/settle",
    summary="判断是否同一患者 / Decide whether two patients are one person",
    response_model=Judged,
    responses=errors(400, 404, 409),
    openapi_extra=who(LINKS, Judge),
)
async def settle_patient_link(
    request: Request,
    actor: Asker,
    task: Annotated[str, Path(description="待办事项的编号 / Id of the work item")],
    body: JudgeBody,
) -> Response:
    """A link can be ended later and a refused pair is not suggested again; durable when answered."""
    desk = desk_of(request)

    def work() -> Any:
        desk.services.identity.settle(actor, task, body.decision)
        return {"patient_link": f"Task/{task}", "decision": body.decision}

    return await desk.answer(request, Judged, work)
