"""Errors in FHIR's words: an HTTP status and an OperationOutcome (https://hl7.org/fhir/R4/operationoutcome.html).

The texts people read come in Chinese first; ``diagnostics`` says in English what, where and what to do. Neither holds
patient data, SQL or a stack trace: a fault is traced by the correlation id, which every outcome carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from fhir_mappings.definitions.check import Issue as Finding
from fhir_mappings.errors import MappingError, UnsupportedError
from fhir_mappings.json import dumps
from hub.errors import Category, HubError, Issue

log = structlog.get_logger("hub.outcome")

#: Category -> (HTTP status, FHIR issue-type, what a person reads).
_TABLE: dict[Category, tuple[int, str, str]] = {
    Category.INCORRECT: (400, "invalid", "请求内容有误 / The request breaks a rule"),
    Category.UNSUPPORTED: (422, "not-supported", "不支持此操作 / This is not supported"),
    Category.FORBIDDEN: (403, "forbidden", "无权执行此操作 / You may not do this"),
    Category.NOT_FOUND: (404, "not-found", "未找到 / Not found"),
    Category.CONFLICT: (409, "conflict", "与当前状态冲突 / The present state does not allow it"),
    Category.BUSY: (503, "throttled", "系统繁忙，请稍后重试 / Busy, please try again"),
    Category.UNAVAILABLE: (503, "transient", "服务暂不可用，请稍后重试 / Unavailable, please try again"),
    Category.INTERRUPTED: (503, "transient", "处理被中断，请重试 / Interrupted, please try again"),
    Category.FAULT: (500, "exception", "系统内部错误 / The hub itself failed"),
}


def as_hub_error(error: BaseException) -> HubError:
    """Return *error* in the hub's own words; what nobody expected becomes a fault without its text."""
    if isinstance(error, HubError):
        return error
    if isinstance(error, MappingError):
        category = Category.UNSUPPORTED if isinstance(error, UnsupportedError) else Category.INCORRECT
        return HubError(category, error.message, where=error.where, remedy=error.remedy)
    # The text of a stranger's exception may quote data, so only its type and place are logged.
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
    log.error("unexpected", error=type(error).__name__, place=place)
    return HubError(Category.FAULT, "Unexpected trouble inside the hub.", remedy="Tell the operator the reference id.")


def status_of(error: HubError) -> int:
    """Return the HTTP status that *error* is answered with."""
    return error.status or _TABLE[error.category][0]


def outcome(error: HubError, reference: str = "") -> dict[str, Any]:
    """Return *error* as an OperationOutcome; *reference* is the correlation id a person can quote."""
    _, code, text = _TABLE[error.category]
    code = error.issue_code or code
    diagnostics = error.message + (f" {error.remedy}" if error.remedy else "")
    issues = [_issue("error", one.code, text, one.message, one.where) for one in error.issues] or [
        _issue("error", code, text, diagnostics, error.where)
    ]
    for issue, one in zip(issues, error.issues, strict=False):
        issue["severity"] = one.severity
    return _resource(issues, reference)


def outcome_bytes(error: HubError, reference: str = "") -> bytes:
    """Return :func:`outcome` as JSON."""
    return dumps(outcome(error, reference))


def information(message: str, reference: str = "") -> dict[str, Any]:
    """Return an OperationOutcome that tells of success."""
    return _resource([_issue("information", "informational", "完成 / Done", message, "")], reference)


def findings_error(findings: Sequence[Finding], *, prefix: str = "") -> HubError:
    """Return the 422 error of a resource that fails its structural check; *prefix* says where it stands in a Bundle."""
    issues = tuple(
        Issue(
            severity=one.severity,
            code=one.code,
            message=one.diagnostics,
            where=f"{prefix}{one.expression}" if prefix or one.expression else "",
        )
        for one in findings
    )
    return HubError(
        Category.INCORRECT, "The resource is not valid FHIR R4.", where=issues[0].where, issues=issues, status=422
    )


def outcome_of_findings(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the OperationOutcome of ``$validate``."""
    if not findings:
        return information("The resource is valid.")
    text = "校验结果 / Validation"
    issues = [_issue(one.severity, one.code, text, one.diagnostics, one.expression) for one in findings]
    return _resource(issues, "")


def _issue(severity: str, code: str, text: str, diagnostics: str, where: str) -> dict[str, Any]:
    issue: dict[str, Any] = {"severity": severity, "code": code, "details": {"text": text}, "diagnostics": diagnostics}
    if where:
        issue["expression"] = [where]
    return issue


def _resource(issues: list[dict[str, Any]], reference: str) -> dict[str, Any]:
    found: dict[str, Any] = {"resourceType": "OperationOutcome"}
    if reference:
        found["id"] = reference
    found["issue"] = issues
    return found
