"""One connection to one partner's SFTP server: who the server is, who we are, and bounds around all that it may do.

The host key is the one that the operator pinned (RFC 4251 section 4.1: the check is what the protocol's safety rests on);
it is looked at before any password leaves. paramiko does SSH (RFC 4253, 4252, 4254) in a thread that reads whatever comes,
so time and bytes are counted below it, at the socket: a server that drips, floods or falls silent ends its own connection.
"""

from __future__ import annotations

import contextlib
import hmac
import io
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import paramiko

from adapters.folder.sftp_protocol import RefusedError, Sftp
from hub.errors import Category, HubError
from hub.file_doors import SftpAddress, sftp_address, sftp_problem
from hub.ports import MemberEndpoint

T = TypeVar("T")

#: Bytes that a server may send for nothing in particular: key exchange, sign-on, keep-alives, answers to small requests.
_TALK = 1 << 20
#: A file of the secrets' folder is a key or a password, not a book.
_SECRET_MAX = 64 * 1024
_KEY_MARK = "-----BEGIN "


class ServerAwayError(OSError):
    """The server cannot be reached, is another one than it should be, or broke off; the next use connects anew."""

    def __init__(self, why: str) -> None:
        super().__init__(0, why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may cost: seconds, and for long ones bytes in a second below which it has failed."""

    seconds: float
    min_bytes_per_s: int

    def of(self, size: int) -> float:
        """Return the seconds that moving *size* bytes may take."""
        return self.seconds + size / self.min_bytes_per_s


class Connection:
    """Connects when it is used, and again after it broke; safe for several threads, one at a time.

    Args:
        secrets: the folder in which the endpoint's ``credential`` is a file.

    Raises:
        HubError: incorrect, when the endpoint lacks something.
    """

    def __init__(self, endpoint: MemberEndpoint, secrets: Path, limits: Limits) -> None:
        problem = sftp_problem(endpoint.address, endpoint.settings)
        if problem:
            raise _wrong(endpoint, problem)
        self._endpoint = endpoint
        self._where: SftpAddress = sftp_address(endpoint.address)
        self._pinned = frozenset(str(endpoint.settings["host-key"]).split())
        self._secret = secrets / str(endpoint.settings["credential"])
        self._limits = limits
        self._lock = threading.Lock()
        self._wire: _Wire | None = None
        self._transport: paramiko.Transport | None = None
        self._sftp: Sftp | None = None
        self._closed = False

    @property
    def base(self) -> bytes:
        """The folder on the server, without a slash at its end."""
        return self._where.path

    def use(self, work: Callable[[Sftp], T], *, size: int = 0) -> T:
        """Return what *work* makes of the session; *size* bytes may come or go beside the usual talk.

        Raises:
            RefusedError: the server said no to one request.
            ServerAwayError: anything else, after which the connection is closed.
            HubError: incorrect, when the credential is of no use.
        """
        with self._lock:
            try:
                sftp = self._connected()
                with self._bounds(size):
                    return work(sftp)
            except (RefusedError, HubError):
                # Neither is the connection's fault; a HubError comes before there is one.
                raise
            except Exception as error:
                late = self._wire is not None and self._wire.spent
                self._drop()
                if isinstance(error, ServerAwayError):
                    raise
                # Of foreign words the kind alone: they may quote names of files.
                why = "too slow, or more bytes than asked for" if late else type(error).__name__
                raise ServerAwayError(f"SFTP 连接中断 / The SFTP connection broke: {why}") from error

    def close(self) -> None:
        """End the connection at once, whoever is using it; it connects no more."""
        self._closed = True
        wire = self._wire
        if wire is not None:
            wire.cut()
        with self._lock:
            self._drop()

    def _connected(self) -> Sftp:
        if self._closed:
            raise ServerAwayError("the hub is ending the connection")
        if self._sftp is None:
            secret = self._read_secret()
            key = _key(self._endpoint, secret) if secret.startswith(_KEY_MARK) else None
            seconds = self._limits.seconds
            try:
                line = socket.create_connection((self._where.host, self._where.port), seconds)
            except OSError as error:
                raise ServerAwayError(f"no connection: {error.strerror or type(error).__name__}") from error
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._wire = _Wire(line)
            with self._bounds(0):
                self._sftp = self._sign_on(self._wire, key, secret)
        return self._sftp

    def _sign_on(self, wire: _Wire, key: paramiko.PKey | None, secret: str) -> Sftp:
        seconds, user = self._limits.seconds, self._where.user
        transport = self._transport = paramiko.Transport(wire)
        transport.banner_timeout = transport.auth_timeout = transport.channel_timeout = seconds
        transport.start_client(timeout=seconds)
        shown = transport.get_remote_server_key().fingerprint
        if not any(hmac.compare_digest(shown, one) for one in self._pinned):
            raise ServerAwayError(
                f"服务器主机密钥与登记的不符 / The server showed the host key {shown}, which is not the setting host-key;"
                " ask the partner whether it changed before you change the setting"
            )
        try:
            if key is not None:
                transport.auth_publickey(user, key)
            else:
                transport.auth_password(user, secret)
        except paramiko.AuthenticationException as error:
            raise ServerAwayError("服务器拒绝登录 / The server refused the user or its credential") from error
        channel = transport.open_session(timeout=seconds)
        channel.settimeout(None)  # The wire has the time.
        channel.invoke_subsystem("sftp")
        return Sftp(channel)

    def _read_secret(self) -> str:
        try:
            with self._secret.open("rb") as file:
                if self._secret.stat().st_mode & 0o007:
                    raise _wrong(self._endpoint, "The file of the credential is open to every user; chmod 600 it.")
                text = file.read(_SECRET_MAX).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = (
                f"The file of the credential cannot be read ({type(error).__name__}); put it into the secrets' folder."
            )
            raise _wrong(self._endpoint, why) from error
        return text if text.startswith(_KEY_MARK) else text.rstrip("\r\n")

    @contextlib.contextmanager
    def _bounds(self, size: int) -> Iterator[None]:
        assert self._wire is not None
        self._wire.allow(self._limits.of(size), size)
        try:
            yield
        finally:
            self._wire.rest()

    def _drop(self) -> None:
        transport, self._transport, self._sftp = self._transport, None, None
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.cut()
        if transport is not None:
            transport.close()
        if wire is not None:
            wire.close()


class _Wire:
    """A socket for paramiko that ends when the time or the bytes of the request in hand are used up.

    paramiko reads with a time-out of a tenth of a second, again and again, so every bound is noticed within that time.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._until = math.inf
        self._left = _TALK
        self._cut = False
        self.spent = False

    def allow(self, seconds: float, size: int) -> None:
        """Let the next request take *seconds*, and bring *size* bytes beside the usual talk."""
        # A quarter more: what wraps 32 KiB of a file in SFTP and SSH, with padding and sums.
        self._left = _TALK + size + size // 4
        self._until = time.monotonic() + seconds

    def rest(self) -> None:
        """No request is in hand: time passes, and only talk may come."""
        self._until = math.inf
        self._left = _TALK

    def cut(self) -> None:
        """End it, from any thread."""
        self._cut = True

    @property
    def _closed(self) -> bool:  # what paramiko asks a socket
        return self._line.fileno() < 0

    def recv(self, most: int) -> bytes:
        self._check()
        data = self._line.recv(min(most, 1 << 16))
        self._left -= len(data)
        return data

    def send(self, data: bytes) -> int:
        self._check()
        return self._line.send(data)

    def settimeout(self, seconds: float | None) -> None:
        self._line.settimeout(seconds)

    def getpeername(self) -> Any:
        return self._line.getpeername()

    def close(self) -> None:
        self._line.close()

    def _check(self) -> None:
        if self._left <= 0 or time.monotonic() > self._until:
            self.spent = True
        if self.spent or self._cut:
            raise EOFError


def _key(endpoint: MemberEndpoint, text: str) -> paramiko.PKey:
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(text))
        except paramiko.PasswordRequiredException as error:
            raise _wrong(
                endpoint, "The key has a passphrase, which nobody types at a start; give one without."
            ) from error
        except (paramiko.SSHException, ValueError, IndexError):
            continue
    raise _wrong(endpoint, "The key is none of Ed25519, ECDSA or RSA in OpenSSH or PEM form.")


def _wrong(endpoint: MemberEndpoint, why: str) -> HubError:
    return HubError(
        Category.INCORRECT,
        f"SFTP 接口配置有误 / The SFTP endpoint {endpoint.id} is wrong: {why}",
        where=f"endpoint {endpoint.id}",
        remedy="Mend it; files and messages wait until then. See docs/operations.md.",
    )
