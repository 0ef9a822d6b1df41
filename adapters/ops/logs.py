"""Structured logs: one JSON object a line on stderr, event name first, without patient data.

Two guards stand behind the rule that nobody logs patient data: keys that could hold it are withheld, and exceptions and
the messages of foreign libraries appear by kind and place only, because their texts may quote what they choked on.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any

import structlog

from hub import metrics
from hub.printable import printable

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_WITHHELD = frozenset({"patient", "patient_id", "patient_name", "name", "body", "payload", "raw", "text", "value"})
#: Libraries whose messages may quote data sets or requests.
_QUIET = ("pydicom", "pynetdicom", "httpx", "httpcore", "urllib3", "alembic", "sqlalchemy", "paramiko")

Event = MutableMapping[str, Any]


def configure(level: str, *, process: str = "") -> None:
    """Send all logs of this process to stderr."""
    threshold = _LEVELS.get(level.lower(), 20)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _counted,
            _guarded,
            _named(process),
            _json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=_Stderr,
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(True)
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(_Foreign())
    root.setLevel(max(threshold, logging.WARNING))
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)


class _Stderr:
    """Writes whole lines to whatever stderr is at the moment."""

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the log

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


def _counted(_logger: object, _method: str, event: Event) -> Event:
    level = str(event.get("level", "info"))
    if level != "debug":
        # Another library's messages are counted by library: their number would have no bound.
        name = f"foreign:{event['source']}" if "source" in event else str(event.get("event", ""))
        metrics.count("log_events", event=name[:60], level=level)
    return event


def _guarded(_logger: object, _method: str, event: Event) -> Event:
    for key in event.keys() & _WITHHELD:
        event[key] = "[withheld]"
    failure = event.pop("exc_info", None)
    if failure:
        event.update(_kind_and_place(failure))
    event.pop("stack_info", None)
    return event


def _kind_and_place(failure: Any) -> Mapping[str, str]:
    if failure is True:
        failure = sys.exc_info()
    error: BaseException | None = failure if isinstance(failure, BaseException) else failure[1]
    if error is None:
        return {}
    return {"error": type(error).__name__, "place": place(error.__traceback__)}


def place(trace: TracebackType | None) -> str:
    """Return file, line and function where *trace* ends."""
    frames = traceback.extract_tb(trace)
    if not frames:
        return ""
    last = frames[-1]
    return f"{last.filename.rpartition('/')[2]}:{last.lineno} {last.name}"


def _named(process: str) -> structlog.typing.Processor:
    def add(_logger: object, _method: str, event: Event) -> Event:
        if process:
            event["process"] = process
        return event

    return add


def _json(_logger: object, _method: str, event: Event) -> str:
    ordered = {
        "timestamp": event.pop("timestamp", ""),
        "level": event.pop("level", ""),
        "event": event.pop("event", ""),
    }
    # JSON leaves C1 controls and marks of direction as they are; a log is read in a terminal too.
    return printable(str(structlog.processors.JSONRenderer(ensure_ascii=False)(None, "", {**ordered, **event})))


class _Foreign(logging.Handler):
    """Passes on what other libraries log: the message as written in their source, never what was filled in."""

    def emit(self, record: logging.LogRecord) -> None:
        event: dict[str, Any] = {"source": record.name}
        if record.exc_info:
            event.update(_kind_and_place(record.exc_info))
        log = structlog.get_logger("foreign")
        log.log(record.levelno, str(record.msg)[:200] if record.name != "py.warnings" else "warning", **event)
