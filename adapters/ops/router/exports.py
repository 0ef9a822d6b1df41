"""Under ``/ops``: copies of images without identity; :mod:`hub.export` says who may."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Request, Response

from adapters.ops.export_models import Ask, Export, Exports
from adapters.ops.parameters import AskBody, Asker, desk_of
from adapters.ops.router.base import EXPORT, errors, router, who
from hub import export

ExportId = Annotated[str, Path(description="任务编号 / Id of the job")]


@router.get(
    "/exports",
    summary="去标识化导出列表 / De-identified exports",
    response_model=Exports,
    openapi_extra=who(EXPORT),
)
async def exports(request: Request, actor: Asker) -> Response:
    """Jobs of the asker's institution, the newest first."""
    desk = desk_of(request)
    return await desk.answer(request, Exports, lambda: {"exports": export.Exports(desk.services).jobs(actor)})


@router.post(
    "/exports",
    summary="开始去标识化导出 / Ask for de-identified copies",
    response_model=Export,
    responses=errors(400, 404),
    openapi_extra=who(EXPORT, Ask),
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
    responses=errors(404),
    openapi_extra=who(EXPORT),
)
async def show_export(request: Request, actor: Asker, job: ExportId) -> Response:
    """How far it is, and what was left out and why."""
    desk = desk_of(request)
    return await desk.answer(request, Export, lambda: export.Exports(desk.services).get(actor, job))


@router.post(
    "/exports/{job}/cancel",
    summary="取消导出 / End an export before its time",
    response_model=Export,
    responses=errors(404, 409),
    openapi_extra=who(EXPORT),
)
async def cancel_export(request: Request, actor: Asker, job: ExportId) -> Response:
    """What was made is removed; durable when answered."""
    desk = desk_of(request)
    return await desk.answer(request, Export, lambda: export.Exports(desk.services).cancel(actor, job))
