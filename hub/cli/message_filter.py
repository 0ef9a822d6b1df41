"""The options by which ``hub messages`` commands choose messages, the same for each of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

#: Option, the criterion of :mod:`hub.message_search` that it gives, and what it is.
_OPTIONS = (
    ("institution", "institution", "成员代码 / member code"),
    ("door", "door", "mllp, hl7-http, hl7-folder, hl7-view, dimse, stow, fhir"),
    ("state", "state", "received, done, refused, failed"),
    ("type", "message_type", "例如 / for example ADT^A01"),
    ("application", "sending_application", "MSH-3"),
    ("facility", "sending_facility", "MSH-4"),
    ("control_id", "control_id", "MSH-10"),
    ("number", "number", "患者号 / patient number (PID-3), of one --institution or of any"),
    ("patient", "patient_id", "患者记录编号 / id of the Patient"),
    ("visit", "visit", "就诊号 / visit number (PV1-19)"),
    ("placer", "placer", "申请单号 / placer order number (ORC-2)"),
    ("filler", "filler", "执行单号 / filler order number (ORC-3)"),
    ("accession", "accession", "检查号 / accession number"),
    ("correlation", "correlation_id", "关联号 / correlation id"),
    ("digest", "digest", "SHA-256"),
    ("text", "text", "消息中的文字，区分大小写 / words of the message, as they are written there"),
    ("outcome", "outcome", "处理结果的一部分 / part of the outcome"),
    ("flag", "flag", "标记 / a flag, for example control-id-reuse"),
    ("since", "since", "2025-06-11T08:00:00+08:00"),
    ("until", "until", "不含此刻 / before then"),
    ("finished_since", "finished_since", "处理完成不早于 / processed from then on"),
    ("finished_until", "finished_until", "处理完成早于 / processed before then"),
)


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Return *command* with an option for each criterion; those that were given reach it as its argument ``wanted``."""
    own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "wanted"]
    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default="", annotation=Annotated[str, typer.Option(help=text)]
        )
        for name, _, text in _OPTIONS
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        values = {criterion: given.pop(name) for name, criterion, _ in _OPTIONS}
        command(**given, wanted={name: value for name, value in values.items() if value})

    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own] + options
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
