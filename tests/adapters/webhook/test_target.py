"""The hub calls the webhooks that its operator has named, and nothing else, whatever an Endpoint or a name server says."""

from __future__ import annotations

import pytest

from adapters.webhook.target import NotAllowedError, target_of

ALLOWED = "https://alerts.example/hub, http://10.0.0.9:9000"


def to(*addresses: str):  # type: ignore[no-untyped-def]
    return lambda _host, _port: list(addresses)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://alerts.example/hub", "alerts.example", 443),
        ("https://ALERTS.example:443/hub/a?b=c", "alerts.example", 443),
        ("http://10.0.0.9:9000/x", "10.0.0.9", 9000),
        ("http://10.0.0.9:9000", "10.0.0.9", 9000),
    ],
)
def test_what_is_named_or_lies_below_is_called_at_the_address_that_was_looked_at(
    url: str, host: str, port: int
) -> None:
    found = target_of(url, ALLOWED, resolver=to("10.0.0.9", "10.0.0.10"))
    assert (found.host, found.port, found.address) == (host, port, "10.0.0.9")


@pytest.mark.parametrize(
    "url",
    [
        "http://alerts.example/hub",
        "https://alerts.example/hubs",
        "https://alerts.example/",
        "https://alerts.example:8443/hub",
        "https://alerts.example.evil/hub",
        "https://evil/https://alerts.example/hub",
        "https://alerts.example@evil/hub",
        "https://user@alerts.example/hub",
        "https://alerts.example/hub/../admin",
        "https://alerts.example/hub/%2e%2E/admin",
        "https://alerts.example\\@evil/hub",
        "https://alerts.example/hub\r\nHost: evil",
        "https://alerts.example/hub#x",
        "https://аlerts.example/hub",
        "http://10.0.0.9:9001/x",
        "http://0x0a000009:9000/x",
        "http://167772169:9000/x",
        "http://10.9:9000/x",
        "http://[::ffff:10.0.0.9]:9000/x",
        "http://10.0.0.9:99999/x",
        "http://[::1/x",
        "file:///etc/passwd",
        "gopher://10.0.0.9:9000/x",
        "//10.0.0.9:9000/x",
        "",
    ],
)
def test_what_is_not_named_is_never_called(url: str) -> None:
    def asked(host: str, port: int) -> list[str]:
        raise AssertionError(f"{host}:{port} was looked up")

    with pytest.raises(NotAllowedError):
        target_of(url, ALLOWED, resolver=asked)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "::",
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "100.100.100.200",
        "fd00:ec2::254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
    ],
)
def test_a_name_that_leads_inside_is_refused_even_beside_a_good_address(address: str) -> None:
    with pytest.raises(NotAllowedError):
        target_of("https://alerts.example/hub", ALLOWED, resolver=to("203.0.113.7", address))


def test_this_machine_is_called_only_when_the_operator_names_it_so() -> None:
    assert target_of("http://127.0.0.1:9/x", "http://127.0.0.1:9", resolver=to("127.0.0.1")).address == "127.0.0.1"
    assert target_of("http://localhost:9/x", "http://localhost:9", resolver=to("::1")).address == "::1"


def test_nothing_is_called_while_nothing_is_named() -> None:
    with pytest.raises(NotAllowedError):
        target_of("https://alerts.example/hub", "", resolver=to("203.0.113.7"))


def test_a_name_without_an_address_may_have_one_later() -> None:
    with pytest.raises(OSError, match="no address"):
        target_of("https://alerts.example/hub", ALLOWED, resolver=to())
