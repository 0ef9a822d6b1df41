"""Where an endpoint is, and how it is called (PS3.8 section 9.1, PS3.15 annex B.9)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from adapters._tls import client_context
from hub.config import Settings
from hub.ports import MemberEndpoint

DEFAULT_PORT = 104
#: Most that one association can propose (PS3.8 section 9.3.2.2: odd ids below 256).
MAX_CONTEXTS = 128


def address(endpoint: MemberEndpoint) -> tuple[str, int, bool]:
    """Return (host, port, TLS) of ``host:port``, ``dicom://host:port`` or ``dicoms://host:port``; raises ValueError."""
    text = endpoint.address if "://" in endpoint.address else f"dicom://{endpoint.address}"
    parts = urlsplit(text)
    if parts.scheme not in {"dicom", "dicoms"} or not parts.hostname or not endpoint.ae_title:
        raise ValueError("the endpoint has no host or no AE title")
    return parts.hostname, parts.port or DEFAULT_PORT, parts.scheme == "dicoms"


def secured(settings: Settings, host: str) -> Callable[[socket.socket], socket.socket]:
    """Return what turns a connected socket into that of TLS."""
    return lambda connection: client_context(settings).wrap_socket(connection, server_hostname=host)
