"""The worker takes a member's files through the same intake as all messages, and drops what is for that member."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from adapters.worker.delivery import DeliveryLoop
from adapters.worker.folders import FolderLoop
from hub.access import UNRESTRICTED
from hub.boot import Services
from hub.errors import Category, HubError
from hub.ports import Entry, NewDelivery
from tests.support.quotas import with_intake
from tests.support.services import consortium, running
from tests.support.v2 import adt

DOCUMENT = (Path(__file__).parents[3] / "sample_data" / "cda" / "C0002" / "kn_outpatient.xml").read_bytes()
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


def put(services: Services, base: Path, *files: tuple[str, bytes]) -> None:
    """Let the loop take *files* in one look after the other."""
    for name, data in files:
        (base / "in" / name).write_bytes(data)
        os.utime(base / "in" / name, (1, 1))
    loop = FolderLoop(services)
    loop.turn()
    loop.turn()


def documents(services: Services) -> list[Entry]:
    return list(services.database.read(lambda tx: tx.journal.search({"door": "cda-folder"}, limit=10)))


def test_a_clinical_document_is_taken_and_its_answer_names_its_reference(services: Services, base: Path) -> None:
    put(services, base, ("summary.xml", DOCUMENT))
    (entry,) = documents(services)
    assert (entry.institution, entry.state, entry.peer, entry.body) == ("KN", "done", "folder/KN/folder", DOCUMENT)
    (done,) = (base / "done").iterdir()
    (answer,) = (base / "answers").iterdir()
    assert (done.read_bytes(), answer.name) == (DOCUMENT, f"{done.name}.json")
    issue = json.loads(answer.read_bytes())["issue"][0]
    kind, _, id_ = issue["diagnostics"].partition("/")
    assert (issue["severity"], kind) == ("information", "DocumentReference")
    stored = services.database.read(lambda tx: tx.records.get("DocumentReference", id_, UNRESTRICTED))
    assert stored is not None
    assert stored.owner == "KN"


def test_the_same_document_twice_is_kept_once_and_answered_alike(services: Services, base: Path) -> None:
    put(services, base, ("a.xml", DOCUMENT), ("b.xml", DOCUMENT))
    put(services, base, ("a.xml", DOCUMENT))
    assert len(documents(services)) == 1
    assert list((base / "in").iterdir()) == []
    assert not (base / "refused").exists() or list((base / "refused").iterdir()) == []
    assert len({one.read_bytes() for one in (base / "answers").iterdir()}) == 1
    assert len(list((base / "answers").iterdir())) == 2


@pytest.mark.parametrize(
    "broken",
    [
        DOCUMENT[: len(DOCUMENT) // 2],
        DOCUMENT.replace(b"urn:hl7-org:v3", b"urn:example:v9"),
        b'<!DOCTYPE a [<!ENTITY b "c">]>' + DOCUMENT[DOCUMENT.index(b"<ClinicalDocument") :],
    ],
)
def test_a_broken_document_is_refused_with_its_reason_and_holds_up_none(
    services: Services, base: Path, broken: bytes
) -> None:
    put(services, base, ("a.xml", broken), ("b.xml", DOCUMENT))
    assert sorted(one.state for one in documents(services)) == ["done", "refused"]
    (kept,) = (one for one in (base / "refused").iterdir() if one.suffix != ".err")
    (why,) = (one for one in (base / "refused").iterdir() if one.suffix == ".err")
    assert kept.read_bytes() == broken
    issue = json.loads((base / "answers" / f"{kept.name}.json").read_bytes())["issue"][0]
    assert issue["severity"] == "error"
    assert issue["diagnostics"] in why.read_text("utf-8")
    assert len(list((base / "done").iterdir())) == 1


def test_a_document_at_which_the_hub_fails_holds_up_no_other_file(
    services: Services, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError(DOCUMENT)

    monkeypatch.setattr(services.documents, "receive_file", fails)
    with capture_logs() as logged:
        put(services, base, ("a.xml", DOCUMENT), ("b.hl7", text()))
    (fault,) = (one for one in logged if one["event"] == "document_fault")
    assert set(fault) == {"event", "log_level", "endpoint", "error", "place"}
    assert "ClinicalDocument" not in str(logged)
    assert any(one.name.startswith("a.xml") for one in (base / "refused").iterdir())
    assert any(one.name.startswith("b.hl7") for one in (base / "done").iterdir())


def test_a_document_stays_while_nothing_can_be_kept(
    services: Services, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object, **__: object) -> None:
        raise HubError(Category.BUSY, "The database is locked.")

    with monkeypatch.context() as away:
        away.setattr(services.documents, "receive_file", busy)
        with pytest.raises(HubError):
            put(services, base, ("a.xml", DOCUMENT))
    assert [one.name for one in (base / "in").iterdir()] == ["a.xml"]
    put(services, base)
    assert [one.state for one in documents(services)] == ["done"]


def test_beyond_its_quota_a_members_files_stay_and_are_taken_later_in_order(services: Services, base: Path) -> None:
    with_intake(services, "KN", "messages-per-minute=60")
    for n in range(1, 63):
        file = base / "in" / f"{n:02d}.hl7"
        file.write_bytes(adt("A01", str(n), number=str(n), visit=f"V{n}").replace("|HIS|", "|LIS|").encode())
        os.utime(file, (n, n))
    seconds = [0.0]
    loop = FolderLoop(services, lambda: seconds[0])
    loop.turn()
    loop.turn()
    assert sorted(one.name for one in (base / "in").iterdir()) == ["61.hl7", "62.hl7"]
    services.minutes._seconds.now += 2  # type: ignore[attr-defined]
    loop.turn()
    assert len(list((base / "in").iterdir())) == 2, "it rests as long as it was told"
    seconds[0] += 60
    loop.turn()
    assert list((base / "in").iterdir()) == []
    entries = services.database.read(lambda tx: tx.journal.search({"door": "hl7-folder"}, limit=100))
    assert sorted(int(one.control_id) for one in entries) == list(range(1, 63))
    assert {one.state for one in entries} == {"done"}
