"""HL7 v2 and clinical documents by files: what a partner writes into a folder is taken, and what is for it is dropped into another one.

For systems that can only export and import files, often on a share of a front-end machine (前置机). A member's v2 endpoint
whose address is ``file:///path`` or ``sftp://user@host/path`` is one: below that path the member writes into ``in`` and reads from ``out`` and
``answers``; the hub keeps what it took in ``done`` and ``refused``. HL7 v2 chapter 2.10.3 (files and batches).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hub.errors import Category, HubError
from hub.ports import MemberEndpoint

if TYPE_CHECKING:
    from adapters.folder.sftp_place import SftpPlace
    from hub.config import Settings


def open_remote(endpoint: MemberEndpoint, settings: Settings) -> SftpPlace:
    """Return the place of an *endpoint* whose address is on an SFTP server; it connects when it is used.

    Raises:
        HubError: incorrect, when the endpoint lacks something.
    """
    # Who has no such endpoint loads no SSH.
    from adapters.folder.sftp_connection import Connection, Limits
    from adapters.folder.sftp_place import SftpPlace

    limits = Limits(seconds=settings.delivery_timeout_s, min_bytes_per_s=settings.min_bytes_per_s)
    return SftpPlace(Connection(endpoint, settings.secrets(), limits))


def base_of(endpoint: MemberEndpoint) -> Path:
    """Return the folder of *endpoint*, whose address the operator wrote.

    Raises:
        HubError: incorrect, when it is no absolute path of this machine.
    """
    parts = urlsplit(endpoint.address)
    path = Path(unquote(parts.path))
    if parts.scheme != "file" or parts.netloc or not path.is_absolute() or ".." in path.parts:
        raise HubError(
            Category.INCORRECT,
            f"文件夹地址无效 / The address of {endpoint.id} is no folder of this machine.",
            where=f"endpoint {endpoint.id}",
            remedy="Write file:///absolute/path.",
        )
    return path
