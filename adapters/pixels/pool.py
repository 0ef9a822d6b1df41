"""The child processes in which pixels are decoded and rendered, and their bounds.

A child is a fresh interpreter that holds nothing of the door: no database, no token, no other image, and no setting of
the hub in its environment. It may use so much memory (RLIMIT_AS), so much processor time and so much time for each job,
may write no file, and is killed and replaced at the first trouble. What an image breaks is therefore one request: the
limits and their origin are in :mod:`hub.config`.

Theory of operation. Nothing runs until the first job. A job is one message over a socket pair: eight bytes that say how
long the head and the payload are, the head as JSON, the payload as bytes; the answer has the same form. A child that
has been idle for a while ends by itself, so an idle hub is as small as before; its place is taken by a new one when
there is work again. The last one used is the first one used again, so surplus children do grow idle.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from hub import metrics
from hub.errors import Category, HubError

if TYPE_CHECKING:
    from hub.config import Settings

HEAD = struct.Struct(">IQ")
#: Heads are small: descriptions of images and texts to draw.
MAX_HEAD_BYTES = 1 << 20
#: What a child may read of the door's environment; settings and secrets are none of its business.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT")
#: One job is one thread of work; libraries that start threads of their own would multiply the number of processes.
_SINGLE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OPJ_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
_DEFAULT_COMMAND = (sys.executable, "-m", "adapters.pixels.child")


class Streamed:
    """A part of a job that is read while it is sent, so that the door never holds all of it.

    Args:
        size: in bytes.
        chunks: begins to read; called again where a job is sent again.
    """

    def __init__(self, size: int, chunks: Callable[[], Iterator[bytes]]) -> None:
        self._size = size
        self._chunks = chunks

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks()


#: A part of a job.
Part = bytes | Streamed


class Pool:
    """At most *processes* children, started when they are needed.

    Args:
        memory_bytes: address space of one child.
        cpu_s: processor time of one job.
        deadline_s: time of one job, and longest wait for a free child.
        idle_s: a child without work ends after this.
        waiting: jobs that may wait for a child; more are turned away.
        max_bytes: longest answer.
    """

    def __init__(
        self,
        *,
        processes: int,
        memory_bytes: int,
        cpu_s: float,
        deadline_s: float,
        idle_s: float,
        waiting: int = 256,
        max_bytes: int = 256 << 20,
        command: Sequence[str] = _DEFAULT_COMMAND,
    ) -> None:
        self.memory_bytes = memory_bytes
        self._command = [*command, str(memory_bytes), str(cpu_s), str(idle_s)]
        self._deadline_s = deadline_s
        self._max_bytes = max_bytes
        self._free = threading.Semaphore(processes)
        self._places = threading.Semaphore(processes + waiting)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        #: Every child that may still run, for the end.
        self._children: list[_Child] = []
        self._end = weakref.finalize(self, _end_all, self._children)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the pool that *settings* describe."""
        return cls(
            processes=settings.pixel_processes,
            memory_bytes=settings.pixel_memory_bytes,
            cpu_s=settings.pixel_cpu_s,
            deadline_s=settings.pixel_deadline_s,
            idle_s=settings.pixel_idle_s,
            max_bytes=settings.max_frame_bytes + (64 << 20),
        )

    @property
    def pids(self) -> Sequence[int]:
        """Process ids of the children that run."""
        with self._lock:
            return [child.process.pid for child in self._children if child.process.poll() is None]

    def run(self, head: Mapping[str, Any], *payload: Part) -> tuple[dict[str, Any], bytes]:
        """Return what a child answers to one job.

        Raises:
            HubError: busy when too many wait; unsupported (406) when the image cannot be decoded, needs more
                memory or time than it may have, or makes the codec crash.
        """
        work = str(head["do"])
        metrics.count("pixel_asked", work=work)
        outcome = "failed"
        try:
            answer = self._placed(head, payload)
            outcome = "done"
            return answer
        except HubError as error:
            outcome = "killed" if isinstance(error, _KilledError) else _OUTCOMES.get(error.category, "failed")
            raise
        finally:
            metrics.count("pixel_jobs", work=work, outcome=outcome)

    def _placed(self, head: Mapping[str, Any], payload: Sequence[Part]) -> tuple[dict[str, Any], bytes]:
        """Return what a child answers, once one is free."""
        if not self._places.acquire(blocking=False):
            raise HubError(Category.BUSY, "Too many images are being decoded.", remedy="Send again in a moment.")
        try:
            asked = time.monotonic()
            free = self._free.acquire(timeout=self._deadline_s)
            began = time.monotonic()
            metrics.observe("pixel_wait", began - asked)
            if not free:
                raise HubError(Category.BUSY, "Too many images are being decoded.", remedy="Send again in a moment.")
            try:
                return self._run(head, payload)
            finally:
                metrics.observe("pixel_job", time.monotonic() - began, work=str(head["do"]))
                self._free.release()
        finally:
            self._places.release()

    def close(self) -> None:
        """End all children."""
        self._end()

    def _run(self, head: Mapping[str, Any], payload: Sequence[Part]) -> tuple[dict[str, Any], bytes]:
        while True:
            child, fresh = self._take()
            try:
                answer, data = child.ask({**head, "sizes": [len(one) for one in payload]}, payload, self)
            except _GoneError:
                self._drop(child)
                # One that had grown idle may have ended just before it was asked; a new one cannot have.
                if fresh or child.process.returncode != 0:
                    raise _crashed(child.process.returncode) from None
                continue
            except BaseException:
                self._drop(child)
                raise
            break
        with self._lock:
            self._idle.append(child)
        trouble = answer.get("error")
        if trouble is not None:
            raise _refused(Category(trouble["category"]), trouble["message"], trouble["where"])
        return answer, data

    def _take(self) -> tuple[_Child, bool]:
        while True:
            with self._lock:
                if not self._idle:
                    break
                child = self._idle.pop()
            if child.process.poll() is None:
                return child, False
            self._drop(child)
        child = _Child(self._command)
        with self._lock:
            self._children.append(child)
        return child, True

    def _drop(self, child: _Child) -> None:
        child.end()
        with self._lock, contextlib.suppress(ValueError):
            self._children.remove(child)

    @property
    def deadline_s(self) -> float:
        """Time of one job."""
        return self._deadline_s

    @property
    def max_bytes(self) -> int:
        """Longest answer that is taken."""
        return self._max_bytes


_REMEDY = "Retrieve the instance as stored."
#: What became of a job that failed, for the metrics.
_OUTCOMES = {Category.BUSY: "busy", Category.UNSUPPORTED: "refused", Category.INCORRECT: "refused"}


class _KilledError(HubError):
    """The image took more than it may, or its codec broke."""


class _GoneError(Exception):
    """The child ended without an answer."""


class _Child:
    """One process and the socket to it."""

    def __init__(self, command: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [*command, str(theirs.fileno())],
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _SINGLE,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Codecs print what they make of an image, which may be anything.
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours

    def ask(self, head: Mapping[str, Any], payload: Sequence[Part], pool: Pool) -> tuple[dict[str, Any], bytes]:
        """Return the answer; raises _GoneError when the child ends, HubError(unsupported) after the deadline."""
        deadline = time.monotonic() + pool.deadline_s
        encoded = json.dumps(head).encode()
        try:
            sent: list[Part] = [HEAD.pack(len(encoded), sum(map(len, payload))) + encoded, *payload]
            for data in (chunk for one in sent for chunk in ([one] if isinstance(one, bytes) else one)):
                self._socket.settimeout(_left(deadline))
                self._socket.sendall(data)
            head_bytes, data_bytes = HEAD.unpack(self._receive(HEAD.size, deadline))
            if head_bytes > MAX_HEAD_BYTES or data_bytes > pool.max_bytes:
                raise _killed("The decoded image is too large.")
            answer: dict[str, Any] = json.loads(self._receive(head_bytes, deadline))
            return answer, self._receive(data_bytes, deadline)
        except TimeoutError:
            raise _killed(f"The image was not decoded within {pool.deadline_s:g} s.") from None
        except OSError:
            raise _GoneError from None

    def _receive(self, count: int, deadline: float) -> bytes:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            self._socket.settimeout(_left(deadline))
            got = self._socket.recv_into(view)
            if not got:
                raise _GoneError
            view = view[got:]
        return bytes(data)

    def end(self) -> None:
        """Kill the process unless it has ended, and let its socket go."""
        self._socket.close()
        # One that is ending by itself is given a moment, so that its status tells why.
        try:
            self.process.wait(0.2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _refused(category: Category, message: str, where: str = "(7FE0,0010)") -> HubError:
    """Return the error of an image that cannot be had in the form asked for; the object itself can still be had."""
    status = 406 if category is Category.UNSUPPORTED else None
    return HubError(category, message, where=where, remedy="" if status is None else _REMEDY, status=status)


def _killed(message: str) -> HubError:
    return _KilledError(Category.UNSUPPORTED, message, where="(7FE0,0010)", remedy=_REMEDY, status=406)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _crashed(status: int) -> HubError:
    why = {
        -signal.SIGXCPU: "took more processor time than it may",
        -signal.SIGKILL: "took more than it may and was killed",
    }.get(status, f"ended with status {status}")
    return _killed(f"The codec that was to decode the image {why}.")


def _end_all(children: list[_Child]) -> None:
    for child in children:
        child.process.kill()
        child.end()
    children.clear()
