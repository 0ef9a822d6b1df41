"""A real OpenSSH server on a free port, with keys of its own, for the user who runs the tests; it can be cut off anywhere.

Each connection is served by an ``sshd -i`` behind a relay, so that no port is agreed on beforehand, and so that the
server can be killed after as many bytes as a test says.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Self

SSHD = "/usr/sbin/sshd"
_CONFIG = """
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
LogLevel ERROR
"""


class Sshd:
    """Serves until it is closed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user = getpass.getuser()
        self.connections = 0
        self.received = 0
        #: Bytes from the server after which it is killed; ``None`` = never.
        self.cut_after: int | None = None
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("host", "client"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)]
            subprocess.run(command, check=True, timeout=60)
        shutil.copy(folder / "client.pub", folder / "authorized")
        (folder / "config").write_text(_CONFIG.format(folder=folder))
        if os.getuid() == 0:
            # Debian makes it when the service starts, which this is not.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._children: list[subprocess.Popen[bytes]] = []
        self._sockets: list[socket.socket] = []
        self._copying: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    @property
    def host_key(self) -> str:
        """The fingerprint as ``ssh-keygen -l`` prints it."""
        command = ["ssh-keygen", "-lf", str(self.folder / "host.pub")]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()[1]

    def address(self, path: Path) -> str:
        return f"sftp://{self.user}@127.0.0.1:{self.port}{path}"

    def secrets(self, folder: Path) -> Path:
        """Make *folder* hold the client's key under the name ``client``."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / "client", folder / "client")
        (folder / "client").chmod(0o600)
        return folder

    def kill(self) -> None:
        """Kill every server process, and cut its line."""
        with self._lock:
            children, self._children = self._children, []
            sockets = list(self._sockets)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait(60)
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        self._listener.close()
        self.kill()
        for thread in self._copying:
            thread.join(60)
        for one in self._sockets:
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            ours, theirs = socket.socketpair()
            command = [SSHD, "-i", "-e", "-f", str(self.folder / "config")]
            with theirs, (self.folder / "log").open("ab") as log:
                child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=log, start_new_session=True)
            with self._lock:
                self.connections += 1
                self._children.append(child)
                self._sockets += [line, ours]
            for pair in ((line, ours, False), (ours, line, True)):
                thread = threading.Thread(target=self._copy, args=pair)
                self._copying.append(thread)
                thread.start()

    def _copy(self, source: socket.socket, target: socket.socket, from_server: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if from_server:
                    left = None if self.cut_after is None else self.cut_after - self.received
                    self.received += len(data)
                    if left is not None and len(data) >= left:
                        target.sendall(data[: max(left, 0)])
                        self.kill()
                        break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
