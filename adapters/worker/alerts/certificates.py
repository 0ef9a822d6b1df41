"""Watches the end of certificates: the hub's own, and those of the authorities that its members' certificates hang on.

RFC 5280 section 4.1.2.5 (validity). A certificate that ends takes all TLS doors with it at once, on a night that somebody
chose a year before. Those of the hub and of the authorities are files; what members show is noted at the doors
(:mod:`hub.presented_certificates`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from adapters import _tls
from adapters.worker.alerts.watcher import OfKind
from hub.errors import HubError
from hub.presented_certificates import days_left, presented

#: An alert clears when the certificate lasts so much longer than the limit, as its successor does.
_MORE = timedelta(days=1)


class Certificates(OfKind):
    """Alerts ``certificate|{file}`` (``certificate|{node}-{file}`` where several nodes have files of their own).

    ``member-certificate|{endpoint}`` is about what a member shows.
    """

    kinds = ("member-certificate",)

    every_s = 3600.0

    def owns(self, key: str) -> bool:
        """Return whether *key* is of a file of this node, or of a member."""
        return super().owns(key) or key.startswith(f"certificate|{self._services.settings.node('tls')}")

    def look(self, now: datetime, known: Mapping[str, datetime]) -> Mapping[str, str]:
        """Return the files in which a certificate ends soon, has ended, or cannot be read, and the members' that end."""
        settings = self._services.settings
        limit = timedelta(days=settings.certificate_alert_days)
        if not limit:
            return {}
        found = self._of_members(limit, now, known)
        for name, path in _tls.files_of(settings).items():
            key = f"certificate|{settings.node('tls')}-{name}"
            try:
                ends = _tls.end_of(path)
            except HubError as error:
                found[key] = f"{error.message} {path}"
                continue
            if _soon(ends, limit, now, opened=key in known):
                day = ends.date().isoformat()
                found[key] = (
                    f"证书将于 {day} 到期或已到期，请及时更换：{path}"
                    f" / a certificate ends on {day}; put a new one in its place: {path}"
                )
        return found

    def _of_members(self, limit: timedelta, now: datetime, known: Mapping[str, datetime]) -> dict[str, str]:
        endpoints = [one.id for one in self._services.directory.all_endpoints()]
        shown = self._services.database.read(lambda tx: {one: presented(tx, one) for one in endpoints})
        found = {}
        for endpoint, certificates in shown.items():
            key = f"member-certificate|{endpoint}"
            if certificates and _soon(certificates[0].ends, limit, now, opened=key in known):
                day, left = certificates[0].ends.date().isoformat(), days_left(certificates[0].ends, now)
                found[key] = (
                    f"{endpoint} 出示的证书将于 {day} 到期（剩余 {left} 天），请通知该机构更换"
                    f" / the certificate that {endpoint} shows ends on {day} ({left} days left); tell the member."
                    f" SHA-256 {certificates[0].fingerprint}"
                )
        return found


def _soon(ends: datetime, limit: timedelta, now: datetime, *, opened: bool) -> bool:
    return ends - now < limit + (_MORE if opened else timedelta())
