"""DICOM over TLS: certificates are asked for, bound to institutions, and open lines can be refused (PS3.15 annex B)."""

from __future__ import annotations

import dataclasses
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters._tls import client_context, end_of, server_context
from adapters.dimse.negotiation import Context
from adapters.dimse.upper_layer import ASSOCIATE_AC, ASSOCIATE_RJ
from hub.config import Settings
from hub.errors import HubError
from hub.ports import MemberEndpoint
from tests.support.certificates import Authority
from tests.support.dicom import CT_IMAGE_STORAGE, EXPLICIT, ct_tags
from tests.support.dimse import KN_PACS, Door, FakeServices, Peer, running
from tests.support.dimse_peer import c_store

CT = Context(CT_IMAGE_STORAGE, EXPLICIT)
Maker = Callable[..., Settings]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secured(settings: Maker, authority: Authority) -> Settings:
    certificate, key, _ = authority.issue("localhost")
    return settings(tls_certificate=certificate, tls_key=key, tls_client_ca=authority.ca)


def settings_of(endpoint: MemberEndpoint, **more: Any) -> MemberEndpoint:
    return dataclasses.replace(endpoint, settings={**endpoint.settings, **more})


def dial(door: Door, authority: Authority, files: tuple[Path, Path] | None) -> Peer:
    context = ssl.create_default_context(cafile=str(authority.ca))
    if files is not None:
        context.load_cert_chain(*files)
    peer = Peer(door.port)
    peer.socket = context.wrap_socket(peer.socket, server_hostname="localhost")
    return peer


def test_a_member_with_its_certificate_sends_and_one_with_another_is_refused(
    secured: Settings, authority: Authority
) -> None:
    *own, fingerprint = authority.issue("pacs.kn.example")
    *other, _ = authority.issue("pacs.qh.example")
    services = FakeServices(secured)
    services.directory.endpoints["KN_PACS"] = settings_of(KN_PACS, certificates=fingerprint)
    services.directory.endpoints["QH_PACS"] = MemberEndpoint(
        id="QH/dicom", member="QH", kind="dicom", ae_title="QH_PACS"
    )
    with running(services, tls=server_context(secured)) as door:
        with dial(door, authority, (own[0], own[1])) as peer:
            assert peer.associate(CT)[0] == ASSOCIATE_AC
            assert c_store(peer, ct_tags(size=300))[0] == 0
        with dial(door, authority, (other[0], other[1])) as peer:
            assert peer.associate(CT) == (ASSOCIATE_RJ, b"\0\1\1\3")
        # KN's certificate under QH's AE title: it is named by KN, so it speaks for nobody else.
        with dial(door, authority, (own[0], own[1])) as peer:
            assert peer.associate(CT, calling_ae="QH_PACS") == (ASSOCIATE_RJ, b"\0\1\1\3")
        with dial(door, authority, (other[0], other[1])) as peer:
            assert peer.associate(CT, calling_ae="QH_PACS")[0] == ASSOCIATE_AC
    noted = [(name, line.certificate) for name, line in services.presented_certificates.noted]
    assert [(name, one.ends) for name, one in noted if one is not None] == [
        ("KN/dicom", end_of(own[0])),
        ("QH/dicom", end_of(other[0])),
    ]


def test_an_open_line_is_refused_where_the_member_requires_tls(settings: Maker) -> None:
    services = FakeServices(settings())
    services.directory.endpoints["KN_PACS"] = settings_of(KN_PACS, tls="required")
    with running(services) as door, Peer(door.port) as peer:
        assert peer.associate(CT) == (ASSOCIATE_RJ, b"\0\1\1\3")


@pytest.mark.parametrize("who", ["nobody", "another authority"])
def test_a_peer_without_a_certificate_of_the_consortium_gets_no_association(
    who: str, secured: Settings, authority: Authority, tmp_path: Path
) -> None:
    files = None
    if who != "nobody":
        (tmp_path / "other").mkdir()
        certificate, key, _ = Authority(tmp_path / "other", "Other CA").issue("pacs.kn.example")
        files = certificate, key
    with running(FakeServices(secured), tls=server_context(secured)) as door:
        with pytest.raises(OSError), dial(door, authority, files) as peer:  # noqa: PT012 - TLS 1.3 says no with the first byte read
            peer.associate(CT)
            raise OSError("closed without an answer")
        assert door.imaging.received == []


def test_old_versions_and_weak_suites_are_not_spoken(secured: Settings, authority: Authority) -> None:
    *own, _ = authority.issue("pacs.kn.example")
    with running(FakeServices(secured), tls=server_context(secured)) as door:
        for limit in ("TLSv1_1", "weak"):
            context = ssl.create_default_context(cafile=str(authority.ca))
            context.load_cert_chain(own[0], own[1])
            if limit == "weak":
                context.maximum_version = ssl.TLSVersion.TLSv1_2
                context.set_ciphers("AES128-SHA256:AES256-SHA:ECDHE-ECDSA-AES128-SHA")
            else:
                with pytest.warns(DeprecationWarning, match="TLS"):
                    context.minimum_version = ssl.TLSVersion.TLSv1
                with pytest.warns(DeprecationWarning, match="TLS"):
                    context.maximum_version = ssl.TLSVersion.TLSv1_1
                context.set_ciphers("ALL:@SECLEVEL=0")
            with Peer(door.port) as peer, pytest.raises(ssl.SSLError):
                context.wrap_socket(peer.socket, server_hostname="localhost")


@pytest.mark.tool("echoscu")
def test_dcmtk_comes_in_over_mutual_tls(
    secured: Settings, authority: Authority, dcmtk: Callable[..., list[str]]
) -> None:
    certificate, key, fingerprint = authority.issue("pacs.kn.example")
    services = FakeServices(secured)
    services.directory.endpoints["KN_PACS"] = settings_of(KN_PACS, certificates=fingerprint)
    with running(services, tls=server_context(secured)) as door:
        command = dcmtk(
            "echoscu", "-aet", "KN_PACS", "-aec", "YIXIE", "+tls", key, certificate, "+cf", authority.ca, "localhost",
            door.port,
        )  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr


def test_a_file_that_is_none_is_named(settings: Maker, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    with pytest.raises(HubError) as caught:
        server_context(settings(tls_certificate=broken, tls_key=broken))
    assert caught.value.where == "tls_certificate, tls_key"
    with pytest.raises(HubError) as caught:
        server_context(settings())
    assert "tls_certificate" in caught.value.where


def test_a_sender_trusts_only_the_authorities_of_the_members(
    secured: Settings, authority: Authority, tmp_path: Path, settings: Maker
) -> None:
    (tmp_path / "elsewhere").mkdir()
    stranger = Authority(tmp_path / "elsewhere", "Other CA")
    certificate, key, _ = stranger.issue("localhost")
    foreign = settings(tls_certificate=certificate, tls_key=key)
    with (
        running(FakeServices(foreign), tls=server_context(foreign)) as door,
        Peer(door.port) as peer,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        client_context(secured).wrap_socket(peer.socket, server_hostname="localhost")


@pytest.mark.parametrize(
    ("rights", "taken"), [("echo store", True), (["store"], True), ("echo", False), ("", False), (None, True)]
)
def test_an_ae_gets_the_services_that_its_endpoint_names(settings: Maker, rights: Any, taken: bool) -> None:
    services = FakeServices(settings())
    if rights is not None:
        services.directory.endpoints["KN_PACS"] = settings_of(KN_PACS, services=rights)
    with running(services) as door, Peer(door.port) as peer:
        assert peer.associate(CT)[0] == ASSOCIATE_AC
        status, _ = c_store(peer, ct_tags(size=300))
        assert status == (0 if taken else -1)
        assert bool(door.imaging.received) is taken
