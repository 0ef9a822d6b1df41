"""Where a webhook may lead: an address that the operator allows, checked again when its name has been resolved.

An Endpoint is data, and whoever may change data must not be able to make the hub ask things of its own network (OWASP,
Server-Side Request Forgery Prevention). So the address must lie under one that the settings name, the name must lead to no
address of the machine itself or of its network's services, and the connection goes to the very address that was looked at.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

_PORTS = {"http": 80, "https": 443}
_LOCAL = "localhost"
#: Services of clouds that tell secrets to whoever asks from inside, and forms of IPv6 that carry an IPv4 address.
_NEVER = tuple(
    ipaddress.ip_network(one)
    for one in ("100.100.100.200/32", "fd00:ec2::254/128", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)

Resolve = Callable[[str, int], Iterable[str]]


class NotAllowedError(Exception):
    """The hub does not call this address; ``str()`` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An address that may be called.

    Attributes:
        url: as the Endpoint says it.
        host: its name, for TLS and the header Host.
        address: the IP address to connect to.
    """

    url: str
    host: str
    port: int
    address: str


def resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of *host*.

    Raises:
        OSError: it has none, or nobody could be asked.
    """
    return [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def target_of(url: str, allowed: str, *, resolver: Resolve = resolve) -> Target:
    """Return where *url* leads.

    Args:
        allowed: URLs separated by commas; *url* is one of them, or a path below one.

    Raises:
        NotAllowedError: it may not be called.
        OSError: its name cannot be resolved now.
    """
    parts = _parts(url)
    if not any(_covers(_parts(one.strip()), parts) for one in allowed.split(",") if one.strip()):
        raise NotAllowedError("webhook_urls does not name this address")
    host, port = str(parts.hostname), parts.port or _PORTS[parts.scheme]
    found = list(resolver(host, port))
    if not found:
        raise OSError("no address")
    for one in found:
        # One bad address among good ones is what a rebinding name server gives.
        _check(one, host)
    return Target(url=url, host=host, port=port, address=found[0])


def _parts(url: str) -> SplitResult:
    if not url.isascii() or any(char <= " " or char in "\\\x7f" for char in url):
        raise NotAllowedError("it holds characters that a URL does not have")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise NotAllowedError("it is no URL") from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise NotAllowedError("it is no http:// or https:// URL")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise NotAllowedError("it holds a user's name or a fragment")
    if any(one in {".", ".."} for one in parts.path.replace("%2e", ".").replace("%2E", ".").split("/")):
        raise NotAllowedError("its path leads upwards")
    return parts


def _covers(allowed: SplitResult, wanted: SplitResult) -> bool:
    def place(one: SplitResult) -> tuple[str, str | None, int]:
        return one.scheme, one.hostname, one.port or _PORTS[one.scheme]

    base = allowed.path.rstrip("/")
    return place(allowed) == place(wanted) and (wanted.path == base or wanted.path.startswith(f"{base}/"))


def _check(text: str, host: str) -> None:
    address = ipaddress.ip_address(text.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    if any(address in network for network in _NEVER):
        raise NotAllowedError("its name leads to an address that nobody calls")
    if address.is_loopback and host not in {_LOCAL, str(address)}:
        raise NotAllowedError("its name leads to this machine")
    if not address.is_loopback and (
        address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved
    ):
        raise NotAllowedError("its name leads to an address that nobody calls")
