"""The everyday commands of operation: check, queue, messages and audit."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.worker.housekeeping import audit_key
from hub.boot import Services, assemble
from hub.certificates import Certificate, Line
from hub.clock import utc_now
from hub.config import load
from hub.errors import Category, HubError
from hub.ports import NewDelivery
from tests.hub.cli.conftest import SAMPLES, Hub
from tests.support.certificates import Authority

ORDER = SAMPLES / "ORM_O01" / "kn_ct_order.hl7"


@contextmanager
def opened() -> Iterator[Services]:
    """Give the services over the commands' own stores."""
    services = assemble(load(), node="test")
    try:
        yield services
    finally:
        services.close()


def write(work: Callable[[Any], Any]) -> Any:
    with opened() as services:
        return services.database.write(work)


def enqueue(tx: Any) -> int:
    return int(
        tx.outbox.enqueue(
            NewDelivery(destination="KN/mllp", lane="KN/mllp|p", kind="mllp", payload=b"x", owner="KN", control_id="C9")
        )
    )


def audited(subtype: str) -> list[str]:
    with opened() as services:
        lines = services.database.read(
            lambda tx: tx.audit.search({"subtype": subtype}, institution=None, limit=10, before=None)
        )
    return [str(line["agent"]) for line in lines]


def test_check_tells_of_every_part_and_makes_what_is_missing(hub: Hub) -> None:
    result = hub("check")
    assert result.exit_code == 0
    for part in ("settings", "listen", "workflows", "database", "objects", "members"):
        assert part in result.stdout
    assert "failed" not in result.stdout


def test_check_parts_every_name_from_what_it_says(hub: Hub) -> None:
    said = {line.split()[0]: line.split()[1] for line in hub("check").stdout.splitlines()}
    assert said.pop("members") == "none"
    assert "recompression" in said
    assert set(said.values()) == {"ok"}


def test_check_tells_how_long_certificates_last(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key, _ = authority.issue("hub.example")
    for name, path in (("CERTIFICATE", certificate), ("KEY", key), ("CLIENT_CA", authority.ca)):
        monkeypatch.setenv(f"HUB_TLS_{name}", str(path))
    result = hub("check")
    assert result.exit_code == 0
    assert result.stdout.count("days left") == 2
    assert result.stdout.count("put a new one in its place") == 2
    certificate.write_bytes(b"")
    result = hub("check")
    assert (result.exit_code, "cannot be read" in result.stdout) == (1, True)


def test_the_list_of_members_tells_how_long_what_they_show_lasts(consortium: Hub) -> None:
    ends = utc_now() + timedelta(days=20, hours=1)
    with opened() as services:
        shown = Certificate("ab" * 32, frozenset(), ends)
        services.presented_certificates.note("KN/dicom", Line(True, shown))
    text = consortium("members", "list").stdout
    assert "certificate abababababababab  剩余/days left 20" in text
    rows = [json.loads(line) for line in consortium("members", "list", "--json").stdout.splitlines()]
    found = [one["certificates"] for row in rows for one in row["endpoints"] if one["certificates"]]
    assert [one["fingerprint"] for (one,) in found] == ["ab" * 32]


def test_check_ends_with_an_error_when_a_setting_cannot_work(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_MLLP_BIND", "nowhere")
    result = hub("check")
    assert result.exit_code == 1
    assert "nowhere" in result.stdout


def test_queue_acts_take_effect_and_name_who_acted(consortium: Hub) -> None:
    number = write(enqueue)
    assert "KN/mllp" in consortium("queue", "list").stdout
    (row,) = map(json.loads, consortium("queue", "list", "--state", "pending", "--json").stdout.splitlines())
    assert (row["id"], row["control_id"]) == (number, "C9")
    assert consortium("queue", "pause", "KN/mllp").exit_code == 0
    queues = json.loads(consortium("queue", "list", "--json").stdout)
    assert queues["destinations"][0]["paused"] is True
    assert consortium("queue", "resume", "KN/mllp").exit_code == 0
    assert consortium("queue", "skip", str(number), "--reason", "sent on paper").exit_code == 0
    assert "skipped" in consortium("queue", "list", "--state", "skipped").stdout
    assert consortium("queue", "replay", str(number)).exit_code == 0
    assert len(consortium("queue", "list", "--state", "pending", "--json").stdout.splitlines()) == 1
    for subtype in ("queue-pause", "queue-resume", "queue-skip", "queue-replay"):
        (agent,) = audited(subtype)
        assert "cli:" in agent


def test_what_is_not_there_is_said_so(consortium: Hub) -> None:
    commands = (("queue", "replay", "99"), ("queue", "pause", "ZZ/mllp"), ("messages", "show", "99"))
    for arguments in commands:
        result = consortium(*arguments)
        assert isinstance(result.exception, HubError)
        assert result.exception.category is Category.NOT_FOUND


def test_a_message_is_listed_shown_and_processed_again(consortium: Hub) -> None:
    with opened() as services:
        services.messages.receive(ORDER.read_bytes(), "127.0.0.1:40000")
    (row,) = map(json.loads, consortium("messages", "list", "--door", "mllp", "--json").stdout.splitlines())
    assert (row["institution"], row["type"], row["state"]) == ("KN", "ORM^O01", "done")
    shown = consortium("messages", "show", str(row["seq"])).stdout
    assert "MSH|^~\\&|" in shown
    assert "MSA|" in shown
    assert len(audited("message-read")) == 1
    assert consortium("messages", "replay", str(row["seq"])).exit_code == 0
    assert len(audited("message-replay")) == 1


def test_audit_verify_finds_a_line_that_was_changed(consortium: Hub, data_dir: Path) -> None:
    write(lambda tx: tx.audit.checkpoint(audit_key(data_dir).sign, now=utc_now()))
    assert consortium("audit", "verify").exit_code == 0
    with sqlite3.connect(data_dir / "hub.db") as database:
        (body, seq) = database.execute("SELECT body, seq FROM audit WHERE subtype = 'members-import'").fetchone()
        changed = bytes(body).replace(b"members-import", b"nothing-at-all")
        assert changed != body
        database.execute("UPDATE audit SET body = ? WHERE seq = ? AND subtype = 'members-import'", (changed, seq))
    database.close()
    result = consortium("audit", "verify")
    assert result.exit_code == 1
    assert "was changed" in result.stdout


def test_audit_verify_finds_an_end_that_was_cut_off(consortium: Hub, data_dir: Path) -> None:
    write(lambda tx: tx.audit.checkpoint(audit_key(data_dir).sign, now=utc_now()))
    with sqlite3.connect(data_dir / "hub.db") as database:
        database.execute("DELETE FROM audit_patient")
        database.execute("DELETE FROM audit")
    database.close()
    result = consortium("audit", "verify")
    assert result.exit_code == 1
    assert "cut off" in result.stdout
