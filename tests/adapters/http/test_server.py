"""The HTTP door on a real socket: slow, silent, too large and too many."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adapters.http import DOOR
from hub.actor import Actor
from hub.boot import Services
from tests.support.services import running

DEADLINE_S = 20.0


@contextlib.contextmanager
def serving(services: Services, stop: threading.Event) -> Iterator[tuple[str, int]]:
    """Serve on a free port in a thread; stopped, at the end if not before, and joined."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    sockets = {"plain": listener.detach()}
    thread = threading.Thread(target=DOOR.serve, args=(services, sockets, stop, 0), daemon=True)
    thread.start()
    try:
        yield address
    finally:
        stop.set()
        thread.join(timeout=DEADLINE_S)
        assert not thread.is_alive()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with running(
        tmp_path, http_head_s=0.3, frame_deadline_s=0.5, max_head_bytes=2048, http_connections=20, max_fhir_bytes=65536
    ) as one:
        yield one


@pytest.fixture
def address(services: Services) -> Iterator[tuple[str, int]]:
    with serving(services, threading.Event()) as one:
        yield one


def connected(address: tuple[str, int]) -> socket.socket:
    one = socket.create_connection(address, timeout=DEADLINE_S)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one


def until_closed(one: socket.socket, drip: bytes = b"") -> bytes:
    """Return what arrives until the other side closes, while *drip* is sent byte by byte."""
    answer = b""
    position = 0
    end = time.monotonic() + DEADLINE_S
    one.settimeout(0.05)
    while time.monotonic() < end:
        try:
            if drip:
                one.send(drip[position % len(drip) : position % len(drip) + 1])
                position += 1
            part = one.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            return answer
        if not part:
            return answer
        answer += part
    pytest.fail("The connection stayed open.")


def alive(address: tuple[str, int]) -> bool:
    return httpx.get(f"http://{address[0]}:{address[1]}/fhir/metadata", trust_env=False).status_code == 200


def test_a_connection_that_says_nothing_is_closed(address: tuple[str, int]) -> None:
    with connected(address) as one:
        assert until_closed(one) == b""
    assert alive(address)


def test_a_head_that_trickles_is_cut_off(address: tuple[str, int]) -> None:
    with connected(address) as one:
        one.sendall(b"GET /fhir/metadata HTTP/1.1\r\n")
        assert until_closed(one, b"X-A: b\r\n") == b""
    assert alive(address)


def test_line_ends_alone_keep_no_connection_open(address: tuple[str, int]) -> None:
    with connected(address) as one:
        assert until_closed(one, b"\r\n") == b""


@pytest.mark.parametrize("ended", [b"", b"\r\n\r\n"])
def test_a_head_beyond_the_cap_is_refused(address: tuple[str, int], ended: bytes) -> None:
    with connected(address) as one:
        one.sendall(b"GET /fhir/metadata HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 4000 + ended)
        assert until_closed(one).startswith(b"HTTP/1.1 431 ")
    assert alive(address)


def test_a_body_that_trickles_gets_408(services: Services, address: tuple[str, int]) -> None:
    token = services.directory.issue_token(Actor(institution="KN"), ttl_s=60)
    with connected(address) as one:
        one.sendall(
            b"POST /fhir/Patient HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token.encode() + b"\r\n"
            b"Content-Type: application/fhir+json\r\nContent-Length: 5000\r\n\r\n"
        )
        assert until_closed(one, b" ").startswith(b"HTTP/1.1 408 ")
    assert alive(address)


def test_a_body_that_nobody_reads_does_not_hold_the_connection(address: tuple[str, int]) -> None:
    with connected(address) as one:
        one.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n")
        assert until_closed(one, b" ").startswith(b"HTTP/1.1 404 ")


def test_a_body_beyond_the_cap_is_refused_before_it_is_sent(services: Services, address: tuple[str, int]) -> None:
    token = services.directory.issue_token(Actor(institution="KN"), ttl_s=60)
    with connected(address) as one:
        one.sendall(
            b"POST /fhir/Patient HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token.encode() + b"\r\n"
            b"Content-Type: application/fhir+json\r\nContent-Length: 99999999\r\n\r\n"
        )
        assert until_closed(one).startswith(b"HTTP/1.1 413 ")
    assert alive(address)


def test_more_connections_than_allowed_are_closed_and_the_others_served(address: tuple[str, int]) -> None:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connected(address)) for _ in range(30)]
        for one in held:
            until_closed(one)
    assert alive(address)


def test_half_a_request_and_rubbish_leave_the_door_open(address: tuple[str, int]) -> None:
    for rubbish in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00" * 5000,
        b"POST /fhir HTTP/1.1\r\n",
    ):
        with connected(address) as one:
            one.sendall(rubbish)
            until_closed(one)
    assert alive(address)


def test_one_connection_serves_many_requests(address: tuple[str, int]) -> None:
    with httpx.Client(base_url=f"http://{address[0]}:{address[1]}", trust_env=False) as client:
        answers = [client.get("/fhir/metadata") for _ in range(5)]

    assert {one.status_code for one in answers} == {200}


def test_a_request_under_way_is_answered_when_the_door_stops(tmp_path: Path) -> None:
    # The pace is not what is looked at here, and the sender waits for the door to close.
    with running(tmp_path, min_bytes_per_s=1) as services:
        answer = answer_while_stopping(services)

    assert answer.startswith(b"HTTP/1.1 201 ")


def answer_while_stopping(services: Services) -> bytes:
    """Return the answer to a request whose last byte is sent after the door was told to stop."""
    token = services.directory.issue_token(Actor(institution="KN"), ttl_s=60)
    body = b'{"resourceType":"Patient"}'
    stop = threading.Event()
    with serving(services, stop) as address, contextlib.ExitStack() as stack:
        assert alive(address)
        one = stack.enter_context(connected(address))
        one.sendall(
            b"POST /fhir/Patient HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token.encode() + b"\r\n"
            b"Content-Type: application/fhir+json\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:-1]
        )
        # An answer on a later connection means that this one was taken and its head read.
        assert alive(address)
        wait_for_refusal(address, stop)
        one.sendall(body[-1:])
        return until_closed(one)


def wait_for_refusal(address: tuple[str, int], stop: threading.Event) -> None:
    """Tell the door to stop, and wait until it takes no new connection."""
    stop.set()
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        try:
            connected(address).close()
        except OSError:
            return
    pytest.fail("The door goes on taking connections.")
