"""What a process that receives remembers, so that an instance of a known series costs one index row and no more.

Nothing rests on it alone: the statement that writes an instance compares whose the study is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import datetime

#: Series that one process remembers as known; a forgotten one costs two statements that change nothing.
_REMEMBERED = 20_000


class KnownSeries:
    """Series whose rows are committed, whose they are and when they were last touched; bounded, shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._touched: OrderedDict[tuple[str, str, str], tuple[tuple[str, str, str], datetime]] = OrderedDict()

    def fresh(self, key: tuple[str, str, str], who: tuple[str, str, str], since: datetime) -> bool:
        """Return whether *key* was touched after *since* by an instance that said the same of the patient."""
        with self._lock:
            touched = self._touched.get(key)
        return touched is not None and touched[1] > since and touched[0] == who

    def mark(self, key: tuple[str, str, str], who: tuple[str, str, str], now: datetime) -> None:
        """Remember that *key* was touched at *now*, and whose it is."""
        with self._lock:
            self._touched[key] = who, now
            self._touched.move_to_end(key)
            if len(self._touched) > _REMEMBERED:
                self._touched.popitem(last=False)

    def forget(self, key: tuple[str, str, str]) -> None:
        """Vouch for *key* no longer."""
        with self._lock:
            self._touched.pop(key, None)
