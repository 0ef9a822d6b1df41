"""A file is taken when it is whole, once, in order, and ends in `done` or `refused`; a crash anywhere changes none of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from adapters.folder.pickup import PickUp, Rules, messages_of
from adapters.folder.place import LocalPlace, Seen
from hub.errors import Category, HubError
from tests.support.v2 import adt

BHS, BTS = b"BHS|^~\\&|HIS|KNYY|YIXIE|HUB|20250611080000||||B1\r", b"BTS|2\r"
ONE, TWO = adt("A01", "1").encode(), adt("A01", "2").encode()


class Clock:
    """Seconds as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Intake:
    """Answers as an intake that keeps each message once, by its bytes."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.code = "AA"
        self.trouble: Exception | None = None

    def __call__(self, message: bytes) -> bytes:
        if self.trouble is not None:
            raise self.trouble
        if message not in self.kept:
            self.kept.append(message)
        error = "" if self.code == "AA" else "ERR||PID^1^3|101^Required field missing^HL70357|E||||PID-3 is missing\r"
        return f"MSH|^~\\&|YIXIE|HUB|HIS|KNYY|20250611||ACK|9|P|2.5\rMSA|{self.code}|1\r{error}".encode()


class Feed:
    """A folder, an intake, and the pick-up between them."""

    def __init__(self, base: Path, **rules: object) -> None:
        self.base = base
        (base / "in").mkdir()
        self.clock, self.intake = Clock(), Intake()
        self.rules = Rules(**{"max_bytes": 100_000, **rules})  # type: ignore[arg-type]
        self.pickup = PickUp(LocalPlace(base), self.rules, self.intake, self.clock)

    def write(self, name: str, data: bytes, at: int = 1) -> None:
        (self.base / "in" / name).write_bytes(data)
        os.utime(self.base / "in" / name, (at, at))

    def settle(self) -> int:
        """Look, let time pass, look again."""
        first = self.pickup.turn()
        self.clock.now += 5
        return first + self.pickup.turn()

    def names(self, folder: str) -> list[str]:
        where = self.base / folder
        return sorted(one.name for one in where.iterdir()) if where.exists() else []

    def text(self, folder: str, ending: str) -> str:
        (found,) = (one for one in (self.base / folder).iterdir() if one.name.endswith(ending))
        return found.read_text("utf-8")


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    return Feed(tmp_path)


def test_a_file_is_taken_kept_and_answered(feed: Feed) -> None:
    feed.write("a.hl7", ONE)
    assert feed.settle() == 1
    assert feed.intake.kept == [ONE]
    assert feed.names("in") == feed.names("refused") == []
    (done,) = feed.names("done")
    assert (feed.base / "done" / done).read_bytes() == ONE
    assert "MSA|AA|1" in feed.text("answers", ".ack")


def test_a_file_that_still_grows_waits(feed: Feed) -> None:
    feed.write("a.hl7", ONE[:20])
    feed.pickup.turn()
    for at, size in ((2, 40), (3, 60)):
        feed.clock.now += 5
        feed.write("a.hl7", ONE[:size], at)
        assert feed.pickup.turn() == 0
    feed.clock.now += 4.9
    assert feed.pickup.turn() == 0
    assert feed.intake.kept == []
    feed.clock.now += 0.1
    assert feed.pickup.turn() == 1


def test_a_file_that_changes_while_it_is_read_waits(feed: Feed) -> None:
    feed.write("a.hl7", ONE)
    seen = LocalPlace(feed.base).seen()[0]
    feed.write("a.hl7", ONE, at=2)
    assert LocalPlace(feed.base).read(seen) is None
    (feed.base / "in" / "a.hl7").unlink()
    assert LocalPlace(feed.base).read(seen) is None


@pytest.mark.parametrize("name", [".hidden", "a.hl7.tmp", "a.PART", "a.filepart", "a~"])
def test_what_a_program_is_still_writing_is_left_alone(feed: Feed, name: str) -> None:
    feed.write(name, ONE)
    assert feed.settle() == 0
    assert feed.names("in") == [name]


def test_with_a_marker_nothing_else_says_that_a_file_is_whole(tmp_path: Path) -> None:
    feed = Feed(tmp_path, marker=".done")
    feed.write("a.hl7", ONE)
    assert feed.settle() == 0
    feed.write("a.hl7.done", b"")
    assert feed.pickup.turn() == 1
    assert feed.names("in") == []
    # A marker whose file is gone must not speak for the next file of that name.
    feed.write("a.hl7.done", b"")
    feed.settle()
    assert feed.names("in") == []


def test_files_are_taken_in_the_order_they_were_written(feed: Feed) -> None:
    feed.write("a", TWO, at=2)
    feed.write("b", ONE, at=1)
    feed.settle()
    assert feed.intake.kept == [ONE, TWO]


def test_several_messages_in_a_file_are_taken_one_by_one_and_a_batch_as_one(feed: Feed) -> None:
    assert messages_of(b"\xef\xbb\xbf" + ONE + b"\r\n" + TWO) == [ONE + b"\r\n", TWO]
    assert messages_of(BHS + ONE + TWO + BTS) == [BHS + ONE + TWO + BTS]
    assert messages_of(b"\x0b" + ONE + b"\x1c\r") == messages_of(ONE + b"\x1a") == messages_of(ONE) == [ONE]
    assert messages_of(b"rubbish\r" + ONE + TWO) == [b"rubbish\r" + ONE + TWO]
    assert messages_of(ONE + b"BTS|1\r") == [ONE + b"BTS|1\r"]


def test_what_is_not_taken_is_set_aside_with_the_reason_in_both_languages(feed: Feed) -> None:
    feed.intake.code = "AE"
    feed.write("a.hl7", ONE + TWO)
    feed.settle()
    assert feed.names("done") == []
    why = feed.text("refused", ".err")
    assert "第 2 条消息未被接受 / Message 2 was not taken: AE" in why
    assert "PID-3 is missing" in why
    assert "101" in why


def test_links_pipes_and_what_is_too_large_or_empty_are_never_read(feed: Feed, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(ONE)
    (feed.base / "in" / "link").symlink_to(secret)
    os.mkfifo(feed.base / "in" / "pipe")
    (feed.base / "in" / "folder").mkdir()
    feed.write("huge", b"M" * 100_001)
    feed.write("empty", b"\r\n")
    assert feed.settle() == 4
    assert feed.intake.kept == []
    assert feed.names("in") == ["folder"]
    assert len([name for name in feed.names("refused") if name.endswith(".err")]) == 4
    assert secret.read_bytes() == ONE


@pytest.mark.parametrize("name", ["郑伟.hl7", "a b;rm -rf $HOME.hl7", "x" * 200, os.fsdecode(b"\xd6\xa3\xce\xb0")])
def test_odd_names_are_taken_and_leave_none_behind(feed: Feed, name: str) -> None:
    feed.write(name, ONE)
    assert feed.settle() == 1
    (done,) = feed.names("done")
    assert done.isascii()
    assert len(done) < 128
    assert not set(done) & set(" ;$/")


def test_two_files_of_one_name_both_stay(feed: Feed) -> None:
    for data in (ONE, TWO):
        feed.write("export.hl7", data)
        feed.settle()
    assert len(feed.names("done")) == len(feed.names("answers")) == 2


def test_trouble_that_passes_leaves_the_file_where_it_is(feed: Feed) -> None:
    feed.intake.trouble = HubError(Category.UNAVAILABLE, "away")
    feed.write("a.hl7", ONE)
    feed.pickup.turn()
    feed.clock.now += 5
    with pytest.raises(HubError):
        feed.pickup.turn()
    feed.intake.trouble = None
    assert feed.pickup.turn() == 1
    assert feed.names("in") == []


class Guarded(LocalPlace):
    """A place in which the account may not read one file."""

    def read(self, one: Seen) -> bytes | None:
        if one.name == "guarded":
            raise PermissionError(errno.EACCES, "denied")
        return super().read(one)


def test_a_file_that_may_not_be_read_waits_alone_and_is_told_once(feed: Feed) -> None:
    feed.write("guarded", ONE, at=1)
    feed.write("open", TWO, at=2)
    with capture_logs() as told:
        barred = PickUp(Guarded(feed.base), feed.rules, feed.intake, feed.clock)
        for _ in range(4):
            barred.turn()
            feed.clock.now += 5
    assert feed.intake.kept == [TWO]
    assert feed.names("in") == ["guarded"]
    assert [one["event"] for one in told if one["log_level"] == "warning"] == ["file_unreadable"]
    feed.settle()
    assert feed.intake.kept == [TWO, ONE]


class Dying:
    """A place whose process ends at its nth step."""

    def __init__(self, place: LocalPlace, steps: int) -> None:
        self._place, self._left = place, steps

    def __getattr__(self, name: str) -> Callable[..., object]:
        inner = getattr(self._place, name)

        def step(*given: object) -> object:
            if self._left == 0:
                raise KeyboardInterrupt
            self._left -= 1
            return inner(*given)

        return step

    seen: Callable[[], Sequence[Seen]]


@pytest.mark.parametrize("code", ["AA", "AE"])
@pytest.mark.parametrize("marker", ["", ".ok"])
@pytest.mark.parametrize("steps", range(8))
def test_a_crash_at_any_step_neither_loses_nor_doubles(tmp_path: Path, steps: int, marker: str, code: str) -> None:
    feed = Feed(tmp_path, marker=marker, quiet_s=0.0)
    feed.intake.code = code
    feed.write("a.hl7", ONE)
    if marker:
        feed.write("a.hl7" + marker, b"")
    dying = PickUp(Dying(LocalPlace(tmp_path), steps), feed.rules, feed.intake, feed.clock)  # type: ignore[arg-type]
    try:
        dying.turn()
        dying.turn()
        dying.turn()
    except KeyboardInterrupt:
        pass
    for _ in range(3):
        feed.pickup.turn()

    assert feed.intake.kept == [ONE]
    assert feed.names("in") == []
    kept = [one for name in ("done", "refused") for one in feed.names(name) if not one.endswith(".err")]
    assert len(kept) == 1
    assert len(feed.names("answers")) == 1
    assert len([one for one in feed.names("refused") if one.endswith(".err")]) == (code == "AE")


def test_a_folder_that_is_not_mounted_is_away_and_nothing_is_made_in_it(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        PickUp(LocalPlace(tmp_path), Rules(max_bytes=1), Intake(), Clock()).turn()
    assert list(tmp_path.iterdir()) == []
