"""Object stores: whole received files and messages, kept under the SHA-256 of their bytes.

Three drivers behind :class:`hub.ports.ObjectStore`: ``file`` (the embedded default), ``s3`` and ``memory``; and
``spooled``, which answers when a file store has the bytes and uploads them to ``s3`` afterwards. An object never changes
once it has a name, so sending twice is harmless and every copy can be checked against its name.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hub.config import Settings
from hub.errors import Category, HubError
from storage.objects.settings import S3Settings, SpoolSettings
from storage.objects.sweep import SweepableStore

#: Room left on the disk for the database to commit, to log and to answer once no new data is taken.
MIN_FREE_BYTES = 256 << 20

__all__ = ["MIN_FREE_BYTES", "S3Settings", "SpoolSettings", "SweepableStore", "open_from", "open_store"]


def open_from(settings: Settings, *, direct: bool = False) -> SweepableStore:
    """Return the object store of *settings*; open one in each process, after it was started.

    With *direct* no spool stands before S3: what is put is there on return.

    Raises:
        HubError: as :func:`open_store`, and conflict when the spool was turned off while objects wait in it.
    """
    s3 = None
    if settings.s3_endpoint:
        scheme = "https://" if settings.s3_secure else "http://"
        s3 = S3Settings(
            endpoint=settings.s3_endpoint if "://" in settings.s3_endpoint else scheme + settings.s3_endpoint,
            access_key=settings.s3_access_key,
            secret_key=settings.s3_secret_key.get_secret_value(),
        )
    spool = None
    if settings.objects_spool:
        spool = SpoolSettings(
            threads=settings.objects_upload_threads,
            check=settings.objects_upload_check,
            cache_bytes=settings.objects_cache_bytes,
            fetch_bytes=settings.objects_fetch_bytes,
        )
    return open_store(settings.objects(), data_dir=settings.data_dir, s3=s3, spool=None if direct else spool)


def open_store(
    url: str,
    *,
    data_dir: Path,
    s3: S3Settings | None = None,
    spool: SpoolSettings | None = None,
    min_free_bytes: int = MIN_FREE_BYTES,
) -> SweepableStore:
    """Return the store that *url* names: ``file:///path``, ``s3://bucket[/prefix]`` or ``memory://``.

    The path after ``file://`` is taken as it stands, without percent-decoding. The ``s3`` driver spools under
    *data_dir* before it uploads; with *spool* it answers in between. Raises HubError(incorrect) for a URL it does not
    know, missing S3 settings or a spool before another store, HubError(conflict) when objects wait in a spool that is not
    asked for, and HubError(unavailable or fault) when the start-up self-test of the store fails.
    """
    scheme, separator, rest = url.partition("://")
    if spool is not None and scheme != "s3":
        raise HubError(
            Category.INCORRECT,
            "A durable spool stands before an S3 bucket only; other stores are durable at once.",
            where="HUB_OBJECTS_SPOOL",
            remedy="Leave HUB_OBJECTS_SPOOL empty, or set HUB_OBJECTS_URL=s3://BUCKET.",
        )
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
        connect = partial(
            S3Store,
            bucket,
            prefix=prefix.strip("/"),
            settings=s3,
            spool_dir=data_dir / "spool",
            min_free_bytes=min_free_bytes,
        )
        from storage.objects.spooled import SpooledStore, any_waiting

        if spool is not None:
            return SpooledStore(data_dir, connect, settings=spool, min_free_bytes=min_free_bytes)
        if any_waiting(data_dir):
            raise HubError(
                Category.CONFLICT,
                "Objects wait for their upload to S3, and the spool that holds them is turned off.",
                where="HUB_OBJECTS_SPOOL",
                remedy="Set HUB_OBJECTS_SPOOL=durable and serve until `hub check` says that none waits.",
            )
        return connect()
    if scheme == "memory" and separator:
        from storage.objects.memory import MemoryStore

        return MemoryStore()
    raise HubError(
        Category.INCORRECT,
        "The object store URL is not one the hub knows.",
        where="HUB_OBJECTS_URL",
        remedy="Use file:///absolute/path, s3://bucket[/prefix] or memory://.",
    )
