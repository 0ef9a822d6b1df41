"""``/ops`` as a FastAPI application, and its description at ``/ops/openapi.json``.

OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0). Importing this costs time and memory, so
:func:`adapters.ops.routes.application` does it at the first request only.
"""

from __future__ import annotations

from typing import cast

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from adapters._http import error_response
from adapters.ops.code_models import MapCode, Reprocess, Rollback, TryOut
from adapters.ops.export_models import Ask
from adapters.ops.merge_models import DecideMerge
from adapters.ops.message_models import Replay
from adapters.ops.models import OperationOutcome
from adapters.ops.parameters import Desk, OpsRoute
from adapters.ops.queue_models import Skip
from adapters.ops.router import SCHEMAS, router
from adapters.ops.study_models import Why
from adapters.ops.work_models import Decide, Judge, Settle
from hub import __version__
from hub.errors import Category, HubError


def build(desk: Desk | None = None) -> FastAPI:
    """Return the application at *desk*; without one, to be described only."""
    app = FastAPI(
        title="Yixie Hub 医协枢纽",
        summary="运行维护 / Operation",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/ops/openapi.json",
        generate_unique_id_function=lambda route: route.name,
        # Nothing of a request leaves the process but what the hub's own logs and metrics say.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.desk = desk
    app.include_router(router)
    _answer_head(app)
    app.add_exception_handler(404, _unanswered)
    app.add_exception_handler(405, _unanswered)
    _describe(app)
    return app


def _answer_head(app: FastAPI) -> None:
    """Answer HEAD wherever GET is answered (RFC 9110 section 9.3.2)."""
    for route in router.routes:
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            app.router.add_api_route(
                route.path,
                route.endpoint,
                methods=["HEAD"],
                include_in_schema=False,
                response_model=None,
                route_class_override=OpsRoute,
            )


async def _unanswered(request: Request, error: Exception) -> Response:
    if getattr(error, "status_code", 404) == 405:
        refused = HubError(Category.UNSUPPORTED, "This address does not take this method.", where="method", status=405)
    else:
        refused = HubError(Category.NOT_FOUND, "There is nothing at this address.", where="URL")
    return error_response(refused, request)


def _describe(app: FastAPI) -> None:
    """Make the description, with the schemas that no signature names: the bodies' and the errors'."""
    _, found = models_json_schema(
        [
            (OperationOutcome, "serialization"),
            (Skip, "validation"),
            (Settle, "validation"),
            (Decide, "validation"),
            (Judge, "validation"),
            (DecideMerge, "validation"),
            (Ask, "validation"),
            (Why, "validation"),
            (Replay, "validation"),
            (MapCode, "validation"),
            (Reprocess, "validation"),
            (TryOut, "validation"),
            (Rollback, "validation"),
        ],
        ref_template=SCHEMAS,
    )
    # FastAPI keeps what it made and serves it from then on.
    schemas = cast("dict[str, object]", app.openapi()["components"]["schemas"])
    schemas.update(found["$defs"])
