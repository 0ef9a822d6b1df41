"""``hub messages``: found by words, compared, processed again in two steps, and written to a file."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fhir_mappings.hl7v2 import batch
from hub.errors import Category, HubError
from hub.ports import NewEntry
from tests.hub.cli.conftest import SAMPLES, Hub
from tests.hub.cli.test_operation import audited, opened

ORDER = (SAMPLES / "ORM_O01" / "kn_ct_order.hl7").read_bytes()
#: PID-5 of that order.
NAME = ORDER.decode("gb18030").split("PID|")[1].split("|")[4].partition("^")[0]


@pytest.fixture
def received(consortium: Hub) -> Hub:
    """The command, where an order of KN was received."""
    with opened() as services:
        services.messages.receive(ORDER, "127.0.0.1:40000")
    return consortium


def test_a_message_is_found_by_a_name_in_it_and_compared(received: Hub) -> None:
    (row,) = map(json.loads, received("messages", "list", "--text", NAME, "--json").stdout.splitlines())
    assert received("messages", "list", "--text", "没有这个人").stdout == ""

    shown = received("messages", "compare", str(row["seq"])).stdout
    found = json.loads(received("messages", "compare", str(row["seq"]), "--json").stdout)

    assert "MSH|^~" in shown
    assert "ServiceRequest/" in shown
    assert {"Patient", "ServiceRequest"} <= {one["reference"].partition("/")[0] for one in found["resources"]}
    assert len(audited("message-compare")) == 2


def test_many_are_processed_again_with_the_word_of_the_count_only(received: Hub) -> None:
    counted = received("messages", "replay-all", "--door", "mllp")
    (word,) = re.findall(r"--confirm (\w+)", counted.stdout)
    assert audited("message-replay") == []

    wrong = received("messages", "replay-all", "--door", "mllp", "--confirm", "0")
    done = received("messages", "replay-all", "--door", "mllp", "--confirm", word)

    assert isinstance(wrong.exception, HubError)
    assert wrong.exception.category is Category.CONFLICT
    assert (done.exit_code, done.stdout.count(": ")) == (0, 1)
    assert len(audited("message-replay")) == len(audited("message-replay-all")) == 1
    assert received("messages", "replay-all", "--door", "hl7-http").stdout == ""


def test_messages_are_written_to_a_new_file_that_others_cannot_read(received: Hub, tmp_path: Path) -> None:
    file = tmp_path / "out.hl7"

    assert received("messages", "export", str(file), "--type", "ORM^O01").exit_code == 0
    again = received("messages", "export", str(file))
    lines = tmp_path / "out.jsonl"
    assert received("messages", "export", str(lines), "--format", "jsonl").exit_code == 0

    (only,) = batch.split(file.read_bytes()).batches
    assert NAME in only.messages[0].decode("utf-8")
    assert file.stat().st_mode & 0o077 == 0
    assert isinstance(again.exception, HubError)
    assert again.exception.category is Category.CONFLICT
    assert [one.name for one in tmp_path.iterdir() if one.name.endswith(".part")] == []
    assert json.loads(lines.read_bytes())["institution"] == "KN"


def test_what_has_run_out_is_counted_before_it_is_removed(received: Hub) -> None:
    said = received("messages", "expire", "KN")
    assert (said.exit_code, said.stdout) == (0, "")
    with opened() as services:
        kn = services.database.read(lambda tx: tx.members.get("KN"))
        assert kn is not None
        kept = replace(kn, settings={**kn.settings, "message-retention": "1"})
        services.database.write(lambda tx: tx.members.replace((kept,), (), ()))
        old = NewEntry(
            door="mllp", institution="KN", peer="", correlation_id="", message_type="ADT^A08", digest="0", size=3,
            received_at=datetime(2020, 1, 1, tzinfo=UTC), body=b"MSH",
        )  # fmt: skip
        services.database.write(lambda tx: [tx.journal.append(old), tx.journal.append(replace(old, institution="YL"))])

    (word,) = re.findall(r"--confirm (\w+)", received("messages", "expire", "KN").stdout)
    done = received("messages", "expire", "KN", "--confirm", word, "--reason", "期满")

    assert done.stdout.endswith("removed: 1\n")
    assert len(audited("expire-messages")) == 1
