"""The worker takes files from a member's SFTP server and drops what is for it there; a server that is away rests longer."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.worker.delivery import DeliveryLoop
from adapters.worker.folders import LEASE_S, REMOTE_POLL_S, REMOTE_REST_S, RemoteFolderLoop
from hub.boot import Services
from hub.ports import Entry, NewDelivery
from tests.adapters.worker.test_folders import BASE, setting, text
from tests.support.services import consortium, running
from tests.support.sshd import Sshd

pytestmark = pytest.mark.tool("/usr/sbin/sshd", "ssh-keygen")


def endpoint(address: str, host_key: str, **changes: str) -> list[dict[str, Any]]:
    """Return county hospital's SFTP endpoint with its organization."""
    kn = next(one for one in consortium() if one.get("id", "").endswith("kn-mllp"))
    of = kn["managingOrganization"]["reference"]
    organization = next(one for one in consortium() if f"Organization/{one['id']}" == of)
    settings = {
        "sending-application": "LIS", "sending-facility": "KNYY", "dialect": "his-cn", "quiet-s": "0",
        "host-key": host_key, "credential": "client", **changes,
    }  # fmt: skip
    folder = {
        **kn,
        "id": "kn-sftp",
        "identifier": [{"system": f"{BASE}/NamingSystem/endpoint", "value": "KN/sftp"}],
        "address": address,
        "extension": [setting(name, value) for name, value in settings.items()],
    }
    return [organization, kn, folder]


class Clock:
    """Seconds as the test says."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "sshd") as one:
        yield one


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in ("in", "out"):
        (tmp_path / "kn" / name).mkdir(parents=True)
    return tmp_path / "kn"


@pytest.fixture
def services(tmp_path: Path, sshd: Sshd, base: Path) -> Iterator[Services]:
    with running(tmp_path / "data", secrets_dir=sshd.secrets(tmp_path / "secrets")) as one:
        one.directory.load(endpoint(sshd.address(base), sshd.host_key))
        yield one


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(services: Services, clock: Clock) -> Iterator[RemoteFolderLoop]:
    one = RemoteFolderLoop(services, clock)
    yield one
    one.close()


def look(loop: RemoteFolderLoop) -> None:
    """Begin what is due, await its end, and let the loop see it."""
    loop.turn()
    concurrent.futures.wait([one.look for one in loop._remotes.values() if one.look is not None], 60)
    loop.turn()


def journal(services: Services) -> list[Entry]:
    return list(services.database.read(lambda tx: tx.journal.search({"door": "hl7-folder"}, limit=10)))


def test_a_file_on_a_server_is_journalled_applied_and_answered(
    services: Services, base: Path, loop: RemoteFolderLoop, clock: Clock
) -> None:
    (base / "in" / "a.hl7").write_bytes(text())
    look(loop)
    clock.now += REMOTE_POLL_S
    look(loop)
    (entry,) = journal(services)
    assert (entry.institution, entry.state, entry.peer, entry.body) == ("KN", "done", "folder/KN/sftp", text())
    (answer,) = (base / "answers").iterdir()
    assert b"MSA|AA|F1" in answer.read_bytes()
    assert list((base / "in").iterdir()) == []


def test_a_folder_is_looked_at_when_due_over_one_connection(sshd: Sshd, loop: RemoteFolderLoop, clock: Clock) -> None:
    look(loop)
    received = sshd.received
    clock.now += REMOTE_POLL_S - 0.1
    look(loop)
    assert sshd.received == received
    clock.now += 0.1
    look(loop)
    assert sshd.received > received
    assert sshd.connections == 1


def test_a_server_that_is_away_rests_longer_each_time_and_not_after_it_is_back(
    sshd: Sshd, base: Path, loop: RemoteFolderLoop, clock: Clock
) -> None:
    (base / "in").rename(base / "elsewhere")
    rests = []
    for _ in range(9):
        look(loop)
        (one,) = loop._remotes.values()
        rests.append(one.due - clock.now)
        clock.now = one.due
    assert rests[:3] == [REMOTE_POLL_S, 2 * REMOTE_POLL_S, 4 * REMOTE_POLL_S]
    assert rests[-1] == REMOTE_REST_S
    assert sshd.connections == 1
    (base / "elsewhere").rename(base / "in")
    clock.now += REMOTE_REST_S
    look(loop)
    (one,) = loop._remotes.values()
    assert one.failures == 0


def test_a_server_whose_folder_another_node_has_is_not_connected_to(
    services: Services, sshd: Sshd, loop: RemoteFolderLoop, clock: Clock
) -> None:
    now = services.clock()
    services.database.write(lambda tx: tx.timers.lease("folder KN/sftp", "other", now=now, lease_s=LEASE_S))
    look(loop)
    (one,) = loop._remotes.values()
    assert (sshd.connections, one.due - clock.now) == (0, LEASE_S / 2)


def test_an_endpoint_that_changes_gets_a_connection_of_its_own(
    services: Services, sshd: Sshd, base: Path, loop: RemoteFolderLoop
) -> None:
    look(loop)
    (before,) = loop._remotes.values()
    services.directory.load(endpoint(sshd.address(base), "SHA256:" + "A" * 43))
    look(loop)
    (after,) = loop._remotes.values()
    assert after is not before
    assert (before.failures, after.failures) == (0, 1)
    with pytest.raises(OSError, match="ending"):
        before.place.seen()


def test_what_is_for_the_member_is_dropped_on_its_server(services: Services, base: Path) -> None:
    services.database.write(
        lambda tx: tx.outbox.enqueue(
            NewDelivery(
                destination="KN/sftp", lane="KN/sftp|p", kind="mllp", payload=b"MSH|x", owner="KN", control_id="x"
            )
        )
    )
    deliveries = DeliveryLoop(services)
    assert deliveries.turn() == 1
    (dropped,) = (base / "out").iterdir()
    assert dropped.read_bytes() == b"MSH|x"
    assert [one.state for one in services.database.read(lambda tx: tx.outbox.deliveries({}, limit=5))] == ["sent"]
    for sender in deliveries._senders.values():
        sender.close()
