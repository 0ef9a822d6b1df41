"""SFTP version 3 as a client: the few requests that picking up and dropping need, over any channel of bytes.

draft-ietf-secsh-filexfer-02 (what servers speak), OpenSSH PROTOCOL 4.3 (posix-rename) and 4.7 (fsync). Names are bytes,
because servers in China list them in GBK; counts and lengths that a server states are held against the bytes that came.
"""

from __future__ import annotations

import errno
import stat
import struct
from dataclasses import dataclass
from typing import Protocol

_INIT, _VERSION, _OPEN, _CLOSE, _READ, _WRITE, _LSTAT, _FSTAT = 1, 2, 3, 4, 5, 6, 7, 8
_OPENDIR, _READDIR, _REMOVE, _MKDIR, _RENAME, _EXTENDED = 11, 12, 13, 14, 18, 200
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS = 101, 102, 103, 104, 105
_FLAG_READ, _FLAG_WRITE, _FLAG_CREATE, _FLAG_TRUNCATE = 0x1, 0x2, 0x8, 0x10
_HAS_SIZE, _HAS_OWNER, _HAS_MODE, _HAS_TIMES, _HAS_MORE = 0x1, 0x2, 0x4, 0x8, 0x80000000
_OK, _EOF = 0, 1
_ERRNO = {2: errno.ENOENT, 3: errno.EACCES, 8: errno.EOPNOTSUPP}
#: What a server answers at most; OpenSSH's own limit (sftp-common.h).
MAX_PACKET = 256 * 1024
#: Bytes of one read or write; every server must take 32,768 (section 3 of the draft).
_CHUNK = 32_768
_RENAME_OVER = b"posix-rename@openssh.com"
_SYNC = b"fsync@openssh.com"


class Channel(Protocol):
    """What carries the packets; paramiko's is one."""

    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, most: int, /) -> bytes: ...


class ProtocolError(Exception):
    """The server does not speak SFTP; nothing after it on that channel means anything."""


class RefusedError(OSError):
    """The server's status to one request; the channel is as good as before. Its own words are left out: they quote names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What the server says of a file; ``None`` where it says nothing."""

    size: int | None = None
    mode: int | None = None
    changed: int | None = None

    @property
    def is_folder(self) -> bool:
        return self.mode is not None and stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        """Whether it is an ordinary file for certain."""
        return self.mode is not None and stat.S_ISREG(self.mode)


class Sftp:
    """One session.

    Raises:
        ProtocolError: from every method; also EOFError and OSError of the channel.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._number = 0
        self._send(_INIT, struct.pack(">I", 3))
        kind, body = self._packet()
        if kind != _VERSION or body.number() < 3:
            raise ProtocolError("no SFTP version 3")
        self._offered = set()
        while body.left():
            self._offered.add(body.string())
            body.string()

    def listing(self, folder: bytes, most: int) -> list[tuple[bytes, Attributes]]:
        """Return at most *most* entries of *folder*, with ``.`` and ``..`` left out."""
        handle = self._handle(_OPENDIR, _string(folder))
        found: list[tuple[bytes, Attributes]] = []
        looked_at = 0
        while looked_at < most:
            kind, body = self._ask(_READDIR, _string(handle))
            if kind == _STATUS and body.number() == _EOF:
                break
            if kind != _NAME:
                raise ProtocolError("no names")
            for _ in range(body.number()):
                name, _, about = body.string(), body.string(), body.attributes()
                looked_at += 1
                # What is no name of one entry leads elsewhere, and is never asked for.
                if name not in {b"", b".", b".."} and b"/" not in name and b"\0" not in name:
                    found.append((name, about))
        self._done(_CLOSE, _string(handle))
        return found[:most]

    def read(self, path: bytes, most: int) -> tuple[bytes, Attributes]:
        """Return at most *most* bytes of *path*, and what the server says of it afterwards."""
        handle = self._handle(_OPEN, _string(path) + struct.pack(">II", _FLAG_READ, 0))
        data = bytearray()
        while len(data) < most:
            wanted = min(_CHUNK, most - len(data))
            kind, body = self._ask(_READ, _string(handle) + struct.pack(">QI", len(data), wanted))
            if kind == _STATUS and body.number() == _EOF:
                break
            if kind != _DATA:
                raise ProtocolError("no data")
            piece = body.string()
            if not 0 < len(piece) <= wanted:
                raise ProtocolError("another length than asked for")
            data += piece
        kind, body = self._ask(_FSTAT, _string(handle))
        if kind != _ATTRS:
            raise ProtocolError("no attributes")
        about = body.attributes()
        self._done(_CLOSE, _string(handle))
        return bytes(data), about

    def write(self, path: bytes, data: bytes) -> None:
        """Make *path* hold *data*; on the server's disk when it returns, if the server can say so."""
        # No attributes: who else may read the file is the server's to say.
        flags = _FLAG_WRITE | _FLAG_CREATE | _FLAG_TRUNCATE
        handle = self._handle(_OPEN, _string(path) + struct.pack(">II", flags, 0))
        for start in range(0, len(data), _CHUNK):
            self._done(_WRITE, _string(handle) + struct.pack(">Q", start) + _string(data[start : start + _CHUNK]))
        if _SYNC in self._offered:
            self._done(_EXTENDED, _string(_SYNC) + _string(handle))
        self._done(_CLOSE, _string(handle))

    def rename(self, old: bytes, new: bytes) -> None:
        """Give *old* the name *new*, in one step over what has that name where the server can."""
        if _RENAME_OVER in self._offered:
            self._done(_EXTENDED, _string(_RENAME_OVER) + _string(old) + _string(new))
            return
        try:
            self._done(_RENAME, _string(old) + _string(new))
        except RefusedError:
            # Version 3 renames over nothing (section 6.5). Whatever the hub renames onto is an earlier try of the same
            # file, of the same name and bytes; without the older one still being there it is the same trouble again.
            if self.about(new) is None or self.about(old) is None:
                raise
            self.remove(new)
            self._done(_RENAME, _string(old) + _string(new))

    def remove(self, path: bytes) -> None:
        """Remove the file *path*."""
        self._done(_REMOVE, _string(path))

    def make_folder(self, path: bytes) -> None:
        """Make sure that the folder *path* exists."""
        try:
            self._done(_MKDIR, _string(path) + struct.pack(">I", 0))
        except RefusedError:
            about = self.about(path)
            if about is None or not about.is_folder:
                raise

    def about(self, path: bytes) -> Attributes | None:
        """Return what is said of *path* itself, of a link too; ``None`` when there is nothing of that name."""
        try:
            kind, body = self._ask(_LSTAT, _string(path))
        except RefusedError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        if kind != _ATTRS:
            raise ProtocolError("no attributes")
        return body.attributes()

    def _handle(self, kind: int, arguments: bytes) -> bytes:
        kind, body = self._ask(kind, arguments)
        if kind != _HANDLE:
            raise ProtocolError("no handle")
        return body.string()

    def _done(self, kind: int, arguments: bytes) -> None:
        kind, body = self._ask(kind, arguments)
        if kind != _STATUS or body.number() != _OK:
            raise ProtocolError("no status")

    def _ask(self, kind: int, arguments: bytes) -> tuple[int, _Body]:
        """Return the answer to one request; of a status only success and the end of a file.

        Raises:
            RefusedError: with ENOENT, EACCES, EOPNOTSUPP, or EIO for what version 3 does not tell apart.
        """
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._send(kind, struct.pack(">I", self._number) + arguments)
        answer, body = self._packet()
        if body.number() != self._number:
            raise ProtocolError("an answer to another request")
        if answer == _STATUS:
            code = body.peek()
            if code not in {_OK, _EOF}:
                number = _ERRNO.get(code, errno.EIO)
                words = "the server refused it" if number == errno.EIO else errno.errorcode[number]
                raise RefusedError(number, words)
        return answer, body

    def _send(self, kind: int, body: bytes) -> None:
        self._channel.sendall(struct.pack(">IB", len(body) + 1, kind) + body)

    def _packet(self) -> tuple[int, _Body]:
        (size,) = struct.unpack(">I", self._exactly(4))
        if not 1 <= size <= MAX_PACKET:
            raise ProtocolError("a packet of another length than any")
        data = self._exactly(size)
        return data[0], _Body(data[1:])

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self._channel.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)


class _Body:
    """A packet's bytes, read once from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def left(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise ProtocolError("a packet that ends too soon")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def peek(self) -> int:
        before = self._at
        value = self.number()
        self._at = before
        return value

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.number())

    def attributes(self) -> Attributes:
        flags = self.number()
        size = int.from_bytes(self.take(8), "big") if flags & _HAS_SIZE else None
        if flags & _HAS_OWNER:
            self.take(8)
        mode = self.number() if flags & _HAS_MODE else None
        changed = None
        if flags & _HAS_TIMES:
            self.take(4)
            changed = self.number()
        if flags & _HAS_MORE:
            for _ in range(self.number()):
                self.string()
                self.string()
        return Attributes(size=size, mode=mode, changed=changed)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
