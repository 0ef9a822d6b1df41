"""What the operations under ``/ops`` share: the router, who may call what, and how errors are described.

OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0). ``x-who`` of an operation says who may call it and what that asker
sees. The work is done in the threads of the desk, never on the event loop.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Security
from fastapi.security import HTTPBearer

from adapters.ops.models import Body
from adapters.ops.parameters import OpsRoute

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

QUEUES = "operator：全部；admin：发往本机构的 / operator: all; admin: those that lead to its institution"
DELIVERIES = "operator：全部；admin：本机构数据的 / operator: all; admin: those of its institution's data"
DELIVERY = (
    "operator：全部；admin：本机构数据的，或发往本机构的"
    " / operator: all; admin: those of its institution's data, or that lead to it"
)
OWN = "operator：全部；admin：本机构的 / operator: all; admin: its institution's"
CONTENT = (
    "operator：全部，不含内容；admin：本机构的，含内容（留审计）"
    " / operator: all, without content; admin: its institution's, with content (audited)"
)
CONTENT_ONLY = "admin：本机构的（留审计） / admin: its institution's (audited)"
NUMBERS = (
    "operator：全部，仅编号；admin：本机构的，含患者号（留审计）"
    " / operator: all, ids alone; admin: its institution's, with patient numbers (audited)"
)
LINKS = "operator：全部，仅编号 / operator: all, ids alone"
EXPORT = "admin、researcher：本机构的影像 / admin, researcher: images of its own institution"
PARTS = "operator：全部；admin：本机构参与的部分 / operator: all; admin: the parts that its institution takes part in"


def errors(*statuses: int | str) -> dict[int | str, dict[str, Any]]:
    """Return the description of the answers with these *statuses*: an OperationOutcome each."""
    schema = {"$ref": SCHEMAS.format(model="OperationOutcome")}
    return {
        one: {
            "description": _ERRORS[one],
            "headers": _ECHO,
            "content": {"application/fhir+json": {"schema": schema}},
        }
        for one in statuses
    }


def who(text: str, body: type[Body] | None = None) -> dict[str, Any]:
    """Return what an operation says beside its parameters: who may call it, and the *body* that it takes."""
    extra: dict[str, Any] = {"x-who": text}
    if body is not None:
        schema = {"$ref": SCHEMAS.format(model=body.__name__)}
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return extra


router = APIRouter(
    prefix="/ops",
    route_class=OpsRoute,
    dependencies=[Security(_BEARER)],
    responses={200: {"description": "完成 / Done", "headers": _ECHO}, **errors(401, 403, "default")},
)
