"""The Modality Worklist over real sockets: orders in by MLLP and FHIR, items out to DCMTK (PS3.4 annex K)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom import dcmread

from adapters.dimse.negotiation import Context
from adapters.dimse.worklist import SOP_CLASS
from fhir_mappings.dicom import identifier
from fhir_mappings.dicom.worklist import study_uid
from fhir_mappings.identifiers import resource_id
from hub import worklist
from hub.boot import Services
from hub.ports import NewVersion
from tests.support import images, mllp
from tests.support import services as support
from tests.support.dimse import Door, FakeServices, running
from tests.support.dimse_peer import associated
from tests.support.dimse_query import Found, find, keys, plain

ORDERS = Path(__file__).parents[3] / "sample_data" / "hl7" / "ORM_O01"
BASE = "https://yixiehub.example/fhir"
PENDING, PARTLY = 0xFF00, 0xFF01
#: Whom KN calls K1.
PATIENT = resource_id("KN", "patient-id", "Patient", "K1")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with support.running(tmp_path, clock=images.FakeClock()) as made:
        yield made


@pytest.fixture
def door(services: Services) -> Iterator[Door]:
    with running(cast("FakeServices", services)) as made:
        yield made


def put(services: Services, *resources: dict[str, Any], owner: str = "KN") -> None:
    services.database.write(
        lambda tx: tx.records.put_many([NewVersion(resource=one, owner=owner) for one in resources])
    )


def patient(id_: str = PATIENT, number: str = "K1", *, owner: str = "KN", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "id": id_,
        "identifier": [{"system": f"{BASE}/NamingSystem/{owner}/patient-id", "value": number}],
        "name": [{"text": "欧阳明月"}],
        "birthDate": "1990-05-01",
        "gender": "female",
        **more,
    }


def order(id_: str = "o1", number: str = "A1", **more: Any) -> dict[str, Any]:
    made = {
        "resourceType": "ServiceRequest",
        "id": id_,
        "status": "active",
        "intent": "order",
        "identifier": [{"system": f"{BASE}/NamingSystem/KN/accession", "value": number}],
        "code": {"text": "胸部CT平扫"},
        "subject": {"reference": f"Patient/{PATIENT}"},
        "occurrenceDateTime": "2025-06-11T09:30:00+08:00",
        **more,
    }
    return {name: value for name, value in made.items() if value}


def asked(
    door: Door, *, caller: str = "KN_PACS", charset: str = "", step: dict[str, Any] | None = None, **content: Any
) -> Found:
    wanted = {"ScheduledStationAETitle": "", "ScheduledProcedureStepStartDate": "", "Modality": "", **(step or {})}
    identity = keys(
        **{
            "PatientName": "", "PatientID": "", "AccessionNumber": "", "StudyInstanceUID": "",
            "ScheduledProcedureStepSequence": [wanted], **content,
        }
    )  # fmt: skip
    with associated(door.port, Context(SOP_CLASS, identifier.IMPLICIT), calling_ae=caller) as peer:
        return find(peer, SOP_CLASS, identity, charset=charset)


def send_v2(services: Services, path: Path) -> None:
    """Send a message of the samples through the MLLP door and read that it was taken."""
    import socket

    with mllp.door(services.messages, mllp.limits()) as open_door, socket.create_connection(open_door.address) as peer:
        peer.settimeout(mllp.PATIENCE_S)
        peer.sendall(b"\x0b" + path.read_bytes() + b"\x1c\r")
        answer = b""
        while b"\x1c\r" not in answer:
            answer += peer.recv(4096)
    assert b"MSA|CA" in answer


@pytest.mark.tool("findscu")
@pytest.mark.parametrize("charset", ["GB18030", "ISO_IR 192"])
def test_an_order_in_gbk_is_a_worklist_item_that_findscu_reads(
    services: Services, door: Door, dcmtk: Callable[..., list[str]], tmp_path: Path, charset: str
) -> None:
    send_v2(services, ORDERS / "kn_ct_order.hl7")
    command = dcmtk(
        "findscu", "-W", "-X", "-od", tmp_path, "-aet", "KN_PACS", "-aec", "YIXIE",
        "-k", f"SpecificCharacterSet={charset}", "-k", "PatientName", "-k", "PatientID", "-k", "PatientBirthDate",
        "-k", "PatientSex", "-k", "AccessionNumber", "-k", "StudyInstanceUID", "-k", "RequestedProcedureID",
        "-k", "RequestedProcedureDescription", "-k", "ReferringPhysicianName", "-k", "RequestingPhysician",
        "-k", "AdmissionID",
        "-k", "ScheduledProcedureStepSequence[0].ScheduledStationAETitle=KN_PACS",
        "-k", "ScheduledProcedureStepSequence[0].Modality=CT",
        "-k", "ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate=20250611",
        "-k", "ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartTime",
        "-k", "ScheduledProcedureStepSequence[0].ScheduledProcedureStepID",
        "-k", "ScheduledProcedureStepSequence[0].ScheduledProcedureStepDescription",
        "127.0.0.1", door.port,
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("rsp*.dcm")
    item = dcmread(path)
    assert item.SpecificCharacterSet == charset
    assert str(item.PatientName) == "ZHENG^WEI=郑^伟"
    assert (item.PatientID, item.PatientBirthDate, item.PatientSex) == ("0000010086", "19760229", "M")
    assert item.AccessionNumber == item.RequestedProcedureID == "KN20250611001"
    assert item.RequestedProcedureDescription == "胸部CT平扫"
    assert str(item.RequestingPhysician) == str(item.ReferringPhysicianName) == "LIU^MIN=刘^敏"
    assert item.AdmissionID == "MZ20250611001"
    assert item.StudyInstanceUID.startswith("2.25.")
    (step,) = item.ScheduledProcedureStepSequence
    assert (step.ScheduledStationAETitle, step.Modality) == ("KN_PACS", "CT")
    assert (step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime) == ("20250611", "083000")
    assert (step.ScheduledProcedureStepID, step.ScheduledProcedureStepDescription) == ("KN20250611001", "胸部CT平扫")


@pytest.mark.parametrize(
    ("content", "step", "count"),
    [
        ({}, {}, 1),
        ({"PatientName": "OUYANG*"}, {}, 1),
        ({"PatientName": "=欧阳*"}, {}, 1),
        ({"PatientName": "ZHENG*"}, {}, 0),
        ({"PatientID": "K1"}, {}, 1),
        ({"PatientID": "K2"}, {}, 0),
        ({"AccessionNumber": "A1"}, {}, 1),
        ({"AccessionNumber": "A2"}, {}, 0),
        ({"RequestedProcedureID": "A1"}, {}, 1),
        ({}, {"ScheduledStationAETitle": "CT_01"}, 1),
        ({}, {"Modality": "CT"}, 1),
        ({}, {"Modality": "MR"}, 0),
        ({}, {"ScheduledProcedureStepStartDate": "20250611"}, 1),
        ({}, {"ScheduledProcedureStepStartDate": "20250612-"}, 0),
        ({}, {"ScheduledProcedureStepStartDate": "20250611", "ScheduledProcedureStepStartTime": "0900-1000"}, 1),
        ({}, {"ScheduledProcedureStepStartDate": "20250611", "ScheduledProcedureStepStartTime": "1000-1100"}, 0),
        (
            {},
            {"ScheduledProcedureStepStartDate": "20250610-20250611", "ScheduledProcedureStepStartTime": "2000-1000"},
            1,
        ),
        (
            {},
            {"ScheduledProcedureStepStartDate": "20250610-20250611", "ScheduledProcedureStepStartTime": "2000-0900"},
            0,
        ),
    ],
)
def test_keys_are_matched(
    services: Services, door: Door, content: dict[str, Any], step: dict[str, Any], count: int
) -> None:
    put(services, patient(), order())
    found = asked(door, step=step, **content)
    assert (found.status, len(found.answers)) == (0, count)
    assert found.pending == ({PENDING} if count else set())


@pytest.mark.parametrize("known_as", ["10086", "0000010086"])
def test_a_patient_is_found_however_the_his_pads_the_number(services: Services, door: Door, known_as: str) -> None:
    put(services, patient(number=known_as), order())
    for number, count in (("10086", 1), ("0000010086", 1), ("*10086", 1), ("1008600", 0), ("10087", 0)):
        assert len(asked(door, PatientID=number).answers) == count, number
    (answer,) = asked(door, PatientID="10086").answers
    assert plain(answer)["PatientID"] == known_as


def test_an_order_for_no_station_is_the_askers(services: Services, door: Door) -> None:
    put(services, patient(), order())
    (answer,) = asked(door).answers
    (step,) = answer["00400100"]["Value"]
    assert plain(step)["ScheduledStationAETitle"] == "KN_PACS"
    (answer,) = asked(door, step={"ScheduledStationAETitle": "CT_01"}).answers
    (step,) = answer["00400100"]["Value"]
    assert plain(step)["ScheduledStationAETitle"] == "CT_01"


def test_an_order_of_another_institution_is_absent(services: Services, door: Door) -> None:
    put(services, patient(), order())
    assert asked(door, caller="QH_PACS").answers == []


def test_an_order_that_another_institution_is_to_do_is_not_on_its_writers_list(services: Services, door: Door) -> None:
    performer = [{"identifier": {"system": f"{BASE}/NamingSystem/member", "value": "YL"}}]
    put(services, patient(), order(performer=performer))
    assert asked(door).answers == []


@pytest.mark.parametrize("change", [{"status": "completed"}, {"status": "revoked"}, {"code": {"text": "肝功能"}}])
def test_what_is_done_or_no_imaging_is_not_on_the_list(services: Services, door: Door, change: dict[str, Any]) -> None:
    put(services, patient(), order(**change))
    assert asked(door).answers == []


def test_a_complete_study_takes_its_order_off_the_list(services: Services, door: Door) -> None:
    """The modality copies numbers and UID of the item into the images."""
    put(services, patient(), order())
    (answer,) = asked(door).answers
    item = plain(answer)
    data = images.ct(
        1,
        study=item["StudyInstanceUID"],
        PatientID=item["PatientID"],
        AccessionNumber=item["AccessionNumber"],
        SOPInstanceUID="1.2.3.4",
        SeriesInstanceUID="1.2.3",
    )
    images.receive(services, data)
    assert len(asked(door).answers) == 1
    cast("images.FakeClock", services.clock).forward(3600)
    images.settle(services)
    (study,) = images.resources(services, "ImagingStudy")
    assert study["basedOn"] == [{"reference": "ServiceRequest/o1"}]
    assert asked(door).answers == []


def test_a_study_without_a_number_is_matched_by_the_uid_of_its_item(services: Services, door: Door) -> None:
    """Two orders of one patient, day and modality: only the UID tells them apart."""
    second = "5f0c2c1e-3c6f-4c0e-9f57-0a4d3d2f6a11"
    put(
        services,
        patient(),
        order("7f0c2c1e-3c6f-4c0e-9f57-0a4d3d2f6a10"),
        order(second, number="A-NUMBER-TOO-LONG-FOR-SH"),
    )
    found = asked(door)
    item = next(plain(one) for one in found.answers if plain(one)["AccessionNumber"] is None)
    assert item["StudyInstanceUID"] == study_uid({"id": second})
    data = images.ct(
        1, study=item["StudyInstanceUID"], PatientID="K1", SOPInstanceUID="1.2.3.4", SeriesInstanceUID="1.2.3"
    )
    images.receive(services, data)
    cast("images.FakeClock", services.clock).forward(3600)
    images.settle(services)
    (study,) = images.resources(services, "ImagingStudy")
    assert study["basedOn"] == [{"reference": f"ServiceRequest/{second}"}]


def test_what_is_known_of_the_patient_is_in_the_item(services: Services, door: Door) -> None:
    put(
        services,
        patient(),
        order(),
        {
            "resourceType": "AllergyIntolerance",
            "id": "a1",
            "clinicalStatus": {
                "coding": [
                    {"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "code": "active"}
                ]
            },
            "code": {"text": "碘造影剂"},
            "patient": {"reference": f"Patient/{PATIENT}"},
        },
        *(
            {
                "resourceType": "Observation",
                "id": f"b{month}",
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "82810-3"}]},
                "subject": {"reference": f"Patient/{PATIENT}"},
                "effectiveDateTime": f"2025-0{month}-01",
                "valueCodeableConcept": {"coding": [{"system": "http://loinc.org", "code": code}]},
            }
            for month, code in ((5, "LA15173-0"), (2, "LA26683-5"))
        ),
    )
    (answer,) = asked(door, Allergies="", PregnancyStatus="").answers
    assert (plain(answer)["Allergies"], plain(answer)["PregnancyStatus"]) == ("碘造影剂", 3)
    assert answer["00100010"]["Value"] == [{"Alphabetic": "OUYANG^MINGYUE", "Ideographic": "欧阳^明月"}]


def test_a_key_that_is_not_supported_is_said_so(services: Services, door: Door) -> None:
    put(services, patient(), order())
    found = asked(door, PatientMotherBirthName="")
    assert (found.pending, found.values("PatientMotherBirthName")) == ({PARTLY}, [])


def test_every_order_is_answered_once_over_many_pages(
    services: Services, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worklist, "PAGE_ORDERS", 3)
    put(services, patient(), *(order(f"o{n}", f"N{n}") for n in range(10)))
    put(services, *(order(f"w{n}", f"W{n}", occurrenceDateTime="", authoredOn="2025-06-11") for n in range(4)))
    everything = sorted([f"N{n}" for n in range(10)] + [f"W{n}" for n in range(4)])
    for step in ({}, {"ScheduledProcedureStepStartDate": "20250611"}):
        assert sorted(asked(door, step=step).values("AccessionNumber")) == everything


@pytest.mark.parametrize(("status", "listed"), [("in-progress", 1), ("completed", 0), ("stopped", 1)])
def test_a_completed_step_takes_its_order_off_the_list(
    services: Services, door: Door, status: str, listed: int
) -> None:
    step = {
        "resourceType": "Procedure",
        "id": "p1",
        "status": status,
        "subject": {"reference": f"Patient/{PATIENT}"},
        "basedOn": [{"reference": "ServiceRequest/o1"}],
    }
    put(services, patient(), order(), step)
    assert len(asked(door).answers) == listed


@pytest.mark.parametrize(
    ("event", "more", "accession", "study", "numbers"),
    [
        ("OMG^O19", b"", "KN20250611001", "2.25.", ("KN20250611001", "KN20250611001")),
        (
            "OMI^O23",
            b"IPC|A7|R7|1.2.826.0.1.3680043.10.99.7|S7|CT\r",
            "A7",
            "1.2.826.0.1.3680043.10.99.7",
            ("R7", "S7"),
        ),
    ],
)
def test_orders_of_newer_messages_are_on_the_list_too(
    services: Services,
    door: Door,
    tmp_path: Path,
    event: str,
    more: bytes,
    accession: str,
    study: str,
    numbers: tuple[str, str],
) -> None:
    data = (ORDERS / "kn_ct_order.hl7").read_bytes().replace(b"ORM^O01", event.encode()).replace(b"|2.4", b"|2.5.1")
    path = tmp_path / "order.hl7"
    path.write_bytes(data.rstrip(b"\r\n") + b"\r" + more)
    send_v2(services, path)
    found = asked(door, step={"Modality": "CT", "ScheduledProcedureStepID": ""}, RequestedProcedureID="")
    (answer,) = found.answers
    item = plain(answer)
    (step,) = answer["00400100"]["Value"]
    assert (item["AccessionNumber"], item["PatientID"]) == (accession, "0000010086")
    assert item["StudyInstanceUID"].startswith(study)
    assert plain(step)["Modality"] == "CT"
    assert (item["RequestedProcedureID"], plain(step)["ScheduledProcedureStepID"]) == numbers
