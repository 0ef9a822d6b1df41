"""What a sender puts into its control ids stays what it is in the journal, is found by it, and steers nothing that shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from adapters.http.app import build
from adapters.ops import logs
from fhir_mappings.hl7v2 import batch
from hub.actor import HUB
from tests.hub.cli.conftest import Hub
from tests.hub.cli.test_operation import opened
from tests.support.http import client_of
from tests.support.v2 import adt

#: Clear the screen, set the title, ring; DEL, the one-byte CSI, a mark that turns the direction, a tab, quotes of CSV and JSON.
HOSTILE = 'A\x1b[2J\x1b]0;x\x07\x7f\x9b31m\u202eB\t"=1+1,'
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
RAW = adt("A01", HOSTILE).encode("utf-8")


@pytest.fixture
def received(consortium: Hub) -> Hub:
    """The command, where such a message was received."""
    with opened() as services:
        services.messages.receive(RAW, "127.0.0.1:40000")
    return consortium


def test_it_is_found_by_its_exact_value_and_listed_without_controls(received: Hub) -> None:
    (line,) = received("messages", "list", "--control-id", HOSTILE, "--json").stdout.splitlines()
    assert json.loads(line)["control_id"] == HOSTILE
    assert not _STEERS.search(line)
    (shown,) = received("messages", "list", "--control-id", HOSTILE).stdout.splitlines()
    assert not _STEERS.search(shown)
    assert "A\\u001b[2J" in shown
    assert received("messages", "list", "--control-id", "A").stdout == ""


@pytest.mark.parametrize("command", ["show", "compare"])
def test_its_content_steers_no_terminal(received: Hub, command: str) -> None:
    (line,) = received("messages", "list", "--json").stdout.splitlines()
    told = received("messages", command, str(json.loads(line)["seq"]))
    assert (told.exit_code, "PID|" in told.stdout) == (0, True)
    assert not _STEERS.search(told.stdout)


@pytest.mark.parametrize("form", ["er7", "jsonl"])
def test_an_export_holds_the_senders_value(received: Hub, tmp_path: Path, form: str) -> None:
    file = tmp_path / "out"
    assert received("messages", "export", str(file), "--format", form).exit_code == 0
    if form == "er7":
        (part,) = batch.split(file.read_bytes()).batches
        assert [one.rstrip(b"\r") for one in part.messages] == [RAW.rstrip(b"\r")]
        return
    (line,) = file.read_text("utf-8").splitlines()
    assert json.loads(line)["control_id"] == HOSTILE


def test_operations_tell_it_in_json_and_no_metric_names_it(received: Hub) -> None:
    with opened() as services:
        client = client_of(build(services), services, HUB)
        answer = client.get("/ops/messages", params={"control_id": HOSTILE})
        (one,) = answer.json()["messages"]
        assert one["control_id"] == HOSTILE
        assert min(answer.content.rstrip(b"\n")) >= 0x20
        told = client.get("/metrics").text
    assert "hub_" in told
    assert not _STEERS.search(told)
    assert "[2J" not in told


def test_a_log_line_says_it_in_json_and_steers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    line = logs._json(None, "info", {"event": "delivered", "control_id": HOSTILE})
    assert json.loads(line)["control_id"] == HOSTILE
    assert not _STEERS.search(line)
    assert "\n" not in line
