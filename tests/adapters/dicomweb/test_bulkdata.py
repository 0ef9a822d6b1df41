"""All bulk data and all pixels of a study, series or instance (PS3.18 sections 10.4.1.1.5, 10.4.1.1.6)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from adapters.dicomweb.bulkdata import Bulkdata
from adapters.dicomweb.multipart import Part
from hub.boot import Services
from hub.ports import InstanceRow
from storage.sql.schema import audit
from tests.adapters.dicomweb.test_dicomweb import FRAGMENTS, PATH, SERIES, rows
from tests.support.images import STUDY, ct, receive
from tests.support.pixels import ramp, sample

PARTS = {"Accept": 'multipart/related; type="application/octet-stream"'}
STORED = {"Accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}
OCTETS = "application/octet-stream"


def parts(answer: httpx.Response) -> list[tuple[str, str, bytes]]:
    """Return (address behind the study, media type, content) of each part."""
    boundary = answer.headers["content-type"].split("boundary=")[1].encode()
    found = []
    for part in (b"\r\n" + answer.content).split(b"\r\n--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().strip().split("\r\n"))
        found.append((fields["Content-Location"], fields["Content-Type"], content))
    return found


def with_bulk(number: int = 1) -> tuple[bytes, bytes, bytes]:
    """Return an image that has bulk data inside a sequence too, that bulk data, and its pixels."""
    dataset = pydicom.dcmread(io.BytesIO(ct(number)))
    item, inside = Dataset(), bytes([number]) * 5000
    item.VectorGridData = inside
    dataset.DeformableRegistrationGridSequence = [item]
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue(), inside, dataset.PixelData


def uris(metadata: Any) -> set[str]:
    """Return every BulkDataURI of *metadata*."""
    if isinstance(metadata, list):
        return set().union(*map(uris, metadata)) if metadata else set()
    if isinstance(metadata, dict):
        own = {metadata["BulkDataURI"]} if "BulkDataURI" in metadata else set()
        return own.union(*map(uris, metadata.values()))
    return set()


@pytest.mark.parametrize("place", [f"/studies/{STUDY}", f"/studies/{STUDY}/series/{SERIES}"])
def test_every_uri_of_the_metadata_is_a_part_with_its_bytes(http: httpx.Client, hub: Services, place: str) -> None:
    contents = set()
    for number in (1, 2):
        data, inside, pixels = with_bulk(number)
        receive(hub, data)
        contents |= {inside, pixels}
    answer = http.get(f"{place}/bulkdata", headers=PARTS)
    assert answer.status_code == 200
    found = parts(answer)
    assert {location for location, _, _ in found} == uris(http.get(f"{place}/metadata").json())
    assert len(found) == 4
    assert {content for _, _, content in found} == contents
    for location, kind, content in found:
        assert kind == OCTETS
        assert http.get(location, headers={"Accept": OCTETS}).content == content
        assert parts(http.get(location, headers=PARTS)) == [(location, kind, content)]


def test_pixels_come_without_other_bulk_data(http: httpx.Client, hub: Services) -> None:
    data, _, pixels = with_bulk()
    receive(hub, data)
    for place in (f"/studies/{STUDY}", f"/studies/{STUDY}/series/{SERIES}", PATH):
        for headers in (PARTS, STORED, {"Accept": "*/*"}):
            ((location, _, content),) = parts(http.get(f"{place}/pixeldata", headers=headers))
            assert (location, content) == (f"{http.base_url}{PATH[1:]}/bulk/7FE00010", pixels)


def test_compressed_pixels_are_one_part_for_each_frame(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct(frames=3, compressed=FRAGMENTS))
    found = parts(http.get(f"{PATH}/pixeldata", headers=STORED))
    assert [content for _, _, content in found] == FRAGMENTS
    assert {kind for _, kind, _ in found} == {f"{OCTETS}; transfer-syntax={JPEG2000Lossless}"}
    assert {location for location, _, _ in found} == {f"{http.base_url}{PATH[1:]}/bulk/7FE00010"}


def test_compressed_pixels_are_decoded_for_who_asks_for_plain_octets(http: httpx.Client, hub: Services) -> None:
    receive(hub, sample(ramp(2), JPEG2000Lossless, frames=2))
    found = parts(http.get(f"/studies/{STUDY}/bulkdata", headers=PARTS))
    assert {kind for _, kind, _ in found} == {f"{OCTETS}; transfer-syntax={ExplicitVRLittleEndian}"}
    assert b"".join(content for _, _, content in found) == ramp(2).tobytes()


def test_what_cannot_be_had_so_is_left_out_and_said(http: httpx.Client, hub: Services) -> None:
    receive(hub, sample(ramp(), JPEG2000Lossless))
    only = {"Accept": "multipart/related; type=image/jp2"}
    assert http.get(f"/studies/{STUDY}/pixeldata", headers=only).status_code == 200
    receive(hub, ct(7))
    answer = http.get(f"/studies/{STUDY}/pixeldata", headers=only)
    assert (answer.status_code, len(parts(answer))) == (206, 1)
    for accept in ("multipart/related; type=text/html", "application/octet-stream", "application/dicom"):
        assert http.get(f"/studies/{STUDY}/pixeldata", headers={"Accept": accept}).status_code == 406


def test_an_instance_without_pixels_has_none(http: httpx.Client, hub: Services) -> None:
    dataset = pydicom.dcmread(io.BytesIO(ct()))
    del dataset.PixelData, dataset.Rows, dataset.Columns
    out = io.BytesIO()
    dataset.save_as(out)
    receive(hub, out.getvalue())
    for name in ("bulkdata", "pixeldata"):
        assert http.get(f"{PATH}/{name}", headers=STORED).status_code == 404


def test_octets_in_parts_of_an_object_mean_its_bulk_data(http: httpx.Client, hub: Services) -> None:
    data, _, _ = with_bulk()
    receive(hub, data)
    for place in (f"/studies/{STUDY}", f"/studies/{STUDY}/series/{SERIES}", PATH):
        assert parts(http.get(place, headers=PARTS)) == parts(http.get(f"{place}/bulkdata", headers=PARTS))
    both = {"Accept": f'{PARTS["Accept"]}, multipart/related; type="application/dicom";q=0.1'}
    assert "application/dicom" in http.get(PATH, headers=both).headers["content-type"]


def test_others_get_none_and_each_answer_is_audited(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    for name in ("bulkdata", "pixeldata"):
        place = f"/studies/{STUDY}/{name}"
        assert http.get(place, headers={**PARTS, "Authorization": "Bearer qh"}).status_code == 404
        assert http.get(place, headers={**PARTS, "Authorization": ""}).status_code == 401
        before = len(rows(hub, audit))
        assert http.get(place, headers=PARTS).status_code == 200
        assert [line.subtype for line in rows(hub, audit)[before:]] == [f"WADO-RS {name}"]


def test_an_independent_client_takes_a_study_apart(http: httpx.Client, hub: Services, door: str) -> None:
    data, inside, pixels = with_bulk()
    receive(hub, data)
    session = create_session()
    session.headers["Authorization"] = "Bearer kn"
    client = DICOMwebClient(url=door, session=session)
    assert sorted(client.retrieve_bulkdata(f"{door}/studies/{STUDY}/bulkdata")) == sorted([inside, pixels])


def with_icon() -> tuple[bytes, Any, bytes]:
    """Return a compressed image of two frames with an icon, the icon's pixels, and its code stream."""
    small = (ramp() >> 4).astype("u1")
    icon = pydicom.dcmread(io.BytesIO(sample(small, JPEG2000Lossless)))
    (code,) = generate_fragments(icon.PixelData[8:])
    inside = Dataset()
    for keyword in (
        "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
        "PixelRepresentation",
    ):  # fmt: skip
        setattr(inside, keyword, getattr(icon, keyword))
    inside.PixelData = icon.PixelData
    inside["PixelData"].VR, inside["PixelData"].is_undefined_length = "OB", True
    dataset = pydicom.dcmread(io.BytesIO(sample(ramp(2), JPEG2000Lossless, frames=2)))
    dataset.IconImageSequence = [inside]
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue(), small, code


def test_an_icon_is_its_own_picture_and_not_the_frames_of_the_image(http: httpx.Client, hub: Services) -> None:
    data, pixels, code = with_icon()
    receive(hub, data)
    address = f"{http.base_url}{PATH[1:]}/bulk/00880200/1/7FE00010"
    plain = (address, f"{OCTETS}; transfer-syntax={ExplicitVRLittleEndian}", pixels.tobytes())
    stored = (address, f"{OCTETS}; transfer-syntax={JPEG2000Lossless}", code)
    for place, accept, expected in (
        (address, PARTS, plain), (address, STORED, stored), (f"{PATH}/bulkdata", PARTS, plain),
        (f"{PATH}/bulkdata", STORED, stored),
    ):  # fmt: skip
        found = parts(http.get(place, headers=accept))
        assert [one for one in found if one[0] == address] == [expected]
        assert len(found) == (1 if place == address else 3)
    assert http.get(address, headers={"Accept": OCTETS}).content == pixels.tobytes()


@pytest.mark.parametrize("path", ["00880200/1%0D/7FE00010", "00880200/%EF%BC%91/7FE00010", "+FE00010", "7FE0_010"])
def test_an_address_with_more_than_digits_is_refused(http: httpx.Client, hub: Services, path: str) -> None:
    receive(hub, ct())
    assert http.get(f"{PATH}/bulk/{path}", headers=STORED).status_code == 400


def test_headers_are_not_kept_while_their_values_go_out(
    http: httpx.Client, hub: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 9):
        receive(hub, ct(number, ImageComments="x" * 10_000, compressed=FRAGMENTS[:1]))
    seen: list[int] = []
    # What is held can be seen nowhere else.
    parts_of = Bulkdata._parts

    def watched(self: Bulkdata, row: InstanceRow, *rest: Any) -> Iterator[Part]:
        seen.append(len(row.attributes))
        return parts_of(self, row, *rest)

    monkeypatch.setattr(Bulkdata, "_parts", watched)
    found = parts(http.get(f"/studies/{STUDY}/pixeldata", headers=STORED))
    assert [content for _, _, content in found] == FRAGMENTS[:1] * 8
    assert seen == [0] * 8
