"""What requests to ``/ops`` bring: who asks, typed parameters, small bodies; and what does not fit, in the hub's words.

FastAPI reads a declared body before it knows who sends it, and without a limit. So bodies come by a dependency instead:
only somebody known may make the hub wait for one, and for a small one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from fastapi import Depends, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from adapters._http import Workers, actor_of, echo_headers, guarded, read_body
from adapters.ops.export_models import Ask
from adapters.ops.message_models import Replay
from adapters.ops.models import Answer, Body
from adapters.ops.queue_models import Skip
from adapters.ops.study_models import Why
from adapters.ops.work_models import Decide, Judge, Settle
from fhir_mappings.errors import MappingError
from fhir_mappings.json import loads
from hub.actor import Actor
from hub.askers import MAX_LIST
from hub.errors import Category, HubError, Issue
from hub.message_desk import MessageDesk
from hub.operations import Operations

if TYPE_CHECKING:
    from hub.boot import Services

#: The bodies of this door are a reason, a reference, or the UIDs of a thousand studies.
MAX_BODY_BYTES = 64 * 1024
#: Rows are numbered in 64 bits with a sign.
_MAX_ROW = (1 << 63) - 1
#: A name that nobody declared is repeated to the asker, but not at any length.
_MAX_NAME = 64
_LIMIT = f"最多返回条数 / At most this many, and never more than {MAX_LIST}"
_OWN = "admin 只能看到本机构 / an admin sees its own only"

B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True)
class Desk:
    """What the operations work with: the services of this process, and threads."""

    services: Services
    operations: Operations
    messages: MessageDesk
    workers: Workers

    async def answer(self, request: Request, model: type[Answer], work: Callable[[], Any]) -> Response:
        """Return what *work* finds, checked and written as *model*; all of it happens in a thread."""

        def found() -> str:
            # Only what was found is written: a field that was left out stays out.
            return model.model_validate(work()).model_dump_json(exclude_unset=True)

        body = await self.workers.run(found)
        headers = {**echo_headers(request), "Cache-Control": "no-store"}
        return Response(body, media_type="application/json", headers=headers)


def desk_of(request: Request) -> Desk:
    """Return the desk of the application that serves *request*."""
    desk: Desk = request.app.state.desk
    return desk


async def asker(request: Request) -> Actor:
    """Return who asks.

    Raises:
        HubError: forbidden with status 401.
    """
    desk = desk_of(request)
    return await desk.workers.run(lambda: actor_of(request, desk.services))


Asker = Annotated[Actor, Depends(asker)]


def body_of(model: type[B]) -> Callable[[Request, Actor], Awaitable[B]]:
    """Return the dependency that reads a body of *model*, whatever media type it is said to have."""

    async def read(request: Request, _: Asker) -> B:
        raw = await read_body(request, desk_of(request).services, max_bytes=MAX_BODY_BYTES)
        try:
            body = loads(raw) if raw.strip() else {}
        except (ValueError, MappingError) as error:
            raise _not_json() from error
        if not isinstance(body, dict):
            raise _not_json()
        try:
            return model.model_validate(body)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise HubError(Category.INCORRECT, model.complaint, where=where, remedy=model.remedy) from error

    return read


SkipBody = Annotated[Skip, Depends(body_of(Skip))]
SettleBody = Annotated[Settle, Depends(body_of(Settle))]
DecideBody = Annotated[Decide, Depends(body_of(Decide))]
JudgeBody = Annotated[Judge, Depends(body_of(Judge))]
WhyBody = Annotated[Why, Depends(body_of(Why))]
AskBody = Annotated[Ask, Depends(body_of(Ask))]
ReplayBody = Annotated[Replay, Depends(body_of(Replay))]


def _digits(value: object) -> object:
    # Python would also take blanks, signs, underscores and "5.0".
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) < 19):
        raise PydanticCustomError("digits", "This is no number. Write digits.")
    return value


def _row(value: object) -> object:
    if isinstance(value, str):
        digits = value.lstrip("0") or "0"
        # The length comes first: Python refuses to convert very long ones.
        if not (value.isascii() and digits.isdigit() and len(digits) < 20 and int(digits) <= _MAX_ROW):
            raise PydanticCustomError("row", "There is no such row.")
        return int(digits)
    return value


Row = Annotated[int, Field(ge=0), BeforeValidator(_row), Path(description="编号 / Number")]
_Number = Annotated[int, Field(ge=0), BeforeValidator(_digits)]
#: A parameter is text or is not there; nobody can send null.
_Text = Annotated[str | None, WithJsonSchema({"type": "string"})]
_Moment = Annotated[str | None, WithJsonSchema({"type": "string", "format": "date-time"})]
_MaybeNumber = Annotated[int | None, BeforeValidator(_digits), WithJsonSchema({"type": "integer", "minimum": 0})]


def _equal(description: str) -> Any:
    return Field(default=None, description=description)


class _Query(BaseModel):
    """Parameters of a search: each one given must be equal; one that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def criteria(self) -> dict[str, str]:
        """Return what was asked for, without the size of the page."""
        return self.model_dump(exclude={"limit", "before"}, exclude_unset=True)


class DeliveryQuery(_Query):
    """Which deliveries."""

    destination: _Text = _equal("端点 / Endpoint, for example KN/mllp")
    lane: _Text = _equal("通道 / Lane")
    kind: _Text = _equal("mllp, dimse, fhir")
    state: _Text = _equal("pending, dead, sent, skipped")
    control_id: _Text = _equal("MSH-10")
    correlation_id: _Text = _equal("关联编号 / Correlation id")
    task_id: _Text = _equal("任务编号 / Id of the Task")
    patient_id: _Text = _equal("患者记录编号 / Id of the Patient")
    owner: _Text = _equal(f"所属机构 / Institution that the data belong to; {_OWN}")
    limit: _Number = Field(default=100, description=_LIMIT)


class MessageFilter(_Query):
    """Which messages."""

    door: _Text = _equal("mllp, hl7-http, fhir, dimse, stow")
    institution: _Text = _equal(f"发送机构 / Institution that sent it; {_OWN}")
    sending_application: _Text = _equal("MSH-3")
    sending_facility: _Text = _equal("MSH-4")
    control_id: _Text = _equal("MSH-10")
    message_type: _Text = _equal("类型 / Type, for example ADT^A01")
    state: _Text = _equal("received, done, refused, failed")
    outcome: _Text = _equal("处理结果的一部分 / Part of the outcome")
    flag: _Text = _equal("标记 / One of the flags, for example control-id-reuse")
    number: _Text = _equal("患者号（PID-3），不对运营方开放 / Patient number; not for the operator")
    text: _Text = _equal("消息中的文字，不对运营方开放 / Words of the message; not for the operator")
    patient_id: _Text = _equal("患者记录编号 / Id of the Patient")
    placer: _Text = _equal("申请单号 / Placer order number")
    filler: _Text = _equal("执行单号 / Filler order number")
    accession: _Text = _equal("检查号 / Accession number")
    visit: _Text = _equal("就诊号 / Visit number")
    correlation_id: _Text = _equal("关联编号 / Correlation id")
    digest: _Text = _equal("SHA-256")
    since: _Moment = _equal("此时起（含）/ From then on, for example 2025-06-11T08:30:00+08:00")
    until: _Moment = _equal("此时止（不含）/ Before then")
    finished_since: _Moment = _equal("处理完成不早于 / Processed from then on")
    finished_until: _Moment = _equal("处理完成早于 / Processed before then")


class MessageQuery(MessageFilter):
    """Which messages, page by page."""

    limit: _Number = Field(default=100, description=_LIMIT)
    before: _MaybeNumber = Field(
        default=None, description="此编号之前，用于翻页 / Before this number, to page backwards"
    )


class MessageFileQuery(MessageFilter):
    """Which messages are written out, and how."""

    format: Annotated[
        Literal["er7", "jsonl"], Field(description="er7（FHS、BHS）, jsonl"), WithJsonSchema({"type": "string"})
    ] = "er7"

    def criteria(self) -> dict[str, str]:
        """Return what was asked for, without how."""
        return self.model_dump(exclude={"format"}, exclude_unset=True)


class CodeQuery(_Query):
    """Whose codes."""

    institution: _Text = _equal(f"机构 / Institution whose codes they are; {_OWN}")


class UnmappedQuery(CodeQuery):
    """Whose codes, and how many."""

    limit: _Number = Field(default=100, description=_LIMIT)


class FeedQuery(_Query):
    """How many of the newest messages are counted."""

    last: _Number = Field(
        default=1000, description="最近多少条消息，最多 1000 / So many of the newest messages, at most 1000"
    )


class DiffQuery(_Query):
    """Which two versions."""

    before: _MaybeNumber = Field(default=None, description="较早的版本；缺省为上一个 / The earlier; the last but one")
    after: _MaybeNumber = Field(default=None, description="较晚的版本；缺省为当前 / The later; the current one")


class OpsRoute(APIRoute):
    """A route whose errors, FastAPI's own among them, are OperationOutcomes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of one request."""
        handle = super().get_route_handler()
        queries = [one.field_info.annotation for one in self.dependant.query_params]
        known = sorted(name for query in queries for name in getattr(query, "model_fields", ()))

        async def checked(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise _refusal(error, known) from error

        outermost = guarded(checked)

        async def answer(request: Request) -> Response:
            return await outermost(request)

        return answer


def _refusal(error: RequestValidationError, known: Sequence[str]) -> HubError:
    """Return *error* in the hub's words: a path that fits no row is absent, all else names its parameter."""
    issues = []
    for one in error.errors():
        place, *names = one["loc"]
        if place == "path":
            return HubError(Category.NOT_FOUND, "There is no such row.", where="URL")
        message = str(one["msg"])
        if one["type"] == "extra_forbidden":
            message = f"There is no such parameter. Use {', '.join(known)}."
        where = ".".join(map(str, names))[:_MAX_NAME]
        issues.append(Issue(severity="error", code="invalid", message=message, where=where))
    return HubError(Category.INCORRECT, issues[0].message, where=issues[0].where, issues=issues)


def _not_json() -> HubError:
    return HubError(Category.INCORRECT, "The body is not a JSON object.", where="body", remedy="Send a JSON object.")
