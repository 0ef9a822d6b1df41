"""What a server may cost before and after it has shown who it is: its time and bytes are counted, whatever it sends."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from adapters.folder.sftp_connection import Connection, Limits, ServerAwayError
from adapters.folder.sftp_protocol import Sftp
from hub.ports import MemberEndpoint

KEY = paramiko.ECDSAKey.generate()
#: Long enough for a server that answers; the other tests wait for it once.
SECONDS = 30.0


def connection(port: int, secrets: Path, *, seconds: float = SECONDS, secret: str = "Geheim 1\n") -> Connection:
    secrets.mkdir(exist_ok=True)
    (secrets / "kn").write_text(secret)
    (secrets / "kn").chmod(0o600)
    settings = {"host-key": KEY.fingerprint, "credential": "kn"}
    address = f"sftp://hub@127.0.0.1:{port}/"
    endpoint = MemberEndpoint(id="KN/sftp", member="KN", kind="mllp", address=address, settings=settings)
    return Connection(endpoint, secrets, Limits(seconds=seconds, min_bytes_per_s=1024))


@contextlib.contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """Hand every connection to *handle* until the end; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    lines: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def one(line: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            handle(line)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = listener.accept()
                lines.append(line)
                threads.append(threading.Thread(target=one, args=(line,)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(60)
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        for line in lines:
            line.close()


class Host(paramiko.ServerInterface):
    """Lets the user ``hub`` in with one password, and opens any session."""

    def __init__(self) -> None:
        self.tried: list[str] = []

    def check_auth_password(self, username: str, password: str) -> int:
        self.tried.append(password)
        good = (username, password) == ("hub", "Geheim 1")
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        return name == "sftp"


def ssh(line: socket.socket, host: Host, session: Callable[[paramiko.Channel], None]) -> None:
    """Serve one SSH connection, whose session is *session*'s."""
    transport = paramiko.Transport(line)
    try:
        transport.add_server_key(KEY)
        transport.start_server(server=host)
        channel = transport.accept(SECONDS)
        if channel is not None:
            session(channel)
    finally:
        transport.close()


def greet(channel: paramiko.Channel) -> None:
    channel.recv(1024)
    channel.sendall(struct.pack(">IBI", 5, 2, 3))


def test_a_password_is_told_to_the_pinned_server_alone(tmp_path: Path) -> None:
    host = Host()

    def session(channel: paramiko.Channel) -> None:
        greet(channel)
        channel.recv(1024)
        channel.sendall(struct.pack(">IBIIII", 17, 101, 1, 2, 0, 0))
        channel.recv(1)

    with serving(lambda line: ssh(line, host, session)) as port:
        one = connection(port, tmp_path / "a")
        assert one.use(lambda sftp: sftp.about(b"/in")) is None
        one.close()
        assert host.tried == ["Geheim 1"]
        wrong = connection(port, tmp_path / "b", secret="other")
        with pytest.raises(ServerAwayError, match="refused the user"):
            wrong.use(lambda sftp: sftp.about(b"/in"))
        wrong.close()
        assert host.tried == ["Geheim 1", "other"]


def test_a_server_with_another_key_hears_no_password(tmp_path: Path) -> None:
    host = Host()
    other = paramiko.ECDSAKey.generate()

    def handle(line: socket.socket) -> None:
        transport = paramiko.Transport(line)
        transport.add_server_key(other)
        transport.start_server(server=host)
        transport.accept(SECONDS)
        transport.close()

    with serving(handle) as port:
        one = connection(port, tmp_path / "a")
        with pytest.raises(ServerAwayError) as away:
            one.use(lambda sftp: sftp.about(b"/in"))
        one.close()
    assert other.fingerprint in str(away.value)
    assert host.tried == []


def flood_before_the_banner(line: socket.socket) -> None:
    while True:
        line.sendall(b"x" * 65536)


def flood_with_a_packet_of_four_gigabytes(line: socket.socket) -> None:
    line.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" + b"\xff\xff\xff\xf4")
    while True:
        line.sendall(b"\0" * 65536)


def say_nothing(line: socket.socket) -> None:
    while line.recv(65536):
        pass


def close_at_once(line: socket.socket) -> None:
    line.shutdown(socket.SHUT_RDWR)


def speak_http(line: socket.socket) -> None:
    line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    say_nothing(line)


@pytest.mark.parametrize(
    ("handle", "seconds"),
    [
        (flood_before_the_banner, SECONDS),
        (flood_with_a_packet_of_four_gigabytes, SECONDS),
        (say_nothing, 0.3),
        (close_at_once, SECONDS),
        (speak_http, 0.3),
    ],
)
def test_what_is_no_ssh_server_is_away_after_its_time_or_bytes(
    tmp_path: Path, handle: Callable[[socket.socket], None], seconds: float
) -> None:
    with serving(handle) as port:
        one = connection(port, tmp_path / "a", seconds=seconds)
        with pytest.raises(ServerAwayError):
            one.use(lambda sftp: sftp.about(b"/in"))
        one.close()


def test_a_port_where_nobody_listens_is_away(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    one = connection(port, tmp_path / "a")
    with pytest.raises(ServerAwayError, match="no connection"):
        one.use(lambda sftp: sftp.about(b"/in"))


def endless_pages(channel: paramiko.Channel) -> None:
    """Answer every request for names with a page of none."""
    greet(channel)
    while request := channel.recv(4096):
        number = request[5:9]
        body = number + (struct.pack(">I", 1) + b"h" if request[4] == 11 else struct.pack(">I", 0))
        channel.sendall(struct.pack(">IB", len(body) + 1, 102 if request[4] == 11 else 104) + body)


def one_byte_and_no_more(channel: paramiko.Channel) -> None:
    greet(channel)
    channel.sendall(b"\0")
    while channel.recv(4096):
        pass


@pytest.mark.parametrize("session", [endless_pages, one_byte_and_no_more])
def test_a_server_that_never_comes_to_an_end_is_cut_off_when_its_time_is_up(
    tmp_path: Path, session: Callable[[paramiko.Channel], None]
) -> None:
    host = Host()
    with serving(lambda line: ssh(line, host, session)) as port:
        one = connection(port, tmp_path / "a")
        one.use(lambda sftp: None)
        one._limits = Limits(seconds=0.3, min_bytes_per_s=1024)
        with pytest.raises(ServerAwayError, match="too slow"):
            one.use(lambda sftp: sftp.listing(b"/in", 100))
        one.close()


def test_a_server_that_sends_more_than_was_asked_for_is_cut_off(tmp_path: Path) -> None:
    host = Host()

    def session(channel: paramiko.Channel) -> None:
        greet(channel)
        channel.recv(4096)
        channel.sendall(struct.pack(">IBII", 10, 102, 1, 1) + b"h")
        page = struct.pack(">II", 1, 200) + b"n" * 200 + struct.pack(">I", 200) + b"l" * 200 + struct.pack(">I", 0)
        while request := channel.recv(4096):
            body = request[5:9] + struct.pack(">I", 400) + page[4:] * 400
            channel.sendall(struct.pack(">IB", len(body) + 1, 104) + body)

    def listing(sftp: Sftp) -> None:
        sftp.listing(b"/in", 1_000_000)

    with serving(lambda line: ssh(line, host, session)) as port:
        one = connection(port, tmp_path / "a")
        with pytest.raises(ServerAwayError, match="more bytes"):
            one.use(listing, size=100_000)
        one.close()


def test_a_connection_that_broke_is_made_anew_by_the_next_use(tmp_path: Path) -> None:
    host = Host()
    with serving(lambda line: ssh(line, host, greet)) as port:
        one = connection(port, tmp_path / "a")
        for _ in range(2):
            with pytest.raises(ServerAwayError):
                one.use(lambda sftp: sftp.about(b"/in"))
        one.close()
    assert host.tried == ["Geheim 1"] * 2
