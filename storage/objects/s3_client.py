"""The minio client: how it is set up, what its errors mean, and the headers that its public methods do not let through.

``Minio.put_object`` turns ``If-None-Match`` into user metadata and copies its input; the protected calls below it take
headers and any buffer. They are wrapped here, in one place, so that a new version of the client is checked in one place.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from datetime import datetime
from typing import cast

import certifi
import urllib3
from minio import Minio
from minio.datatypes import Part
from minio.error import S3Error

from hub.errors import Category, HubError
from storage.objects.settings import S3Settings

ABSENT = frozenset({"NoSuchKey", "NoSuchObject"})
REFUSED_KEYS = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
)


class Client(Minio):
    """Uploads from buffers, with a checksum and "only if absent"."""

    def put_bytes(
        self,
        bucket: str,
        key: str,
        data: memoryview,
        *,
        sha256: bytes | None = None,
        md5: bytes | None = None,
        only_if_absent: bool = False,
    ) -> None:
        """Store *data* under *key* in one request (PutObject)."""
        headers: dict[str, str | list[str] | tuple[str]] = {"Content-Type": "application/octet-stream"}
        if sha256 is not None:
            headers["x-amz-checksum-sha256"] = base64.b64encode(sha256).decode()
        if md5 is not None:
            headers["Content-MD5"] = base64.b64encode(md5).decode()
        if only_if_absent:
            headers["If-None-Match"] = "*"
        self._put_object(bucket, key, cast("bytes", data), headers)

    def fetch(self, bucket: str, key: str, *, offset: int = 0, length: int = 0) -> bytes:
        """Return the object, or *length* bytes from *offset* (0: to its end)."""
        response = self.get_object(bucket, key, offset=offset, length=length)
        try:
            return response.read()
        finally:
            response.close()
            response.release_conn()

    def start_parts(self, bucket: str, key: str) -> str:
        """Begin a multipart upload and return its id."""
        return self._create_multipart_upload(bucket, key, {"Content-Type": "application/octet-stream"})

    def put_part(self, bucket: str, key: str, upload: str, number: int, data: memoryview) -> str:
        """Send one part with its MD5, which S3 compares before it accepts, and return its ETag."""
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        return self._upload_part(
            bucket, key, cast("bytes", data), {"Content-MD5": base64.b64encode(md5).decode()}, upload, number
        )

    def finish_parts(self, bucket: str, key: str, upload: str, etags: Sequence[str]) -> None:
        """Make the object out of its parts."""
        parts = [Part(number, etag) for number, etag in enumerate(etags, start=1)]
        self._complete_multipart_upload(bucket, key, upload, parts)

    def abort_parts(self, bucket: str, key: str, upload: str) -> None:
        """Throw the parts away."""
        self._abort_multipart_upload(bucket, key, upload)

    def abort_uploads(self, bucket: str, prefix: str, *, before: datetime) -> int:
        """Abort the uploads under *prefix* that began before *before*; returns how many."""
        aborted = 0
        marker: tuple[str | None, str | None] = (None, None)
        while True:
            page = self._list_multipart_uploads(bucket, prefix=prefix, key_marker=marker[0], upload_id_marker=marker[1])
            for upload in page.uploads:
                if upload.initiated_time is not None and upload.initiated_time < before:
                    try:
                        self.abort_parts(bucket, upload.object_name, cast("str", upload.upload_id))
                    except S3Error as error:
                        if error.code != "NoSuchUpload":
                            raise
                    else:
                        aborted += 1
            if not page.is_truncated:
                return aborted
            marker = (page.next_key_marker, page.next_upload_id_marker)

    def close(self) -> None:
        """Close the idle connections."""
        self._http.clear()


def connect(settings: S3Settings) -> Client:
    """Return a client with a sized pool, deadlines and retries; HubError(incorrect) for a bad endpoint."""
    secure = not settings.endpoint.startswith("http://")
    pool = urllib3.PoolManager(
        num_pools=2,
        maxsize=settings.connections,
        timeout=urllib3.Timeout(connect=settings.connect_timeout_s, read=settings.read_timeout_s),
        # Every call that urllib3 repeats by itself is idempotent: the key is the hash of the bytes.
        retries=urllib3.Retry(total=settings.retries, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
    )
    try:
        return Client(
            settings.endpoint.removeprefix("https://").removeprefix("http://").rstrip("/"),
            access_key=settings.access_key,
            secret_key=settings.secret_key,
            secure=secure,
            region=settings.region,
            http_client=pool,
        )
    except ValueError as error:
        raise HubError(
            Category.INCORRECT,
            "The S3 endpoint is not an address.",
            where="HUB_S3_ENDPOINT",
            remedy="Write it as https://host or http://host:port, without a path.",
        ) from error


def no_bucket() -> HubError:
    """Return the error for a bucket that does not exist."""
    return HubError(
        Category.UNAVAILABLE,
        "The S3 bucket of the object store does not exist.",
        where="HUB_OBJECTS_URL",
        remedy="Create the bucket or correct its name.",
    )


def translated(error: S3Error, doing: str) -> HubError:
    """Return what an S3 error answer means to a sender."""
    if error.code in ABSENT:
        return HubError(Category.NOT_FOUND, "The object is not in the S3 bucket.", where="object store")
    if error.code == "NoSuchBucket":
        return no_bucket()
    if error.code in REFUSED_KEYS:
        return HubError(
            Category.UNAVAILABLE,
            f"The S3 server refuses the hub's keys: {error.code} ({doing}).",
            where="S3 server",
            remedy="Check HUB_S3_ACCESS_KEY, HUB_S3_SECRET_KEY, the clock and the policy of the bucket.",
        )
    return HubError(
        Category.UNAVAILABLE,
        f"The S3 server refuses: {error.code}, HTTP {error.response.status} ({doing}).",
        where="S3 server",
        remedy="Check the server's log; the sender may repeat the request.",
    )
