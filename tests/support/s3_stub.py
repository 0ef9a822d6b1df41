"""A tiny S3 server with switches for everything that a real one does not do on demand."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Faults:
    """What the server does wrong.

    Attributes:
        check_sums: compare x-amz-checksum-sha256 and Content-MD5 before accepting.
        honour_conditions: answer 412 to If-None-Match for a key that exists.
        status: answer everything with this status and no deed.
        lose: confirm puts and keep nothing.
        spoil: keep puts with one bit flipped.
        cut_reads: promise the whole length and close the connection half way.
        hold: puts wait for this event and are then dropped: no deed, no answer.
        refuse_keys: digests whose puts are answered with 400.
        lose_answer_of: HTTP methods whose deed is done but whose connection closes without an answer, once each.
    """

    check_sums: bool = True
    honour_conditions: bool = True
    status: int = 0
    lose: bool = False
    spoil: bool = False
    cut_reads: bool = False
    lose_answer_of: set[str] = field(default_factory=set)
    refuse_parts: bool = False
    hold: threading.Event | None = None
    refuse_keys: set[str] = field(default_factory=set)


@dataclass
class Stub:
    """The running server."""

    endpoint: str
    faults: Faults = field(default_factory=Faults)
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    held: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@contextmanager
def s3_stub() -> Iterator[Stub]:
    """Run the stub on a free loopback port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    stub = Stub(endpoint=f"http://127.0.0.1:{server.server_address[1]}")
    server.stub = stub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # The base class names it so.
        pass

    def _handle(self) -> None:
        stub: Stub = self.server.stub  # type: ignore[attr-defined]
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        stub.requests.append((self.command, self.path))
        _, bucket, key = [*url.path.split("/", 2), ""][:3]
        if stub.faults.status:
            self._refuse(stub.faults.status, "InternalError")
            return
        if "list-type" in query:
            self._list(stub, bucket, query)
            return
        if not key:
            self._answer(200)
            return
        if stub.faults.hold is not None and self.command == "PUT":
            hold = stub.faults.hold
            stub.held.release()
            hold.wait()
            self.close_connection = True
            return
        if self.command == "PUT" and key.rpartition("/")[2] in stub.faults.refuse_keys:
            self._refuse(400, "InvalidRequest")
            return
        act = getattr(self, f"_{self.command.lower()}")
        act(stub, f"{bucket}/{key}", query, body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _handle

    def _list(self, stub: Stub, bucket: str, query: dict[str, list[str]]) -> None:
        """All keys at once, in order."""
        prefix = f"{bucket}/{query.get('prefix', [''])[0]}"
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        found = "".join(
            f"<Contents><Key>{name.partition('/')[2]}</Key><LastModified>{now}</LastModified><ETag>e</ETag>"
            f"<Size>{len(data)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for name, data in sorted(stub.objects.items())
            if name.startswith(prefix)
        )
        self._answer(
            200,
            {"Content-Type": "application/xml"},
            body=f"<ListBucketResult><Name>{bucket}</Name><IsTruncated>false</IsTruncated>{found}</ListBucketResult>",
        )

    def _put(self, stub: Stub, key: str, query: dict[str, list[str]], body: bytes) -> None:
        faults = stub.faults
        if faults.check_sums:
            md5, sha = self.headers.get("Content-MD5"), self.headers.get("x-amz-checksum-sha256")
            if (md5 and base64.b64decode(md5) != hashlib.md5(body).digest()) or (
                sha and base64.b64decode(sha) != hashlib.sha256(body).digest()
            ):
                self._refuse(400, "BadDigest")
                return
        if faults.honour_conditions and self.headers.get("If-None-Match") == "*" and key in stub.objects:
            self._refuse(412, "PreconditionFailed")
            return
        if faults.spoil and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        if "uploadId" in query:
            if faults.refuse_parts:
                self._refuse(400, "NoSuchUpload")
                return
            stub.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
        elif not faults.lose:
            stub.objects[key] = body
        self._answer(200, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def _post(self, stub: Stub, key: str, query: dict[str, list[str]], body: bytes) -> None:
        if "uploads" in query:
            upload = f"upload-{len(stub.uploads)}"
            stub.uploads[upload] = {}
            self._answer(
                200,
                body=f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>",
            )
            return
        parts = stub.uploads.pop(query["uploadId"][0])
        if not stub.faults.lose:
            stub.objects[key] = b"".join(parts[number] for number in sorted(parts))
        self._answer(
            200,
            body="<CompleteMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><ETag>e</ETag>"
            "</CompleteMultipartUploadResult>",
        )

    def _get(self, stub: Stub, key: str, query: dict[str, list[str]], body: bytes) -> None:
        data = stub.objects.get(key)
        if data is None:
            self._refuse(404, "NoSuchKey")
            return
        status = 200
        if span := self.headers.get("Range"):
            first, _, last = span.removeprefix("bytes=").partition("-")
            if int(first) >= len(data):
                self._refuse(416, "InvalidRange")
                return
            data = data[int(first) : int(last) + 1 if last else None]
            status = 206
        if stub.faults.cut_reads and self.command == "GET":
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        headers = {
            "Content-Length": str(len(data)),
            "Last-Modified": format_datetime(datetime.now(UTC), usegmt=True),
            "ETag": f'"{hashlib.md5(data).hexdigest()}"',
        }
        self._answer(status, headers, raw=data)

    _head = _get

    def _delete(self, stub: Stub, key: str, query: dict[str, list[str]], body: bytes) -> None:
        if "uploadId" in query:
            stub.uploads.pop(query["uploadId"][0], None)
        else:
            stub.objects.pop(key, None)
        self._answer(204)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(
            status, {"Content-Type": "application/xml"}, body=f"<Error><Code>{code}</Code><Message>m</Message></Error>"
        )

    def _answer(
        self, status: int, headers: dict[str, str] | None = None, body: str = "", raw: bytes | None = None
    ) -> None:
        faults: Faults = self.server.stub.faults  # type: ignore[attr-defined]
        if self.command in faults.lose_answer_of and 200 <= status < 300:
            faults.lose_answer_of.discard(self.command)
            self.close_connection = True
            return
        data = body.encode() if raw is None else raw
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
