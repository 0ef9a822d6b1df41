"""Routes are found by the shape of the path, and what fits none is refused in the hub's own words."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.adapters.http.test_server import DEADLINE_S, serving
from tests.support.services import running


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    folder: Path = tmp_path_factory.mktemp("hub")
    with running(folder) as services, serving(services, threading.Event()) as one:
        yield one


def asked(address: tuple[str, int], method: str, path: str) -> httpx.Response:
    return httpx.request(method, f"http://{address[0]}:{address[1]}{path}", trust_env=False, timeout=DEADLINE_S)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/healthz", 200),
        ("GET", "/fhir/metadata", 200),
        ("GET", "/fhir/Patient/1", 401),
        ("POST", "/fhir/", 401),
        ("GET", "/ops/queue", 401),
        ("GET", "/dicom-web/studies/1.2/series/1.3/instances/1.4/bulk/00091001/1/00091002", 401),
        ("GET", "/nothing", 404),
        ("GET", "/ops/nothing", 404),
        ("GET", "/fhir/Patient/1/2/3/4", 404),
        ("GET", "//fhir/Patient/1", 404),
        ("GET", "/fhirs/Patient/1", 404),
        ("DELETE", "/healthz", 405),
        ("DELETE", "/ops/queue", 405),
        ("PUT", "/dicom-web/studies", 405),
    ],
)
def test_each_path_is_answered_by_its_door(address: tuple[str, int], method: str, path: str, status: int) -> None:
    answer = asked(address, method, path)

    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    if status >= 400:
        assert answer.json()["resourceType"] == "OperationOutcome"
        assert answer.headers["x-correlation-id"]


def test_the_target_that_is_no_path_is_refused_and_the_connection_goes_on(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=DEADLINE_S) as one:
        one.sendall(b"OPTIONS * HTTP/1.1\r\nHost: hub\r\n\r\n")
        assert one.recv(65536).startswith(b"HTTP/1.1 404 ")
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
        assert one.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_query_that_is_not_utf_8_is_refused(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=DEADLINE_S) as one:
        one.sendall(b"GET /fhir/Patient?name=\xd6\xa3 HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
        assert one.recv(65536).startswith(b"HTTP/1.1 400 ")
