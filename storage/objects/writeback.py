"""Asking the disk to begin with what was written, without waiting for it: sync_file_range(2), which Python does not offer.

Nothing is promised by it. Durability is the fsync that follows, and so is the news of an error: only that call asks for
and resets what the kernel remembers of failed writes to this descriptor.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

#: SYNC_FILE_RANGE_WRITE of <linux/fs.h>: start writing all dirty pages that are not being written yet.
_WRITE = 2


def _found() -> Callable[[int, int, int, int], int] | None:
    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
        function.restype = ctypes.c_int
    return function


_SYNC_FILE_RANGE = _found()


def begin_writing(fd: int) -> None:
    """Start writing the file *fd* to its disk; does nothing where the system or the file system cannot."""
    if _SYNC_FILE_RANGE is not None:
        # A length of zero means to the end. What it returns is a hint as well.
        _SYNC_FILE_RANGE(fd, 0, 0, _WRITE)
