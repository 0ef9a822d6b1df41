"""Processes forked from a template: what they hold, how they end, and what is heard of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import adapters.ops.template as module
from adapters.ops.template import UNKNOWN, Forked, Template
from hub.errors import Category, HubError

WAIT_S = 30.0


class Started:
    """A template whose children run *body*, which sees ``order`` and ``here``."""

    def __init__(self, folder: Path, body: str) -> None:
        script = folder / "template.py"
        script.write_text(
            "import json, os, signal, socket, sys, threading, time\n"
            "from adapters.ops.template import serve\n"
            f"here = {str(folder)!r}\n"
            "def run(order):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n"
            "serve(int(sys.argv[sys.argv.index('--control') + 1]), run)\n"
        )
        root = str(Path(module.__file__).parent.parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        self.template = Template([sys.executable, str(script)], {**os.environ, "PYTHONPATH": path})
        self.lifeline, self.alive = os.pipe()
        self.lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)

    def child(self, index: int = 0, **sockets: int) -> Forked:
        return self.template.start("http", index, lifeline=self.lifeline, lock=self.lock, sockets=sockets)

    def close(self) -> None:
        self.template.close()
        for descriptor in (self.lifeline, self.alive, self.lock):
            os.close(descriptor)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[str], Started]]:
    made: list[Started] = []

    def make(body: str) -> Started:
        made.append(Started(tmp_path, body))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_child_has_its_own_descriptors_and_no_others(started: Callable[[str], Started], tmp_path: Path) -> None:
    one = started(
        """
        kinds = {}
        for name in os.listdir('/proc/self/fd'):
            try:
                kinds[name] = os.readlink(f'/proc/self/fd/{name}').split(':')[0]
            except OSError:
                pass
        json.dump({'order': [order.door, order.index, order.sockets], 'fds': kinds}, open(here + '/told.json', 'w'))
        return 7
        """
    )
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        first = one.child(3, plain=listener.fileno())
        assert first.wait(WAIT_S) == 7
        told = json.loads((tmp_path / "told.json").read_text())
        assert told["order"][:2] == ["http", 3]
        assert list(told["order"][2]) == ["plain"]
        # Standard streams, lifeline, lock and one listener, whatever the template has been given before.
        assert sorted(told["fds"].values()).count("socket") == 1
        assert one.child(4, plain=other.fileno()).wait(WAIT_S) == 7
        again = json.loads((tmp_path / "told.json").read_text())
        assert len(again["fds"]) == len(told["fds"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("return 0", 0),
        ("return 70", 70),
        ("sys.exit(3)", 3),
        ("raise ValueError('on purpose')", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_how_a_child_ends_is_told(started: Callable[[str], Started], body: str, status: int) -> None:
    assert started(body).child().wait(WAIT_S) == status


def test_a_child_that_is_told_to_end_before_it_listens_ends(started: Callable[[str], Started]) -> None:
    child = started("time.sleep(60)").child()
    child.send_signal(signal.SIGTERM)

    assert child.wait(WAIT_S) == -signal.SIGTERM
    child.send_signal(signal.SIGTERM)  # It is gone; nobody else is hit.


def test_a_child_may_have_threads_though_its_template_has_none(started: Callable[[str], Started]) -> None:
    body = """
        found = []
        thread = threading.Thread(target=lambda: found.append(1))
        thread.start()
        thread.join()
        return len(found)
        """
    assert started(body).child().wait(WAIT_S) == 1


def test_children_outlive_their_template_and_their_end_is_seen(started: Callable[[str], Started]) -> None:
    one = started("os.read(order.lifeline, 1)\nreturn 0")
    child = one.child()
    old = one.template.pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    while one.template.alive:
        one.template.await_news(1.0)
    assert child.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.05)

    second = one.child(1)
    assert one.template.pid not in {None, old}
    child.kill()
    assert child.wait(WAIT_S) == UNKNOWN
    assert second.poll() is None
    second.kill()
    assert second.wait(WAIT_S) == -signal.SIGKILL


def test_a_template_that_cannot_start_is_told() -> None:
    template = Template([sys.executable, "-c", "raise SystemExit(1)"], dict(os.environ))
    read, write = os.pipe()

    with pytest.raises(HubError) as refused:
        template.start("http", 0, lifeline=read, lock=write, sockets={})

    assert refused.value.category is Category.UNAVAILABLE
    template.close()
    os.close(read)
    os.close(write)
