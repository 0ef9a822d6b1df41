"""Logs are JSON on stderr and say nothing about patients."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from adapters.ops import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_line_is_json_on_stderr_with_its_process(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", process="mllp-0")
    structlog.get_logger("x").info("delivered", destination="KN/mllp")
    [line] = lines(capsys)
    assert (line["event"], line["level"], line["process"]) == ("delivered", "info", "mllp-0")
    assert line["destination"] == "KN/mllp"


def test_below_the_level_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning")
    structlog.get_logger("x").info("delivered")
    assert lines(capsys) == []


def test_what_could_be_a_patient_is_withheld(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    structlog.get_logger("x").warning("odd", patient_id="990001197602290170", name="郑伟", body=b"PID|1")
    assert "郑伟" not in json.dumps(lines(capsys), ensure_ascii=False)


def test_an_exception_is_told_by_kind_and_place_only(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    try:
        raise ValueError("郑伟 990001197602290170")
    except ValueError:
        structlog.get_logger("x").exception("worker_fault")
    [line] = lines(capsys)
    assert line["error"] == "ValueError"
    assert str(line["place"]).startswith("test_logs.py:")
    assert "郑伟" not in json.dumps(line, ensure_ascii=False)


def test_another_librarys_message_comes_without_what_was_filled_in(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    logging.getLogger("some.library").error("cannot read %s", "郑伟")
    [line] = lines(capsys)
    assert (line["event"], line["source"]) == ("cannot read %s", "some.library")


def test_a_librarys_warning_comes_without_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("invalid value 郑伟", stacklevel=1)
    assert "郑伟" not in json.dumps(lines(capsys), ensure_ascii=False)
