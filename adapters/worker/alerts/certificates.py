"""Watches the end of certificates: the hub's own, and those of the authorities that its members' certificates hang on.

RFC 5280 section 4.1.2.5 (validity). A certificate that ends takes all TLS doors with it at once, on a night that somebody
chose a year before. The members' own certificates are shown at the door and kept nowhere; their authorities' are files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from adapters.worker.alerts.watcher import OfKind

#: An alert clears when the certificate lasts so much longer than the limit, as its successor does.
_MORE = timedelta(days=1)


class Certificates(OfKind):
    """Alerts ``certificate|{file}``, ``certificate|{node}-{file}`` where several nodes have files of their own."""

    every_s = 3600.0

    def owns(self, key: str) -> bool:
        """Return whether *key* is of a file of this node."""
        return key.startswith(f"certificate|{self._services.settings.node('tls')}")

    def look(self, now: datetime, known: Mapping[str, datetime]) -> Mapping[str, str]:
        """Return the files in which a certificate ends soon, has ended, or cannot be read."""
        settings = self._services.settings
        limit = timedelta(days=settings.certificate_alert_days)
        found: dict[str, str] = {}
        for name, path in (("certificate", settings.tls_certificate), ("client-ca", settings.tls_client_ca)):
            if path is None or not limit:
                continue
            key = f"certificate|{settings.node('tls')}-{name}"
            try:
                ends = min(_ends(path), default=None)
            except (OSError, ValueError) as error:
                found[key] = (
                    f"证书文件无法读取（{type(error).__name__}）：{path} / the certificate file cannot be read"
                    f" ({type(error).__name__}): {path}"
                )
                continue
            if ends is None or ends - now < limit + (_MORE if key in known else timedelta()):
                day = ends.date().isoformat() if ends is not None else "-"
                found[key] = (
                    f"证书将于 {day} 到期或已到期，请及时更换：{path}"
                    f" / a certificate ends on {day}; put a new one in its place: {path}"
                )
        return found


def _ends(path: Path) -> Iterator[datetime]:
    for one in x509.load_pem_x509_certificates(path.read_bytes()):
        yield one.not_valid_after_utc
