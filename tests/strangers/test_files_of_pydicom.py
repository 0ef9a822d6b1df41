"""The DICOM library's test files through all doors: bytes, frames and metadata beside what the library itself reads.

What is refused is in docs/conformance/test-files.md.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pydicom

from tests.strangers.running import RunningHub
from tests.support.corpus import CorpusFile, Outcome, corpus, dataset_of, fetched, page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance" / "test-files.md"
NATIVE = "1.2.840.10008.1.2.1"
#: Files that the library, with the codecs of this environment, cannot decode; the hub decodes the first two.
UNDECODED = {
    "pydicom: test_files/JPEG-lossy.dcm",
    "pydicom: test_files/JPGExtended.dcm",
    "pydicom: test_files/JPEG2000-embedded-sequence-delimiter.dcm",
}
Outcomes = Mapping[str, Outcome]


def kept(outcomes: Outcomes) -> list[CorpusFile]:
    found = [one for one in corpus() if not outcomes[one.name].refused]
    assert len(found) > 150
    return found


def read(one: CorpusFile) -> pydicom.Dataset:
    return pydicom.dcmread(one.path)


def test_what_c_store_keeps_comes_back_as_it_was_sent(
    hub: RunningHub, http: httpx.Client, sent_by_dimse: Outcomes
) -> None:
    differ = [
        one.name
        for one in kept(sent_by_dimse)
        if dataset_of(fetched(hub, http, one, sent_by_dimse[one.name])) != one.dataset_bytes()
    ]
    assert differ == []


def test_what_stow_keeps_comes_back_byte_for_byte(hub: RunningHub, http: httpx.Client, sent_by_web: Outcomes) -> None:
    differ = [
        one.name for one in kept(sent_by_web) if fetched(hub, http, one, sent_by_web[one.name]) != one.path.read_bytes()
    ]
    assert differ == []


def test_the_page_lists_what_is_refused_and_why(sent_by_dimse: Outcomes, sent_by_web: Outcomes) -> None:
    assert page(sent_by_dimse, sent_by_web) == PAGE.read_text("utf-8"), "run `make docs` and commit the page"


def test_frames_are_those_that_the_library_decodes(hub: RunningHub, http: httpx.Client, sent_by_web: Outcomes) -> None:
    undecoded, wrong, compared = set(), [], 0
    for one in kept(sent_by_web):
        dataset = read(one)
        if "PixelData" not in dataset:
            continue
        who, url = hub.bearer(one.by_web), sent_by_web[one.name].url
        try:
            expected = dataset.pixel_array
        except RuntimeError:
            undecoded.add(one.name)
            continue
        whole = http.get(url, headers={**who, "Accept": f"application/dicom; transfer-syntax={NATIVE}"})
        assert whole.status_code == 200, f"{one.name}: {whole.text[:300]}"
        ours = pydicom.dcmread(io.BytesIO(whole.content))
        count = int(dataset.get("NumberOfFrames") or 1)
        last = http.get(
            f"{url}/frames/{count}", headers={**who, "Accept": f"application/octet-stream; transfer-syntax={NATIVE}"}
        )
        assert last.status_code == 200, f"{one.name}: {last.text[:300]}"
        size = len(last.content)
        same = ours.pixel_array.shape == expected.shape and bool((ours.pixel_array == expected).all())
        if not same or ours.PixelData[size * (count - 1) : size * count] != last.content:
            wrong.append(one.name)
        compared += 1
    assert wrong == []
    assert undecoded == UNDECODED
    assert compared > 100


def alike(ours: Any, theirs: Any, *, big_endian: bool) -> bool:
    """Return whether two elements of DICOM JSON say the same.

    The hub and the library differ, rightly, in this: the hub strips padding of each value (PS3.5 section 6.2), writes an empty
    value among others as null (PS3.18 section F.2.5), and little endian binaries (section F.2.7); it leaves UN as it is, where
    the library looks into dictionaries of vendors; it leaves the empty Value of an empty sequence out; and refers to what is
    long.
    """
    if "BulkDataURI" in ours or "BulkDataURI" in theirs or ours["vr"] == "UN":
        return True
    if ours["vr"] != theirs["vr"]:
        return False
    if "InlineBinary" in ours:
        return big_endian or ours == theirs
    mine, other = ours.get("Value", []), theirs.get("Value", [])
    if ours["vr"] == "SQ":
        return len(mine) == len(other) and all(
            not unlike(a, b, big_endian=big_endian) for a, b in zip(mine, other, strict=True)
        )
    return mine == [(one.strip(" ") if isinstance(one, str) else one) or (0 if one == 0 else None) for one in other]


def unlike(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, big_endian: bool) -> list[str]:
    """Return the tags that the two do not share or see in another way.

    Group lengths are retired (PS3.5 section 7.2); the hub writes UTF-8 whatever it read, and says so.
    """
    return [
        tag
        for tag in theirs
        if not tag.endswith("0000")
        and tag != "00080005"
        and (tag not in ours or not alike(ours[tag], theirs[tag], big_endian=big_endian))
    ]


def test_metadata_is_what_the_library_reads(hub: RunningHub, http: httpx.Client, sent_by_web: Outcomes) -> None:
    wrong = {}
    for one in kept(sent_by_web):
        answer = http.get(f"{sent_by_web[one.name].url}/metadata", headers=hub.bearer(one.by_web))
        assert answer.status_code == 200, f"{one.name}: {answer.text[:300]}"
        (ours,) = answer.json()
        theirs = json.loads(
            read(one).to_json(
                bulk_data_threshold=1024, bulk_data_element_handler=lambda _: "elsewhere", suppress_invalid_tags=True
            )
        )
        if "00080005" in ours:
            assert ours["00080005"]["Value"] == ["ISO_IR 192"], one.name
        if found := unlike(ours, theirs, big_endian=one.transfer_syntax.endswith("1.2.2")):
            wrong[one.name] = {tag: (ours.get(tag), theirs[tag]) for tag in found}
    assert wrong == {}
