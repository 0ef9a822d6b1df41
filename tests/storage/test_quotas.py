"""One quota is one number for all threads and processes that use its file."""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest

from hub.errors import HubError
from hub.quotas import Wanted
from storage.quotas import SharedMinutes

WANTED = [Wanted(quota="messages-per-minute", per_minute=60, amount=1.0)]
NOW_S = 1_000.0


def minutes(path: Path, now_s: float = NOW_S) -> SharedMinutes:
    return SharedMinutes(path, seconds=lambda: now_s)


def asked(one: SharedMinutes, times: int, member: str = "KN") -> int:
    return sum(not one.ask(member, WANTED, patience_s=0.0).over for _ in range(times))


def _ask(one: SharedMinutes, told: SimpleQueue[int]) -> None:
    told.put(asked(one, 40))


def test_processes_and_threads_share_one_minute(tmp_path: Path) -> None:
    own = minutes(tmp_path / "run" / "quotas")
    # Opened before the others are forked, which must not let them share its lock.
    assert asked(own, 3) == 3
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    processes = [context.Process(target=_ask, args=(own, told)) for _ in range(3)]
    for process in processes:
        process.start()
    permitted = sum(told.get() for _ in processes)
    for process in processes:
        process.join()
    given: list[int] = []
    threads = [threading.Thread(target=lambda: given.append(asked(own, 40))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Half a minute's worth is the most that must be there for any one message.
    assert 3 + permitted + sum(given) == 60
    assert asked(own, 40, member="QH") == 40


def test_a_bucket_fills_by_the_clock_that_all_share(tmp_path: Path) -> None:
    path = tmp_path / "quotas"
    assert asked(minutes(path), 100) == 60
    assert asked(minutes(path, NOW_S + 10), 100) == 10
    # A clock that is set back gives nothing away and stops nothing.
    assert asked(minutes(path, NOW_S - 3600), 100) == 0
    assert asked(minutes(path, NOW_S - 3590), 100) == 10


@pytest.mark.parametrize("kept", [b"", b"{", b'{"KN": 1}', b"\xff" * 100])
def test_a_file_that_cannot_be_read_begins_anew(tmp_path: Path, kept: bytes) -> None:
    (tmp_path / "quotas").write_bytes(kept)
    assert asked(minutes(tmp_path / "quotas"), 100) == 60
    assert asked(minutes(tmp_path / "quotas"), 100) == 0


def test_what_is_given_back_may_be_used_again(tmp_path: Path) -> None:
    one = minutes(tmp_path / "quotas")
    assert asked(one, 100) == 60
    one.give_back("KN", WANTED)
    assert asked(one, 100) == 1


def test_a_file_that_cannot_be_kept_is_trouble_that_may_pass(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way of the folder")
    with pytest.raises(HubError) as caught:
        minutes(tmp_path / "run" / "quotas").ask("KN", WANTED, patience_s=0.0)
    assert caught.value.transient
