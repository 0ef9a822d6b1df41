"""Studies as one ZIP file (PS3.18 section 8.6.1.3), read by Python's and Info-ZIP's readers."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from adapters.dicomweb.archive import ZipBody, at_most
from adapters.dicomweb.multipart import Part
from hub.boot import Services
from hub.errors import Category, HubError
from storage.sql.schema import audit
from tests.adapters.dicomweb.test_dicomweb import MULTIPART, PATH, SERIES, parts, rows
from tests.support.images import KN, STUDY, ct, receive
from tests.support.pixels import ramp, sample

ZIP = {"Accept": "application/zip"}


def opened(answer: httpx.Response) -> dict[str, bytes]:
    """Return name and content of each file of the ZIP file, whose checksums are right."""
    with zipfile.ZipFile(io.BytesIO(answer.content)) as found:
        assert found.testzip() is None
        return {one.filename: found.read(one) for one in found.infolist()}


def test_a_study_comes_as_one_zip_file_of_the_stored_bytes(http: httpx.Client, hub: Services) -> None:
    first, second, other = ct(1), ct(2), ct(1, series=2)
    for one in (first, second, other):
        receive(hub, one)
    answer = http.get(f"/studies/{STUDY}", headers=ZIP)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert answer.headers["content-disposition"] == 'attachment; filename="dicom.zip"'
    assert opened(answer) == {
        "DICOM/S0001/I00001.dcm": first,
        "DICOM/S0001/I00002.dcm": second,
        "DICOM/S0002/I00001.dcm": other,
    }
    assert set(opened(http.get(f"/studies/{STUDY}/series/{SERIES}", headers=ZIP)).values()) == {first, second}
    assert list(opened(http.get(PATH, headers=ZIP)).values()) == [first]


@pytest.mark.tool("unzip")
def test_info_zip_unpacks_it(http: httpx.Client, hub: Services, tmp_path: Path) -> None:
    objects = [ct(number) for number in (1, 2, 3)]
    for one in objects:
        receive(hub, one)
    (tmp_path / "study.zip").write_bytes(http.get(f"/studies/{STUDY}", headers=ZIP).content)
    done = subprocess.run(["unzip", "-q", "study.zip"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [one.read_bytes() for one in sorted(tmp_path.glob("DICOM/S0001/*.dcm"))] == objects


def test_a_browser_asks_for_it_in_the_address(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    answer = http.get(f"/studies/{STUDY}", params={"accept": "application/zip"}, headers={"Accept": "text/html"})
    assert list(opened(answer).values()) == [ct()]


def test_what_was_asked_for_first_is_given(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    for accept, kind in (
        (f"{MULTIPART};q=0.5, application/zip", "application/zip"),
        (f"{MULTIPART}, application/zip;q=0.5", "multipart/related"),
        ("*/*", "multipart/related"),
        ("multipart/related; type=application/zip, application/dicom", "application/dicom"),
    ):
        assert http.get(PATH, headers={"Accept": accept}).headers["content-type"].startswith(kind), accept


def test_the_files_are_in_the_transfer_syntax_that_is_named(http: httpx.Client, hub: Services) -> None:
    receive(hub, sample(ramp()))
    study = http.get("/studies").json()[0]["0020000D"]["Value"][0]
    named = f"transfer-syntax={JPEGLSLossless}"
    (made,) = opened(http.get(f"/studies/{study}", headers={"Accept": f"application/zip; {named}"})).values()
    ((_, same),) = parts(http.get(f"/studies/{study}", headers={"Accept": f"{MULTIPART}; {named}"}))
    assert made == same
    assert made != sample(ramp())
    refused = http.get(f"/studies/{study}", headers={"Accept": "application/zip; transfer-syntax=1.2.3"})
    assert refused.status_code == 406


def test_others_get_no_zip_file_and_each_one_is_audited(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    assert http.get(f"/studies/{STUDY}", headers={**ZIP, "Authorization": "Bearer qh"}).status_code == 404
    assert http.get(f"/studies/{STUDY}", headers={**ZIP, "Authorization": ""}).status_code == 401
    before = len(rows(hub, audit))
    assert http.get(f"/studies/{STUDY}", headers=ZIP).status_code == 200
    (line,) = rows(hub, audit)[before:]
    assert line.subtype == "WADO-RS"


def test_an_object_that_is_missing_is_told_before_the_first_byte(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    hub.objects.delete(hashlib.sha256(ct()).hexdigest())
    answer = http.get(f"/studies/{STUDY}", headers=ZIP)
    assert answer.status_code == http.get(f"/studies/{STUDY}").status_code == 404
    assert answer.headers["content-type"] != "application/zip"


def test_a_body_is_made_piece_by_piece() -> None:
    taken: list[int] = []

    def pieces(number: int) -> Iterator[bytes]:
        for piece in range(64):
            taken.append(number * 64 + piece)
            yield bytes(range(256)) * 256

    made = [Part(content_type="", size=64 << 16, content=partial(pieces, number)) for number in (0, 1)]
    body = ZipBody([(f"{number}.dcm", part, 64 << 16) for number, part in enumerate(made)])
    whole = io.BytesIO()
    longest = 0
    for chunk in body:
        whole.write(chunk)
        longest = max(longest, len(chunk))
    # No chunk holds more than a few pieces of 64 KiB, of which there are 128.
    assert longest <= 256 << 10
    assert len(taken) == 128
    with zipfile.ZipFile(whole) as found:
        assert [len(found.read(one)) for one in found.infolist()] == [64 << 16] * 2


def test_only_a_file_that_may_have_two_gigabytes_is_written_in_the_long_form() -> None:
    for size, longest, version in ((None, 1 << 20, 20), (1, 1 << 20, 20), (3 << 30, 6 << 30, 45), (None, 6 << 30, 45)):
        part = Part(content_type="", size=size, content=lambda: [b"x"])
        with zipfile.ZipFile(io.BytesIO(b"".join(ZipBody([("1.dcm", part, longest)])))) as found:
            (one,) = found.infolist()
            assert (one.extract_version, found.read(one)) == (version, b"x")


def test_no_image_outgrows_its_bound_in_any_transfer_syntax(hub: Services) -> None:
    packed = sample(ramp(3), JPEGLSLossless, frames=3)
    receive(hub, packed)
    (row,) = hub.imaging.retrieve(KN, STUDY)
    native = len(sample(ramp(3), ExplicitVRLittleEndian, frames=3))
    assert native < at_most(row) < 8 * native


def test_trouble_in_the_middle_never_ends_in_a_whole_file() -> None:
    def broken() -> Iterator[bytes]:
        yield b"first"
        raise HubError(Category.UNAVAILABLE, "gone")

    made: list[bytes] = []
    good = Part(content_type="", size=1, content=lambda: [b"x"])
    body = ZipBody([("1.dcm", good, 1), ("2.dcm", Part(content_type="", size=9, content=broken), 9)])

    def read() -> Any:
        made.extend(body)

    with pytest.raises(HubError):
        read()
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(b"".join(made)))
