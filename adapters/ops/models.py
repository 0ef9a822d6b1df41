"""What all that ``/ops`` takes and answers has in common: models check each answer and make ``/ops/openapi.json``.

OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0); errors are https://hl7.org/fhir/R4/operationoutcome.html. The order
of the fields is the order in the answer. Nothing may stand in an answer that is not described here.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


#: A field that is left out, not null, where it does not apply.
MayBeAbsent = Field(json_schema_extra=_without_default)
Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


class Answer(BaseModel):
    """What every answer has in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Body(BaseModel):
    """What a request may bring; what is not known is ignored."""

    model_config = ConfigDict(frozen=True, strict=True)
    #: Said when the body does not fit.
    complaint: ClassVar[str]
    remedy: ClassVar[str]


class OutcomeText(Answer):
    """给人看的文字 / Text for people."""

    text: str


class OutcomeIssue(Answer):
    """一个问题 / One issue."""

    severity: Literal["fatal", "error", "warning", "information"]
    code: str
    details: OutcomeText
    diagnostics: str
    expression: Annotated[list[str], MayBeAbsent, Field(description="参数或位置 / Parameter or place")] = []


class OperationOutcome(Answer):
    """错误 / An error (FHIR R4 OperationOutcome); ``id`` is the correlation id to quote."""

    resourceType: Literal["OperationOutcome"]
    id: str
    issue: list[OutcomeIssue]
