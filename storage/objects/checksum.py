"""A second checksum beside the name of an object: XXH3 of 128 bits in an extended attribute of its file (xattr(7)).

The name of an object is its SHA-256, which says for all time what its bytes must be, and costs as much as all else when a
study is read. Damage by a disk is found just as surely by a checksum that takes no time at all, so each file carries one
from the moment in which its bytes were hashed: before it is synced when they were received, or when a reading by SHA-256
found them right. So every reading of a whole object is checked, whenever it came.

A checksum that anybody can make proves nothing against somebody who writes to the disk on purpose. Storage commitment,
fsck and the sweeper, who ask whether an object is what was received, go by SHA-256 alone. XXH3:
https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
"""

from __future__ import annotations

import contextlib
import hashlib
import os

import xxhash

#: Eight bytes of the digest, so that an attribute copied to another file says nothing of it, and the checksum. It fits
#: into an inode of 256 bytes, so that it costs no block of its own.
ATTRIBUTE = "user.yixie.xxh3"
_DIGEST_BYTES = 8


def seal(fd: int, digest: str, checksum: bytes) -> bool:
    """Write down that the bytes of *fd*, whose SHA-256 is *digest*, have *checksum*; returns whether the file keeps it.

    It lasts as the file does: on return it is not yet on the disk.
    """
    try:
        os.setxattr(fd, ATTRIBUTE, bytes.fromhex(digest)[:_DIGEST_BYTES] + checksum)
    except OSError:
        # Such a file system knows no attributes, or has no room for one: then SHA-256 is asked each time.
        return False
    return True


def _sealed(fd: int, digest: str) -> bytes | None:
    with contextlib.suppress(OSError):
        found = os.getxattr(fd, ATTRIBUTE)
        if found[:_DIGEST_BYTES] == bytes.fromhex(digest)[:_DIGEST_BYTES]:
            return found[_DIGEST_BYTES:]
    return None


class Check:
    """Whether bytes that pass are those of one object; for one reading of all of them."""

    def __init__(self, digest: str, fd: int | None = None) -> None:
        """Begin to check what is read of the object *digest*.

        Args:
            digest: hex SHA-256.
            fd: the file that the bytes come from, open until :meth:`matches` was asked; without it, and where the file
                says nothing, the bytes are hashed by SHA-256.
        """
        self._digest = digest
        self._fd = fd
        self._sealed = None if fd is None else _sealed(fd, digest)
        self._checksum = None if fd is None else xxhash.xxh3_128()
        self._hash = hashlib.sha256() if self._sealed is None else None

    def update(self, data: bytes) -> None:
        """Take in the next bytes."""
        if self._checksum is not None:
            self._checksum.update(data)
        if self._hash is not None:
            self._hash.update(data)

    def matches(self) -> bool:
        """Return whether all bytes, the last of which was taken in, are those of the object."""
        if self._hash is None:
            assert self._checksum is not None
            assert self._fd is not None
            if self._checksum.digest() == self._sealed:
                return True
            # The bytes are wrong, or what is said of them; the next reading asks SHA-256, which knows.
            with contextlib.suppress(OSError):
                os.removexattr(self._fd, ATTRIBUTE)
            return False
        if self._hash.hexdigest() != self._digest:
            return False
        if self._checksum is not None and self._fd is not None:
            seal(self._fd, self._digest, self._checksum.digest())
        return True
