"""Files on a partner's OpenSSH server are taken and dropped by the rules of a local folder, wherever the line is cut."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.folder import open_remote
from adapters.folder.pickup import PickUp, Rules
from adapters.folder.sender import FolderSender
from adapters.folder.sftp_place import SftpPlace
from hub.config import Settings
from hub.errors import HubError
from hub.ports import Delivery, MemberEndpoint
from tests.support.sshd import Sshd
from tests.support.v2 import adt

pytestmark = pytest.mark.tool("/usr/sbin/sshd", "ssh-keygen")

ONE, TWO = adt("A01", "1").encode("gb18030"), adt("A01", "2").encode("gb18030")
NOW = datetime(2025, 6, 11, tzinfo=UTC)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "sshd") as one:
        yield one


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in ("in", "out"):
        (tmp_path / "partner" / name).mkdir(parents=True)
    return tmp_path / "partner"


@pytest.fixture
def settings(tmp_path: Path, sshd: Sshd) -> Settings:
    return Settings(secrets_dir=sshd.secrets(tmp_path / "secrets"))


def endpoint(sshd: Sshd, base: Path, **changes: str) -> MemberEndpoint:
    found = {"host-key": sshd.host_key, "credential": "client", **changes}
    return MemberEndpoint(id="KN/sftp", member="KN", kind="mllp", address=sshd.address(base), settings=found)


@pytest.fixture
def place(sshd: Sshd, base: Path, settings: Settings) -> Iterator[SftpPlace]:
    one = open_remote(endpoint(sshd, base), settings)
    yield one
    one.close()


class Intake:
    """Keeps each message once, by its bytes, as the hub's does."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def __call__(self, message: bytes) -> bytes:
        if message not in self.kept:
            self.kept.append(message)
        return b"MSH|^~\\&|YIXIE|HUB|HIS|KNYY|20250611||ACK|9|P|2.5\rMSA|AA|1\r"


def pick_up(place: SftpPlace, intake: Intake, **rules: object) -> PickUp:
    given = {"max_bytes": 1_000_000, "quiet_s": 0.0, **rules}
    return PickUp(place, Rules(**given), intake, lambda: 0.0)  # type: ignore[arg-type]


def write(base: Path, name: str, data: bytes, at: int) -> None:
    (base / "in" / name).write_bytes(data)
    os.utime(base / "in" / name, (at, at))


def names(base: Path, folder: str) -> list[str]:
    return sorted(one.name for one in (base / folder).iterdir()) if (base / folder).exists() else []


def delivery(number: int, payload: bytes) -> Delivery:
    return Delivery(
        id=number, state="queued", attempts=0, next_at=NOW, created_at=NOW,
        destination="KN/sftp", lane="KN/sftp|1", kind="mllp", payload=payload, owner="KN",
    )  # fmt: skip


def test_files_are_taken_in_order_moved_and_answered_over_one_connection(
    sshd: Sshd, base: Path, place: SftpPlace
) -> None:
    large = adt("A01", "3").encode("gb18030") + b"OBX|1|ED|" + b"x" * 300_000 + b"\r"
    write(base, os.fsdecode("郑伟.hl7".encode("gbk")), TWO, 2)
    write(base, "b.hl7", ONE, 1)
    write(base, "c.hl7", large, 3)
    intake = Intake()
    picking = pick_up(place, intake)
    assert picking.turn() + picking.turn() == 3
    assert intake.kept == [ONE, TWO, large]
    assert names(base, "in") == []
    assert {(base / "done" / name).read_bytes() for name in names(base, "done")} == {ONE, TWO, large}
    assert [name.endswith(".ack") for name in names(base, "answers")] == [True] * 3
    assert sshd.connections == 1


def test_links_pipes_and_what_is_too_large_are_set_aside_unread(base: Path, place: SftpPlace, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(ONE)
    (base / "in" / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(base / "in" / "pipe")
    (base / "in" / "folder").mkdir()
    write(base, "huge", b"M" * 1001, 1)
    intake = Intake()
    picking = pick_up(place, intake, max_bytes=1000)
    assert picking.turn() + picking.turn() == 3
    assert intake.kept == []
    assert names(base, "in") == ["folder"]
    assert len([name for name in names(base, "refused") if name.endswith(".err")]) == 3
    assert (tmp_path / "secret").read_bytes() == ONE


def test_a_file_that_changed_or_went_since_it_was_seen_waits(base: Path, place: SftpPlace) -> None:
    write(base, "a.hl7", ONE, 1)
    (seen,) = place.seen()
    write(base, "a.hl7", ONE + b"PV1|1\r", 2)
    assert place.read(seen) is None
    (base / "in" / "a.hl7").unlink()
    assert place.read(seen) is None
    place.move("a.hl7", "done", "a")
    place.remove("a.hl7")
    assert names(base, "done") == []


def test_a_folder_that_somebody_removed_is_made_again(base: Path, place: SftpPlace) -> None:
    place.put("answers", "1", b"one")
    (base / "answers" / "1").unlink()
    (base / "answers").rmdir()
    with pytest.raises(OSError):
        place.put("answers", "2", b"two")
    place.put("answers", "2", b"two")
    assert names(base, "answers") == ["2"]


def test_without_its_folder_nothing_is_taken_and_nothing_made(base: Path, place: SftpPlace) -> None:
    (base / "in").rmdir()
    with pytest.raises(OSError, match="ENOENT"):
        pick_up(place, Intake()).turn()
    assert names(base, ".") == ["out"]


@pytest.mark.parametrize("twelfth", range(13))
def test_a_server_killed_anywhere_neither_loses_nor_doubles(
    sshd: Sshd, base: Path, place: SftpPlace, settings: Settings, twelfth: int
) -> None:
    for number, data in enumerate((ONE, TWO)):
        write(base, f"{number}.hl7", data + b"OBX|1|ED|" + b"x" * 40_000 + b"\r", number + 1)
    whole = [(base / "in" / name).read_bytes() for name in names(base, "in")]
    # Both files, what they are answered, and the talk around them, by sizes that the protocol fixes.
    place.seen()
    sshd.cut_after = sshd.received + 1 + (sum(map(len, whole)) + 8_000) * twelfth // 12
    intake = Intake()
    picking = pick_up(place, intake)
    away = 0
    for _ in range(4):
        try:
            picking.turn()
        except OSError:
            away += 1
            sshd.cut_after = None
    sshd.cut_after = None
    picking.turn()

    assert away <= 1
    assert twelfth > 10 or away == 1
    assert intake.kept == whole
    assert names(base, "in") == []
    assert [(base / "done" / name).read_bytes() for name in names(base, "done")] == whole
    assert [name for name in names(base, "answers") if not name.startswith(".")] == [
        f"{name}.ack" for name in names(base, "done")
    ]


def test_what_is_dropped_appears_whole_and_once_though_the_server_is_killed(
    sshd: Sshd, base: Path, settings: Settings
) -> None:
    target, sender = endpoint(sshd, base, marker=".ok"), FolderSender(settings)
    payload = TWO + b"OBX|1|ED|" + b"x" * 200_000 + b"\r"
    assert sender.send(delivery(9, ONE), target).error == ""
    sshd.cut_after = sshd.received + 200
    broken = sender.send(delivery(10, payload), target)
    assert (bool(broken.error), broken.reached, broken.permanent) == (True, False, False)
    assert "000000000010.hl7" not in names(base, "out")
    sshd.cut_after = None
    for _ in range(2):
        assert sender.send(delivery(10, payload), target).error == ""
    sender.close()
    assert names(base, "out") == [f"{name:012d}.hl7{end}" for name in (9, 10) for end in ("", ".ok")]
    assert (base / "out" / "000000000010.hl7").read_bytes() == payload


def test_a_server_with_another_key_is_told_nothing(sshd: Sshd, base: Path, settings: Settings) -> None:
    wrong = "SHA256:" + "A" * 43
    place = open_remote(endpoint(sshd, base, **{"host-key": wrong}), settings)
    with pytest.raises(OSError, match=sshd.host_key.replace("+", r"\+")):
        place.seen()
    both = open_remote(endpoint(sshd, base, **{"host-key": f"{wrong} {sshd.host_key}"}), settings)
    assert both.seen() == []
    both.close()


@pytest.mark.parametrize("absent", ["host-key", "credential"])
def test_without_a_pinned_key_or_a_credential_no_connection_is_made(
    sshd: Sshd, base: Path, settings: Settings, absent: str
) -> None:
    with pytest.raises(HubError, match=absent):
        open_remote(endpoint(sshd, base, **{absent: ""}), settings)
    assert sshd.connections == 0


def test_a_credential_that_is_missing_open_to_all_or_no_key_is_told_and_the_message_waits(
    sshd: Sshd, base: Path, settings: Settings
) -> None:
    assert settings.secrets_dir is not None
    file = settings.secrets_dir / "client"
    good = file.read_bytes()
    for data, mode, words in (
        (good, 0o604, "chmod 600"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", 0o600, "Ed25519"),
        (None, 0, "cannot be read"),
    ):
        file.unlink()
        if data is not None:
            file.write_bytes(data)
            file.chmod(mode)
        result = FolderSender(settings).send(delivery(1, ONE), endpoint(sshd, base))
        assert words in result.error
        assert (result.reached, result.permanent) == (False, False)
    assert sshd.connections == 0


def test_a_key_that_the_server_does_not_know_is_refused(sshd: Sshd, base: Path, place: SftpPlace) -> None:
    (sshd.folder / "authorized").write_text("")
    with pytest.raises(OSError, match="refused the user"):
        place.seen()


def test_closing_ends_a_request_that_waits(sshd: Sshd, base: Path, place: SftpPlace) -> None:
    place.seen()
    os.mkfifo(base / "in" / "pipe")
    (seen,) = place.seen()
    # A server that opens a pipe waits for a writer.
    failed: list[str] = []

    def wait() -> None:
        try:
            place.read(seen)
        except OSError as error:
            failed.append(type(error).__name__)

    waiting = threading.Thread(target=wait)
    waiting.start()
    place.close()
    waiting.join(60)
    assert failed == ["ServerAwayError"]
