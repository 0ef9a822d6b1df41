"""TLS for every door and sender: one profile, one way to read a peer's certificate (BCP 195 as of RFC 9325; PS3.15 B.9, B.12).

TLS 1.2 is the oldest version; its suites are those with forward secrecy and authenticated encryption. Client
certificates are asked for as soon as ``tls_client_ca`` names the authorities that members' certificates come from.
"""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hub.certificates import OPEN_LINE, Certificate, Line
from hub.config import Settings
from hub.errors import Category, HubError

#: RFC 9325 section 4.2; TLS 1.3 has its own list, all of which fits.
_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"


def server_context(settings: Settings) -> ssl.SSLContext:
    """Return the side that listens.

    Raises:
        HubError: incorrect, when certificate, key or client authority cannot be loaded.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _profile(context)
    _load(context, settings, needed=True)
    if settings.tls_client_ca is not None:
        _trust(context, settings)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(settings: Settings) -> ssl.SSLContext:
    """Return the side that calls: it trusts the members' authorities, else the system's, and shows the hub's certificate.

    Raises:
        HubError: incorrect, as :func:`server_context`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _profile(context)
    if settings.tls_client_ca is not None:
        _trust(context, settings)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    _load(context, settings, needed=False)
    return context


def line_of(connection: object) -> Line:
    """Return how the peer of *connection* came in; anything that is not a TLS socket or object is an open line."""
    if not isinstance(connection, ssl.SSLSocket | ssl.SSLObject):
        return OPEN_LINE
    der = connection.getpeercert(binary_form=True)
    if not der:
        return Line(encrypted=True)
    said: dict[str, Any] = dict(connection.getpeercert() or {})
    names = {str(value) for kind, value in said.get("subjectAltName", ()) if kind in {"DNS", "URI", "IP Address"}}
    for part in said.get("subject", ()):
        names |= {str(value) for kind, value in part if kind == "commonName"}
    ends = said.get("notAfter")
    return Line(
        encrypted=True,
        certificate=Certificate(
            hashlib.sha256(der).hexdigest(),
            frozenset(name.lower() for name in names),
            None if ends is None else datetime.fromtimestamp(ssl.cert_time_to_seconds(str(ends)), UTC),
        ),
    )


def files_of(settings: Settings) -> dict[str, Path]:
    """Return the files of certificates that *settings* name: the hub's own, and those of the members' authorities."""
    files = {"certificate": settings.tls_certificate, "client-ca": settings.tls_client_ca}
    return {name: path for name, path in files.items() if path is not None}


def end_of(path: Path) -> datetime:
    """Return when the first of the certificates in the PEM file *path* ends (RFC 5280 section 4.1.2.5).

    Raises:
        HubError: incorrect, when it cannot be read or holds none.
    """
    from cryptography import x509

    try:
        return min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise HubError(
            Category.INCORRECT,
            f"证书文件无法读取 / The certificate file cannot be read ({type(error).__name__}).",
            where=str(path),
            remedy="Put a readable PEM file with a certificate in its place.",
        ) from error


def tell_refusal(log: Any, error: OSError, *, peer: str) -> None:
    """Write into *log* why a handshake failed, in words: what is wrong with the certificate, or what the peer did.

    It is a warning where somebody has to set something right; a peer that only knocks, as load balancers do, is not.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        log.warning("tls_refused", peer=peer, why=f"the peer's certificate is not trusted: {error.verify_message}")
    elif isinstance(error, ssl.SSLError) and error.reason and not isinstance(error, ssl.SSLEOFError):
        said = _REASONS.get(error.reason, error.reason.replace("_", " ").lower())
        log.warning("tls_refused", peer=peer, why=said)
    else:
        log.info("tls_refused", peer=peer, why="the peer broke off", error=type(error).__name__)


#: OpenSSL's names for what happens again and again when a partner is set up.
_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer showed no certificate",
    "NO_SHARED_CIPHER": "the peer offers no suite of BCP 195",
    "UNSUPPORTED_PROTOCOL": "the peer offers only versions older than TLS 1.2",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS here",
    "HTTP_REQUEST": "the peer does not speak TLS here",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not trust the hub's certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the peer does not trust the hub's certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the peer does not trust the hub's certificate",
}


def _profile(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES)
    # Without compression and renegotiation; the server's order of suites decides.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE


def _load(context: ssl.SSLContext, settings: Settings, *, needed: bool) -> None:
    if settings.tls_certificate is None:
        if needed:
            raise HubError(
                Category.INCORRECT,
                "TLS needs a certificate and its key.",
                where="tls_certificate, tls_key",
                remedy="Set both to PEM files, or leave the ..._tls_bind of the door empty.",
            )
        return
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except OSError as error:
        raise _unusable("tls_certificate, tls_key", error) from error


def _trust(context: ssl.SSLContext, settings: Settings) -> None:
    try:
        context.load_verify_locations(settings.tls_client_ca)
    except OSError as error:
        raise _unusable("tls_client_ca", error) from error


def _unusable(where: str, error: OSError) -> HubError:
    return HubError(
        Category.INCORRECT,
        f"A TLS file cannot be used: {error.strerror or type(error).__name__}.",
        where=where,
        remedy="Name readable PEM files; certificate and key must belong together.",
    )
