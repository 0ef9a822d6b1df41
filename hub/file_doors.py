"""Where a member's HL7 v2 files are: the address of its endpoint, a folder of this machine or of an SFTP server.

``file:///path`` and ``sftp://user@host:port/path`` (RFC 3986; the latter as in draft-ietf-secsh-scp-sftp-ssh-uri-04). The
directory is readable by the whole consortium, so an address with a password in it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

LOCAL = "file:"
REMOTE = "sftp:"
SSH_PORT = 22

#: The SHA-256 of a host key as ``ssh-keygen -l`` prints it: 32 bytes in base64 without padding.
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
#: A file of the secrets' folder, which no name can lead out of.
_SECRET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SftpAddress:
    """One folder of an SFTP server.

    Attributes:
        path: absolute on the server, without a slash at its end; empty = its root.
    """

    user: str
    host: str
    port: int
    path: bytes


def is_file_door(address: str) -> bool:
    """Return whether *address* is a folder, here or on a server."""
    return address.startswith((LOCAL, REMOTE))


def sftp_address(address: str) -> SftpAddress:
    """Return the parts of ``sftp://user@host:port/path``.

    Raises:
        ValueError: with words that say what is wrong and quote nothing, because it may be a password.
    """
    try:
        parts = urlsplit(address)
        port, user, host = parts.port or SSH_PORT, unquote(parts.username or ""), parts.hostname or ""
    except ValueError as error:
        raise ValueError("host or port cannot be read") from error
    path = unquote_to_bytes(parts.path).rstrip(b"/")
    if parts.scheme != "sftp" or not host or not user.isprintable() or not user:
        raise ValueError("user or host is missing")
    if parts.password is not None:
        raise ValueError("a password must not stand in an address, which all members can read")
    if parts.query or parts.fragment or b"\0" in path or b".." in path.split(b"/"):
        raise ValueError("the path is not a plain absolute one")
    return SftpAddress(user=user, host=host, port=port, path=path)


def are_fingerprints(value: str) -> bool:
    """Return whether *value* is one or more fingerprints of host keys, with spaces between."""
    return bool(value.split()) and all(map(_FINGERPRINT.fullmatch, value.split()))


def is_secret_name(value: str) -> bool:
    """Return whether *value* can be the name of a file in the secrets' folder."""
    return _SECRET.fullmatch(value) is not None


def sftp_problem(address: str, settings: Mapping[str, Any]) -> str:
    """Return what an endpoint with an SFTP address lacks, with words how to get it; empty when it lacks nothing."""
    try:
        where = sftp_address(address)
    except ValueError as error:
        return f"The SFTP address is wrong: {error}. Write sftp://user@host:port/absolute/path."
    if not settings.get("host-key"):
        return (
            "The setting host-key is missing, and without it nobody can tell that server from another one. Ask the"
            " partner for the fingerprint (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on its server), compare it"
            f" with what the server shows (ssh-keyscan -p {where.port} HOST | ssh-keygen -lf -), and set SHA256:..."
        )
    if not settings.get("credential"):
        return "The setting credential is missing: the name of a key file or password file in the secrets' folder."
    return ""
