"""Writers of several processes take turns, and a turn never outlives its process."""

from __future__ import annotations

import multiprocessing
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from storage.sql.turn import Turn

PATIENCE_S = 20.0


def hold(path: Path, pipe: Connection) -> None:
    """Take the turn, say so, and wait for word, or for the end of this process."""
    with Turn(path).taken():
        pipe.send("mine")
        pipe.recv()
    pipe.send("done")


def test_a_turn_is_one_writers_at_a_time(tmp_path: Path) -> None:
    here, there = multiprocessing.get_context("spawn").Pipe()
    other = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path / "hub.db", there))
    other.start()
    assert here.recv() == "mine"
    got = threading.Event()

    def want() -> None:
        with Turn(tmp_path / "hub.db").taken():
            got.set()

    waiting = threading.Thread(target=want)
    waiting.start()
    assert not got.is_set()
    here.send("go on")
    assert here.recv() == "done"
    assert got.wait(PATIENCE_S)
    waiting.join(PATIENCE_S)
    other.join(PATIENCE_S)


def test_the_turn_of_a_killed_process_is_free(tmp_path: Path) -> None:
    here, there = multiprocessing.get_context("spawn").Pipe()
    other = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path / "hub.db", there))
    other.start()
    assert here.recv() == "mine"
    other.kill()
    other.join(PATIENCE_S)
    started = time.monotonic()
    with Turn(tmp_path / "hub.db").taken():
        assert time.monotonic() - started < PATIENCE_S


def test_who_has_just_written_lets_the_waiting_go_first(tmp_path: Path) -> None:
    order: list[str] = []
    first, second = (Turn(tmp_path / "hub.db") for _ in range(2))
    waits = threading.Event()

    def want() -> None:
        waits.set()
        with second.taken():
            order.append("second")

    waiting = threading.Thread(target=want)
    with first.taken():
        waiting.start()
        assert waits.wait(PATIENCE_S)
        # At the head of the queue the second lock is held, which is how we see that it waits there.
        probe = Turn(tmp_path / "hub.db")
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and _free(probe):
            pass
    with first.taken():
        order.append("first")
    waiting.join(PATIENCE_S)
    assert order == ["second", "first"]


def test_a_turn_that_does_not_come_in_time_is_not_taken_and_not_lost(tmp_path: Path) -> None:
    first, second = (Turn(tmp_path / "hub.db") for _ in range(2))
    with first.taken():
        for _ in range(3):
            with pytest.raises(TimeoutError), second.taken(0):
                raise AssertionError("It is another's turn.")
    # Who gave up waiting holds nothing: both may write, in any order and again.
    for one in (first, second, first, second):
        with one.taken(PATIENCE_S):
            pass
    first.close()
    second.close()


def test_a_turn_is_closed_while_it_is_waited_for(tmp_path: Path) -> None:
    first, second = (Turn(tmp_path / "hub.db") for _ in range(2))
    with first.taken():
        with pytest.raises(TimeoutError), second.taken(0):
            raise AssertionError("It is another's turn.")
        second.close()
        second.close()
    with first.taken(PATIENCE_S):
        pass


def _free(turn: Turn) -> bool:
    import fcntl

    try:
        fcntl.flock(turn._next, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(turn._next, fcntl.LOCK_UN)
    return True
