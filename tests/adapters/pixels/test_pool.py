"""What an image can do to the processes that decode it: cost one request, and nothing else."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from adapters.pixels.pool import Pool
from hub.errors import Category, HubError
from tests.support.pixels import pool

#: A child that answers each job by what the job says, with the real one's bounds.
CHILD = """
import os, signal, socket, sys, json, time
from adapters.pixels import child
def work(head, parts):
    if head["how"] == "crash": os.kill(os.getpid(), signal.SIGSEGV)
    if head["how"] == "hang": time.sleep(600)
    if head["how"] == "spin":
        while True: pass
    if head["how"] == "grow": return {}, b"x" * (3 << 30)
    if head["how"] == "flood": return {}, b"x" * (1 << 20)
    if head["how"] == "write": os.write(os.open(parts[0], os.O_CREAT | os.O_WRONLY), b"x")
    return {"environment": sorted(os.environ)}, b"".join(parts)
child._WORK = {"test": work}
sys.exit(child.main(sys.argv[1:]))
"""


def made(**limits: Any) -> Pool:
    return pool(command=[sys.executable, "-c", CHILD], **limits)


def ask(one: Pool, how: str, *payload: bytes) -> tuple[dict[str, Any], bytes]:
    return one.run({"do": "test", "how": how}, *payload)


def refused(one: Pool, how: str, *payload: bytes) -> HubError:
    with pytest.raises(HubError) as caught:
        ask(one, how, *payload)
    return caught.value


def test_no_process_runs_before_the_first_job_and_one_serves_many() -> None:
    one = made(processes=3)
    assert one.pids == []
    assert ask(one, "echo", b"ab", b"cd")[1] == b"abcd"
    first = one.pids
    assert ask(one, "echo", b"x" * (5 << 20))[1] == b"x" * (5 << 20)
    assert one.pids == first
    one.close()
    assert one.pids == []


@pytest.mark.parametrize(
    ("how", "said"), [("crash", "status -11"), ("hang", "within"), ("spin", "processor time"), ("flood", "too large")]
)
def test_a_process_in_trouble_is_replaced_and_the_next_job_is_served(how: str, said: str) -> None:
    one = made(cpu_s=1.0, deadline_s=3.0 if how == "hang" else 60.0, max_bytes=1000)
    ask(one, "echo")
    (before,) = one.pids
    error = refused(one, how)
    assert (error.category, error.status) == (Category.UNSUPPORTED, 406)
    assert said in error.message
    assert ask(one, "echo", b"again")[1] == b"again"
    assert one.pids != [before]
    one.close()


def test_memory_beyond_the_bound_is_refused_inside_the_process() -> None:
    one = made(memory_bytes=1 << 30)
    assert "memory" in refused(one, "grow").message
    assert ask(one, "echo", b"x")[1] == b"x"
    one.close()


def test_the_process_may_write_no_file_and_knows_no_setting_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HUB_S3_SECRET_KEY", "secret")
    one = made()
    assert not any("HUB" in name or "S3" in name for name in ask(one, "echo")[0]["environment"])
    refused(one, "write", str(tmp_path / "probe").encode())
    one.close()
    assert (tmp_path / "probe").read_bytes() == b""


def test_an_idle_process_ends_by_itself_and_is_not_missed() -> None:
    one = made(idle_s=0.05)
    ask(one, "echo")
    (pid,) = one.pids
    handle = os.pidfd_open(pid)
    # Readable once the process has ended.
    import select

    assert select.select([handle], [], [], 30)[0]
    os.close(handle)
    assert ask(one, "echo", b"x")[1] == b"x"
    one.close()


def test_more_waiting_jobs_than_allowed_are_turned_away() -> None:
    one = made(waiting=0)
    ask(one, "echo")
    running = threading.Thread(target=refused, args=(one, "hang"))
    running.start()
    while one._free.acquire(blocking=False):
        one._free.release()
    error = refused(one, "echo")
    assert error.category is Category.BUSY
    one.close()
    running.join()


def test_a_pool_that_is_forgotten_takes_its_processes_with_it() -> None:
    one = made()
    ask(one, "echo")
    (pid,) = one.pids
    del one
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
