"""The toolkit's association as a peer in tests, without the race of its two threads.

An association of pynetdicom has a thread of its own, which must rest while another thread sends and waits for the answer.
Whether it rests is told by a flag, which is up for a moment before and after the rest too. A sender that looks then goes on,
and its answer is taken by the other thread, logged as unexpected and lost: some one in ten thousand messages on a busy
machine. Here the flag counts only while the thread does rest.
"""

from __future__ import annotations

import threading
from typing import Any, cast

from pynetdicom.association import Association


def _rests(self: Association) -> bool:
    said = bool(self.__dict__.get("_says_paused"))
    # The thread itself may send inside a service, and one that was ended rests for good.
    if not said or self._kill or threading.current_thread() is self:
        return said
    waiting = cast("Any", self._reactor_checkpoint)._cond._waiters
    return not self._reactor_checkpoint.is_set() and bool(waiting)


def _say(self: Association, paused: bool) -> None:
    self.__dict__["_says_paused"] = paused


Association._is_paused = property(_rests, _say)  # type: ignore[assignment]
