"""The worker takes a member's files through the same intake as all messages, and drops what is for that member."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from adapters.worker.delivery import DeliveryLoop
from adapters.worker.folders import FolderLoop
from hub.access import UNRESTRICTED
from hub.acknowledged import AWAITING, UNACKNOWLEDGED
from hub.boot import Services
from hub.errors import Category, HubError
from hub.ports import Entry, MemberEndpoint, NewDelivery
from hub.quotas import Wanted
from tests.support.hub import SetClock, register
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


def test_looking_at_a_folder_of_another_node_costs_nothing_of_the_quota(services: Services, base: Path) -> None:
    with_intake(services, "KN", "messages-per-minute=2")
    now = services.clock()
    services.database.write(lambda tx: tx.timers.lease("folder KN/folder", "other", now=now, lease_s=60))
    seconds = [0.0]
    (base / "in" / "a.hl7").write_bytes(text())
    os.utime(base / "in" / "a.hl7", (1, 1))
    loop = FolderLoop(services, lambda: seconds[0])
    for _ in range(5):
        loop.turn()
        seconds[0] += 60
    assert [one.name for one in (base / "in").iterdir()] == ["a.hl7"]
    two = [Wanted(quota="messages-per-minute", per_minute=2, amount=1)] * 2
    assert services.minutes.ask("KN", two, patience_s=0.0).over == ""


# --- acknowledgement files ---------------------------------------------------------------------------------------


@pytest.fixture
def awaiting(tmp_path: Path, base: Path, set_clock: SetClock) -> Iterator[Services]:
    """Services whose folder endpoint awaits acknowledgement files for an hour."""
    with running(tmp_path / "data", clock=set_clock) as one:
        settings = {"ack-file-s": "3600", "quiet-s": "0", "sending-application": "LIS", "sending-facility": "KNYY"}
        point = MemberEndpoint(
            id="KN/folder", member="KN", kind="mllp", address=f"file://{base}", settings=settings,
            sending_application="LIS", sending_facility="KNYY",
        )  # fmt: skip
        register(one, point)
        yield one


def drop(services: Services, control_id: str, *, patient: str = "p") -> int:
    new = NewDelivery(
        destination="KN/folder", lane=f"KN/folder|{patient}", kind="mllp", owner="KN", control_id=control_id,
        payload=f"MSH|^~\\&|YIXIE|HUB|LIS|KNYY|2025||ADT^A08|{control_id}|P|2.4\r".encode(),
    )  # fmt: skip
    return services.database.write(lambda tx: tx.outbox.enqueue(new))


def ack(code: str, control_id: str, application: str = "LIS") -> bytes:
    return (
        f"MSH|^~\\&|{application}|KNYY|YIXIE|HUB|2025||ACK^A08|A{control_id}|P|2.4\rMSA|{code}|{control_id}\r"
    ).encode()


def put_back(services: Services, base: Path, data: bytes) -> None:
    put(services, base, ("ack.hl7", data))


def delivered(services: Services, number: int) -> tuple[str, int, str]:
    one = services.database.read(lambda tx: tx.outbox.get(number))
    assert one is not None
    return one.state, one.attempts, one.last_error


def test_a_dropped_message_counts_when_its_acknowledgement_file_came(awaiting: Services, base: Path) -> None:
    first, second = drop(awaiting, "C1"), drop(awaiting, "C2")
    other = drop(awaiting, "C3", patient="q")
    worker = DeliveryLoop(awaiting)
    while worker.turn():
        pass
    # Each patient's next message waits until the one before is acknowledged.
    assert [one.name for one in sorted((base / "out").iterdir())] == [f"{one:012d}.hl7" for one in (first, other)]
    assert delivered(awaiting, first) == ("pending", 0, AWAITING)
    (base / "out" / f"{first:012d}.hl7").unlink()

    put_back(awaiting, base, ack("AA", "C1"))
    assert worker.turn() == 1
    assert delivered(awaiting, first)[0] == "sent"
    kept = awaiting.database.read(lambda tx: tx.outbox.get(first))
    assert kept is not None
    assert kept.ack == ack("AA", "C1")
    assert not (base / "out" / f"{first:012d}.hl7").exists(), "it was not dropped again"
    while worker.turn():
        pass
    assert delivered(awaiting, second) == ("pending", 0, AWAITING)
    # Never acknowledging an acknowledgement.
    assert not (base / "answers").exists()
    assert [one.name[:7] for one in (base / "done").iterdir()] == ["ack.hl7"]


def test_a_batch_of_acknowledgements_closes_each_of_its_messages(awaiting: Services, base: Path) -> None:
    numbers = [drop(awaiting, f"C{n}", patient=str(n)) for n in range(3)]
    worker = DeliveryLoop(awaiting)
    worker.turn()
    header = b"BHS|^~\\&|LIS|KNYY|YIXIE|HUB|2025||||B1\r"
    put_back(awaiting, base, header + ack("AA", "C0") + ack("AR", "C1") + ack("CA", "C2") + b"BTS|3\r")
    worker.turn()
    assert [delivered(awaiting, one)[0] for one in numbers] == ["sent", "dead", "sent"]
    assert delivered(awaiting, numbers[1])[2] == "The partner answered AR."
    assert not (base / "answers").exists()


def test_after_ae_the_message_is_dropped_again_and_awaited_anew(
    awaiting: Services, base: Path, set_clock: SetClock
) -> None:
    number = drop(awaiting, "C1")
    file = base / "out" / f"{number:012d}.hl7"
    worker = DeliveryLoop(awaiting)
    worker.turn()
    file.unlink()
    put_back(awaiting, base, ack("AE", "C1"))
    worker.turn()
    assert delivered(awaiting, number) == ("pending", 1, "The partner answered AE.")
    assert not file.exists()
    set_clock.forward(awaiting.settings.retry_longest_s)
    worker.turn()
    assert (file.exists(), delivered(awaiting, number)) == (True, ("pending", 1, AWAITING))


def test_a_message_that_nobody_acknowledges_in_time_is_tried_again_and_given_up_at_last(
    awaiting: Services, base: Path, set_clock: SetClock
) -> None:
    number = drop(awaiting, "C1")
    file = base / "out" / f"{number:012d}.hl7"
    worker = DeliveryLoop(awaiting)
    dropped = 0
    while delivered(awaiting, number)[0] != "dead":
        worker.turn()
        dropped += file.exists()
        file.unlink(missing_ok=True)
        set_clock.forward(3599)
        assert worker.turn() == 0
        set_clock.forward(1)
        worker.turn()
        set_clock.forward(awaiting.settings.retry_longest_s)
    assert dropped == awaiting.settings.retry_attempts
    assert delivered(awaiting, number) == ("dead", dropped, UNACKNOWLEDGED)
    # The answer that came too late still counts, and costs nobody a second import.
    put_back(awaiting, base, ack("AA", "C1"))
    worker.turn()
    assert (delivered(awaiting, number)[0], file.exists()) == ("sent", False)


def test_an_acknowledgement_of_nothing_that_is_awaited_changes_nothing(awaiting: Services, base: Path) -> None:
    number = drop(awaiting, "C1")
    # It was not dropped yet, and one of another number never is.
    put_back(awaiting, base, ack("AA", "C1") + ack("AA", "C9"))
    assert delivered(awaiting, number) == ("pending", 0, "")
    DeliveryLoop(awaiting).turn()
    # A stranger's is refused, kept, and not acknowledged either.
    put_back(awaiting, base, ack("AA", "C1", application="HIS"))
    assert delivered(awaiting, number) == ("pending", 0, AWAITING)
    assert not (base / "answers").exists()
    put_back(awaiting, base, ack("AA", "C2"))
    assert delivered(awaiting, number) == ("pending", 0, AWAITING)


def test_a_partner_that_is_quicker_than_the_commit_is_heard(awaiting: Services, base: Path) -> None:
    number = drop(awaiting, "C1")
    now = awaiting.clock()
    ((lane, epoch, one),) = awaiting.database.write(lambda tx: tx.outbox.lease("w", now=now, lease_s=60, limit=1))
    put_back(awaiting, base, ack("AA", "C1"))
    until = now + timedelta(hours=1)
    assert awaiting.database.write(lambda tx: tx.outbox.handed_over(lane, epoch, one.id, until=until, now=now))
    assert DeliveryLoop(awaiting).turn() == 1
    assert delivered(awaiting, number)[0] == "sent"


def test_an_acknowledgement_that_comes_as_its_delivery_is_given_up_is_heard(
    awaiting: Services, base: Path, set_clock: SetClock
) -> None:
    number = drop(awaiting, "C1")
    file = base / "out" / f"{number:012d}.hl7"
    DeliveryLoop(awaiting).turn()
    file.unlink()
    set_clock.forward(3600)
    now = awaiting.clock()
    ((lane, epoch, one),) = awaiting.database.write(lambda tx: tx.outbox.lease("w", now=now, lease_s=60, limit=1))
    put_back(awaiting, base, ack("AA", "C1"))
    # What the worker found out before it came is no longer true.
    assert awaiting.database.write(
        lambda tx: tx.outbox.failed(lane, epoch, one.id, error=UNACKNOWLEDGED, next_at=None, now=now)
    )
    assert DeliveryLoop(awaiting).turn() == 1
    assert (delivered(awaiting, number)[0], file.exists()) == ("sent", False)
