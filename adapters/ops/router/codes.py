"""Under ``/ops``: members' own codes and their maps, and settings tried out, looked at and taken back as versions.

:mod:`hub.code_desk`, :mod:`hub.dry_run` and :mod:`hub.settings_versions` say who may.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response

from adapters.ops.code_models import (
    CodeMapRows,
    MapCode,
    MappedCode,
    Reprocess,
    Reprocessed,
    Rollback,
    RolledBack,
    SettingsDiff,
    SettingsHistory,
    TriedOut,
    TryOut,
    UnmappedCodes,
)
from adapters.ops.parameters import Asker, CodeQuery, DiffQuery, UnmappedQuery, body_of, desk_of
from adapters.ops.router.base import OWN, errors, router, who
from hub.code_desk import CodeDesk
from hub.dry_run import DryRun, proposal
from hub.settings_versions import SettingsVersions

#: Messages that one request to process again looks at.
_STEP = 500
_OWNED = (
    "operator：端点和自己的对照；admin：本机构的对照"
    " / operator: endpoints and its own maps; admin: maps of its institution"
)


@router.get(
    "/codes/unmapped",
    summary="待对照的代码 / Codes that no map knows",
    response_model=UnmappedCodes,
    responses=errors(400, 404),
    openapi_extra=who(OWN),
)
async def unmapped(request: Request, actor: Asker, query: Annotated[UnmappedQuery, Query()]) -> Response:
    """Those met most often first; codes and numbers of messages, and nothing of any patient."""
    desk = desk_of(request)

    def work() -> Any:
        return {"codes": CodeDesk(desk.services).unmapped(actor, query.institution or "", limit=query.limit)}

    return await desk.answer(request, UnmappedCodes, work)


@router.get(
    "/codes",
    summary="代码对照 / What codes are mapped to",
    response_model=CodeMapRows,
    responses=errors(400, 404),
    openapi_extra=who(OWN),
)
async def code_maps(request: Request, actor: Asker, query: Annotated[CodeQuery, Query()]) -> Response:
    """Of every ConceptMap over members' own codes, code by code."""
    desk = desk_of(request)
    return await desk.answer(
        request, CodeMapRows, lambda: {"codes": CodeDesk(desk.services).maps(actor, query.institution or "")}
    )


@router.post(
    "/codes",
    summary="建立对照 / Map a code",
    response_model=MappedCode,
    responses=errors(400, 404),
    openapi_extra=who(OWN, MapCode),
)
async def map_code(request: Request, actor: Asker, body: Annotated[MapCode, Depends(body_of(MapCode))]) -> Response:
    """A new version of the asker's ConceptMap; durable and in force when answered."""
    desk = desk_of(request)

    def work() -> Any:
        return CodeDesk(desk.services).map(
            actor,
            body.institution,
            body.source,
            body.code,
            body.target,
            display=body.display,
            equivalence=body.equivalence,
        )

    return await desk.answer(request, MappedCode, work)


@router.post(
    "/codes/reprocess",
    summary="重新处理含新对照代码的消息 / Process messages again that hold codes mapped since",
    response_model=Reprocessed,
    responses=errors(400, 404),
    openapi_extra=who(OWN, Reprocess),
)
async def reprocess(
    request: Request, actor: Asker, body: Annotated[Reprocess, Depends(body_of(Reprocess))]
) -> Response:
    """One step of at most 500 messages, from the newest down; go on with `before` = `next`. What stands does not change."""
    desk = desk_of(request)
    return await desk.answer(
        request,
        Reprocessed,
        lambda: CodeDesk(desk.services).reprocess(actor, body.institution, limit=_STEP, before=body.before),
    )


@router.post(
    "/settings/dry-run",
    summary="试用新设置 / Try new settings on what a feed has sent",
    response_model=TriedOut,
    responses=errors(400, 404),
    openapi_extra=who(OWN, TryOut),
)
async def dry_run(request: Request, actor: Asker, body: Annotated[TryOut, Depends(body_of(TryOut))]) -> Response:
    """Names of elements, counts and numbers of messages; nothing is stored and no word of a message is told."""
    desk = desk_of(request)

    def work() -> Any:
        return DryRun(desk.services).run(actor, body.endpoint, proposal(body.resources), body.settings, last=body.last)

    return await desk.answer(request, TriedOut, work)


#: What has versions; a name of an endpoint holds a slash.
Name = Annotated[str, Path(description="KN/mllp, Endpoint/ID, Organization/ID, ConceptMap/ID", examples=["KN/mllp"])]


@router.get(
    "/settings/{name:path}/history",
    summary="设置的历史版本 / Versions of settings or of a code map",
    response_model=SettingsHistory,
    responses=errors(400, 404),
    openapi_extra=who(OWN),
)
async def history(request: Request, actor: Asker, name: Name) -> Response:
    """The newest hundred, each with what it changed and who made it."""
    desk = desk_of(request)
    return await desk.answer(
        request, SettingsHistory, lambda: {"versions": SettingsVersions(desk.services).history(actor, name)}
    )


@router.get(
    "/settings/{name:path}/diff",
    summary="比较两个版本 / What differs between two versions",
    response_model=SettingsDiff,
    responses=errors(400, 404),
    openapi_extra=who(OWN),
)
async def diff(request: Request, actor: Asker, name: Name, query: Annotated[DiffQuery, Query()]) -> Response:
    """By the names of settings and codes; of tokens only that they differ."""
    desk = desk_of(request)

    def work() -> Any:
        return {"changes": SettingsVersions(desk.services).diff(actor, name, query.before, query.after)}

    return await desk.answer(request, SettingsDiff, work)


@router.post(
    "/settings/{name:path}/rollback",
    summary="恢复旧版本 / Make an earlier version the newest",
    response_model=RolledBack,
    responses=errors(400, 404, 409),
    openapi_extra=who(_OWNED, Rollback),
)
async def rollback(
    request: Request, actor: Asker, name: Name, body: Annotated[Rollback, Depends(body_of(Rollback))]
) -> Response:
    """Checked against the directory as it is; durable when answered, in force everywhere within a second."""
    desk = desk_of(request)
    return await desk.answer(
        request, RolledBack, lambda: SettingsVersions(desk.services).rollback(actor, name, body.version)
    )
