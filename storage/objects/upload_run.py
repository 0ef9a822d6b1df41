"""One run of uploads from the spool to S3, and the connection that is made when it is first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hub.errors import Category, HubError
from hub.ports import ObjectRef
from storage.objects.breaker import Breaker

if TYPE_CHECKING:
    from storage.objects.s3 import S3Store

#: Failures in a row after which an upload run ends: the trouble is then the server's and not that of one object.
_GIVE_UP_AFTER = 8


class UploadRun:
    """What the threads of one run share: the next object and how it goes."""

    def __init__(self, refs: Iterator[ObjectRef], stop: threading.Event) -> None:
        self._refs = refs
        self._stop = stop
        self._lock = threading.Lock()
        self._in_a_row = 0
        self.sent = self.failed = 0
        self.error = ""
        self.last = ""

    def next(self) -> ObjectRef | None:
        """Return the next object, or None when all are done or there is no point in going on."""
        with self._lock:
            if self._stop.is_set() or self._in_a_row >= _GIVE_UP_AFTER:
                return None
            found = next(self._refs, None)
            if found is not None:
                self.last = found.digest
            return found

    def success(self) -> None:
        """Count an upload."""
        with self._lock:
            self.sent += 1
            self._in_a_row = 0

    def failure(self, error: HubError) -> None:
        """Count an upload that failed."""
        with self._lock:
            self.failed += 1
            self.error = error.message
            # A damaged file is no sign that the server is away.
            self._in_a_row += error.category is not Category.FAULT


class Remote:
    """The S3 store, connected to when it is first needed; after a failure it is left alone for a while."""

    def __init__(self, connect: Callable[[], S3Store]) -> None:
        self._connect = connect
        self._breaker = Breaker("S3 server", failures=1, rest_s=5.0)
        self._lock = threading.Lock()
        self._store: S3Store | None = None

    def get(self) -> S3Store:
        """Return the store; raises HubError(unavailable) when its server does not answer."""
        if self._store is not None:
            return self._store
        with self._lock:
            if self._store is None:
                self._breaker.check()
                try:
                    self._store = self._connect()
                except HubError:
                    self._breaker.failed()
                    raise
                self._breaker.succeeded()
            return self._store

    def close(self) -> None:
        """Let go of the connection, if there is one."""
        with self._lock:
            if self._store is not None:
                self._store.close()
