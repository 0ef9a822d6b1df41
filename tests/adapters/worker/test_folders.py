"""The worker takes a member's files through the same intake as all messages, and drops what is for that member."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.worker.delivery import DeliveryLoop
from adapters.worker.folders import FolderLoop
from hub.boot import Services
from hub.ports import Entry, NewDelivery
from tests.support.services import consortium, running
from tests.support.v2 import adt

BASE = "https://yixiehub.example/fhir"


def setting(name: str, value: str) -> dict[str, Any]:
    return {
        "url": f"{BASE}/StructureDefinition/endpoint-setting",
        "extension": [{"url": "name", "valueString": name}, {"url": "value", "valueString": value}],
    }


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "kn"
    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    return folder


@pytest.fixture
def services(tmp_path: Path, base: Path) -> Iterator[Services]:
    with running(tmp_path / "data") as one:
        kn = next(
            each for each in consortium() if each.get("id") == "kn-mllp" or each.get("id", "").endswith("kn-mllp")
        )
        organization = next(
            each for each in consortium() if f"Organization/{each['id']}" == kn["managingOrganization"]["reference"]
        )
        drop = {
            **kn,
            "id": "kn-folder",
            "identifier": [{"system": f"{BASE}/NamingSystem/endpoint", "value": "KN/folder"}],
            "address": f"file://{base}",
            "extension": [
                setting("sending-application", "LIS"),
                setting("sending-facility", "KNYY"),
                setting("dialect", "his-cn"),
                setting("quiet-s", "0"),
            ],
        }
        one.directory.load([organization, kn, drop])
        yield one


def take(services: Services, base: Path, data: bytes) -> list[Entry]:
    (base / "in" / "a.hl7").write_bytes(data)
    os.utime(base / "in" / "a.hl7", (1, 1))
    loop = FolderLoop(services)
    loop.turn()
    loop.turn()
    return list(services.database.read(lambda tx: tx.journal.search({"door": "hl7-folder"}, limit=10)))


def text(**changes: str) -> bytes:
    return adt("A01", "F1").replace("|HIS|", f"|{changes.get('application', 'LIS')}|").encode("gb18030")


def test_a_file_is_journalled_applied_and_answered(services: Services, base: Path) -> None:
    (entry,) = take(services, base, text())
    assert (entry.institution, entry.state, entry.peer, entry.body) == ("KN", "done", "folder/KN/folder", text())
    (answer,) = (base / "answers").iterdir()
    assert b"MSA|AA|F1" in answer.read_bytes()
    assert list((base / "in").iterdir()) == []


def test_another_senders_message_in_the_folder_is_a_strangers(services: Services, base: Path) -> None:
    (entry,) = take(services, base, text(application="HIS"))
    assert entry.state == "refused"
    assert any(one.name.endswith(".err") for one in (base / "refused").iterdir())


def test_the_name_of_a_folder_opens_no_other_door(services: Services) -> None:
    for door in ("mllp", "hl7-http"):
        answer = services.messages.receive(text(), "127.0.0.1:1", door=door, institution_hint="KN")
        assert b"MSA|AR" in (answer or b"")


def test_a_folder_that_another_node_works_on_is_left_to_it(services: Services, base: Path) -> None:
    now = services.clock()
    services.database.write(lambda tx: tx.timers.lease("folder KN/folder", "other", now=now, lease_s=60))
    assert take(services, base, text()) == []
    assert len(list((base / "in").iterdir())) == 1


def test_what_is_for_the_member_is_dropped_as_a_file(services: Services, base: Path) -> None:
    services.database.write(
        lambda tx: tx.outbox.enqueue(
            NewDelivery(
                destination="KN/folder", lane="KN/folder|p", kind="mllp", payload=b"MSH|x", owner="KN", control_id="x"
            )
        )
    )
    assert DeliveryLoop(services).turn() == 1
    (dropped,) = (base / "out").iterdir()
    assert dropped.read_bytes() == b"MSH|x"
    assert [one.state for one in services.database.read(lambda tx: tx.outbox.deliveries({}, limit=5))] == ["sent"]
