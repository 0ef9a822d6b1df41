"""What a message asserts: events, identities, statuses, and refusals that name the place."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from fhir_mappings.errors import MalformedError, MappingError, UnsupportedError
from fhir_mappings.hl7v2.base import Attachment, Merge, Snapshot, Translation, Upsert
from fhir_mappings.hl7v2.status import apply
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate
from tests.fhir_mappings.hl7v2.golden import SAMPLES, context, translation_of

MSH = "MSH|^~\\&|HIS|KNYY|YXT|HUB|20250611083000||{kind}|C1|P|2.4\r"
PID = "PID|1|0000010086|0000010086^^^^IDCard||郑伟||19760229|M\r"


def said(kind: str, *segments: str, institution: str = "KN") -> Translation:
    return translate(parse(MSH.format(kind=kind) + "".join(f"{item}\r" for item in segments)), context(institution))


def upserts(translation: Translation, resource_type: str) -> list[Upsert]:
    return [
        change
        for change in translation.changes
        if isinstance(change, Upsert) and change.resource["resourceType"] == resource_type
    ]


def only(translation: Translation, resource_type: str) -> dict[str, Any]:
    (change,) = upserts(translation, resource_type)
    return change.resource


def pv1(**fields: str) -> str:
    cells = [""] * 53
    for name, value in {"f2": "I", "f19": "V1", **fields}.items():
        cells[int(name[1:])] = value
    return "PV1|" + "|".join(cells[1:]).rstrip("|")


# --- Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error", "code", "where"),
    [
        (MSH.format(kind="ADT^A99") + PID, UnsupportedError, 201, "MSH-9 of segment 1"),
        (MSH.format(kind="ADT^ZP1") + PID, UnsupportedError, 201, "MSH-9 of segment 1"),
        (MSH.format(kind="ZZZ^Z01") + PID, UnsupportedError, 200, "MSH-9 of segment 1"),
        (MSH.format(kind="ACK^A01") + "MSA|AA|1\r", UnsupportedError, 200, "MSH-9 of segment 1"),
        (MSH.format(kind="").replace("||C1", "|||C1") + PID, MalformedError, 101, "MSH-9 of segment 1"),
        (MSH.format(kind="ADT^A01").replace("2.4", "9.9") + PID, UnsupportedError, 203, "MSH-12 of segment 1"),
        (MSH.format(kind="ADT^A01").replace("|C1|", "||") + PID, MalformedError, 101, "MSH-10 of segment 1"),
        (MSH.format(kind="ADT^A01"), MalformedError, 100, "after segment 1"),
        (MSH.format(kind="ADT^A01") + PID, MalformedError, 100, "after segment 2"),
        (MSH.format(kind="ADT^A01") + "PID|1||^^^^IDCard||郑伟\r", MalformedError, 101, "PID-3 of segment 2"),
        (MSH.format(kind="ADT^A01") + PID + "PV1|1|I\r", MalformedError, 101, "PV1-19 of segment 3"),
        (MSH.format(kind="ADT^A40") + PID, MalformedError, 100, "after segment 2"),
        (MSH.format(kind="ADT^A40") + PID + "MRG|^^^^IDCard\r", MalformedError, 101, "MRG-1 of segment 3"),
        (MSH.format(kind="ORM^O01") + PID + "ORC|NW\rOBR|1|||CT\r", MalformedError, 101, "ORC-2 of segment 3"),
        (MSH.format(kind="ORM^O01") + PID + "ORC||1\rOBR|1|||CT\r", MalformedError, 101, "ORC-1 of segment 3"),
        (MSH.format(kind="ORM^O01") + PID + "ORC|NW|1\rOBR|1|1\r", MalformedError, 101, "OBR-4 of segment 4"),
        (MSH.format(kind="ORM^O01") + PID + "ORC|NW|1\rODS|D||^流食\r", UnsupportedError, 200, "ORC of segment 3"),
        (MSH.format(kind="ORU^R01") + PID + "OBR|1|||X\r", MalformedError, 101, "OBR-3 of segment 3"),
        (MSH.format(kind="ORU^R01") + PID + "OBR|1|1||X\rOBX|1|NM|||3\r", MalformedError, 101, "OBX-3 of segment 4"),
        (
            MSH.format(kind="ORU^R01") + PID + "OBR|1|1||X\rOBX|1|ED|PDF||^application^pdf^Base64^%%%\r",
            MalformedError,
            102,
            "OBX-5 of segment 4",
        ),
        (
            MSH.format(kind="ORU^R01") + PID + "OBR|1|1||X" + "|" * 21 + "Z\r",
            MalformedError,
            204,
            "OBR-25 of segment 3",
        ),
        (MSH.format(kind="REF^I12") + "PRD|RP\r" + PID, MalformedError, 100, "after segment 3"),
        (MSH.format(kind="RRI^I12") + "MSA|AA|1\rRF1|Q|||||N1\r", MalformedError, 103, "RF1-1 of segment 3"),
        (MSH.format(kind="SIU^S12") + "SCH|A1\r" + PID, MalformedError, 101, "SCH-11 of segment 2"),
        (MSH.format(kind="MDM^T02") + PID + "TXA|1|DS\r", MalformedError, 101, "TXA-12 of segment 3"),
    ],
)
def test_refusal_names_code_and_place(text: str, error: type[MappingError], code: int, where: str) -> None:
    with pytest.raises(error) as caught:
        translate(parse(text), context("KN"))
    assert caught.value.code == code
    assert caught.value.where == where
    assert caught.value.remedy
    assert "郑伟" not in str(caught.value)


# --- Identity --------------------------------------------------------------------------------------------------------


def test_the_same_number_of_two_hospitals_is_two_patients() -> None:
    assert said("ADT^A28", PID.strip()).patient_id != said("ADT^A28", PID.strip(), institution="QH").patient_id


def test_leading_zeros_and_pid_2_lead_to_the_same_patient() -> None:
    spellings = ("PID|1||10086^^^^IDCard", "PID|1|0000010086", "PID|1||0000010086^^^^IDCard~5^^^^PatientNO")
    assert len({said("ADT^A28", spelling).patient_id for spelling in spellings}) == 1


def test_an_identity_card_names_the_record_only_where_nothing_else_does() -> None:
    alone = said("ADT^A28", "PID|1||990001197602290170^^^^IdentifyNO").patient_id
    beside = said("ADT^A28", "PID|1||990001197602290170^^^^IdentifyNO~10086^^^^IDCard").patient_id
    assert beside == said("ADT^A28", "PID|1||10086^^^^IDCard").patient_id
    assert alone != beside


def test_number_of_another_institution_does_not_name_ours() -> None:
    ours = said("ADT^A28", "PID|1||77^^^^PI", institution="QM").patient_id
    theirs = said("ADT^A28", "PID|1||77^^^KN^PI", institution="QM").patient_id
    assert ours != theirs


def test_ids_do_not_depend_on_when_the_message_was_sent() -> None:
    first = translation_of(SAMPLES / "ORU_R01/qm_critical_potassium.hl7")
    corrected = translation_of(SAMPLES / "ORU_R01/qm_potassium_corrected.hl7")
    for kind in ("Observation", "DiagnosticReport", "ServiceRequest", "Specimen"):
        assert [item.reference for item in upserts(first, kind)] == [
            item.reference for item in upserts(corrected, kind)
        ]


# --- ADT -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "discharged", "status"),
    [
        ("A01", "", "in-progress"),
        ("A01", "20250612", "finished"),
        ("A03", "", "finished"),
        ("A04", "", "in-progress"),
        ("A05", "", "planned"),
        ("A08", "20250612", None),
        ("A11", "20250612", "cancelled"),
        ("A13", "20250612", "in-progress"),
        ("A28", "", None),
        ("A31", "", None),
        ("A31", "20250612", None),
        *((event, "", "in-progress") for event in ("A02", "A06", "A07", "A12")),
    ],
)
def test_event_gives_the_status_of_the_visit(event: str, discharged: str, status: str | None) -> None:
    made = only(said(f"ADT^{event}", PID.strip(), pv1(f45=discharged)), "Encounter")
    assert made.get("status") == status


def test_null_fields_clear_and_absent_fields_say_nothing() -> None:
    (change,) = upserts(said("ADT^A31", 'PID|1||10086^^^^IDCard||郑伟||""||||""'), "Patient")
    assert change.cleared == {"birthDate", "address"}
    assert "telecom" not in change.resource


def test_event_time_comes_from_evn_before_msh() -> None:
    moments = {
        "": datetime(2025, 6, 11, 0, 30, tzinfo=UTC),
        "EVN|A28|20250611070000": datetime(2025, 6, 10, 23, 0, tzinfo=UTC),
        "EVN|A28|20250611070000||||20250611060000": datetime(2025, 6, 10, 22, 0, tzinfo=UTC),
    }
    for evn, moment in moments.items():
        assert said("ADT^A28", *([evn] if evn else []), PID.strip()).asserted_at == moment


def test_merge_leads_the_dead_number_to_the_survivor() -> None:
    made = said("ADT^A40", PID.strip(), "MRG|0000000999^^^^IDCard")
    (merge,) = [change for change in made.changes if isinstance(change, Merge)]
    assert merge.survivor_id == said("ADT^A28", PID.strip()).patient_id
    assert merge.dead_id == said("ADT^A28", "PID|1||999^^^^IDCard").patient_id
    stub = next(change for change in upserts(made, "Patient") if change.resource["id"] == merge.dead_id)
    assert stub.create_only
    assert stub.resource["active"] is False


def test_several_merges_in_one_message_are_all_made() -> None:
    made = said("ADT^A40", "PID|1||1^^^^IDCard", "MRG|2^^^^IDCard", "PID|2||3^^^^IDCard", "MRG|4^^^^IDCard")
    assert len([change for change in made.changes if isinstance(change, Merge)]) == 2


def test_merging_a_record_with_itself_does_nothing() -> None:
    made = said("ADT^A40", PID.strip(), "MRG|10086^^^^IDCard")
    assert not [change for change in made.changes if isinstance(change, Merge)]
    assert made.issues[0].where == "MRG-1 of segment 3"


def test_allergy_list_is_a_snapshot_and_silence_is_none() -> None:
    made = said("ADT^A08", PID.strip(), pv1(), "AL1|1|DA|^青霉素", "AL1|2|FA|^花生")
    (snapshot,) = [change for change in made.changes if isinstance(change, Snapshot)]
    assert snapshot.source_key == "AL1"
    assert snapshot.keep_ids == {item.resource["id"] for item in upserts(made, "AllergyIntolerance")}
    assert not [item for item in said("ADT^A08", PID.strip(), pv1()).changes if isinstance(item, Snapshot)]


def test_diagnoses_of_one_visit_do_not_retire_those_of_another() -> None:
    keys = set()
    for number in ("V1", "V2"):
        made = said("ADT^A01", PID.strip(), pv1(f19=number), "DG1|1||J18.9^肺炎^ICD10")
        keys |= {change.source_key for change in made.changes if isinstance(change, Snapshot)}
    assert len(keys) == 2


def test_unmapped_codes_are_reported_with_their_place() -> None:
    made = said("ADT^A28", "PID|1||10086^^^^IDCard||郑伟||19760229|X")
    assert "gender" not in only(made, "Patient")
    assert [(issue.code, issue.where) for issue in made.issues] == [("code-invalid", "PID-8 of segment 2")]


@pytest.mark.parametrize(("written", "gender"), [("M", "male"), ("1", "male"), ("女", "female"), ("9", "unknown")])
def test_sex_of_gb_and_hl7_codes(written: str, gender: str) -> None:
    assert only(said("ADT^A28", f"PID|1||10086^^^^IDCard||郑伟|||{written}"), "Patient")["gender"] == gender


# --- Orders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "order_status", "status", "event"),
    [
        ("NW", "", "active", "order.new"),
        ("CA", "", None, "order.cancel"),
        ("OC", "", "revoked", "order.cancelled"),
        ("XO", "", "active", "order.modified"),
        ("UA", "", None, "order.rejected"),
        ("OK", "", "active", "order.accepted"),
        ("SC", "CM", "completed", "order.status"),
        ("SN", "", None, None),
        ("DC", "", "revoked", "order.cancel"),
        ("HD", "", "on-hold", "order.hold"),
        *((control, "", "active", None) for control in ("OE", "OR")),
        ("OH", "", "on-hold", "order.on-hold"),
        ("HR", "", "on-hold", None),
        ("RO", "", "active", "order.modified"),
        ("RL", "", "active", "order.release"),
        *((control, "", "active", None) for control in ("RQ", "PR", "AF")),
        *((control, "", "active", "order.modified") for control in ("XX", "XR")),
        *((control, "", "revoked", "order.cancelled") for control in ("CR", "DR", "OD")),
        ("FU", "", "completed", None),
        ("DE", "", "entered-in-error", "order.failed"),
        *((control, "", None, "order.cancel-refused") for control in ("UC", "UD")),
        ("UX", "", None, "order.modify-refused"),
        ("RR", "", None, "order.received"),
        *((control, "", None, None) for control in ("RE", "NA", "CN", "CH", "PA")),
        *(
            ("SC", state, status, "order.status")
            for state, status in (
                ("CA", "revoked"),
                ("DC", "revoked"),
                ("RP", "revoked"),
                ("ER", "entered-in-error"),
                ("HD", "on-hold"),
                ("IP", "active"),
                ("SC", "active"),
                ("A", "active"),
            )
        ),
    ],
)
def test_order_control_gives_status_and_event(
    control: str, order_status: str, status: str | None, event: str | None
) -> None:
    made = said("ORM^O01", PID.strip(), f"ORC|{control}|N1|||{order_status}", "OBR|1|N1||CT01^胸部CT^L")
    assert only(made, "ServiceRequest").get("status") == status
    assert [item.kind for item in made.workflow_events] == ([event] if event else [])
    assert all(item.placer_number == "N1" for item in made.workflow_events)


def test_order_keeps_placer_filler_and_accession_numbers() -> None:
    made = said("ORM^O01", PID.strip(), "ORC|NW|P1|F1", "OBR|1|P1|F1|CT01^胸部CT^L" + "|" * 14 + "A1")
    types = {item["type"]["coding"][0]["code"]: item["value"] for item in only(made, "ServiceRequest")["identifier"]}
    assert types == {"PLAC": "P1", "FILL": "F1", "ACSN": "A1"}


def test_two_services_under_one_number_are_two_requests() -> None:
    made = said("ORM^O01", PID.strip(), "ORC|NW|P1", "OBR|1|P1||A", "OBR|2|P1||B")
    assert len({item.reference for item in upserts(made, "ServiceRequest")}) == 2


# --- Results ---------------------------------------------------------------------------------------------------------


def results(*obx: str, status: str = "F") -> Translation:
    return said("ORU^R01", PID.strip(), "OBR|1|P1|F1|LAB^生化^L" + "|" * 21 + status, *obx)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("F", "final"),
        ("P", "preliminary"),
        ("C", "corrected"),
        ("A", "amended"),
        ("D", "entered-in-error"),
        ("W", "entered-in-error"),
        ("X", "cancelled"),
        ("I", "registered"),
        ("R", "preliminary"),
        ("U", "final"),
        ("N", "registered"),
        ("O", "registered"),
        ("S", "registered"),
        ("V", "final"),
        ("B", "amended"),
        ("", "final"),
    ],
)
def test_obx_11_gives_the_status_of_the_result(code: str, status: str) -> None:
    assert only(results(f"OBX|1|NM|K^钾||3||||||{code}"), "Observation")["status"] == status


@pytest.mark.parametrize(("code", "reason"), [("X", "unknown"), ("N", "not-asked")])
def test_a_result_that_never_came_says_why(code: str, reason: str) -> None:
    made = only(results(f"OBX|1|NM|K^钾||||||||{code}"), "Observation")
    assert [coding["code"] for coding in made["dataAbsentReason"]["coding"]] == [reason]
    assert not any(name.startswith("value") for name in made)


@pytest.mark.parametrize("code", ["Y", "Z"])
def test_a_report_that_denies_its_order_is_refused(code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        results("OBX|1|NM|K^钾||3", status=code)
    assert caught.value.code == 204


@pytest.mark.parametrize(
    ("code", "members", "status"),
    [
        ("F", "F", "final"),
        ("A", "F", "partial"),
        ("R", "P", "partial"),
        ("M", "F", "amended"),
        ("P", "P", "preliminary"),
        ("C", "C", "corrected"),
        ("X", "X", "cancelled"),
        *((code, "", "registered") for code in "IOSN"),
        ("", "FF", "final"),
        ("", "FP", "partial"),
        ("", "PP", "preliminary"),
        ("", "FC", "corrected"),
        ("", "", "unknown"),
    ],
)
def test_obr_25_or_its_results_give_the_status_of_the_report(code: str, members: str, status: str) -> None:
    obx = [f"OBX|{n}|NM|K{n}^钾||3||||||{member}" for n, member in enumerate(members, start=1)]
    assert only(results(*obx, status=code), "DiagnosticReport")["status"] == status


def test_numbers_keep_every_digit() -> None:
    value = only(results("OBX|1|NM|K^钾||6.90|mmol/L"), "Observation")["valueQuantity"]["value"]
    assert value == Decimal("6.90")
    assert str(value) == "6.90"


def test_repeated_test_gets_its_own_id_by_ordinal() -> None:
    made = upserts(results("OBX|1|NM|K^钾||3", "OBX|2|NM|K^钾||4"), "Observation")
    assert len({item.reference for item in made}) == 2


def test_lines_of_one_text_become_one_result() -> None:
    made = only(results("OBX|1|TX|F^所见||第一行", "OBX|2|TX|F^所见||第二行"), "Observation")
    assert made["valueString"] == "第一行\n第二行"


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("Base64", base64.b64encode(b"%PDF-1.4 x").decode()),
        ("", base64.b64encode(b"%PDF-1.4 x").decode()),
        ("Hex", b"%PDF-1.4 x".hex()),
    ],
)
@pytest.mark.parametrize("label", ["application^pdf", "AP^PDF", "^pdf", "PDF^"])
def test_pdf_is_known_by_its_bytes_and_handed_over(encoding: str, data: str, label: str) -> None:
    made = results(f"OBX|1|ED|PDF^报告||^{label}^{encoding}^{data}")
    (attachment,) = [change for change in made.changes if isinstance(change, Attachment)]
    assert attachment.data == b"%PDF-1.4 x"
    assert attachment.content_type == "application/pdf"
    report = only(made, "DiagnosticReport")
    assert report["presentedForm"][0]["url"] == f"Binary/{attachment.binary_id}"
    assert attachment.context == f"DiagnosticReport/{report['id']}"
    assert not upserts(made, "Observation")


def test_critical_flag_raises_an_event_for_its_result() -> None:
    made = translation_of(SAMPLES / "ORU_R01/qm_critical_potassium.hl7")
    assert [item.kind for item in made.workflow_events] == ["report.final", "observation.critical"]
    assert made.workflow_events[1].focus[0] == upserts(made, "Observation")[0].reference


def test_another_message_about_a_visit_does_not_move_it() -> None:
    (change,) = upserts(said("ORU^R01", PID.strip(), pv1(), "OBR|1|P1|F1|LAB"), "Encounter")
    assert change.create_only


def test_result_correction_and_late_preliminary_end_as_the_correction() -> None:
    store: dict[str, tuple[dict[str, Any], datetime]] = {}
    for name in ("qm_critical_potassium", "qm_potassium_corrected", "qm_potassium_late_preliminary"):
        made = translation_of(SAMPLES / f"ORU_R01/{name}.hl7")
        for change in made.changes:
            if isinstance(change, Upsert):
                before, moment = store.get(change.reference, (None, None))
                applied = apply(before, change, asserted_at=made.asserted_at, stored_asserted_at=moment)
                store[change.reference] = (applied.resource, made.asserted_at)
    observations = {
        item["code"]["coding"][0]["code"]: item for item, _ in store.values() if item["resourceType"] == "Observation"
    }
    assert observations["2823-3"]["status"] == "corrected"
    assert str(observations["2823-3"]["valueQuantity"]["value"]) == "6.70"
    report = next(item for item, _ in store.values() if item["resourceType"] == "DiagnosticReport")
    assert report["status"] == "corrected"
    assert len(report["result"]) == 2


# --- Referrals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "acknowledgement", "kind"),
    [
        ("A", "AA", "referral.accepted"),
        ("R", "AA", "referral.rejected"),
        ("P", "AA", "referral.received"),
        ("A", "AE", "referral.failed"),
    ],
)
def test_referral_answer_is_an_event_and_changes_no_resource(code: str, acknowledgement: str, kind: str) -> None:
    made = said("RRI^I12", f"MSA|{acknowledgement}|C9", f"RF1|{code}|||||N1||||^无床|F1")
    assert made.changes == ()
    assert [(item.kind, item.placer_number, item.filler_number) for item in made.workflow_events] == [
        (kind, "N1", "F1")
    ]


def test_referral_names_the_receiving_institution_and_person() -> None:
    made = translation_of(SAMPLES / "REF_I12/kn_i12_referral.hl7")
    (event,) = made.workflow_events
    assert (event.kind, event.receiver, event.performer) == ("referral.requested", "YL", "C101")
    assert event.placer_number == "KNREF20250612001"


def test_cancelled_referral_is_revoked_whatever_rf1_says() -> None:
    made = translation_of(SAMPLES / "REF_I12/kn_i14_cancelled.hl7")
    assert only(made, "ServiceRequest")["status"] == "revoked"


# --- Bookings and documents ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "status"),
    [("S12", "booked"), ("S13", "booked"), ("S15", "cancelled"), ("S17", "entered-in-error"), ("S26", "noshow")],
)
def test_event_gives_the_status_of_the_booking(event: str, status: str) -> None:
    made = said(f"SIU^{event}", "SCH|A1||||||||30|min|^^^20250620090000||||||||||||||Booked", PID.strip())
    booking = only(made, "Appointment")
    assert booking["status"] == status
    assert booking["end"] == "2025-06-20T09:30:00+08:00"


def test_replacement_supersedes_the_document_it_names() -> None:
    made = translation_of(SAMPLES / "MDM_T02/yl_t10_replacement.hl7")
    first = translation_of(SAMPLES / "MDM_T02/yl_t02_discharge_summary.hl7")
    superseded, document = upserts(made, "DocumentReference")
    assert superseded.update_only
    assert superseded.reference == upserts(first, "DocumentReference")[0].reference
    assert document.resource["relatesTo"][0]["code"] == "replaces"


def test_withdrawn_document_is_entered_in_error() -> None:
    made = said("MDM^T11", PID.strip(), "TXA|1|DS" + "|" * 10 + "D1")
    assert only(made, "DocumentReference")["status"] == "entered-in-error"
