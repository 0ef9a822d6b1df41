"""Numbers no database column can hold, in objects that are whole: the object is kept, the index says nothing of them."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_mappings.dicom.header import read_header
from hub.access import Scope
from hub.ports import InstanceRow, ObjectRef, StudyKey
from storage.sql.database import SqlDatabase
from tests.support.dicom import ct_tags, encode, part10

NOW = datetime(2025, 6, 11, 2, 0, tzinfo=UTC)
KN = Scope(institution="KN")
_UIDS = count(1)

#: The edges of every width that a column may have, and beyond what IS allows (PS3.5 table 6.2-1).
_EDGES = [edge + step for width in (7, 8, 15, 16, 31, 32, 39) for edge in (1 << width,) for step in (-1, 0, 1)]
_IS = st.one_of(
    st.sampled_from([*_EDGES, *(-edge for edge in _EDGES)]).map(str),
    st.integers(-(10**12) + 1, 10**12 - 1).map(str),
    st.sampled_from(["", " ", "+", "-0", "000000000001", "9" * 12, "9" * 13, "9" * 400, "1e9", "0x7F", "1\\2"]),
)
_US = st.one_of(st.sampled_from([0, 1, 127, 128, 32767, 32768, 65534, 65535]), st.integers(0, 0xFFFF))


def indexed(database: SqlDatabase, **values: Any) -> InstanceRow:
    """Index an object without pixels that has *values*, and return the row."""
    study = f"1.2.826.0.1.3680043.8.498.{next(_UIDS)}"
    tags = ct_tags(size=2)
    del tags[0x7FE00010]
    named = {
        "Rows": (0x00280010, "US"),
        "Columns": (0x00280011, "US"),
        "BitsAllocated": (0x00280100, "US"),
        "NumberOfFrames": (0x00280008, "IS"),
        "SeriesNumber": (0x00200011, "IS"),
        "InstanceNumber": (0x00200013, "IS"),
    }
    tags[0x0020000D] = ("UI", study)
    tags[0x0020000E] = ("UI", f"{study}.1")
    tags[0x00080018] = ("UI", f"{study}.1.1")
    for name, value in values.items():
        tag, vr = named[name]
        tags[tag] = (vr, value)
    sop_class = tags[0x00080016][1]
    assert isinstance(sop_class, str)
    data = part10(
        encode(dict(sorted(tags.items()))),
        sop_class=sop_class,
        sop_instance=f"{study}.1.1",
        transfer_syntax="1.2.840.10008.1.2.1",
    )
    header = read_header(io.BytesIO(data))
    ref = ObjectRef(digest=study, size=len(data))
    key = StudyKey(owner="KN", StudyInstanceUID=study)
    assert database.write(lambda tx: tx.imaging.add("KN", header, ref, NOW, "p", "c", resource_id=study)) == "new"
    database.write(lambda tx: tx.imaging.refresh_study(key))
    (row,) = database.read(lambda tx: tx.imaging.instances_of(key, attributes=True))
    (series,) = database.read(lambda tx: tx.imaging.series_of(key))
    assert series["SeriesNumber"] == header.SeriesNumber
    assert row.InstanceNumber == header.InstanceNumber
    return row


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(Rows=_US, Columns=_US, BitsAllocated=_US, NumberOfFrames=_IS, SeriesNumber=_IS, InstanceNumber=_IS)
def test_every_number_an_object_can_hold_is_taken(database: SqlDatabase, **values: Any) -> None:
    row = indexed(database, **values)
    assert (row.Rows, row.Columns) == (values["Rows"], values["Columns"])
    assert row.BitsAllocated in {values["BitsAllocated"], None}
    assert row.NumberOfFrames is None or abs(row.NumberOfFrames) <= 1 << 31


@pytest.mark.parametrize(
    ("frames", "kept"),
    [("2147483647", (1 << 31) - 1), ("2147483648", None), ("-2147483648", -(1 << 31)), ("-2147483649", None)],
)
def test_frames_beyond_an_integer_string_are_unknown_to_the_index_and_stay_in_the_header(
    database: SqlDatabase, frames: str, kept: int | None
) -> None:
    row = indexed(database, NumberOfFrames=frames)
    assert row.NumberOfFrames == kept
    assert f'"00280008":{{"vr":"IS","Value":[{frames}]}}'.encode() in row.attributes.replace(b" ", b"")


@pytest.mark.parametrize(("bits", "kept"), [(32767, 32767), (32768, None), (65535, None)])
def test_bits_no_image_has_are_unknown_to_the_index(database: SqlDatabase, bits: int, kept: int | None) -> None:
    assert indexed(database, BitsAllocated=bits).BitsAllocated == kept
