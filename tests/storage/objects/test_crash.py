"""The file driver is killed, or its disk fails, at every system call that changes the disk (strace injection)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from storage.objects.file import FileStore

pytestmark = pytest.mark.tool("strace")

CALLS = "write,fsync,link,linkat,unlink,unlinkat,rename,pwrite64"
BODY = b"one received object" * 5000
DIGEST = hashlib.sha256(BODY).hexdigest()
# The store exists before tracing counts, so that the counted calls are those of one process's start and one put.
CHILD = """
import sys
from pathlib import Path
from hub.errors import HubError
from storage.objects.file import FileStore
store = FileStore(Path(sys.argv[1]))
print("> ready", flush=True)
for _ in range(2):
    try:
        store.put_bytes(b"one received object" * 5000)
        print("> stored", flush=True)
    except HubError as error:
        print(">", error.category.value, error.fatal, flush=True)
"""


def trace(root: Path, log: Path, *inject: str) -> tuple[int, list[str]]:
    """Run the child under strace; returns its exit code and what it printed."""
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-qq",
            "-y",
            "-o",
            str(log),
            "-e",
            f"trace={CALLS}",
            *inject,
            sys.executable,
            "-c",
            CHILD,
            str(root),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, [line[2:] for line in done.stdout.splitlines() if line.startswith("> ")]


def calls_of(log: Path) -> list[str]:
    """The names of the traced calls in order."""
    names = [line.split(maxsplit=1)[1].split("(")[0] for line in log.read_text().splitlines() if "(" in line]
    return [name for name in names if name in CALLS.split(",")]


def test_a_kill_at_any_call_leaves_all_or_nothing(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    FileStore(root).close()
    log = tmp_path / "log"
    code, printed = trace(root, log)
    assert (code, printed) == (0, ["ready", "stored", "stored"])
    points = [(name, turn) for name, count in Counter(calls_of(log)).items() for turn in range(1, count + 1)]
    assert len(points) >= 12, "the trace missed the calls of the write path"

    for name, turn in points:
        number = f"{name}-{turn}"
        root = tmp_path / f"objects-{number}"
        FileStore(root).close()
        code, printed = trace(root, log, "-e", f"inject={name}:signal=KILL:when={turn}")
        assert code != 0, f"call {number} was not killed"
        store = FileStore(root)
        present = [ref.digest for ref in store.digests()]
        assert present in ([], [DIGEST]), f"half visible after call {number}"
        if "stored" in printed:
            assert present == [DIGEST], f"acknowledged and lost at call {number}"
        assert all(store.verify(digest) for digest in present)
        assert store.put_bytes(BODY).digest == DIGEST
        rooms = [path for path in (root / "tmp").iterdir() if path.is_dir()]
        assert len(rooms) == 1, "a dead process's room was left"
        store.close()


def test_the_bytes_are_synced_before_they_get_their_name_and_the_name_before_the_answer(tmp_path: Path) -> None:
    """A kill does not lose what the kernel holds, so the order that a power cut needs is read from the trace."""
    root = tmp_path / "objects"
    FileStore(root).close()
    log = tmp_path / "log"
    trace(root, log)
    lines = log.read_text().splitlines()
    linked = next(index for index, line in enumerate(lines) if f'{DIGEST}"' in line and "link" in line)
    before, after = lines[:linked], lines[linked + 1 :]
    spooled = lines[linked].split('"')[1]
    assert any("fsync(" in line and f"<{spooled}>" in line and line.endswith("= 0") for line in before)
    synced = next(index for index, line in enumerate(after) if f"<{root / DIGEST[:2]}>" in line and "fsync(" in line)
    answered = next(index for index, line in enumerate(after) if "write(" in line and "> stored" in line)
    assert synced < answered


def test_a_failing_device_at_any_sync_is_never_a_success(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    FileStore(root).close()
    log = tmp_path / "log"
    trace(root, log)
    syncs = calls_of(log).count("fsync")
    # The last syncs are: file and directory of the first put, file and directory of the second.
    for number, expected in ((syncs - 3, ["fault True", "unavailable False"]), (syncs - 1, ["stored", "fault True"])):
        root = tmp_path / f"objects-{number}"
        FileStore(root).close()
        _, printed = trace(root, log, "-e", f"inject=fsync:error=EIO:when={number}")
        assert printed == ["ready", *expected]
    root = tmp_path / "objects-directory"
    FileStore(root).close()
    _, printed = trace(root, log, "-e", f"inject=fsync:error=EIO:when={syncs - 2}")
    assert printed == ["ready", "fault True", "unavailable False"]


def test_no_room_for_the_link_is_refused_and_may_be_tried_again(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    FileStore(root).close()
    log = tmp_path / "log"
    trace(root, log)
    links = [name for name in calls_of(log) if name in {"link", "linkat"}]
    first_of_put = len(links) - 1
    root = tmp_path / "objects-full"
    FileStore(root).close()
    _, printed = trace(root, log, "-e", f"inject=link,linkat:error=ENOSPC:when={first_of_put}")
    assert printed == ["ready", "unavailable False", "stored"]
