"""The hub's Modality Worklist beside DCMTK's own, wlmscpfs: the same items and keys, the same matches (PS3.4 C.2.2.2, K.6.1.2)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from tests.strangers.running import RunningHub
from tests.strangers.test_dcmtk import succeeded
from tests.support.dimse_hub import free_port, program

BASE = "https://yixiehub.example/fhir"
#: The station that asks; nobody else's orders are on its list.
STATION = ("-aet", "QH_PACS", "-aec", "YIXIE")
STEP = "ScheduledProcedureStepSequence[0]."
#: Asked for with every query, because wlmscpfs answers with what it was asked for.
RETURNED = (
    "SpecificCharacterSet=ISO_IR 192", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber",
    "StudyInstanceUID", "RequestedProcedureID", "RequestedProcedureDescription", "RequestedProcedurePriority",
    "ReferringPhysicianName", "RequestingPhysician", "AdmissionID",
    f"{STEP}ScheduledStationAETitle", f"{STEP}Modality", f"{STEP}ScheduledProcedureStepStartDate",
    f"{STEP}ScheduledProcedureStepStartTime", f"{STEP}ScheduledProcedureStepID",
    f"{STEP}ScheduledProcedureStepDescription", f"{STEP}ScheduledPerformingPhysicianName",
)  # fmt: skip
#: Number, family and given name, birth date, sex; code, start and priority of the order.
ORDERS = (
    ("W1", "SMITH", "JOHN", "1960-01-02", "male", "CT", "2026-03-01T08:00:00+08:00", "routine"),
    ("W2", "SMITH", "JANE", "1985-12-31", "female", "MR", "2026-03-01T09:30:00+08:00", "stat"),
    ("W3", "SMYTHE", "JOHN", "1960-01-02", "male", "US", "2026-03-01T23:59:59+08:00", "routine"),
    ("W4", "LEE", "ANN", "2001-06-15", "female", "CT", "2026-03-02T00:00:00+08:00", "routine"),
    ("W10", "LEE", "BO", "1999-06-15", "male", "DX", "2026-03-02T10:00:00+08:00", "urgent"),
    ("W11", "OREILLY", "KIM", "2010-02-28", "other", "CT", "2026-12-31T10:00:00+08:00", "routine"),
    ("W12", "DELACRUZ", "MARIA", "1970-10-10", "female", "MR", "2027-01-01T10:00:00+08:00", "routine"),
)
_NAMES = {"CT": "CT平扫", "MR": "MR平扫", "US": "超声检查", "DX": "DR摄片"}


def resources(row: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield the Patient and the order of one row."""
    number, family, given, born, gender, modality, start, priority = row
    yield {
        "resourceType": "Patient",
        "identifier": [{"system": f"{BASE}/NamingSystem/QH/patient-id", "value": f"P-{number}"}],
        "name": [{"family": family, "given": [given]}],
        "birthDate": born,
        "gender": gender,
    }
    yield {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "priority": priority,
        "identifier": [{"system": f"{BASE}/NamingSystem/QH/accession", "value": number}],
        "code": {"text": _NAMES[modality]},
        "orderDetail": [{"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": modality}]}],
        "occurrenceDateTime": start,
    }


def asked(port: int, folder: Path, keys: Mapping[str, str]) -> list[Path]:
    """Ask the worklist at *port* by *keys*, and return the files of its answers."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    wanted = [one for one in RETURNED if one.partition("=")[0] not in keys]
    query = [part for one in (*wanted, *(f"{name}={value}" for name, value in keys.items())) for part in ("-k", one)]
    succeeded("findscu", *STATION, "-W", "-X", "-od", folder, *query, "127.0.0.1", port)
    return sorted(folder.glob("rsp*.dcm"))


def numbers(paths: list[Path]) -> list[str]:
    """Return the accession numbers of the answers."""
    return sorted(str(dcmread(path).AccessionNumber) for path in paths)


@pytest.fixture(scope="module")
def both(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Ports of the hub and of a wlmscpfs that serves what the hub answers to a query for everything."""
    asker = hub.asker("QH")
    for row in ORDERS:
        patient, order = resources(row)
        made = asker.post("/fhir/Patient", patient)
        asker.post("/fhir/ServiceRequest", order | {"subject": {"reference": f"Patient/{made['id']}"}})
    folder = tmp_path_factory.mktemp("wlmscpfs")
    items = asked(hub.ports["dimse"], folder / "answers", {})
    assert numbers(items) == sorted(row[0] for row in ORDERS)
    list_of = folder / "lists" / "YIXIE"
    list_of.mkdir(parents=True)
    (list_of / "lockfile").touch()
    for path in items:
        shutil.copy(path, list_of / f"{path.stem}.wl")
    port = free_port()
    with program(port, "wlmscpfs", "-csk", "-dfp", folder / "lists", port):
        yield hub.ports["dimse"], port


DATE, TIME = f"{STEP}ScheduledProcedureStepStartDate", f"{STEP}ScheduledProcedureStepStartTime"
MODALITY, AE = f"{STEP}Modality", f"{STEP}ScheduledStationAETitle"
KEYS: tuple[dict[str, str], ...] = (
    {},
    {"PatientName": "SMITH^JOHN"},
    {"PatientName": "SMITH*"},
    {"PatientName": "SM*"},
    {"PatientName": "SM?TH*"},
    {"PatientName": "*JOHN"},
    {"PatientName": "*^J*"},
    {"PatientName": "*"},
    {"PatientName": "NOBODY*"},
    {"PatientName": "LEE^?O"},
    {"PatientName": "LEE"},
    {"PatientID": "P-W1"},
    {"PatientID": "P-W9"},
    {"AccessionNumber": "W2"},
    {"AccessionNumber": "W1*"},
    {"AccessionNumber": "?1"},
    {"RequestedProcedureID": "W3"},
    {"RequestedProcedureID": "W*"},
    {"PatientSex": "F"},
    {"PatientSex": "O"},
    {"PatientBirthDate": "19600102"},
    {"PatientBirthDate": "19600102-19851231"},
    {"PatientBirthDate": "-19701010"},
    {"PatientBirthDate": "20010615-"},
    {"RequestedProcedurePriority": "STAT"},
    {"RequestedProcedurePriority": "ROUTINE"},
    {MODALITY: "CT"},
    {MODALITY: "MG"},
    {AE: "QH_PACS"},
    {DATE: "20260301"},
    {DATE: "20260301-20260302"},
    {DATE: "20260302-"},
    {DATE: "-20260301"},
    {DATE: "20270102-"},
    {DATE: "20260301", TIME: "0800-0930"},
    {DATE: "20260301", TIME: "093000"},
    {DATE: "20260301", TIME: "080001-235958"},
    {DATE: "20260301-20260302", TIME: "093000-100000"},
    {DATE: "20260302", TIME: "-0500"},
    {TIME: "100000"},
    {TIME: "1000-"},
    {DATE: "20260301", MODALITY: "CT", "PatientName": "SMITH*"},
    {DATE: "20260301", MODALITY: "MR", "PatientName": "SMITH*", AE: "QH_PACS"},
    {"PatientID": "P-W1", "PatientName": "LEE*"},
)
#: Where the two differ, and ours is meant: wlmscpfs matches Patient ID by single value alone, where we take the wildcards
#: that its LO may hold (PS3.4 C.2.2.2.4); and an order that names no station is on every station's list, where the file
#: that wlmscpfs serves has the station that asked for it.
DIFFERENT: tuple[tuple[dict[str, str], list[str], list[str]], ...] = (
    ({"PatientID": "P-W1*"}, ["W1", "W10", "W11", "W12"], []),
    ({"PatientID": "P-W1?"}, ["W10", "W11", "W12"], []),
    ({AE: "ELSEWHERE"}, sorted(row[0] for row in ORDERS), []),
)


@pytest.mark.tool("wlmscpfs", "findscu")
def test_the_same_keys_find_the_same_items_at_dcmtks_worklist(both: tuple[int, int], tmp_path: Path) -> None:
    ours, theirs = both
    found = {
        str(keys): tuple(numbers(asked(port, tmp_path / "answers", keys)) for port in (ours, theirs)) for keys in KEYS
    }
    assert {keys: lists for keys, lists in found.items() if lists[0] != lists[1]} == {}
    # The comparison says something: most keys leave some out and let some through.
    assert len({tuple(lists[0]) for lists in found.values()}) >= 15


@pytest.mark.tool("wlmscpfs", "findscu")
@pytest.mark.parametrize(("keys", "here", "there"), DIFFERENT, ids=["wildcard", "one-character", "no-station"])
def test_what_dcmtks_worklist_does_otherwise_is_known(
    both: tuple[int, int], tmp_path: Path, keys: dict[str, str], here: list[str], there: list[str]
) -> None:
    ours, theirs = both
    assert [numbers(asked(port, tmp_path / "answers", keys)) for port in (ours, theirs)] == [here, there]
