"""Orders, answers, prescriptions, vaccinations, problems and bookings by HL7 v2, in a real store: twice, late, by whom."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.access import Scope
from hub.ports import Database
from hub.search import parse
from tests.fhir_mappings.hl7v2.golden import SAMPLES
from tests.support.databases import migrate, opened
from tests.support.v2 import V2Hub, msh, oru, pid

KINDS = (
    *("Patient", "Encounter", "ServiceRequest", "Specimen", "DiagnosticReport", "Observation", "Condition"),
    *("MedicationRequest", "MedicationDispense", "MedicationAdministration", "Immunization", "Appointment", "Slot"),
    *("Schedule", "Binary", "DocumentReference", "Practitioner", "Location", "RelatedPerson"),
)
#: Samples of the members that the test hub knows.
_STRUCTURES = ("OML_O21", "OML_O33", "OMG_O19", "OMI_O23", "OMP_O09", "RDE_O11", "RDS_O13", "RAS_O17", "VXU_V04")
PLAYED = [
    *sorted(path for structure in _STRUCTURES for path in (SAMPLES / structure).glob("*.hl7")),
    SAMPLES / "PPR_PC1" / "kn_pc1_problems.hl7",
    SAMPLES / "SIU_S12" / "yl_s23_blocked.hl7",
]


@pytest.fixture
def hub(sqlite_database: Database) -> V2Hub:
    return V2Hub(sqlite_database)


def message(event: str, control_id: str, *segments: str, version: str = "2.4", sent: str = "20250611080000") -> str:
    """Return a message of KN about one patient."""
    return "\r".join([msh(event, control_id, sent=sent, f12=version), pid(), *segments, ""])


def row(name: str, **cells: str) -> str:
    """Return a segment from its fields ``f2`` and so on."""
    values = {int(key[1:]): value for key, value in cells.items()}
    return f"{name}|" + "|".join(values.get(number, "") for number in range(1, max(values) + 1))


def versions(hub: V2Hub) -> dict[str, str]:
    return {f"{kind}/{one['id']}": one["meta"]["versionId"] for kind in KINDS for one in hub.all(kind)}


# --- every event, twice ------------------------------------------------------------------------------------------

SPM = "SPM|1|SP1||SER^血清^HL70487"
OBR_RESULT = row("OBR", f1="1", f2="P1", f3="F1", f4="K^钾^L", f22="20250611090000", f24="LAB", f25="F")
OBX = "OBX|1|NM|2823-3^钾^LN||4.10|mmol/L|3.50-5.30|N|||F"
RXE = row("RXE", f2="YP1^阿莫西林胶囊^L", f3="0.5", f5="g", f10="20", f11="粒")
RXD = row("RXD", f1="1", f2="YP1^阿莫西林胶囊^L", f3="20250611090000", f4="20", f5="粒", f7="RX1")
RXA = row("RXA", f1="1", f2="1", f3="20250611090000", f4="20250611090000", f5="YP1^阿莫西林胶囊^L", f6="0.5", f7="g")

EVENTS: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    # name: event, version, segments, the kind of resource it makes
    "OML^O21 2.4": ("OML^O21", "2.4", ("ORC|NW|P1", "OBR|1|P1||K^钾^L", SPM), "Specimen"),
    "OML^O33 2.5": ("OML^O33", "2.5", (SPM, "SAC|||T1", "ORC|NW|P1", "OBR|1|P1||K^钾^L"), "Specimen"),
    "OML^O35 2.6": ("OML^O35", "2.6", (SPM, "SAC|||T1", "ORC|NW|P1", "OBR|1|P1||K^钾^L"), "Specimen"),
    "OMG^O19 2.5.1": ("OMG^O19", "2.5.1", ("ORC|NW|P1", "TQ1|1||QD", "OBR|1|P1||HL^护理^L"), "ServiceRequest"),
    "OMI^O23 2.6": (
        "OMI^O23",
        "2.6",
        ("ORC|NW|P1", "OBR|1|P1||CT^胸部CT^L", "IPC|A1|R1|1.2.3|S1|CT"),
        "ServiceRequest",
    ),
    "OUL^R22 2.5": ("OUL^R22", "2.5", (SPM, OBR_RESULT, "ORC|RE|P1|F1", OBX), "DiagnosticReport"),
    "OUL^R23 2.6": ("OUL^R23", "2.6", (SPM, "SAC|||T1", OBR_RESULT, "ORC|RE|P1|F1", OBX), "DiagnosticReport"),
    "OUL^R24 2.5.1": ("OUL^R24", "2.5.1", (OBR_RESULT, "ORC|RE|P1|F1", OBX, SPM, "SAC|||T1"), "DiagnosticReport"),
    "ORM^O01 2.3": ("ORM^O01", "2.3", ("ORC|NW|P1", "RXO|YP1^阿莫西林^L|0.5||g", "RXR|PO"), "MedicationRequest"),
    "OMP^O09 2.5": ("OMP^O09", "2.5", ("ORC|NW|P1", "TQ1|1||TID", "RXO|YP1^阿莫西林^L|0.5||g"), "MedicationRequest"),
    "RDE^O01 2.3": ("RDE^O01", "2.3", ("ORC|NW|P1|F1", RXE, "RXR|PO^口服"), "MedicationRequest"),
    "RDE^O11 2.4": ("RDE^O11", "2.4", ("ORC|NW|P1|F1", RXE, "RXR|PO^口服"), "MedicationRequest"),
    "RDE^O25 2.6": ("RDE^O25", "2.6", ("ORC|RF|P1|F1", RXE), "MedicationRequest"),
    "RDS^O01 2.3.1": ("RDS^O01", "2.3.1", ("ORC|RE|P1|F1", RXD), "MedicationDispense"),
    "RDS^O13 2.6": ("RDS^O13", "2.6", ("ORC|RE|P1|F1", RXD), "MedicationDispense"),
    "RAS^O01 2.3": ("RAS^O01", "2.3", ("ORC|RE|P1|F1", RXA, "RXR|PO"), "MedicationAdministration"),
    "RAS^O17 2.5": ("RAS^O17", "2.5", ("ORC|RE|P1|F1", RXA, "RXR|PO"), "MedicationAdministration"),
    "VXU^V04 2.3.1": ("VXU^V04", "2.3.1", (RXA, "RXR|IM"), "Immunization"),
    "VXU^V04 2.5.1": ("VXU^V04", "2.5.1", ("ORC|RE||F1", RXA, "RXR|IM"), "Immunization"),
    "PPR^PC1 2.3": ("PPR^PC1", "2.3", ("PRB|AD|20250611|I10^高血压^ICD10|B1",), "Condition"),
    "PPR^PC2 2.5": ("PPR^PC2", "2.5", ("PRB|UP|20250611|I10^高血压^ICD10|B1",), "Condition"),
    "PPR^PC3 2.6": ("PPR^PC3", "2.6", ("PRB||20250611|I10^高血压^ICD10|B1",), "Condition"),
}


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_makes_its_resource_once_however_often_it_comes(hub: V2Hub, name: str) -> None:
    event, version, segments, kind = EVENTS[name]
    assert hub.code(message(event, "1", *segments, version=version)) == "AA"
    assert hub.all(kind)
    assert hub.one("Patient")["name"][0]["text"] == "郑伟"
    before = versions(hub)
    assert set(before.values()) == {"1"}
    # The same bytes, and the same content under another control id.
    assert hub.code(message(event, "1", *segments, version=version)) == "AA"
    assert hub.code(message(event, "2", *segments, version=version)) == "AA"
    assert versions(hub) == before


@pytest.mark.parametrize("path", PLAYED, ids=lambda path: path.stem)
def test_a_sample_is_stored_and_a_replay_makes_no_new_version(hub: V2Hub, path: Path) -> None:
    raw = path.read_bytes()
    answer = hub.raw(raw)
    assert answer is not None
    assert b"MSA|AA" in answer or b"MSA|CA" in answer
    before = versions(hub)
    assert before
    again = raw.replace(b"|P|2.", b"X|P|2.", 1)
    assert again != raw
    answer = hub.raw(again)
    assert answer is not None
    assert b"MSA|AA" in answer or b"MSA|CA" in answer
    assert versions(hub) == before


@pytest.mark.parametrize("name", ["RDE^O11 2.4", "RDS^O13 2.6", "RAS^O17 2.5", "VXU^V04 2.5.1", "PPR^PC1 2.3"])
def test_what_a_message_makes_is_found_by_its_owner_and_by_nobody_else(hub: V2Hub, name: str) -> None:
    event, version, segments, kind = EVENTS[name]
    hub.code(message(event, "1", *segments, version=version))
    patient = hub.one("Patient")["id"]
    query = parse(kind, [("patient", patient)])

    def found(institution: str) -> int:
        return len(hub.database.read(lambda tx: tx.records.search(query, Scope(institution=institution))).matches)

    assert (found("KN"), found("YL")) == (1, 0)


# --- state -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[V2Hub]:
    """One store for many small histories, each of an order of its own."""
    url = f"sqlite:///{tmp_path_factory.mktemp('states') / 'hub.db'}"
    migrate(url)
    with opened(url) as database:
        yield V2Hub(database)


HISTORY = {"P": "6.50", "F": "6.90", "C": "6.70"}
_counter = iter(range(1_000_000))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from("PFC"), min_size=1, max_size=5))
def test_what_stands_is_the_furthest_status_whatever_the_order_of_arrival(shared: V2Hub, order: list[str]) -> None:
    """Each status has its own moment (P before F before C); what comes late is kept in the journal and changes nothing."""
    number = next(_counter)
    for step, status in enumerate(order):
        sent = {"P": "20250611080000", "F": "20250611090000", "C": "20250611100000"}[status]
        text = oru(f"H{number}-{step}", status, HISTORY[status], at=sent)
        text = text.replace("PL1", f"PL{number}").replace("FL1", f"FL{number}")
        assert shared.code(text) == "AA"
    furthest = max(order, key="PFC".index)
    query = parse("DiagnosticReport", [("identifier", f"FL{number}")])
    matches = shared.database.read(lambda tx: tx.records.search(query, Scope(institution="KN"))).matches
    assert len(matches) == 1
    report = shared.one("DiagnosticReport", lambda one: one["id"] == matches[0].id)
    assert report["status"] == {"P": "preliminary", "F": "final", "C": "corrected"}[furthest]
    result = shared.one("Observation", lambda one: {"reference": f"Observation/{one['id']}"} in report["result"])
    assert str(result["valueQuantity"]["value"]) == HISTORY[furthest]


def test_a_late_preliminary_is_noted_and_is_not_current(hub: V2Hub) -> None:
    hub.code(oru("1", "F", "6.90", at="20250611090000"))
    assert hub.code(oru("2", "P", "6.50", at="20250611080000")) == "AA"
    assert "superseded-on-arrival" in hub.journal()[-1].outcome
    assert hub.one("Observation")["status"] == "final"


def prescribed(control_id: str, control: str, *segments: str, sent: str) -> str:
    return message("OMP^O09", control_id, f"ORC|{control}|P1", *segments, sent=sent)


RXO = "RXO|YP1^阿莫西林胶囊^L|0.5||g"


def test_a_prescription_that_was_stopped_is_not_released(hub: V2Hub) -> None:
    assert hub.code(prescribed("1", "NW", RXO, sent="20250611080000")) == "AA"
    assert hub.code(prescribed("2", "HD", sent="20250611081000")) == "AA"
    assert hub.one("MedicationRequest")["status"] == "on-hold"
    assert hub.code(prescribed("3", "DC", sent="20250611082000")) == "AA"
    assert hub.one("MedicationRequest")["status"] == "stopped"
    assert hub.code(prescribed("4", "RL", sent="20250611083000")) == "AA"
    request = hub.one("MedicationRequest")
    assert request["status"] == "stopped"
    assert request["medicationCodeableConcept"]["coding"][0]["code"] == "YP1"


def test_a_cancellation_of_an_unknown_prescription_makes_none(hub: V2Hub) -> None:
    assert hub.code(prescribed("1", "CA", sent="20250611080000")) == "AA"
    assert hub.all("MedicationRequest") == []


def test_what_the_prescriber_cancels_is_cancelled(hub: V2Hub) -> None:
    hub.code(prescribed("1", "NW", RXO, sent="20250611080000"))
    assert hub.code(prescribed("2", "CA", sent="20250611081000")) == "AA"
    assert hub.one("MedicationRequest")["status"] == "cancelled"


def test_a_dispense_does_not_change_what_was_prescribed(hub: V2Hub) -> None:
    hub.code(prescribed("1", "NW", RXO, sent="20250611080000"))
    before = hub.one("MedicationRequest")
    other = "RXO|YP2^头孢克肟^L|1||g"
    assert hub.code(message("RDS^O13", "2", "ORC|RE|P1|F1", other, RXD, sent="20250611090000")) == "AA"
    assert hub.one("MedicationRequest") == before
    dispense = hub.one("MedicationDispense")
    assert dispense["authorizingPrescription"] == [{"reference": f"MedicationRequest/{before['id']}"}]


def test_an_order_that_comes_after_what_was_done_about_it_is_filled_in(hub: V2Hub) -> None:
    order = message(
        "OMP^O09", "1", "ORC|NW|P1", "TQ1|1||TID", "RXO|YP1^阿莫西林^L|0.5||g", sent="20250611080000", version="2.5"
    )
    dispensed = message("RDS^O13", "2", "ORC|RE|P1|F1", RXD, sent="20250611090000", version="2.6")
    assert hub.code(dispensed) == "AA"
    assert hub.code(order) == "AA"

    written = hub.one("MedicationRequest")
    assert written["medicationCodeableConcept"]["coding"][0]["display"] == "阿莫西林"
    assert written["dosageInstruction"]


def test_an_order_that_comes_after_its_report_is_filled_in(hub: V2Hub) -> None:
    order = message("ORM^O01", "1", "ORC|NW|P1|||||^^^^^S||20250611075900", "OBR|1|P1||K^钾^L", sent="20250611080000")
    report = message("ORU^R01", "2", OBR_RESULT, OBX, sent="20250611091000")
    assert hub.code(report) == "AA"
    assert "authoredOn" not in hub.one("ServiceRequest")
    assert hub.code(order) == "AA"

    written = hub.one("ServiceRequest")
    assert written["authoredOn"] == "2025-06-11T07:59:00+08:00"
    assert written["priority"] == "stat"


def test_a_deleted_vaccination_and_a_deleted_problem_are_marked_as_errors(hub: V2Hub) -> None:
    hub.code(message("VXU^V04", "1", "ORC|RE||F1", RXA, sent="20250611090000"))
    hub.code(message("VXU^V04", "2", "ORC|RE||F1", f"{RXA}{'|' * 14}D", sent="20250611100000"))
    assert hub.one("Immunization")["status"] == "entered-in-error"
    hub.code(message("PPR^PC1", "3", "PRB|AD|20250611|I10^高血压^ICD10|B1", sent="20250611090000"))
    hub.code(message("PPR^PC3", "4", "PRB|DE|20250611|I10^高血压^ICD10|B1", sent="20250611100000"))
    problem = hub.one("Condition")
    assert problem["verificationStatus"]["coding"][0]["code"] == "entered-in-error"
    assert "clinicalStatus" not in problem


def test_a_problem_ends_and_comes_back(hub: V2Hub) -> None:
    problem = row("PRB", f1="AD", f2="20250611", f3="I10^高血压^ICD10", f4="B1", f16="2020")
    ended = row("PRB", f1="UP", f2="20250611", f3="I10^高血压^ICD10", f4="B1", f9="20250601", f14="治愈")
    hub.code(message("PPR^PC1", "1", problem, sent="20250611080000"))
    hub.code(message("PPR^PC2", "2", ended, sent="20250611090000"))
    stored = hub.one("Condition")
    assert stored["clinicalStatus"]["coding"][0]["code"] == "resolved"
    assert (stored["onsetDateTime"], stored["abatementDateTime"]) == ("2020", "2025-06-01")
    hub.code(message("PPR^PC2", "3", problem.replace("|AD|", "|UP|"), sent="20250611100000"))
    stored = hub.one("Condition")
    assert stored["clinicalStatus"]["coding"][0]["code"] == "active"
    assert "abatementDateTime" not in stored


# --- bookings ----------------------------------------------------------------------------------------------------


def booking(trigger: str, control_id: str, *segments: str, sent: str) -> str:
    sch = "SCH|A1|||||^复诊|||||^^^20250620090000^20250620093000"
    return message(f"SIU^{trigger}", control_id, sch, "RGS|1", *segments, version="2.5", sent=sent)


def actors(hub: V2Hub) -> list[str]:
    shown = [one["actor"].get("display", "patient") for one in hub.one("Appointment")["participant"]]
    return sorted(shown)


def test_resources_join_and_leave_a_booking_one_by_one(hub: V2Hub) -> None:
    hub.code(booking("S12", "1", "AIP|1|A|C1^刘敏", "AIL|1|A|门诊^201", "AIG|1|A|E1^肺功能仪^L", sent="20250611080000"))
    hub.code(booking("S18", "2", "AIP|2|A|C2^张伟", sent="20250611081000"))
    assert actors(hub) == sorted(["patient", "刘敏", "张伟", "门诊 201", "肺功能仪"])
    hub.code(booking("S19", "3", "AIL|1|D|门诊^201", "AIL|2|A|门诊^305", sent="20250611082000"))
    assert actors(hub) == sorted(["patient", "刘敏", "张伟", "门诊 305", "肺功能仪"])
    hub.code(booking("S20", "4", "AIG|1||E1^肺功能仪^L", sent="20250611083000"))
    hub.code(booking("S22", "5", "AIP|2|D|C2^张伟", sent="20250611084000"))
    assert actors(hub) == sorted(["patient", "刘敏", "门诊 305"])
    assert hub.one("Appointment")["status"] == "booked"
    # What was said before all this comes again, late.
    hub.code(booking("S18", "6", "AIP|2|A|C2^张伟", sent="20250611081000"))
    assert actors(hub) == sorted(["patient", "刘敏", "门诊 305"])


def test_a_change_of_resources_leaves_a_cancelled_booking_cancelled(hub: V2Hub) -> None:
    hub.code(booking("S12", "1", "AIP|1|A|C1^刘敏", sent="20250611080000"))
    hub.code(booking("S15", "2", "AIP|1|A|C1^刘敏", sent="20250611081000"))
    hub.code(booking("S21", "3", "AIP|1|D|C1^刘敏", sent="20250611082000"))
    assert hub.one("Appointment")["status"] == "cancelled"


def blocked(trigger: str, control_id: str, sent: str) -> str:
    sch = "SCH|B1|||||^停诊|||||^^^20250620080000^20250620120000"
    return "\r".join([msh(f"SIU^{trigger}", control_id, sent=sent, f12="2.5"), sch, "RGS|1", "AIP|1|A|C1^刘敏", ""])


@pytest.mark.parametrize("order", list(permutations((0, 1, 2))))
def test_blocked_time_is_as_the_last_word_says_in_any_order(hub: V2Hub, order: tuple[int, ...]) -> None:
    texts = [
        blocked("S23", "1", "20250611080000"),
        blocked("S24", "2", "20250611090000"),
        blocked("S23", "3", "20250611100000"),
    ]
    assert [hub.code(texts[place]) for place in order] == ["AA"] * 3
    slot = hub.one("Slot")
    assert slot["status"] == "busy-unavailable"
    assert slot["comment"] == "停诊"
    assert hub.all("Patient") == []


# --- documents ---------------------------------------------------------------------------------------------------


def test_a_document_of_ten_megabytes_is_an_object_and_no_part_of_the_record(hub: V2Hub) -> None:
    data = b"%PDF-1.7\n" + bytes(range(256)) * 40_960
    encoded = base64.b64encode(data).decode()
    obx = f"OBX|1|ED|PDF^报告^L||^AP^PDF^Base64^{encoded}||||||F"
    text = oru("1", "F", "", at="20250611090000", obx=f"OBX|1|FT|1^所见^L||右肺结节\\.br\\边界清||||||F\r{obx}")
    assert hub.code(text) == "AA"
    report = hub.one("DiagnosticReport")
    words, document = report["presentedForm"]
    assert base64.b64decode(words["data"]).decode() == "所见：\n右肺结节\n边界清"
    assert (document["contentType"], document["size"]) == ("application/pdf", len(data))
    binary = hub.one("Binary")
    assert document["url"] == f"Binary/{binary['id']}"
    assert "data" not in binary
    digest = next(one["valueString"] for one in binary["_data"]["extension"] if one["url"].endswith("object-digest"))
    with hub.objects.open(digest) as stored:
        assert stored.read() == data
