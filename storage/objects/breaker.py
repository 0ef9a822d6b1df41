"""A circuit breaker: after enough failures in a row of time, refuse at once instead of making every sender wait."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from hub.errors import Category, HubError


class Breaker:
    """Opens after *failures* within *window_s*; after *rest_s* one caller may try, and its success closes it."""

    def __init__(
        self,
        name: str,
        *,
        failures: int = 5,
        window_s: float = 30.0,
        rest_s: float = 10.0,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._limit = failures
        self._window_s = window_s
        self._rest_s = rest_s
        self._now_s = now_s
        self._lock = threading.Lock()
        self._failures: deque[float] = deque(maxlen=failures)
        self._retry_at_s: float | None = None

    def check(self) -> None:
        """Return when a call may be made; raises HubError(unavailable) while the breaker is open."""
        with self._lock:
            if self._retry_at_s is None:
                return
            now_s = self._now_s()
            if now_s >= self._retry_at_s:
                # This caller is the trial; the others wait for its outcome or for the next turn.
                self._retry_at_s = now_s + self._rest_s
                return
        raise HubError(
            Category.UNAVAILABLE,
            f"{self._name} failed {self._limit} times in a short time and is given a rest.",
            where=self._name,
            remedy="Check that the server is up and reachable; the hub tries again by itself.",
        )

    def succeeded(self) -> None:
        """Note that a call worked: the breaker closes."""
        with self._lock:
            self._failures.clear()
            self._retry_at_s = None

    def failed(self) -> None:
        """Note that a call failed."""
        with self._lock:
            now_s = self._now_s()
            self._failures.append(now_s)
            full = len(self._failures) == self._limit
            if full and now_s - self._failures[0] <= self._window_s:
                self._retry_at_s = now_s + self._rest_s
