"""``hub serve``: one parent that binds the sockets and keeps the processes of the doors alive.

Theory of operation. The parent binds and listens, so that a port is never lost while a child restarts, and hands the
descriptors down; the kernel spreads connections over the processes of a door. Children are forked from a template
(:mod:`adapters.ops.template`), never from the parent. Each door has a lock file that its children inherit, so that two hubs can
never serve the same door of one data directory, not even while the children of a killed parent are still finishing.
A pipe that only the parent writes to tells children that it is gone. A child that ends because the disk failed takes
the node down: what was acknowledged is safe, and nothing more is taken until somebody has looked (DESIGN rule 1).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from adapters.ops.template import Forked, Template
from hub.config import Settings
from hub.errors import Category, HubError

log = structlog.get_logger("adapters.ops.supervisor")

#: Order in which the doors start.
DOORS = ("worker", "dimse", "mllp", "http")
#: Exit status of a process whose disk failed (EX_SOFTWARE of sysexits.h): it is not started again.
EXIT_FATAL = 70
#: Time that children get to finish what is in flight.
STOP_S = 20.0
#: A door's lock may still be held by children that are finishing.
LOCK_WAIT_S = 25.0
BACKLOG = 1024
RESTART_FIRST_S = 0.5
RESTART_LONGEST_S = 30.0
#: A child that lived this long starts its next restart without a wait.
HEALTHY_AFTER_S = 30.0
_POLL_S = 0.1


def parse_bind(bind: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[v6]:port``.

    Raises:
        HubError: incorrect.
    """
    host, colon, port = bind.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise HubError(
            Category.INCORRECT,
            f"{bind!r} is no address to listen on.",
            where="..._bind",
            remedy="Write host:port, for example 127.0.0.1:8080; port 0 picks a free one.",
        )
    return host.strip("[]"), int(port)


def listen(bind: str) -> socket.socket:
    """Return a socket that listens on *bind*.

    Raises:
        HubError: unavailable when the address is taken; incorrect when it cannot be listened on.
    """
    host, port = parse_bind(bind)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise HubError(
            Category.UNAVAILABLE,
            f"The hub cannot listen on {bind}: {error.strerror}.",
            where=bind,
            remedy="Stop what uses the port, or set another ..._BIND.",
        ) from error
    listener.set_inheritable(True)
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address that *listener* has in the end, as a bind string."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def binds(settings: Settings) -> dict[str, dict[str, str]]:
    """Return the addresses to listen on: door -> purpose (``plain``, ``tls``) -> bind string."""
    wanted = {
        door: {"plain": str(getattr(settings, f"{door}_bind")), "tls": str(getattr(settings, f"{door}_tls_bind"))}
        for door in ("dimse", "mllp", "http")
    }
    found = {door: {purpose: bind for purpose, bind in ways.items() if bind} for door, ways in wanted.items()}
    if any("tls" in ways for ways in found.values()) and not (settings.tls_certificate and settings.tls_key):
        raise HubError(
            Category.INCORRECT,
            "A TLS port is set, but no certificate.",
            where="tls_certificate",
            remedy="Set tls_certificate and tls_key, or remove the ..._tls_bind.",
        )
    return found


@dataclass(slots=True)
class Child:
    """One process of a door."""

    door: str
    index: int
    process: Forked | None = None
    started_at: float = 0.0
    restarts: int = 0
    not_before: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.door}-{self.index}"


@dataclass(slots=True)
class Supervisor:
    """Keeps the children of the doors *only* alive until :meth:`stop`."""

    settings: Settings
    only: Sequence[str] = DOORS
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Called once, with the real addresses: door -> purpose -> ``host:port``.
    announce: Callable[[Mapping[str, Mapping[str, str]]], None] = lambda _: None
    _stop: threading.Event = field(default_factory=threading.Event)
    _children: list[Child] = field(default_factory=list)
    _template: Template | None = None

    def stop(self) -> None:
        """Let :meth:`run` stop the children and return."""
        self._stop.set()

    def run(self) -> int:
        """Serve; returns the exit status: 0 after a clean stop, 70 when the disk failed.

        Raises:
            HubError: when a door is already served from this data directory or an address cannot be bound.
        """
        run_dir = self.settings.data_dir / "run"
        run_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            locks = {door: stack.enter_context(_locked(run_dir / f"{door}.lock", self._stop)) for door in self.only}
            sockets = {
                door: {purpose: stack.enter_context(listen(bind)) for purpose, bind in ways.items()}
                for door, ways in binds(self.settings).items()
                if door in self.only
            }
            addresses = {
                door: {purpose: address_of(one) for purpose, one in ways.items()} for door, ways in sockets.items()
            }
            lifeline, keep = os.pipe()
            stack.callback(os.close, lifeline)
            keep_open = stack.enter_context(os.fdopen(keep, "wb"))
            self._template = Template(template_command(self.only), self._environment(addresses, run_dir))
            stack.callback(self._template.close)
            self._children = [
                Child(door=door, index=index)
                for door in DOORS
                if door in self.only
                for index in range(_processes(self.settings, door))
            ]
            _write_ports(run_dir, addresses, add=True)
            stack.callback(_write_ports, run_dir, addresses, add=False)
            try:
                for child in self._children:
                    self._start(child, sockets.get(child.door, {}), locks[child.door], lifeline)
                self._write_processes(run_dir)
                self.announce(addresses)
                return self._watch(run_dir, sockets, locks, lifeline)
            finally:
                self._end()
                keep_open.close()
                (run_dir / f"processes-{os.getpid()}.json").unlink(missing_ok=True)

    def _environment(self, addresses: Mapping[str, Mapping[str, str]], run_dir: Path) -> dict[str, str]:
        environment = {**os.environ, **self.environment}
        for door, ways in addresses.items():
            for purpose, address in ways.items():
                # Children learn the port that was picked, for the addresses they give out.
                environment[f"HUB_{door.upper()}{'_TLS' if purpose == 'tls' else ''}_BIND"] = address
        counters = run_dir / "metrics"
        counters.mkdir(exist_ok=True)
        _forget_dead(counters)
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(counters.resolve())
        environment["PYTHONUNBUFFERED"] = "1"
        return environment

    def _start(self, child: Child, sockets: Mapping[str, socket.socket], lock: int, lifeline: int) -> None:
        assert self._template is not None
        child.process = self._template.start(
            child.door,
            child.index,
            lifeline=lifeline,
            lock=lock,
            sockets={purpose: listener.fileno() for purpose, listener in sockets.items()},
        )
        child.started_at = time.monotonic()
        log.info("child_started", child=child.name, pid=child.process.pid)

    def _watch(
        self,
        run_dir: Path,
        sockets: Mapping[str, Mapping[str, socket.socket]],
        locks: Mapping[str, int],
        lifeline: int,
    ) -> int:
        while not self._stop.wait(_POLL_S):
            now = time.monotonic()
            for child in self._children:
                status = child.process.poll() if child.process is not None else None
                if child.process is not None and status is None:
                    continue
                if child.process is not None:
                    child.process = None
                    if status == EXIT_FATAL:
                        log.critical("disk_failed", child=child.name)
                        return EXIT_FATAL
                    self._plan_restart(child, status, now)
                if now >= child.not_before:
                    try:
                        self._start(child, sockets.get(child.door, {}), locks[child.door], lifeline)
                    except HubError as error:
                        log.error("child_not_started", child=child.name, error=error.message)  # noqa: TRY400 - no news
                        self._plan_restart(child, None, now)
                    self._write_processes(run_dir)
        return 0

    @staticmethod
    def _plan_restart(child: Child, status: int | None, now: float) -> None:
        if now - child.started_at >= HEALTHY_AFTER_S:
            child.restarts = 0
        wait_s = 0.0 if child.restarts == 0 else min(RESTART_LONGEST_S, RESTART_FIRST_S * 2 ** (child.restarts - 1))
        child.restarts += 1
        child.not_before = now + wait_s
        log.error("child_ended", child=child.name, status=status, restart_in_s=wait_s)

    def _end(self) -> None:
        alive = [child.process for child in self._children if child.process is not None]
        for process in alive:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for process in alive:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("child_killed", pid=process.pid)  # noqa: TRY400 - the trace would say nothing
                process.kill()
                process.wait()

    def _write_processes(self, run_dir: Path) -> None:
        running = {child.name: child.process.pid for child in self._children if child.process is not None}
        if self._template is not None and self._template.pid is not None:
            running["template"] = self._template.pid
        _replace(run_dir / f"processes-{os.getpid()}.json", {"supervisor": os.getpid(), "children": running})


def template_command(only: Sequence[str]) -> list[str]:
    """Return what starts a template for the doors *only*."""
    # -P keeps the working directory out of the import path: a child runs the code that its parent runs.
    return [sys.executable, "-P", "-m", "hub", "_template", "--only", ",".join(only)]


def _processes(settings: Settings, door: str) -> int:
    return {"dimse": settings.dimse_processes, "http": settings.http_processes}.get(door, 1)


@contextlib.contextmanager
def _locked(path: Path, stop: threading.Event) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + LOCK_WAIT_S
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = os.pread(handle, 32, 0).decode(errors="replace").strip()
                # Waiting makes sense only for children of a parent that is gone.
                if _alive(owner) or time.monotonic() > deadline or stop.is_set():
                    raise HubError(
                        Category.CONFLICT,
                        f"Another hub (process {owner or 'unknown'}) already serves this door from this data directory.",
                        where=str(path),
                        remedy="Stop it first, or give this hub its own HUB_DATA_DIR.",
                    ) from None
                if not told:
                    log.warning("waiting_for_children_of_a_stopped_hub", lock=path.name)
                    told = True
                time.sleep(0.2)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield handle
    finally:
        os.close(handle)


def _alive(pid: str) -> bool:
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _forget_dead(counters: Path) -> None:
    # Counter files are named kind_pid.db; those of processes that are gone belong to an earlier run.
    for path in counters.glob("*.db"):
        if not _alive(path.stem.rpartition("_")[2]):
            path.unlink(missing_ok=True)


def _replace(path: Path, value: object) -> None:
    fresh = path.with_suffix(f".{os.getpid()}.new")
    fresh.write_text(json.dumps(value, indent=1), "utf-8")
    fresh.replace(path)


def _write_ports(run_dir: Path, addresses: Mapping[str, Mapping[str, str]], *, add: bool) -> None:
    """Add our addresses to ``ports.json`` or take them away; other doors may be served by another parent."""
    path = run_dir / "ports.json"
    with (run_dir / "ports.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        try:
            known = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            known = {}
        for door in addresses:
            known.pop(door, None)
        _replace(path, {**known, **addresses} if add else known)
