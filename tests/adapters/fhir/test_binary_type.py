"""The label that a sender gives to bytes becomes a header of HTTP, so only what is a media type gets there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.http.app import build
from fhir_mappings.json import dumps
from hub.actor import Actor
from tests.fhir_mappings.cda.golden import SAMPLES
from tests.support.http import Client, client_of
from tests.support.services import running

SHEET = (SAMPLES / "C0020" / "kn_vital_signs.xml").read_bytes().decode("gb18030")
RAW = {"Accept": "*/*"}


@pytest.fixture
def kn(tmp_path: Path) -> Iterator[Client]:
    with running(tmp_path) as services:
        yield client_of(build(services), services, Actor(institution="KN"))


@pytest.mark.parametrize(
    "label", ["image/png&#10;Set-Cookie: a=b", "image/png&#13;&#10;&#13;&#10;x", "图片", "png", "a" * 3000]
)
def test_the_label_of_a_picture_in_a_document_sets_no_other_header(label: str, kn: Client) -> None:
    sheet = SHEET.replace('mediaType="image/png"', f'mediaType="{label}"')
    taken = kn.post("/cda", content=sheet.encode("gb18030"))
    assert taken.status_code == 201
    picture = taken.json()["content"][1]["attachment"]
    assert picture["contentType"] == "application/octet-stream"
    answer = kn.get(f"/fhir/{picture['url']}", headers=RAW)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
    assert answer.content.startswith(b"\x89PNG")


def test_a_binary_whose_label_is_no_media_type_can_be_read_as_its_bytes(kn: Client) -> None:
    body = {"resourceType": "Binary", "contentType": "图片", "data": "AAAA"}
    made = kn.post("/fhir/Binary", content=dumps(body), headers={"Content-Type": "application/fhir+json"})
    assert made.status_code == 201
    answer = kn.get(f"/fhir/Binary/{made.json()['id']}", headers=RAW)
    assert (answer.status_code, answer.content) == (200, b"\0\0\0")
    assert answer.headers["content-type"] == "application/octet-stream"
