"""Which certificate speaks for which member (PS3.15 annex B; BCP 195): data of the Endpoint, judged at every TLS door.

An Endpoint says two things: ``tls`` = ``required`` refuses its member on an open line, and ``certificates`` names those
that may speak for it, by SHA-256 fingerprint or by a name in the certificate. A certificate that is named by one member
speaks for nobody else, so a stolen AE title or facility name is not enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hub.ports import MemberEndpoint

_FINGERPRINT = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a peer proved to hold.

    Attributes:
        fingerprint: SHA-256 of the DER form, in lower-case hexadecimal.
        names: subject alternative names (DNS, URI, IP) and common names, in lower case.
        ends: its notAfter; ``None`` where the door does not tell.
    """

    fingerprint: str
    names: frozenset[str]
    ends: datetime | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """How a peer came in: on an open line, or over TLS with or without a certificate of its own."""

    encrypted: bool = False
    certificate: Certificate | None = None


OPEN_LINE = Line()


def claims(settings: Mapping[str, Any]) -> frozenset[str]:
    """Return the certificates that an Endpoint's *settings* name, as :func:`spoken_for` compares them."""
    found = set()
    for word in str(settings.get("certificates", "")).lower().replace(":", "").split():
        # A fingerprint is often written with colons between its bytes, and a URI has one of its own.
        bare = word.removeprefix("sha256")
        found.add(bare if _FINGERPRINT.fullmatch(bare) else word)
    return frozenset(found)


def spoken_for(certificate: Certificate, claimed: frozenset[str]) -> bool:
    """Return whether *claimed* names *certificate*."""
    return certificate.fingerprint in claimed or any(name.replace(":", "") in claimed for name in certificate.names)


def why_not(endpoint: MemberEndpoint, line: Line, others: Iterable[MemberEndpoint] = ()) -> str:
    """Return why a peer on *line* may not speak for *endpoint*, in a word for the log; empty when it may.

    Args:
        others: the endpoints of all members; a certificate that one of another member names is refused here.
    """
    claimed = claims(endpoint.settings)
    if not line.encrypted:
        return "tls-required" if claimed or endpoint.settings.get("tls") == "required" else ""
    certificate = line.certificate
    if claimed and (certificate is None or not spoken_for(certificate, claimed)):
        return "certificate-unknown"
    if certificate is not None and not claimed:
        for other in others:
            if other.member != endpoint.member and spoken_for(certificate, claims(other.settings)):
                return "certificate-of-another-member"
    return ""
