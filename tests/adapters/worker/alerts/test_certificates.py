"""A certificate that ends soon is told of in time, and until another one is in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from adapters.worker.alerts import AlertLoop
from hub.boot import Services
from hub.certificates import Certificate, Line
from hub.ports import MemberEndpoint
from hub.presented_certificates import PresentedCertificates
from tests.support.hub import SetClock, register

KEY = "certificate|tls-certificate"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "hub.pem"


@pytest.fixture
def opened(sqlite_services: Services, file: Path) -> Callable[[], list[str]]:
    """Let a loop look once at a hub that has *file* as its certificate, and return the open alerts."""
    settings = sqlite_services.settings.model_copy(update={"tls_certificate": file})
    loop = AlertLoop(replace(sqlite_services, settings=settings))

    def turn() -> list[str]:
        loop.turn()
        return [one["key"] for one in sqlite_services.database.read(lambda tx: tx.alerts.all())]

    return turn


def certificate(ends: datetime) -> bytes:
    """Return a self-signed certificate that ends then."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub.example")])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(ends - timedelta(days=365))
        .not_valid_after(ends)
    )
    return built.sign(key, None).public_bytes(serialization.Encoding.PEM)


def test_a_certificate_is_told_a_month_before_its_end_and_until_it_is_replaced(
    opened: Callable[[], list[str]], file: Path, set_clock: SetClock
) -> None:
    file.write_bytes(certificate(set_clock.now + timedelta(days=31)))
    assert opened() == []
    set_clock.forward(2 * 86_400)
    assert opened() == [KEY]
    file.write_bytes(certificate(set_clock.now + timedelta(days=400)))
    set_clock.forward(3601)
    assert opened() == []


def test_the_first_of_several_to_end_counts(opened: Callable[[], list[str]], file: Path, set_clock: SetClock) -> None:
    far, near = (certificate(set_clock.now + timedelta(days=days)) for days in (900, 3))
    file.write_bytes(far + near)
    assert opened() == [KEY]


@pytest.mark.parametrize("content", [None, b"", b"no certificate"], ids=["missing", "empty", "nonsense"])
def test_a_file_that_holds_no_certificate_is_told_of(
    opened: Callable[[], list[str]], file: Path, content: bytes | None
) -> None:
    if content is not None:
        file.write_bytes(content)
    assert opened() == [KEY]


def test_what_a_member_shows_is_told_a_month_before_its_end_and_until_it_shows_another(
    sqlite_services: Services, set_clock: SetClock
) -> None:
    register(sqlite_services, MemberEndpoint(id="KN/dicom", member="KN", kind="dicom", ae_title="KN_PACS"))
    loop, notes = AlertLoop(sqlite_services), PresentedCertificates(sqlite_services.database, set_clock)

    def shown(fingerprint: str, ends: datetime) -> list[str]:
        notes.note("KN/dicom", Line(True, Certificate(fingerprint, frozenset(), ends)))
        loop.turn()
        return [one["key"] for one in sqlite_services.database.read(lambda tx: tx.alerts.all())]

    first, other = set_clock.now + timedelta(days=31), set_clock.now + timedelta(days=400)
    assert shown("ab" * 32, first) == []
    set_clock.forward(2 * 86_400)
    assert shown("ab" * 32, first) == ["member-certificate|KN/dicom"]
    set_clock.forward(2 * 86_400)
    assert shown("cd" * 32, other) == []
