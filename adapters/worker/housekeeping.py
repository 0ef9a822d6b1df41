"""What keeps the stores honest: audit checkpoints, orphans swept, objects re-read against their hash."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub import metrics

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("adapters.worker.housekeeping")

CHECKPOINT_S = 60.0
SWEEP_S = 3600.0
KEY_NAME = "audit-ed25519.pem"


class Housekeeping:
    """Checkpoints each minute, a sweep each hour, a thirtieth of the objects re-read each day."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._key: Ed25519PrivateKey | None = None
        self._swept_at = services.clock()
        self._scrubbed_day = services.clock().toordinal()

    def turn(self) -> float:
        """Do what is due; returns the seconds until the next look.

        Raises:
            HubError: transient, when the stores cannot work now.
        """
        services = self._services
        key = self._key = self._key or audit_key(services.settings.data_dir)
        now = services.clock()
        signed = services.database.write(lambda tx: tx.audit.checkpoint(key.sign, now=now))
        if signed:
            log.debug("audit_checkpoints_signed", chains=signed)
        if (now - self._swept_at).total_seconds() >= SWEEP_S:
            self._swept_at = now
            self._sweep()
        if now.toordinal() != self._scrubbed_day:
            self._scrubbed_day = now.toordinal()
            self._scrub(now.toordinal())
        return CHECKPOINT_S

    def _sweep(self) -> None:
        swept = self._fsck().sweep(self._services.database, self._services.objects)
        metrics.count("objects_swept", len(swept.removed))
        log.info("objects_swept", seen=swept.seen, orphans=len(swept.orphans), removed=len(swept.removed))

    def _scrub(self, day: int) -> None:
        damaged = list(self._fsck().scrub(self._services.objects, day))
        metrics.count("objects_damaged", len(damaged))
        for digest in damaged:
            log.error("object_damaged", digest=digest)

    @staticmethod
    def _fsck() -> Any:
        return importlib.import_module("storage.fsck")


def audit_key(data_dir: Path) -> Ed25519PrivateKey:
    """Return the key that signs audit checkpoints (RFC 8032), made at the first start and readable by its owner only."""
    folder = data_dir / "keys"
    path = folder / KEY_NAME
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        fresh = path.with_suffix(f".{os.getpid()}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link never replaces: of two processes that start at once, one key stays.
            path.hardlink_to(fresh)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def audit_check(data_dir: Path) -> Callable[[bytes, bytes], bool]:
    """Return a function that tells whether (text, signature) is signed with this hub's key."""
    public = audit_key(data_dir).public_key()

    def check(text: bytes, signature: bytes) -> bool:
        try:
            public.verify(signature, text)
        except InvalidSignature:
            return False
        return True

    return check
