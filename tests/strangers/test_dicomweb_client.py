"""The Python package dicomweb-client on a running hub: it stores, searches and retrieves as its users do."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pydicom
import pytest
from dicomweb_client import DICOMwebClient

from tests.strangers.running import RunningHub
from tests.support.corpus import corpus
from tests.support.dicom import ROOT, make_ct


@pytest.fixture
def client(hub: RunningHub) -> Iterator[DICOMwebClient]:
    """The client, with KN's token; bodies beyond 100 kB go out chunked."""
    one = DICOMwebClient(hub.dicom_web, headers=dict(hub.bearer("KN")), chunk_size=100_000)
    yield one
    one._session.close()


def test_a_study_stored_in_chunks_is_found_and_comes_back(client: DICOMwebClient) -> None:
    files = [make_ct(study=721, instance=number, patient_id="P721", size=256) for number in (1, 2, 3)]
    study = f"{ROOT}.721"
    stored = client.store_instances([pydicom.dcmread(io.BytesIO(one)) for one in files], study)
    assert len(stored.ReferencedSOPSequence) == 3
    assert "FailedSOPSequence" not in stored
    (found,) = client.search_for_studies(search_filters={"PatientID": "P721"}, fields=["NumberOfStudyRelatedInstances"])
    assert found["0020000D"]["Value"] == [study]
    assert found["00201208"]["Value"] == [3]
    assert [one["0020000E"]["Value"] for one in client.search_for_series(study)] == [[f"{study}.1"]]
    assert len(client.search_for_instances(study, f"{study}.1", limit=2)) == 2
    back = client.retrieve_study(study)
    assert sorted(one.InstanceNumber for one in back) == [1, 2, 3]
    expected = pydicom.dcmread(io.BytesIO(files[1]))
    (got,) = [one for one in back if one.InstanceNumber == 2]
    assert got.PixelData == expected.PixelData
    address = (study, f"{study}.1", f"{study}.1.2")
    assert client.retrieve_instance(*address).PixelData == expected.PixelData
    assert len(client.retrieve_study_metadata(study)) == 3
    (frame,) = client.retrieve_instance_frames(*address, frame_numbers=[1])
    assert frame == expected.PixelData
    (metadata,) = client.retrieve_series_metadata(study, f"{study}.1")[1:2]
    bulk = metadata["7FE00010"]["BulkDataURI"]
    assert client.retrieve_bulkdata(bulk) == [expected.PixelData]
    # The client asks for a range of a multipart, whose bytes are not the pixels'; the whole is a right answer (RFC 9110 14.2).
    assert client.retrieve_bulkdata(bulk, byte_range=(100, 199)) == [expected.PixelData]


def test_a_rendered_image_is_one_and_a_frame_in_jpeg_2000_decodes_to_what_was_sent(
    client: DICOMwebClient,
) -> None:
    path = next(one.path for one in corpus() if one.name.endswith("CT_small.dcm"))
    dataset = pydicom.dcmread(path)
    client.store_instances([dataset])
    address = (str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID))
    rendered = client.retrieve_instance_rendered(*address, media_types=["image/png"])
    assert rendered.startswith(b"\x89PNG")
    (frame,) = client.retrieve_instance_frames(
        *address, frame_numbers=[1], media_types=[("image/jp2", "1.2.840.10008.1.2.4.90")]
    )
    from openjpeg import decode

    assert np.array_equal(decode(io.BytesIO(frame)), dataset.pixel_array)


def test_a_missing_study_is_told_as_such(client: DICOMwebClient) -> None:
    from requests import HTTPError

    with pytest.raises(HTTPError, match="404"):
        client.retrieve_study_metadata("1.2.3.4.5")
    assert client.search_for_studies(search_filters={"PatientID": "nobody at all"}) == []
