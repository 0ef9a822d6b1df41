"""The process that the processes of the doors are forked from, and the supervisor's hold on it.

Theory of operation. Each process of a hub needs the same hundred megabytes of code. A template, which is a fresh
interpreter, loads that once and then only forks: its children share the pages (copy on write) and start at once. It
never has a second thread, a database connection or a lock, so what is forked is as clean as a new interpreter. The
supervisor sends it one message for each child, with the descriptors that the child is to have (SCM_RIGHTS, unix(7)),
and hears from it the process id, a pidfd (pidfd_open(2)) and in the end the exit status. A signal sent through the pidfd
can never hit a stranger that has got the number since.

The template ends when the supervisor's end of the socket closes. When it dies, its children go on, and the next child
comes from a new template.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub.errors import Category, HubError

#: Time for a template to load the code and fork its first child.
START_S = 60.0
_MESSAGE_BYTES = 1 << 16
_MOST_DESCRIPTORS = 16
#: Exit status of a child whose template died first and took the true one with it.
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Order:
    """What a child is to be.

    Attributes:
        lifeline: descriptor of a pipe that ends with the supervisor.
        sockets: descriptors of listening sockets by purpose.
    """

    door: str
    index: int
    lifeline: int
    sockets: Mapping[str, int]


#: What a child does; returns its exit status.
Run = Callable[[Order], int]


# --- the supervisor's side ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Forked:
    """One child, as the supervisor sees it; the calls are those of :class:`subprocess.Popen`."""

    pid: int
    pidfd: int
    template: Template
    #: Which of the templates, one after another, it comes from.
    generation: int
    status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or ``None`` while the child runs."""
        self.template.collect()
        orphan = not self.template.alive or self.template.generation != self.generation
        if self.status is None and orphan and self._gone(0.0):
            self._ended(UNKNOWN)
        return self.status

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens when the child has ended."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = math.inf) -> int:
        """Return the exit status; raises :class:`subprocess.TimeoutExpired`."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            left = min(deadline - time.monotonic(), 1.0)
            if left <= 0:
                raise subprocess.TimeoutExpired("child", timeout)
            if self._gone(left):
                # The status follows, unless the template is gone too.
                self.template.await_news(left)
        assert self.status is not None
        return self.status

    def _gone(self, timeout: float) -> bool:
        """Return whether the child has ended, which its pidfd tells also when nobody is left to reap it."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.pidfd, selectors.EVENT_READ)
            return bool(selector.select(timeout))

    def _ended(self, status: int) -> None:
        self.status = status
        os.close(self.pidfd)


@dataclass(slots=True)
class Template:
    """Starts children by way of a template process, which it starts when there is none.

    Args:
        command: starts a template; ``--control`` and a descriptor are added.
        environment: of the template and so of all children.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    generation: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _channel: socket.socket | None = None
    _children: dict[int, Forked] = field(default_factory=dict)
    _started: list[Forked] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether the template runs."""
        return self._channel is not None

    @property
    def pid(self) -> int | None:
        """Process id of the template."""
        return self._process.pid if self._process is not None and self.alive else None

    def start(self, door: str, index: int, *, lifeline: int, lock: int, sockets: Mapping[str, int]) -> Forked:
        """Return a new child that holds *lifeline*, *lock* and *sockets*.

        Raises:
            HubError: unavailable when no template can be started.
        """
        channel = self._channel if self._channel is not None else self._open()
        message = json.dumps({"door": door, "index": index, "purposes": list(sockets)}).encode()
        try:
            socket.send_fds(channel, [message], [lifeline, lock, *sockets.values()])
        except OSError:
            self._lost()
        deadline = time.monotonic() + START_S
        while not self._started:
            if self._channel is None or time.monotonic() > deadline:
                self._lost()
                raise HubError(
                    Category.UNAVAILABLE,
                    "The process that the hub's processes are made from did not start.",
                    where="hub _template",
                    remedy="Look at what it said above; the hub tries again.",
                )
            self.await_news(deadline - time.monotonic())
        return self._started.pop()

    def collect(self) -> None:
        """Take in what the template has told."""
        while self._channel is not None:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._channel, _MESSAGE_BYTES, _MOST_DESCRIPTORS)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._lost()
                return
            news = json.loads(data)
            if "started" in news:
                # Known from here on, because the news of its end may be the next.
                child = Forked(news["started"], descriptors[0], self, self.generation)
                self._children[child.pid] = child
                self._started.append(child)
            else:
                ended = self._children.pop(news["ended"], None)
                if ended is not None and ended.status is None:
                    ended._ended(news["status"])  # noqa: SLF001 - the two are one thing

    def await_news(self, timeout: float) -> None:
        """Wait for the template to tell something, and take it in."""
        if self._channel is None:
            time.sleep(min(timeout, 0.05))
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            selector.select(max(timeout, 0.0))
        self.collect()

    def close(self) -> None:
        """End the template; children that still run go on."""
        self._lost()

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [*self.command, "--control", str(theirs.fileno())],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                pass_fds=[theirs.fileno()],
            )
        ours.setblocking(False)
        self._channel = ours
        self.generation += 1
        return ours

    def _lost(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        process, self._process = self._process, None
        if process is not None:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# --- the template's side -----------------------------------------------------------------------------------------


def serve(control: int, run: Run) -> None:
    """Fork a child that does *run* for each message on *control*, until its other end closes.

    Call it in a process of one thread that has loaded what the children need.
    """
    # The children decide for themselves how they end; the template ends with its supervisor.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Objects of the code are never looked at by the collector again, so that their pages stay shared.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=control) as channel, selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
                _reap(channel)
            if channel.fileno() not in ready:
                continue
            data, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, _MOST_DESCRIPTORS)
            if not data:
                return
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            pid = os.fork()
            if pid == 0:
                # Nothing of the template may be touched by its child, and the child never comes back from here.
                _become(json.loads(data), descriptors, run, close=(channel.detach(), wake, waker, selector.fileno()))
            pidfd = os.pidfd_open(pid)
            socket.send_fds(channel, [json.dumps({"started": pid}).encode()], [pidfd])
            for descriptor in (pidfd, *descriptors):
                os.close(descriptor)


def _reap(channel: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        channel.send(json.dumps({"ended": pid, "status": os.waitstatus_to_exitcode(status)}).encode())


def _become(message: Any, descriptors: Sequence[int], run: Run, *, close: Sequence[int]) -> None:
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        for descriptor in close:
            os.close(descriptor)
        # The second is the lock of the door, which is only held.
        lifeline, _, *listeners = descriptors
        sockets = dict(zip(message["purposes"], listeners, strict=True))
        status = run(Order(door=message["door"], index=message["index"], lifeline=lifeline, sockets=sockets))
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last frame of the child; what it would raise into is the template
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
