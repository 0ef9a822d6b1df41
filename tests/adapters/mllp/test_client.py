"""The client among many open files: it must not care how large the number of its socket is."""

from __future__ import annotations

import fcntl
import resource
import socket

from adapters.mllp import client


def test_a_socket_with_a_large_number_is_listened_to() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    near, far = socket.socketpair()
    with near, far, socket.socket(fileno=fcntl.fcntl(near.fileno(), fcntl.F_DUPFD, 2000)) as high:
        assert high.fileno() >= 2000
        assert not client._speaks_unasked(high)
        far.send(b"x")
        assert client._speaks_unasked(high)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
