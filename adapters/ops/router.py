"""The operations under ``/ops``: queues, messages, traces and unmatched studies; :mod:`hub.operations` says who may.

OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0). ``x-who`` of an operation says who may call it and what that asker
sees. The work is done in the threads of the desk, never on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request, Response, Security
from fastapi.security import HTTPBearer

from adapters.ops.models import (
    Ask,
    Body,
    Decide,
    Decided,
    DeletedInstances,
    Deliveries,
    DeliveryDone,
    Export,
    Exports,
    HeldStudies,
    Judge,
    Judged,
    Message,
    MessageReplayed,
    Messages,
    PatientLinks,
    Paused,
    Queues,
    Settle,
    Settled,
    Skip,
    StudyDone,
    Trace,
    Why,
    WorkItems,
)
from adapters.ops.parameters import (
    AskBody,
    Asker,
    DecideBody,
    DeliveryQuery,
    JudgeBody,
    MessageQuery,
    OpsRoute,
    Row,
    SettleBody,
    SkipBody,
    WhyBody,
    desk_of,
)
from hub import export
from hub.clock import instant
from hub.deletion import MAX_LIST, Deletion
from hub.operations import is_operator

SCHEMAS: Final = "#/components/schemas/{model}"
_ECHO = {"X-Correlation-Id": {"description": "可引用的编号 / Id to quote", "schema": {"type": "string"}}}
_ERRORS = {
    400: "参数或内容有误 / A parameter or the body breaks a rule",
    401: "需要有效令牌 / A valid bearer token is needed",
    403: "需要角色 operator 或 admin / The role operator or admin is needed",
    404: "未找到，或不在权限范围内 / Not found, or out of the asker's scope",
    409: "当前状态不允许 / The present state does not allow it",
    "default": "其他错误；503 可稍后重试 / Any other error; after 503 send again in a moment",
}
#: Documents the scheme; the token itself is judged by :data:`adapters.ops.parameters.Asker`.
_BEARER = HTTPBearer(auto_error=False, description="令牌 / Token of `hub token --institution YY --role operator`")

_QUEUES = "operator：全部；admin：发往本机构的 / operator: all; admin: those that lead to its institution"
_DELIVERIES = "operator：全部；admin：本机构数据的 / operator: all; admin: those of its institution's data"
_DELIVERY = (
    "operator：全部；admin：本机构数据的，或发往本机构的"
    " / operator: all; admin: those of its institution's data, or that lead to it"
)
_OWN = "operator：全部；admin：本机构的 / operator: all; admin: its institution's"
_CONTENT = (
    "operator：全部，不含内容；admin：本机构的，含内容（留审计）"
    " / operator: all, without content; admin: its institution's, with content (audited)"
)
_LINKS = "operator：全部，仅编号 / operator: all, ids alone"
_EXPORT = "admin、researcher：本机构的影像 / admin, researcher: images of its own institution"
_PARTS = "operator：全部；admin：本机构参与的部分 / operator: all; admin: the parts that its institution takes part in"


def _errors(*statuses: int | str) -> dict[int | str, dict[str, Any]]:
    schema = {"$ref": SCHEMAS.format(model="OperationOutcome")}
    return {
        one: {
            "description": _ERRORS[one],
            "headers": _ECHO,
            "content": {"application/fhir+json": {"schema": schema}},
        }
        for one in statuses
    }


def _who(text: str, body: type[Body] | None = None) -> dict[str, Any]:
    extra: dict[str, Any] = {"x-who": text}
    if body is not None:
        schema = {"$ref": SCHEMAS.format(model=body.__name__)}
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return extra


router = APIRouter(
    prefix="/ops",
    route_class=OpsRoute,
    dependencies=[Security(_BEARER)],
    responses={200: {"description": "完成 / Done", "headers": _ECHO}, **_errors(401, 403, "default")},
)


@router.get(
    "/queue",
    summary="队列、通道与告警 / Queues, lanes and open alerts",
    response_model=Queues,
    openapi_extra=_who(_QUEUES),
)
async def queues(request: Request, actor: Asker) -> Response:
    """Destinations that ever had a delivery, lanes with something open, and alerts."""
    desk = desk_of(request)
    return await desk.answer(request, Queues, lambda: desk.operations.queues(actor))


@router.get(
    "/queue/deliveries",
    summary="查找投递 / Find deliveries",
    response_model=Deliveries,
    responses=_errors(400),
    openapi_extra=_who(_DELIVERIES),
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
    responses=_errors(404, 409),
    openapi_extra=_who(_DELIVERY),
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
    responses=_errors(400, 404, 409),
    openapi_extra=_who(_DELIVERY, Skip),
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
    responses=_errors(404),
    openapi_extra=_who(_QUEUES),
)
async def pause(request: Request, actor: Asker, destination: Destination) -> Response:
    """Everything for it waits and nothing is lost; durable when answered."""
    return await _pause(request, actor, destination, paused=True)


@router.post(
    "/queue/{destination:path}/resume",
    summary="恢复一个目的地 / Let a destination go on",
    response_model=Paused,
    responses=_errors(404),
    openapi_extra=_who(_QUEUES),
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


@router.get(
    "/messages",
    summary="查找收到的消息 / Find messages received",
    response_model=Messages,
    responses=_errors(400),
    openapi_extra=_who(_OWN),
)
async def messages(request: Request, actor: Asker, query: Annotated[MessageQuery, Query()]) -> Response:
    """Journal entries whose values equal the parameters, newest first, without their content."""
    desk = desk_of(request)
    return await desk.answer(
        request,
        Messages,
        lambda: {
            "messages": desk.operations.messages(actor, query.criteria(), limit=query.limit, before_seq=query.before)
        },
    )


@router.get(
    "/messages/{number}",
    summary="一条消息 / One message",
    response_model=Message,
    responses=_errors(404),
    openapi_extra=_who(_CONTENT),
)
async def message(request: Request, actor: Asker, number: Row) -> Response:
    """Its content is for the institution that sent it, not for the operator; a look at it is audited."""
    desk = desk_of(request)
    return await desk.answer(
        request, Message, lambda: desk.operations.message(actor, number, content=not is_operator(actor))
    )


@router.post(
    "/messages/{number}/replay",
    summary="重新处理一条消息 / Process a message again",
    response_model=MessageReplayed,
    responses=_errors(404, 409),
    openapi_extra=_who(_OWN),
)
async def replay_message(request: Request, actor: Asker, number: Row) -> Response:
    """What stands already does not change; durable when answered."""
    desk = desk_of(request)
    return await desk.answer(
        request,
        MessageReplayed,
        lambda: {"seq": number, "outcome": desk.operations.replay_message(actor, number)},
    )


@router.get(
    "/trace/{id}",
    summary="一次到达的全过程 / The whole way of one arrival",
    response_model=Trace,
    responses=_errors(404),
    openapi_extra=_who(_PARTS),
)
async def trace(
    request: Request, actor: Asker, id: Annotated[str, Path(description="关联编号 / Correlation id")]
) -> Response:
    """Journal, audited acts, records, Tasks of its group, deliveries and their acknowledgements."""
    desk = desk_of(request)
    return await desk.answer(request, Trace, lambda: desk.operations.trace(actor, id))


@router.get(
    "/work-items",
    summary="待人工处理的事项 / What waits for a decision by hand",
    response_model=WorkItems,
    openapi_extra=_who(_OWN),
)
async def work_items(request: Request, actor: Asker) -> Response:
    """Open Tasks of the code system work-item, oldest first."""
    desk = desk_of(request)
    return await desk.answer(request, WorkItems, lambda: {"work_items": desk.operations.work_items(actor)})


@router.post(
    "/studies/{study}/settle",
    summary="为检查指定申请 / Match a study to an order, or to none",
    response_model=Settled,
    responses=_errors(400, 404, 409),
    openapi_extra=_who(_OWN, Settle),
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
    responses=_errors(400, 404, 409),
    openapi_extra=_who(_OWN, Decide),
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
    openapi_extra=_who(_LINKS),
)
async def patient_links(request: Request, actor: Asker) -> Response:
    """By ids alone; the institutions' desks know whose they are."""
    desk = desk_of(request)
    return await desk.answer(request, PatientLinks, lambda: {"patient_links": desk.services.identity.listed(actor)})


@router.post(
    "/patient-links/{task}/settle",
    summary="判断是否同一患者 / Decide whether two patients are one person",
    response_model=Judged,
    responses=_errors(400, 404, 409),
    openapi_extra=_who(_LINKS, Judge),
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


ExportId = Annotated[str, Path(description="任务编号 / Id of the job")]


@router.get(
    "/exports",
    summary="去标识化导出列表 / De-identified exports",
    response_model=Exports,
    openapi_extra=_who(_EXPORT),
)
async def exports(request: Request, actor: Asker) -> Response:
    """Jobs of the asker's institution, the newest first."""
    desk = desk_of(request)
    return await desk.answer(request, Exports, lambda: {"exports": export.Exports(desk.services).jobs(actor)})


@router.post(
    "/exports",
    summary="开始去标识化导出 / Ask for de-identified copies",
    response_model=Export,
    responses=_errors(400, 404),
    openapi_extra=_who(_EXPORT, Ask),
)
async def start_export(request: Request, actor: Asker, body: AskBody) -> Response:
    """The worker makes them (PS3.15 annex E); the same request again is the same job; durable when answered."""
    desk = desk_of(request)
    wanted = export.Request(**body.model_dump())
    return await desk.answer(request, Export, lambda: export.Exports(desk.services).start(actor, wanted))


@router.get(
    "/exports/{job}",
    summary="一个导出 / One export",
    response_model=Export,
    responses=_errors(404),
    openapi_extra=_who(_EXPORT),
)
async def show_export(request: Request, actor: Asker, job: ExportId) -> Response:
    """How far it is, and what was left out and why."""
    desk = desk_of(request)
    return await desk.answer(request, Export, lambda: export.Exports(desk.services).get(actor, job))


@router.post(
    "/exports/{job}/cancel",
    summary="取消导出 / End an export before its time",
    response_model=Export,
    responses=_errors(404, 409),
    openapi_extra=_who(_EXPORT),
)
async def cancel_export(request: Request, actor: Asker, job: ExportId) -> Response:
    """What was made is removed; durable when answered."""
    desk = desk_of(request)
    return await desk.answer(request, Export, lambda: export.Exports(desk.services).cancel(actor, job))


_HELD = "operator：全部；admin、system：本机构的 / operator: all; admin, system: its institution's"


@router.get(
    "/deletions",
    summary="标记删除的图像 / Images marked deleted",
    response_model=DeletedInstances,
    openapi_extra=_who(_HELD),
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
    openapi_extra=_who(_HELD),
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
    responses=_errors(400, 404),
    openapi_extra=_who(_HELD, Why),
)
async def hold(request: Request, actor: Asker, study: StudyId, body: WhyBody) -> Response:
    """What is marked deleted of it is held too; the reason is audited; durable when answered."""
    return await _with_study(request, actor, study, body.reason, "hold")


@router.post(
    "/studies/{study}/release",
    summary="解除封存 / End a legal hold",
    response_model=StudyDone,
    responses=_errors(400, 404),
    openapi_extra=_who(_HELD, Why),
)
async def release(request: Request, actor: Asker, study: StudyId, body: WhyBody) -> Response:
    """The reason is audited; durable when answered."""
    return await _with_study(request, actor, study, body.reason, "release")


@router.post(
    "/studies/{study}/restore",
    summary="恢复标记删除的图像 / Show again what is marked deleted of a study",
    response_model=StudyDone,
    responses=_errors(400, 404),
    openapi_extra=_who(_HELD, Why),
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
