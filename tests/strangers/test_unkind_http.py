"""Unkind DICOMweb clients: every spelling of Accept and Content-Type, bodies cut anywhere, empty parts."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.strangers.running import RunningHub
from tests.support.dicom import ROOT, make_ct

STUDY = f"{ROOT}.751"
INSTANCE = f"/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.1"
DICOM = "application/dicom"


@pytest.fixture(scope="module")
def image(kn: httpx.Client) -> bytes:
    """One image that the hub has."""
    data = make_ct(study=751, patient_id="P751", size=16)
    answer = kn.post("/studies", content=data, headers={"Content-Type": DICOM})
    assert answer.status_code == 200, answer.text
    return data


@pytest.mark.parametrize(
    "accept",
    [
        f'multipart/related; type="{DICOM}"',
        f"multipart/related;type={DICOM}",
        f"multipart/related; type='{DICOM}'",
        f'MULTIPART/RELATED; TYPE="{DICOM.upper()}"',
        f'multipart/related; type="{DICOM}"; transfer-syntax=*',
        f'multipart/related; transfer-syntax="*"; type={DICOM}',
        f'multipart/related; type="{DICOM}"; transfer-syntax="1.2.840.10008.1.2.1"',
        f'text/html, multipart/related; type="{DICOM}"; q=0.1',
        DICOM,
        f"{DICOM}; transfer-syntax=*",
        "*/*",
        "",
        ", ,*/*",
        ";;;",
        "application/*",
    ],
)
def test_an_instance_is_handed_out_however_the_asker_spells_it(kn: httpx.Client, image: bytes, accept: str) -> None:
    answer = kn.get(INSTANCE, headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    assert image in answer.content


@pytest.mark.parametrize(
    "accept",
    ["text/html", "image/tiff", f"{DICOM}; q=0", "nonsense", '"', "application/dicom+json; q=zero, x/y"],
)
def test_what_is_not_offered_is_406_with_a_word_about_it(kn: httpx.Client, image: bytes, accept: str) -> None:
    answer = kn.get(INSTANCE, headers={"Accept": accept})
    assert answer.status_code == 406
    assert answer.json()["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/related; type="application/dicom"; boundary=part',
        "multipart/related; type=application/dicom; boundary=part",
        'multipart/related; boundary="part"; type="application/dicom"',
        'Multipart/Related;boundary=part;TYPE="Application/DICOM"',
        "multipart/related; boundary=part",
        'multipart/related; type="application/dicom"; boundary=part; charset=utf-8; unknown="a;b"',
    ],
)
def test_a_body_is_taken_however_its_type_is_spelt(kn: httpx.Client, image: bytes, content_type: str) -> None:
    answer = kn.post("/studies", content=wrapped(image), headers={"Content-Type": content_type})
    assert answer.status_code == 200, answer.text


def wrapped(*parts: bytes, kind: str = DICOM) -> bytes:
    """Return a multipart body."""
    head = f"--part\r\nContent-Type: {kind}\r\n\r\n".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + b"--part--\r\n"


MULTIPART = {"Content-Type": f'multipart/related; type="{DICOM}"; boundary=part'}


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b"", {400}),
        (b"--part--\r\n", {400}),
        (b"--part\r\n\r\n\r\n--part--\r\n", {409}),
        (wrapped(b""), {409}),
        (wrapped(b"", b""), {409}),
        (b"preamble without any boundary", {400, 409}),
        (b"--other\r\nContent-Type: application/dicom\r\n\r\nx\r\n--other--\r\n", {400, 409}),
    ],
)
def test_empty_bodies_and_parts_are_refused(kn: httpx.Client, body: bytes, statuses: set[int]) -> None:
    answer = kn.post("/studies", content=body, headers=MULTIPART)
    assert answer.status_code in statuses, answer.text


def test_an_empty_part_costs_itself_alone(kn: httpx.Client, image: bytes) -> None:
    answer = kn.post("/studies", content=wrapped(b"", image, b""), headers=MULTIPART)
    assert answer.status_code == 202
    assert len(answer.json()["00081199"]["Value"]) == 1
    assert len(answer.json()["00081198"]["Value"]) == 2


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_body_in_chunks_of_any_size_is_the_same_body(kn: httpx.Client, image: bytes, size: int) -> None:
    body = wrapped(image)

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    answer = kn.post("/studies", content=pieces(), headers=MULTIPART)
    assert answer.status_code == 200, answer.text


def test_a_chunked_body_may_break_off_anywhere_and_nothing_half_is_kept(hub: RunningHub, kn: httpx.Client) -> None:
    study = f"{ROOT}.752"
    body = wrapped(make_ct(study=752, patient_id="P752", size=16))
    head = (
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n"
        f"Content-Type: {MULTIPART['Content-Type']}\r\nAuthorization: {hub.bearer('KN')['Authorization']}\r\n\r\n"
    ).encode()
    # Within the part and its head, but not behind the boundary that ends it: what is whole is kept.
    ends = len(body) - len(b"\r\n--part--\r\n")
    for cut in [*range(1, 60, 6), *range(60, ends, 97), ends]:
        with socket.create_connection(("127.0.0.1", hub.ports["http"]), timeout=20) as raw:
            raw.sendall(head + f"{len(body):x}\r\n".encode() + body[:cut])
            # The next bytes are no chunk's; a server that read on would take them for the image's.
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(65536):
                pass
    assert kn.get("/studies", params={"StudyInstanceUID": study}).json() == []
    assert kn.post("/studies", content=body, headers=MULTIPART).status_code == 200


@pytest.mark.parametrize(
    "query", ["PatientID=", "StudyInstanceUID=", "StudyDate=", "limit=", "offset=", "includefield=", "00100020=", "="]
)
def test_empty_query_values_are_answered(kn: httpx.Client, image: bytes, query: str) -> None:
    assert kn.get(f"/studies?{query}").status_code in {200, 400}


@pytest.mark.parametrize(
    "path", ["/studies/", "/studies//series", "/studies/ ", "/studies/%00", f"/studies/{STUDY}/series//instances"]
)
def test_empty_uids_in_an_address_are_no_fault(kn: httpx.Client, path: str) -> None:
    assert kn.get(path).status_code in {200, 400, 404}


def test_an_image_of_zero_bytes_is_kept_and_asking_for_its_pixels_is_no_fault(kn: httpx.Client) -> None:
    study = f"{ROOT}.753"
    data = make_ct(study=753, patient_id="P753", more={0x7FE00010: ("OW", b"")})
    assert kn.post("/studies", content=data, headers={"Content-Type": DICOM}).status_code == 200
    instance = f"/studies/{study}/series/{study}.1/instances/{study}.1.1"
    assert kn.get(instance, headers={"Accept": f"{DICOM}; transfer-syntax=*"}).content == data
    (metadata,) = kn.get(f"{instance}/metadata").json()
    assert metadata["7FE00010"]["vr"] == "OW"
    octets = {"Accept": "application/octet-stream; transfer-syntax=*"}
    answers = {
        "frames": kn.get(f"{instance}/frames/1", headers=octets),
        "rendered": kn.get(f"{instance}/rendered", headers={"Accept": "image/jpeg"}),
        "transcoded": kn.get(instance, headers={"Accept": f"{DICOM}; transfer-syntax=1.2.840.10008.1.2.4.90"}),
    }
    assert {name: one.status_code for name, one in answers.items() if not 400 <= one.status_code < 500} == {}
