"""What the S3 driver needs to know about its server, and the spool in front of it about its work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """One S3-compatible server.

    Attributes:
        endpoint: ``https://host[:port]`` or ``http://host:port``; without a scheme, https is meant.
        multipart_bytes: objects of at least this size travel in parts.
        part_bytes: size of one part; S3 allows 10,000 parts of at least 5 MiB.
        connections: sockets kept open; at least as many as threads that store at once.
        create_bucket: make the bucket when it is missing.
    """

    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    region: str = "us-east-1"
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0
    retries: int = 3
    connections: int = 32
    multipart_bytes: int = 64 << 20
    part_bytes: int = 16 << 20
    create_bucket: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """How objects wait for their upload, and what stays near after it.

    Attributes:
        threads: uploads at once.
        check: ``head``: S3 has confirmed the object with its size; ``read``: it was also read back and hashed.
        cache_bytes: disk space for copies of what S3 has; 0 keeps none.
        fetch_bytes: objects up to this size are fetched whole, of larger ones only the ranges that are asked for.
    """

    threads: int = 4
    check: Literal["head", "read"] = "head"
    cache_bytes: int = 10 << 30
    fetch_bytes: int = 8 << 20
