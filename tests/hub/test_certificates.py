"""A certificate speaks for the member that names it, and for nobody else."""

from __future__ import annotations

import pytest

from hub.certificates import OPEN_LINE, Certificate, Line, why_not
from hub.ports import MemberEndpoint

FINGERPRINT = "ab" * 32
KN_CERTIFICATE = Certificate(FINGERPRINT, frozenset({"pacs.kn.example", "urn:kn:pacs"}))
STRANGER = Certificate("cd" * 32, frozenset({"elsewhere.example"}))


def endpoint(member: str = "KN", **settings: str) -> MemberEndpoint:
    return MemberEndpoint(id=f"{member}/dicom", member=member, kind="dicom", ae_title="X", settings=settings)


@pytest.mark.parametrize(
    "named",
    [
        FINGERPRINT,
        FINGERPRINT.upper(),
        f"sha256:{FINGERPRINT}",
        ":".join([FINGERPRINT[i : i + 2] for i in range(0, 64, 2)]),
        "pacs.kn.example",
        "PACS.KN.example",
        "urn:kn:pacs",
        f"{'00' * 32} {FINGERPRINT}",
    ],
)
def test_a_certificate_is_named_by_fingerprint_or_name(named: str) -> None:
    assert why_not(endpoint(certificates=named), Line(True, KN_CERTIFICATE)) == ""
    assert why_not(endpoint(certificates=named), Line(True, STRANGER)) == "certificate-unknown"
    assert why_not(endpoint(certificates=named), Line(True, None)) == "certificate-unknown"


def test_a_part_of_a_name_is_not_the_name() -> None:
    assert why_not(endpoint(certificates="kn.example"), Line(True, KN_CERTIFICATE)) == "certificate-unknown"


def test_an_open_line_is_enough_unless_the_member_says_otherwise() -> None:
    assert why_not(endpoint(), OPEN_LINE) == ""
    assert why_not(endpoint(tls="optional"), OPEN_LINE) == ""
    assert why_not(endpoint(tls="required"), OPEN_LINE) == "tls-required"
    assert why_not(endpoint(certificates=FINGERPRINT), OPEN_LINE) == "tls-required"
    assert why_not(endpoint(tls="required"), Line(True)) == ""


def test_a_certificate_that_one_member_names_speaks_for_no_other() -> None:
    kn, qh = endpoint(certificates=FINGERPRINT), endpoint("QH")
    assert why_not(qh, Line(True, KN_CERTIFICATE), [kn, qh]) == "certificate-of-another-member"
    assert why_not(qh, Line(True, STRANGER), [kn, qh]) == ""
