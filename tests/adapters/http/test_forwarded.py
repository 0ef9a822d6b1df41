"""Who calls through a reverse proxy, told by X-Forwarded-For or Forwarded (RFC 7239), and by callers who lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from adapters.fhir.oauth import ATTEMPTS_PER_MINUTE
from adapters.http.app import build
from adapters.http.forwarded import MAX_HOPS, Origin
from hub.config import Settings, load
from hub.errors import HubError
from tests.support.services import running

PROXY, CALLER, LIE = "10.0.0.5", "203.0.113.7", "198.51.100.1"
XFF, RFC7239 = "x-forwarded-for", "forwarded"


def caller(*lines: str, peer: str = PROXY, header: str = XFF, sent: str = "") -> str:
    """Return who is taken for the caller when *peer* sends these header lines."""
    origin = Origin(Settings(trusted_proxies="10.0.0.0/8, 2001:db8:1::/48", trusted_proxy_header=header))  # type: ignore[arg-type]
    headers = [((sent or header).encode(), line.encode("latin-1")) for line in lines]
    found = origin.client({"type": "http", "client": (peer, 40000), "headers": headers})
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([CALLER], CALLER),
        ([f"{LIE}, {CALLER}"], CALLER),
        ([f"{LIE}, 10.9.9.9, {CALLER}, 10.0.0.9"], CALLER),
        ([LIE, CALLER], CALLER),
        ([f"{CALLER}:4711"], CALLER),
        (["2001:db8:2::7"], "2001:db8:2::7"),
        (["[2001:db8:2::7]:4711"], "2001:db8:2::7"),
        ([f"{LIE}, 2001:db8:2::7, 2001:db8:1::1"], "2001:db8:2::7"),
        ([f"::ffff:{CALLER}"], CALLER),
        (["10.0.0.7, 10.0.0.6"], "10.0.0.7"),
    ],
)
def test_the_first_address_from_the_right_that_is_no_proxy_calls(lines: Sequence[str], expected: str) -> None:
    assert caller(*lines) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        ",",
        " , ,",
        "unknown",
        "_hidden",
        "127.1",
        "0x7f.1",
        "010.1.1.1",
        "1.2.3.4.5",
        "[::1",
        "fe80::1%eth0",
        "1" * 99,
        "é",
    ],
)
def test_where_a_hop_cannot_be_read_the_proxy_that_wrote_it_stands_for_the_caller(value: str) -> None:
    assert caller(value) == PROXY
    assert caller(f"{LIE}, {value}") == PROXY
    assert caller(f"{LIE}, {value}, 10.0.0.9") == "10.0.0.9"


def test_nobody_but_a_proxy_is_believed() -> None:
    assert caller(LIE, peer=CALLER) == CALLER
    assert caller(PROXY, peer=CALLER) == CALLER
    assert caller(LIE, peer="testclient") == "testclient"
    assert caller(LIE, peer=f"::ffff:{PROXY}") == LIE


def test_the_header_that_the_proxy_does_not_write_is_not_read() -> None:
    assert caller(f"for={LIE}", sent=RFC7239) == PROXY
    assert caller(LIE, header=RFC7239, sent=XFF) == PROXY


def test_no_more_hops_are_read_than_a_chain_of_proxies_has() -> None:
    hops = ["10.0.0.9"] * (MAX_HOPS + 5)
    assert caller(", ".join([LIE, *hops])) == "10.0.0.9"
    assert caller("," * 30_000) == PROXY


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([f"for={CALLER}"], CALLER),
        ([f"For={CALLER};proto=https;by={PROXY}"], CALLER),
        ([f'proto=https ; for="{CALLER}:4711"'], CALLER),
        (['for="[2001:db8:2::7]:4711"'], "2001:db8:2::7"),
        ([f"for={LIE}, for={CALLER};by=10.0.0.9, for=10.0.0.9"], CALLER),
        ([f"for={LIE}", f"for={CALLER}"], CALLER),
        # A comma, a semicolon and a quotation mark inside quotes end nothing.
        ([f'for={CALLER};ext="a, for={LIE}; \\" for={LIE}"'], CALLER),
        ([f'for={LIE};x=", for={LIE}"'], LIE),
    ],
)
def test_forwarded_is_read_as_its_standard_says(lines: Sequence[str], expected: str) -> None:
    assert caller(*lines, header=RFC7239) == expected


@pytest.mark.parametrize(
    "element",
    [
        "for=unknown",
        "for=_secret",
        "for=",
        "for",
        "=",
        "proto=https",
        f"for={LIE};for={LIE}",
        f'for="{LIE}',
        f"for={LIE} x",
        '"',
        "\\",
        ";;",
    ],
)
def test_an_element_of_forwarded_that_cannot_be_read_ends_the_search(element: str) -> None:
    assert caller(element, header=RFC7239) == PROXY
    assert caller(f"for={LIE}, {element}", header=RFC7239) == PROXY


@pytest.mark.parametrize("begun", [f'for={LIE};x="', f'for="{LIE}', f'for={LIE};x="\\', f'for={LIE};x="", "'])
def test_a_quote_left_open_hides_nothing_that_a_proxy_wrote(begun: str) -> None:
    for written in (f"for={CALLER}", f'for="{CALLER}:4711";by="_edge"', f'for={CALLER};x=""'):
        assert caller(f"{begun}, {written}", header=RFC7239) in {PROXY, CALLER}
        assert caller(begun, written, header=RFC7239) == CALLER


@pytest.mark.parametrize("text", ["proxy.example", "10.0.0.1/8", "0.0.0.0/0", "::/0", "10.0.0.0/8 10.1.1.1"])
def test_a_list_of_proxies_that_is_none_stops_every_command(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HUB_TRUSTED_PROXIES", text)
    with pytest.raises(HubError, match="trusted_proxies"):
        load()


def client(app: Any, peer: str) -> TestClient:
    return TestClient(app, client=(peer, 40000), follow_redirects=False)


def test_patients_behind_a_proxy_are_counted_one_by_one_and_audited_by_their_own_address(tmp_path: Path) -> None:
    with running(tmp_path, trusted_proxies=PROXY, share_address_attempts=2) as services:
        proxied = client(build(services), PROXY)

        def tried(address: str) -> int:
            headers = {"X-Forwarded-For": f"{LIE}, {address}"}
            return proxied.post("/share/nobodys", data={"password": "0"}, headers=headers).status_code

        assert [tried(CALLER) for _ in range(3)] == [403, 403, 429]
        assert tried("203.0.113.8") == 403
        lines = services.database.read(
            lambda tx: tx.audit.search({"who": "share"}, institution="YY", limit=10, before=None)
        )
        found = {agent["network"]["address"] for line in lines for agent in line["agent"] if "network" in agent}
        assert found == {CALLER, "203.0.113.8"}


def test_a_caller_that_is_no_proxy_does_not_escape_its_count_by_inventing_addresses(tmp_path: Path) -> None:
    with running(tmp_path, trusted_proxies=PROXY, share_address_attempts=2) as services:
        direct = client(build(services), CALLER)
        statuses = [
            direct.post(
                "/share/nobodys", data={"password": "0"}, headers={"X-Forwarded-For": f"192.0.2.{number}"}
            ).status_code
            for number in range(3)
        ]
        assert statuses == [403, 403, 429]


def test_attempts_to_get_a_token_are_limited_by_the_address_behind_the_proxy(tmp_path: Path) -> None:
    with running(tmp_path, trusted_proxies=PROXY) as services:
        proxied = client(build(services), PROXY)

        def asked(address: str) -> int:
            return proxied.post("/oauth/token", data={}, headers={"X-Forwarded-For": address}).status_code

        assert {asked(CALLER) for _ in range(ATTEMPTS_PER_MINUTE)} == {400}
        assert asked(CALLER) == 429
        assert asked("203.0.113.8") == 400
