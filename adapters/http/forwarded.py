"""Who really calls when a reverse proxy stands in front of the HTTP door: X-Forwarded-For, or Forwarded (RFC 7239).

Whoever calls may write these headers; only what a trusted proxy has appended is true. So nothing is read unless the
connection comes from a trusted address, and then from the right: each trusted hop vouches for the one before it, and the
first address that is not a trusted proxy is the caller, whatever stands to its left. Where a hop cannot be read
(``unknown``, an obfuscated name, nonsense), the proxy that wrote it stands for the caller.

Only one of the two headers is looked at, the one that the setting names: most proxies append to one and pass the other
on as the caller wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import Scope

from hub.config import Settings, networks

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: Hops read from the right; chains of proxies are short, and a header may hold thousands of commas.
MAX_HOPS = 16

#: One ``name=value`` of RFC 7239 section 4; a quoted value may hold commas and semicolons.
_PAIR = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([!#$%&\'*+.^_`|~0-9A-Za-z:\[\]-]*))\s*')
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|[^",]+|,|"')


class Origin:
    """Finds the address of the caller in the scope of a request; without trusted proxies it is the peer's."""

    def __init__(self, settings: Settings) -> None:
        self._trusted: Sequence[Network] = networks(settings.trusted_proxies)
        self._header = settings.trusted_proxy_header.encode()

    def __bool__(self) -> bool:
        """Whether there is a proxy to trust at all."""
        return bool(self._trusted)

    def client(self, scope: Scope) -> tuple[str, int] | None:
        """Return address and port of the caller; the port is 0 where a proxy told the address, ``None`` as ASGI has it."""
        peer: tuple[str, int] | None = scope.get("client")
        if peer is None or not self._vouches(known := _plain(peer[0])):
            return peer
        assert known is not None
        told = [value.decode("latin-1") for name, value in scope["headers"] if name == self._header]
        found = self._caller(known, _hops(told, forwarded=self._header == b"forwarded"))
        return peer if found == known else (str(found), 0)

    def _caller(self, peer: Address, hops: Iterable[str]) -> Address:
        caller = peer
        for _, text in zip(range(MAX_HOPS), hops, strict=False):
            address = _address(text)
            if address is None:
                break
            caller = address
            if not self._vouches(address):
                break
        return caller

    def _vouches(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def _hops(values: Sequence[str], *, forwarded: bool) -> Iterable[str]:
    """Yield what each hop says of the one before it, the nearest first; several lines are one list (RFC 9110 5.3).

    Each line is cut by itself, so that a quote that a caller leaves open swallows nothing of a proxy's line.
    """
    for line in reversed(values):
        if forwarded:
            yield from (_for(element) for element in reversed(_elements(line)))
        else:
            yield from (part.strip() for part in reversed(line.split(",")))


def _elements(line: str) -> list[str]:
    """Split at the commas that stand outside quotes."""
    elements = [""]
    for piece in _QUOTED.findall(line):
        if piece == ",":
            elements.append("")
        else:
            elements[-1] += piece
    return elements


def _for(element: str) -> str:
    """Return the node of ``for=`` in one element, empty where there is none or the element cannot be read."""
    found, position = "", 0
    while position <= len(element):
        pair = _PAIR.match(element, position)
        if pair is None or element[pair.end() : pair.end() + 1] not in {"", ";"}:
            return ""
        if pair[1].lower() == "for":
            if found:
                return ""
            found = re.sub(r"\\(.)", r"\1", pair[2]) if pair[2] is not None else pair[3]
        position = pair.end() + 1
    return found


def _address(text: str) -> Address | None:
    """Return the address of a node: bare, ``192.0.2.1:port``, ``[2001:db8::1]`` or ``[2001:db8::1]:port``."""
    if text.startswith("["):
        inner, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return None
        return _plain(inner) if ":" in inner else None
    if text.count(":") == 1:
        text = text.partition(":")[0]
    return _plain(text)


def _plain(text: str) -> Address | None:
    """Return the address, that of IPv4 where it is wrapped in IPv6 (RFC 4291 section 2.5.5.2)."""
    if "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
