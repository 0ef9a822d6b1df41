"""The supervisor over real processes: ports, restarts, clean ends, one hub for each data folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.ops import supervisor as module
from adapters.ops.supervisor import EXIT_FATAL, Supervisor, binds, listen, parse_bind
from adapters.ops.template import Template
from hub.config import Settings
from hub.errors import Category, HubError
from tests.flows.hub_process import eventually

#: A template of the test instead of ``python -m hub _template``: its children do what the files of its folder say.
TEMPLATE = """
import os, signal, sys
from adapters.ops.template import serve
here, control = sys.argv[1], int(sys.argv[sys.argv.index('--control') + 1])

def run(order):
    def stop(*_):
        open(os.path.join(here, f'{order.door}-{order.index}.stopped'), 'w').close()
        os._exit(0)
    signal.signal(signal.SIGTERM, stop)
    with open(os.path.join(here, f'{order.door}-{order.index}.starts'), 'a') as log:
        log.write(f'{os.getpid()}\\n')
    if os.path.exists(os.path.join(here, 'fatal')):
        return 70
    os.read(order.lifeline, 1)
    stop()

serve(control, run)
"""


def settings(folder: Path, **more: object) -> Settings:
    values: dict[str, object] = {
        "data_dir": folder,
        "http_bind": "127.0.0.1:0",
        "mllp_bind": "127.0.0.1:0",
        "dimse_bind": "127.0.0.1:0",
        "http_processes": 2,
        "dimse_processes": 1,
    }
    return Settings(**(values | more))  # type: ignore[arg-type]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Children are the test's own; returns the folder in which they write what they do."""
    here = tmp_path / "children"
    here.mkdir()
    script = here / "template.py"
    script.write_text(TEMPLATE)
    # The script finds the code where this process found it.
    root = str(Path(module.__file__).parent.parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", "")))))
    monkeypatch.setattr(module, "template_command", lambda _: [sys.executable, str(script), str(here)])
    return here


@contextmanager
def running(found: Settings, *doors: str) -> Iterator[tuple[Supervisor, Mapping[str, Mapping[str, str]], list[int]]]:
    """Run a supervisor in a thread; yields it, the addresses, and a list that gets its exit status."""
    told, addresses, statuses = threading.Event(), {}, []

    def announce(given: Mapping[str, Mapping[str, str]]) -> None:
        addresses.update(given)
        told.set()

    one = Supervisor(found, doors or module.DOORS, {}, announce)
    thread = threading.Thread(target=lambda: statuses.append(one.run()))
    thread.start()
    try:
        assert told.wait(20)
        yield one, addresses, statuses
    finally:
        one.stop()
        thread.join(30)
        assert not thread.is_alive()


def starts(here: Path, name: str) -> list[int]:
    path = here / f"{name}.starts"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_every_door_gets_its_processes_and_a_port_that_is_written_down(tmp_path: Path, stand_in: Path) -> None:
    with running(settings(tmp_path)) as (_, addresses, statuses):
        eventually(
            lambda: all(starts(stand_in, n) for n in ("http-0", "http-1", "dimse-0", "mllp-0", "worker-0")), what="all"
        )
        assert json.loads((tmp_path / "run" / "ports.json").read_text()) == addresses
        for door in ("http", "mllp", "dimse"):
            host, _, port = addresses[door]["plain"].rpartition(":")
            socket.create_connection((host, int(port)), timeout=5).close()
    assert statuses == [0]
    assert {one.stem for one in stand_in.glob("*.stopped")} == {"http-0", "http-1", "dimse-0", "mllp-0", "worker-0"}
    assert json.loads((tmp_path / "run" / "ports.json").read_text()) == {}


def test_a_killed_child_comes_back_and_the_port_stays(tmp_path: Path, stand_in: Path) -> None:
    with running(settings(tmp_path), "mllp") as (_, addresses, _statuses):
        [first] = eventually(lambda: starts(stand_in, "mllp-0"), what="the first start")
        os.kill(first, signal.SIGKILL)
        eventually(lambda: len(starts(stand_in, "mllp-0")) == 2, what="the second start")
        host, _, port = addresses["mllp"]["plain"].rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()


def test_a_failed_disk_takes_the_node_down(tmp_path: Path, stand_in: Path) -> None:
    (stand_in / "fatal").touch()
    with running(settings(tmp_path), "worker") as (_, _addresses, statuses):
        eventually(lambda: bool(statuses), what="the supervisor ends by itself")
    assert statuses == [EXIT_FATAL]
    assert len(starts(stand_in, "worker-0")) == 1


def test_a_second_hub_on_the_same_folder_is_refused(tmp_path: Path, stand_in: Path) -> None:
    with running(settings(tmp_path), "worker"), pytest.raises(HubError) as refused:
        Supervisor(settings(tmp_path), ["worker"]).run()
    assert refused.value.category is Category.CONFLICT


def test_two_doors_may_be_served_by_two_parents(tmp_path: Path, stand_in: Path) -> None:
    with running(settings(tmp_path), "mllp"), running(settings(tmp_path), "dimse"):
        known = json.loads((tmp_path / "run" / "ports.json").read_text())
        assert sorted(known) == ["dimse", "mllp"]


def test_children_end_when_their_parent_is_gone(tmp_path: Path, stand_in: Path) -> None:
    # What a killed parent leaves: a pipe whose other end is closed.
    read, write = os.pipe()
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    template = Template(module.template_command(["worker"]), dict(os.environ))
    try:
        child = template.start("worker", 0, lifeline=read, lock=lock, sockets={})
        eventually(lambda: starts(stand_in, "worker-0"), what="the child starts")
        os.close(write)
        assert child.wait(20) == 0
    finally:
        template.close()
        os.close(read)
        os.close(lock)


def test_the_hub_goes_on_when_the_template_is_killed(tmp_path: Path, stand_in: Path) -> None:
    with running(settings(tmp_path), "mllp") as (one, _, statuses):
        [first] = eventually(lambda: starts(stand_in, "mllp-0"), what="the first start")
        template = processes(tmp_path)["template"]
        os.kill(template, signal.SIGKILL)
        eventually(lambda: not one._template.alive, what="the supervisor notices")  # type: ignore[union-attr]
        os.kill(first, signal.SIGKILL)
        eventually(lambda: len(starts(stand_in, "mllp-0")) == 2, what="a new template makes a new child")
        assert eventually(lambda: processes(tmp_path)["template"] != template, what="it is written down")
    assert statuses == [0]


def processes(folder: Path) -> dict[str, int]:
    [path] = (folder / "run").glob("processes-*.json")
    return dict(json.loads(path.read_text())["children"])


def test_a_taken_port_is_told_with_its_address() -> None:
    with listen("127.0.0.1:0") as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(HubError, match=r"cannot listen on 127\.0\.0\.1"):
            listen(bind)


@pytest.mark.parametrize(
    ("bind", "parsed"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), ("0.0.0.0:65535", ("0.0.0.0", 65535))],
)
def test_binds_are_host_and_port(bind: str, parsed: tuple[str, int]) -> None:
    assert parse_bind(bind) == parsed


@pytest.mark.parametrize("bind", ["8080", "host:", "host:99999", "host:-1", "host:http"])
def test_anything_else_is_refused(bind: str) -> None:
    with pytest.raises(HubError):
        parse_bind(bind)


def test_a_tls_port_without_a_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="certificate"):
        binds(settings(tmp_path, mllp_tls_bind="127.0.0.1:0"))
