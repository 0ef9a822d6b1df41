"""The address of a folder says where it is and nothing secret; what an SFTP endpoint lacks is told with words how to get it."""

from __future__ import annotations

import pytest

from hub.errors import HubError
from hub.file_doors import SftpAddress, are_fingerprints, is_secret_name, sftp_address
from hub.members import distil
from tests.hub.test_members import ORGANIZATION, endpoint

KEY = "SHA256:" + "a" * 43


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("sftp://hub@10.1.2.3:2222/hl7/kn/", SftpAddress(user="hub", host="10.1.2.3", port=2222, path=b"/hl7/kn")),
        ("sftp://hub@his.example/", SftpAddress(user="hub", host="his.example", port=22, path=b"")),
        ("sftp://a%40b@[::1]/%D6%A3", SftpAddress(user="a@b", host="::1", port=22, path=b"/\xd6\xa3")),
    ],
)
def test_an_address_is_read_as_its_rfc_says(address: str, expected: SftpAddress) -> None:
    assert sftp_address(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        "sftp://his.example/hl7", "sftp://hub@/hl7", "sftp://hub@his:99999/a", "sftp://hub@his/a/../b", "sftp://hub@his/a?b",
        "sftp://hub:Geheim1@his/a", "sftp://hub@his/a%00b", "sftp://%0Ahub@his/a",
    ],
)  # fmt: skip
def test_a_wrong_address_is_refused_at_import_without_a_word_of_it(address: str) -> None:
    one = endpoint(address=address, sending_facility="NWYY", host_key=KEY, credential="kn")
    with pytest.raises(HubError) as refused:
        distil([ORGANIZATION, one])
    assert "sftp://user@host:port/absolute/path" in refused.value.remedy
    assert "Geheim1" not in f"{refused.value.message} {refused.value.where} {refused.value.remedy}"


@pytest.mark.parametrize(("absent", "words"), [("host_key", "ssh-keyscan -p 2222"), ("credential", "secrets' folder")])
def test_an_sftp_endpoint_without_a_key_or_a_credential_is_refused_at_import(absent: str, words: str) -> None:
    settings = {"sending_facility": "NWYY", "host_key": KEY, "credential": "kn"}
    del settings[absent]
    with pytest.raises(HubError) as refused:
        distil([ORGANIZATION, endpoint(address="sftp://u@h:2222/a", **settings)])
    assert words in refused.value.remedy


def test_the_address_of_a_good_one_stays_as_it_was_written() -> None:
    one = endpoint(address="sftp://u@h:2222/a", sending_facility="NWYY", host_key=KEY, credential="kn")
    _, points, _ = distil([ORGANIZATION, one])
    assert [(point.address, point.ae_title) for point in points] == [("sftp://u@h:2222/a", "")]


@pytest.mark.parametrize("value", ["", "SHA256:abc", "MD5:" + "a" * 43, KEY + "=", f"{KEY},{KEY}"])
def test_what_is_no_fingerprint_is_none(value: str) -> None:
    assert are_fingerprints(f"{KEY} {KEY}")
    assert not are_fingerprints(value)


@pytest.mark.parametrize("value", ["", "../id", "a/b", ".ssh", "a\0", "a\n"])
def test_a_name_of_a_secret_leads_out_of_no_folder(value: str) -> None:
    assert is_secret_name("kn-2025.key")
    assert not is_secret_name(value)
