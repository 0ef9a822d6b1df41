"""A hospital's HIS on a raw socket: it sends MLLP frames and answers those it gets. Nothing of the hub is used here."""

from __future__ import annotations

import contextlib
import socket
import threading

START, END = b"\x0b", b"\x1c\r"


def send_frames(port: int, *messages: bytes, timeout_s: float = 20.0) -> list[bytes]:
    """Send *messages* on one connection, each after the answer to the one before; return the answers."""
    answers: list[bytes] = []
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        for message in messages:
            connection.sendall(START + message + END)
            answers.append(read_frame(connection))
    return answers


def read_frame(connection: socket.socket) -> bytes:
    """Return the content of the next frame; raises ConnectionError when the peer closes first."""
    data = b""
    while END not in data:
        more = connection.recv(65536)
        if not more:
            raise ConnectionError("closed without an answer")
        data += more
    return data[data.index(START) + 1 : data.index(END)]


class HIS:
    """Receives messages and acknowledges each with AA, or with what ``answers`` says for the next ones."""

    def __init__(self, *, charset: str = "gb18030", port: int = 0) -> None:
        self.charset = charset
        self.received: list[bytes] = []
        self.answers: list[str] = []
        self._arrived = threading.Condition()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while True:
                try:
                    raw = read_frame(connection)
                except (ConnectionError, OSError):
                    return
                with self._arrived:
                    self.received.append(raw)
                    code = self.answers.pop(0) if self.answers else "AA"
                    self._arrived.notify_all()
                header = raw.split(b"\r")[0].split(b"|")
                ack = b"|".join(
                    [
                        *header[:2],
                        *header[4:6],
                        *header[2:4],
                        header[6],
                        b"",
                        b"ACK",
                        b"A" + header[9],
                        b"P",
                        header[11],
                    ]
                )
                connection.sendall(START + ack + b"\rMSA|" + code.encode() + b"|" + header[9] + b"\r" + END)

    def messages(self, kind: str = "") -> list[list[str]]:
        """Return what has arrived as lists of segments, optionally of one MSH-9 only."""
        with self._arrived:
            texts = [raw.decode(self.charset) for raw in self.received]
        found = [[line for line in text.split("\r") if line] for text in texts]
        return [one for one in found if not kind or one[0].split("|")[8].startswith(kind)]

    def wait_for(self, count: int, kind: str = "", *, deadline_s: float = 40.0) -> list[list[str]]:
        """Return all messages of *kind* once there are at least *count*."""
        with self._arrived:
            arrived = self._arrived.wait_for(
                lambda: sum(1 for raw in self.received if not kind or kind.encode() in raw.split(b"\r")[0]) >= count,
                deadline_s,
            )
        assert arrived, f"{count} {kind or 'messages'} did not arrive; got {[m[0] for m in self.messages()]}"
        return self.messages(kind)

    def close(self) -> None:
        """Stop listening and hang up."""
        # Closing alone leaves the socket to the thread that waits on it, which would take and answer one peer more.
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def segment(message: list[str], name: str, number: int = 0) -> list[str]:
    """Return the fields of the *number*-th segment called *name*; index 1 is field 1 (for MSH, field 2)."""
    return [line.split("|") for line in message if line.startswith(name + "|")][number]
