"""The fields of orders, specimens, timings, prescriptions and vaccinations, each where FHIR has it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.base import Attachment, Upsert
from tests.fhir_mappings.hl7v2.test_translate import PID, only, said, upserts

P = PID.strip()


def row(name: str, **cells: str) -> str:
    """Return a segment from its fields ``f2`` and so on."""
    values = {int(key[1:]): value for key, value in cells.items()}
    return f"{name}|" + "|".join(values.get(number, "") for number in range(1, max(values) + 1))


def resources(made: Any, kind: str) -> list[dict[str, Any]]:
    return [item.resource for item in upserts(made, kind)]


# --- orders ------------------------------------------------------------------------------------------------------


def test_each_order_reads_its_own_timing_and_study() -> None:
    made = said(
        "OMI^O23",
        P,
        "ORC|NW|P1",
        "TQ1|1||||||20250612080000||S",
        "OBR|1|P1||CT^胸部CT^L",
        "IPC|A1|R1|1.2.3.1|S1|CT||||CT1",
        "IPC|A1|R1|1.2.3.1|S2|PT||||CT1",
        "ORC|NW|P2",
        "TQ1|1||||||20250613080000||R",
        "OBR|2|P2||MR^头部MR^L",
        "IPC|A2|R2|1.2.3.2|S1|MR||||MR1",
    )
    first, second = resources(made, "ServiceRequest")
    assert (first["priority"], second["priority"]) == ("stat", "routine")
    assert first["occurrenceDateTime"] == "2025-06-12T08:00:00+08:00"
    assert [one["value"] for one in first["identifier"]] == ["P1", "A1", "urn:oid:1.2.3.1", "R1", "S1", "S2"]
    assert [one["value"] for one in second["identifier"]] == ["P2", "A2", "urn:oid:1.2.3.2", "R2", "S1"]
    assert [one["coding"][0]["code"] for one in first["orderDetail"]] == ["CT", "PT"]
    assert [one["valueString"] for one in first["extension"]] == ["CT1"]


def test_a_study_of_a_zds_is_that_of_its_order_alone() -> None:
    made = said(
        "ORM^O01",
        P,
        "ORC|NW|P1",
        "OBR|1|P1||A",
        "ZDS|1.2.3^^Application^DICOM",
        "ORC|NW|P2",
        "OBR|2|P2||B",
        "ZDS|1.2.4",
    )
    values = [one["identifier"][-1]["value"] for one in resources(made, "ServiceRequest")]
    assert values == ["urn:oid:1.2.3", "urn:oid:1.2.4"]


def test_a_note_behind_an_observation_is_its_own() -> None:
    made = said(
        "OML^O21", P, "ORC|NW|P1", "OBR|1|P1||A", "NTE|1||先禁食", "OBX|1|ST|T^体温^L||36.8||||||F", "NTE|1||腋温"
    )
    assert only(made, "ServiceRequest")["note"] == [{"text": "先禁食"}]
    assert only(made, "Observation")["note"] == [{"text": "腋温"}]


@pytest.mark.parametrize("event", ["OML^O33", "OML^O35"])
def test_specimens_before_orders_are_those_of_the_orders_behind_them(event: str) -> None:
    made = said(
        event, P, "SPM|1|S1||SER", "SAC|||T1", "ORC|NW|P1", "OBR|1|P1||A", "ORC|NW|P2", "OBR|2|P2||B",
        "SPM|2|S2||BLD", "SAC|||T2", "ORC|NW|P3", "OBR|3|P3||C",
    )  # fmt: skip
    specimens = {f"Specimen/{one['id']}": one["identifier"][0]["value"] for one in resources(made, "Specimen")}
    found = [[specimens[ref["reference"]] for ref in one["specimen"]] for one in resources(made, "ServiceRequest")]
    assert found == [["S1"], ["S1"], ["S2"]]


@pytest.mark.parametrize("event", ["OML^O33", "OML^O35", "OUL^R22"])
def test_a_specimen_that_several_orders_share_is_stated_once(event: str) -> None:
    orders = [line for number in "12" for line in (f"ORC|NW|P{number}", f"OBR|{number}|P{number}|F{number}|L1^Na^L")]
    made = said(event, PID, "SPM|1|||SER^血清^HL70487", *orders)
    [specimen] = resources(made, "Specimen")
    kind = "DiagnosticReport" if event == "OUL^R22" else "ServiceRequest"
    found = {one["id"]: one for one in resources(made, kind)}
    assert len(found) == 2
    reference = [{"reference": f"Specimen/{specimen['id']}"}]
    assert [one["specimen"] for one in found.values()] == [reference, reference]


@pytest.mark.parametrize("event", ["OML^O33", "OUL^R22"])
def test_orders_that_share_more_specimens_than_a_message_may_hold_are_refused(event: str) -> None:
    specimens = [f"SPM|{number}|S{number}||SER^血清^HL70487" for number in range(101)]
    orders = [line for number in range(100) for line in (f"ORC|NW|P{number}", f"OBR||P{number}|F{number}|L1^Na^L")]
    with pytest.raises(MalformedError) as refused:
        said(event, PID, *specimens, *orders)
    assert (refused.value.code, refused.value.where) == (102, "SPM")


def test_a_specimen_keeps_how_it_was_collected_beside_when() -> None:
    spm = row(
        "SPM", f1="1", f2="S1", f3="S0", f4="SER", f7="VENIP^静脉采血", f8="LA^左臂", f12="5^mL", f17="20250611080000"
    )
    made = said("OML^O21", P, "ORC|NW|P1", "OBR|1|P1||A", spm, row("SAC", f3="T1", f21="10", f22="5", f24="mL"))
    specimen = next(one for one in resources(made, "Specimen") if "collection" in one)
    assert specimen["collection"]["collectedDateTime"] == "2025-06-11T08:00:00+08:00"
    assert specimen["collection"]["method"]["text"] == "静脉采血"
    assert specimen["collection"]["bodySite"]["text"] == "左臂"
    assert str(specimen["collection"]["quantity"]["value"]) == "5"
    assert specimen["container"][0]["capacity"]["unit"] == "mL"
    (parent,) = specimen["parent"]
    assert parent["reference"] in {f"Specimen/{one['id']}" for one in resources(made, "Specimen")}


PRIOR = ("ORC|PR|P0|F0", row("OBR", f1="1", f2="P0", f3="F0", f4="K^钾", f25="F"), "OBX|1|NM|K^钾||6.1|mmol/L||HH|||F")


def test_earlier_results_are_information_and_no_order_and_no_news() -> None:
    made = said("OML^O21", P, "ORC|NW|P1", "OBR|1|P1||A", P, *PRIOR, "ORC|NW|P2", "OBR|2|P2||B")
    numbers = [one["identifier"][0]["value"] for one in resources(made, "ServiceRequest")]
    assert numbers == ["P0", "P1", "P2"]
    report = only(made, "DiagnosticReport")
    assert {"reference": f"DiagnosticReport/{report['id']}"} in resources(made, "ServiceRequest")[1]["supportingInfo"]
    assert [event.kind for event in made.workflow_events] == ["order.new", "order.new"]


def test_a_second_person_among_earlier_results_is_refused() -> None:
    other = "PID|1|0000010099|0000010099^^^^IDCard||李秀英||19550708|F"
    with pytest.raises(MalformedError) as caught:
        said("OML^O21", P, "ORC|NW|P1", "OBR|1|P1||A", other, *PRIOR)
    assert (caught.value.code, caught.value.where) == (100, "PID-3 of segment 5")


def test_a_patient_repeated_before_each_order_hides_no_order() -> None:
    made = said("OML^O21", P, "ORC|NW|P1", "OBR|1|P1||A", P, "ORC|NW|P2", "OBR|2|P2||B")
    assert len(resources(made, "ServiceRequest")) == 2


# --- when --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "frequency", "period", "unit"),
    [
        ("QD", 1, 1, "d"), ("BID", 2, 1, "d"), ("tid", 3, 1, "d"), ("QID", 4, 1, "d"), ("5ID", 5, 1, "d"),
        ("Q8H", 1, 8, "h"), ("Q30M", 1, 30, "min"), ("QOD", 1, 2, "d"), ("Q2W", 1, 2, "wk"), ("QH", 1, 1, "h"),
        ("qn", 1, 1, "d"), ("BIW", 2, 1, "wk"),
    ],
)  # fmt: skip
def test_a_repeat_pattern_says_how_often(pattern: str, frequency: int, period: int, unit: str) -> None:
    made = said("OMP^O09", P, "ORC|NW|P1", f"TQ1|1||{pattern}", "RXO|Y^药^L|1||g")
    timing = only(made, "MedicationRequest")["dosageInstruction"][0]["timing"]
    assert timing["repeat"] == {"frequency": frequency, "period": period, "periodUnit": unit}
    assert timing["code"]["text"] == pattern


@pytest.mark.parametrize("pattern", ["Q0H", "0ID", "ONCE", "自定义", "Q９H"])
def test_a_pattern_that_says_no_frequency_is_kept_as_a_code(pattern: str) -> None:
    made = said("OMP^O09", P, "ORC|NW|P1", f"TQ1|1||{pattern}", "RXO|Y^药^L|1||g")
    timing = only(made, "MedicationRequest")["dosageInstruction"][0]["timing"]
    assert "repeat" not in timing
    assert timing["code"]["text"] == pattern


def test_the_old_timing_field_says_the_same_as_tq1() -> None:
    new = said("OMP^O09", P, "ORC|NW|P1", "TQ1|1||BID||||20250612080000|20250615080000|S", "RXO|Y^药^L|1||g")
    old = said("OMP^O09", P, "ORC|NW|P1|||||^BID^D3^20250612080000^^S", "RXO|Y^药^L|1||g")
    assert only(new, "MedicationRequest") == only(old, "MedicationRequest")


# --- prescriptions -----------------------------------------------------------------------------------------------


def test_an_encoded_order_counts_before_what_was_asked_for() -> None:
    made = said("RDE^O11", P, "ORC|NW|P1|F1", "RXO|A^甲药^L|1||g", "RXE||B^乙药^L|2|4|mg", "RXR|IV", "RXR|PO")
    request = only(made, "MedicationRequest")
    assert request["medicationCodeableConcept"]["text"] == "乙药"
    (dosage,) = request["dosageInstruction"]
    assert dosage["doseAndRate"][0]["doseRange"]["high"]["unit"] == "mg"
    assert dosage["route"]["coding"][0]["code"] == "IVINJ"
    assert any("Another route" in issue.message for issue in made.issues)


def test_two_timings_are_two_dosages_in_order() -> None:
    made = said("OMP^O09", P, "ORC|NW|P1", "TQ1|1||QD", "TQ1|2||PRN", "RXO|Y^药^L|1||g")
    first, second = only(made, "MedicationRequest")["dosageInstruction"]
    assert (first["sequence"], second["sequence"]) == (1, 2)
    assert second["asNeededBoolean"] is True


def test_an_order_in_words_alone_is_a_prescription_in_words() -> None:
    made = said("OMP^O09", P, "ORC|NW|P1", "RXO||||||^中药汤剂三付，水煎服")
    assert only(made, "MedicationRequest")["medicationCodeableConcept"] == {"text": "中药汤剂三付，水煎服"}


@pytest.mark.parametrize(
    ("event", "segments", "code", "where"),
    [
        ("OMP^O09", ("ORC|NW|P1",), 100, "ORC of segment 3"),
        ("OMP^O09", ("ORC||P1", "RXO|Y"), 101, "ORC-1 of segment 3"),
        ("OMP^O09", ("ORC|NW", "RXO|Y"), 101, "ORC-2 of segment 3"),
        ("OMP^O09", ("ORC|NW|P1", "RXO||1"), 101, "RXO-1 of segment 4"),
        ("RDE^O11", ("ORC|NW|P1", "RXE||"), 101, "RXE-2 of segment 4"),
        ("RDS^O13", ("ORC|RE|P1",), 100, "after segment 3"),
        ("RDS^O13", ("ORC|RE|P1", "RXD|1"), 101, "RXD-2 of segment 4"),
        ("RAS^O17", ("ORC|RE|P1", "RXA|1|1||||"), 101, "RXA-5 of segment 4"),
        ("RAS^O17", ("ORC|RE|P1", "RXA|1|1|||Y^药"), 101, "RXA-3 of segment 4"),
        ("VXU^V04", (), 100, "after segment 2"),
        ("VXU^V04", ("RXA|0|1|20250611||",), 101, "RXA-5 of segment 3"),
        ("PPR^PC1", (), 100, "after segment 2"),
        ("PPR^PC1", ("PRB|AD|20250611",), 101, "PRB-3 of segment 3"),
    ],
)
def test_what_is_missing_is_refused_by_its_place(event: str, segments: tuple[str, ...], code: int, where: str) -> None:
    with pytest.raises(MalformedError) as caught:
        said(event, P, *segments)
    assert (caught.value.code, caught.value.where) == (code, where)


@pytest.mark.parametrize(
    ("completion", "action", "status"),
    [("", "", "completed"), ("CP", "A", "completed"), ("PA", "", "completed"), ("RE", "", "not-done"),
     ("NA", "U", "not-done"), ("CP", "D", "entered-in-error")],
)  # fmt: skip
def test_completion_and_action_give_the_status(completion: str, action: str, status: str) -> None:
    rxa = row("RXA", f1="0", f2="1", f3="20250611090000", f5="Y^药", f6="999", f20=completion, f21=action or " ")
    assert only(said("VXU^V04", P, rxa), "Immunization")["status"] == status
    made = only(said("RAS^O17", P, "ORC|RE|P1|F1", rxa), "MedicationAdministration")
    assert made["status"] == status
    assert "dosage" not in made


def test_doses_without_a_number_of_their_own_are_told_apart() -> None:
    doses = [row("RXA", f1="0", f2="1", f3=day, f5="0202^乙肝疫苗^L", f6="0.5") for day in ("20250101", "20250201")]
    made = said("VXU^V04", P, "ORC|RE||9999", doses[0], "ORC|RE||9999", doses[1])
    first, second = resources(made, "Immunization")
    assert first["id"] != second["id"]
    assert "identifier" not in first


# --- documents ---------------------------------------------------------------------------------------------------

PDF = b"%PDF-1.4\n%%EOF\n"
B64 = base64.b64encode(PDF).decode()


@pytest.mark.parametrize(
    "value",
    [
        f"^application^pdf^Base64^{B64}", f"^AP^PDF^BASE64^{B64}", f"^PDF^^^{B64}", f"^^pdf^Base64^{B64}", B64,
        f"PDF^{B64}^Base64", f"^application^pdf^{B64}^Base64", f"^application^pdf^Hex^{PDF.hex()}",
    ],
)  # fmt: skip
def test_encapsulated_data_is_read_however_its_components_stand(value: str) -> None:
    made = said("ORU^R01", P, row("OBR", f1="1", f2="P1", f3="F1", f4="R", f25="F"), f"OBX|1|ED|D^报告||{value}||||||F")
    (attachment,) = [one for one in made.changes if isinstance(one, Attachment)]
    assert (attachment.content_type, attachment.data) == ("application/pdf", PDF)


@pytest.mark.parametrize("value", ["^application^pdf^Base64^", "PDF", "^AP^PDF^^"])
def test_encapsulated_data_without_data_is_refused(value: str) -> None:
    with pytest.raises(MalformedError) as caught:
        said("ORU^R01", P, row("OBR", f1="1", f2="P1", f3="F1", f4="R", f25="F"), f"OBX|1|ED|D||{value}||||||F")
    assert caught.value.code == 101


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://pacs.example/r/1.pdf", True),
        ("\\E\\\\E\\fileserver\\E\\r.pdf", False),
        ("javascript:alert(1)", False),
        ("https://user:secret@pacs.example/r.pdf", False),
        ("file:///etc/passwd", False),
    ],
)
def test_a_pointer_is_kept_as_a_web_address_or_not_at_all(address: str, kept: bool) -> None:
    obx = f"OBX|1|RP|D^报告||{address}^^application^pdf||||||F"
    made = said("ORU^R01", P, row("OBR", f1="1", f2="P1", f3="F1", f4="R", f25="F"), obx)
    forms = only(made, "DiagnosticReport").get("presentedForm", [])
    assert [one["url"] for one in forms] == ([address] if kept else [])
    assert any("web address" in issue.message for issue in made.issues) is not kept


def test_notes_between_the_texts_of_a_report_are_read_where_they_stand() -> None:
    made = said(
        "ORU^R01", P, row("OBR", f1="1", f2="P1", f3="F1", f4="R", f25="F"),
        "OBX|1|FT|1^所见||右肺结节||||||F", "NTE|1||与前片比较", "OBX|2|FT|2^印象||随访||||||F",
    )  # fmt: skip
    text = base64.b64decode(only(made, "DiagnosticReport")["presentedForm"][0]["data"]).decode()
    assert text == "所见：\n右肺结节\n与前片比较\n\n印象：\n随访"


def test_reports_of_one_message_do_not_look_at_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    name_of, asked = Upsert.reference.fget, 0
    assert name_of is not None

    def counted(change: Upsert) -> str:
        nonlocal asked
        asked += 1
        return str(name_of(change))

    monkeypatch.setattr(Upsert, "reference", property(counted))

    def looks(count: int) -> int:
        nonlocal asked
        asked = 0
        reports = [row("OBR", f2=f"P{i}", f3=f"F{i}", f4="R", f25="P") for i in range(count)]
        assert {one["status"] for one in resources(said("ORU^R01", P, *reports), "ServiceRequest")} == {"active"}
        return asked

    few = looks(20)
    assert looks(40) <= 2 * few
