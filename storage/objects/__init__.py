"""Object stores: whole received files and messages, kept under the SHA-256 of their bytes.

Three drivers behind :class:`hub.ports.ObjectStore`: ``file`` (the embedded default), ``s3`` and ``memory``. An object
never changes once it has a name, so sending twice is harmless and every copy can be checked against its name.
"""

from __future__ import annotations

from pathlib import Path

from hub.config import Settings
from hub.errors import Category, HubError
from storage.objects.settings import S3Settings
from storage.objects.sweep import SweepableStore

#: Room left on the disk for the database to commit, to log and to answer once no new data is taken.
MIN_FREE_BYTES = 256 << 20

__all__ = ["MIN_FREE_BYTES", "S3Settings", "SweepableStore", "open_from", "open_store"]


def open_from(settings: Settings) -> SweepableStore:
    """Return the object store of *settings*; open one in each process, after it was started.

    Raises:
        HubError: as :func:`open_store`.
    """
    s3 = None
    if settings.s3_endpoint:
        scheme = "https://" if settings.s3_secure else "http://"
        s3 = S3Settings(
            endpoint=settings.s3_endpoint if "://" in settings.s3_endpoint else scheme + settings.s3_endpoint,
            access_key=settings.s3_access_key,
            secret_key=settings.s3_secret_key.get_secret_value(),
        )
    return open_store(settings.objects(), data_dir=settings.data_dir, s3=s3)


def open_store(
    url: str, *, data_dir: Path, s3: S3Settings | None = None, min_free_bytes: int = MIN_FREE_BYTES
) -> SweepableStore:
    """Return the store that *url* names: ``file:///path``, ``s3://bucket[/prefix]`` or ``memory://``.

    The path after ``file://`` is taken as it stands, without percent-decoding. The ``s3`` driver spools under
    *data_dir* before it uploads. Raises HubError(incorrect) for a URL it does not know or missing S3 settings, and
    HubError(unavailable or fault) when the start-up self-test of the store fails.
    """
    scheme, separator, rest = url.partition("://")
    if scheme == "file" and separator and rest:
        from storage.objects.file import FileStore

        return FileStore(Path(rest).absolute(), min_free_bytes=min_free_bytes)
    if scheme == "s3" and separator and rest:
        from storage.objects.s3 import S3Store

        if s3 is None:
            raise HubError(
                Category.INCORRECT,
                "The object store is an S3 bucket, but no S3 endpoint and keys are set.",
                where="HUB_S3_ENDPOINT",
                remedy="Set HUB_S3_ENDPOINT, HUB_S3_ACCESS_KEY and HUB_S3_SECRET_KEY.",
            )
        bucket, _, prefix = rest.partition("/")
        return S3Store(
            bucket,
            prefix=prefix.strip("/"),
            settings=s3,
            spool_dir=data_dir / "spool",
            min_free_bytes=min_free_bytes,
        )
    if scheme == "memory" and separator:
        from storage.objects.memory import MemoryStore

        return MemoryStore()
    raise HubError(
        Category.INCORRECT,
        "The object store URL is not one the hub knows.",
        where="HUB_OBJECTS_URL",
        remedy="Use file:///absolute/path, s3://bucket[/prefix] or memory://.",
    )
