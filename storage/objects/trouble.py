"""Trouble with disks and damaged objects, in the hub's error vocabulary."""

from __future__ import annotations

import errno
import re

from hub.errors import Category, HubError

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BUSY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
_MOUNT = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ESTALE, errno.ENOTCONN})


def is_digest(name: str) -> bool:
    """Whether *name* is the hex SHA-256 that this store uses as a name."""
    return _DIGEST.fullmatch(name) is not None


def checked(digest: str) -> str:
    """Return *digest* when it is a hex SHA-256; no path or key is ever built from anything else."""
    if not is_digest(digest):
        raise HubError(Category.INCORRECT, "The object name is not a lower-case hex SHA-256.", where="object store")
    return digest


def from_os(error: OSError, doing: str) -> HubError:
    """Return what *error* means to a sender: a full disk or a lost mount passes, a failing device does not."""
    if error.errno in _FULL:
        return HubError(
            Category.UNAVAILABLE,
            f"The disk is full ({doing}).",
            where="object store",
            remedy="Free space on the volume of the object store; senders may repeat their requests then.",
        )
    if error.errno in _BUSY:
        return HubError(
            Category.BUSY,
            f"The process has run out of files or memory ({doing}).",
            where="object store",
            remedy="Raise the limit of open files (ulimit -n) or lower the number of connections.",
        )
    name = errno.errorcode.get(error.errno or 0, "an unnamed error")
    if error.errno in _MOUNT:
        return HubError(
            Category.UNAVAILABLE,
            f"The volume of the object store cannot be used: {name} ({doing}).",
            where="object store",
            remedy="Check that it is mounted, writable and owned by the hub's user.",
        )
    return HubError(
        Category.FAULT,
        f"The volume of the object store fails: {name} ({doing}).",
        where="object store",
        remedy="Check the kernel log and the disk, then run: hub fsck",
    )


def sync_failed(error: OSError, doing: str) -> HubError:
    """Return the final error for a failed fsync: the kernel may have dropped the pages, a retry would lie."""
    name = errno.errorcode.get(error.errno or 0, "an unnamed error")
    return HubError(
        Category.FAULT,
        f"fsync failed with {name} ({doing}); the store takes no more data in this process.",
        where="object store",
        remedy="Check the disk and its kernel log, run: hub fsck, then start the hub again.",
        fatal=True,
    )


def read_only() -> HubError:
    """Return the refusal of a store after a failed fsync."""
    return HubError(
        Category.UNAVAILABLE,
        "The object store stopped taking data after a failed fsync.",
        where="object store",
        remedy="Check the disk and its kernel log, run: hub fsck, then start the hub again.",
    )


def too_large(max_bytes: int) -> HubError:
    """Return the refusal of an input that outgrew its cap while it was received."""
    return HubError(
        Category.INCORRECT,
        f"The input is larger than {max_bytes} bytes, the limit of this door.",
        remedy="Send it in smaller pieces, or have the operator raise the limit.",
        issue_code="too-long",
        status=413,
    )


def missing(digest: str) -> HubError:
    """Return the error for an object that is not in the store."""
    return HubError(Category.NOT_FOUND, f"Object {digest} is not in the object store.", where="object store")


def damaged(digest: str) -> HubError:
    """Return the error for stored bytes that no longer match their name."""
    return HubError(
        Category.FAULT,
        f"Object {digest} is damaged: its bytes do not have the SHA-256 that is its name.",
        where="object store",
        remedy="Restore it from a backup or have it sent again; hub fsck lists all such objects.",
    )


def foreign_spool() -> HubError:
    """Return the error for a spool that another store made, or that was already put or broken."""
    return HubError(
        Category.FAULT,
        "Only an open, unbroken spool of this same store can be put.",
        where="object store",
    )
