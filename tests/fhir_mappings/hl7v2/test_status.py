"""Late, repeated and out-of-order messages leave the records as the facts are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_mappings.hl7v2.base import Upsert
from fhir_mappings.hl7v2.status import (
    apply,
    encounter_status_allows,
    observation_status_allows,
    report_status_allows,
    request_status_allows,
    retire,
)

T0 = datetime(2025, 6, 11, 8, 0, tzinfo=UTC)
LATER = T0 + timedelta(hours=1)


@pytest.mark.parametrize("allows", [observation_status_allows, report_status_allows])
def test_results_move_up_the_lattice_only(allows: Any) -> None:
    order = ["unknown", "registered", "preliminary", "partial", "final", "corrected"]
    for place, old in enumerate(order):
        for other, new in enumerate(order):
            assert allows(old, new) == (other >= place)


def test_corrected_and_amended_are_of_one_rank() -> None:
    assert report_status_allows("corrected", "amended")
    assert report_status_allows("amended", "corrected")


def test_an_order_that_has_ended_is_not_opened_again() -> None:
    ends = ("completed", "revoked", "entered-in-error")
    assert all(request_status_allows("active", new) for new in ("on-hold", *ends))
    assert request_status_allows("on-hold", "active")
    assert not any(request_status_allows(old, new) for old in ends for new in ("draft", "active", "on-hold", "unknown"))
    assert request_status_allows("revoked", "completed"), "the work was done all the same"
    assert not request_status_allows("completed", "revoked")
    assert [request_status_allows(old, "entered-in-error") for old in ends] == [True] * 3
    assert not any(request_status_allows("entered-in-error", new) for new in ("completed", "revoked"))


def test_a_release_after_the_end_of_an_order_changes_everything_but_its_status() -> None:
    stored = {"resourceType": "ServiceRequest", "id": "1", "status": "revoked", "priority": "routine"}
    given = {"resourceType": "ServiceRequest", "id": "1", "status": "active", "priority": "stat"}
    result = apply(stored, Upsert(resource=given, guard="demographics"), asserted_at=LATER, stored_asserted_at=T0)
    assert result.resource == {**stored, "priority": "stat"}
    assert result.superseded


@pytest.mark.parametrize("terminal", ["cancelled", "entered-in-error"])
def test_a_withdrawn_result_comes_back_only_by_an_explicit_correction(terminal: str) -> None:
    assert not observation_status_allows(terminal, "final")
    assert not observation_status_allows(terminal, "preliminary")
    assert observation_status_allows(terminal, "corrected")


def test_unknown_never_replaces_a_known_encounter_status() -> None:
    assert not encounter_status_allows("in-progress", "unknown")
    assert encounter_status_allows("finished", "in-progress")
    assert not encounter_status_allows("entered-in-error", "in-progress")


def result(status: str, value: str) -> Upsert:
    return Upsert(
        resource={"resourceType": "Observation", "id": "o", "status": status, "valueString": value},
        guard="status",
        cleared=frozenset({"interpretation"}),
    )


def test_late_preliminary_does_not_touch_a_final_result() -> None:
    final = apply(None, result("final", "6.90"), asserted_at=T0).resource
    late = apply(final, result("preliminary", "6.8"), asserted_at=LATER, stored_asserted_at=T0)
    assert late.superseded
    assert not late.changed
    assert late.resource == final


def test_final_overtakes_a_preliminary_even_with_an_older_clock() -> None:
    early = apply(None, result("preliminary", "6.8"), asserted_at=LATER).resource
    final = apply(early, result("final", "6.90"), asserted_at=T0, stored_asserted_at=LATER)
    assert final.resource["status"] == "final"
    assert not final.superseded


def test_older_correction_does_not_replace_a_newer_one() -> None:
    newer = apply(None, result("corrected", "6.70"), asserted_at=LATER).resource
    older = apply(newer, result("corrected", "6.80"), asserted_at=T0, stored_asserted_at=LATER)
    assert older.superseded
    assert older.resource["valueString"] == "6.70"


def test_correction_drops_the_flag_it_no_longer_states() -> None:
    stored = {**result("final", "6.90").resource, "interpretation": [{"text": "HH"}]}
    corrected = apply(stored, result("corrected", "4.10"), asserted_at=LATER, stored_asserted_at=T0)
    assert "interpretation" not in corrected.resource


def test_new_value_type_takes_the_place_of_the_old() -> None:
    stored = result("final", "未检出").resource
    change = Upsert(
        resource={"resourceType": "Observation", "id": "o", "status": "corrected", "valueQuantity": {"value": 3}},
        guard="status",
        cleared=frozenset({"value[x]"}),
    )
    merged = apply(stored, change, asserted_at=LATER, stored_asserted_at=T0).resource
    assert "valueString" not in merged
    assert merged["valueQuantity"] == {"value": 3}


def test_correction_of_one_result_keeps_the_others_on_the_report() -> None:
    first = {"reference": "Observation/k"}
    second = {"reference": "Observation/na"}
    stored = {"resourceType": "DiagnosticReport", "id": "r", "status": "final", "result": [first, second]}
    change = Upsert(
        resource={"resourceType": "DiagnosticReport", "id": "r", "status": "corrected", "result": [first]},
        guard="status",
    )
    merged = apply(stored, change, asserted_at=LATER, stored_asserted_at=T0).resource
    assert merged["result"] == [first, second]


def person(**elements: Any) -> Upsert:
    return Upsert(
        resource={"resourceType": "Patient", "id": "p", **elements}, guard="demographics", defaults={"active": True}
    )


def test_older_demographics_add_identifiers_and_nothing_else() -> None:
    stored = {"resourceType": "Patient", "id": "p", "gender": "male", "identifier": [{"system": "a", "value": "1"}]}
    older = person(gender="female", birthDate="1980-01-01", identifier=[{"system": "b", "value": "2"}])
    applied = apply(stored, older, asserted_at=T0, stored_asserted_at=LATER)
    assert applied.superseded
    assert applied.resource["gender"] == "male"
    assert "birthDate" not in applied.resource
    assert [item["value"] for item in applied.resource["identifier"]] == ["1", "2"]


def test_absent_elements_stay_and_nulled_elements_go() -> None:
    stored = {"resourceType": "Patient", "id": "p", "gender": "male", "address": [{"text": "旧址"}]}
    change = Upsert(
        resource={"resourceType": "Patient", "id": "p", "birthDate": "1980-01-01"},
        cleared=frozenset({"address"}),
        guard="demographics",
    )
    merged = apply(stored, change, asserted_at=LATER, stored_asserted_at=T0).resource
    assert merged["gender"] == "male"
    assert "address" not in merged


def test_defaults_count_only_when_the_resource_is_made() -> None:
    made = apply(None, person(gender="male"), asserted_at=T0).resource
    assert made["active"] is True
    kept = apply({**made, "active": False}, person(gender="male"), asserted_at=LATER, stored_asserted_at=T0).resource
    assert kept["active"] is False


def test_a_stub_never_replaces_a_richer_record() -> None:
    stored = {"resourceType": "Practitioner", "id": "d", "name": [{"text": "刘敏"}], "qualification": [{}]}
    stub = Upsert(resource={"resourceType": "Practitioner", "id": "d", "name": [{"text": "刘"}]}, create_only=True)
    assert not apply(stored, stub, asserted_at=LATER).changed


def visit(**elements: Any) -> Upsert:
    return Upsert(
        resource={"resourceType": "Encounter", "id": "e", **elements}, guard="status", defaults={"status": "unknown"}
    )


def test_update_before_admission_is_completed_by_the_admission() -> None:
    # A08 of 09:00 arrives before A01 of 08:00.
    stored = apply(None, visit(period={"start": "2025-06-11"}), asserted_at=LATER).resource
    assert stored["status"] == "unknown"
    applied = apply(
        stored,
        visit(status="in-progress", period={"start": "2025-06-10"}, location=[{"status": "active"}]),
        asserted_at=T0,
        stored_asserted_at=LATER,
    )
    assert applied.resource["status"] == "in-progress"
    assert applied.resource["period"] == {"start": "2025-06-11"}
    assert applied.resource["location"] == [{"status": "active"}]


def test_late_admission_does_not_reopen_a_finished_visit() -> None:
    stored = {"resourceType": "Encounter", "id": "e", "status": "finished"}
    applied = apply(stored, visit(status="in-progress"), asserted_at=T0, stored_asserted_at=LATER)
    assert applied.resource["status"] == "finished"


def test_cancelled_discharge_reopens_the_visit_and_takes_its_end_away() -> None:
    stored = {
        "resourceType": "Encounter",
        "id": "e",
        "status": "finished",
        "period": {"start": "2025-06-11", "end": "2025-06-14"},
        "hospitalization": {"dischargeDisposition": {"text": "治愈"}},
    }
    change = Upsert(
        resource={"resourceType": "Encounter", "id": "e", "status": "in-progress"},
        cleared=frozenset({"period.end", "hospitalization.dischargeDisposition"}),
        guard="status",
    )
    merged = apply(stored, change, asserted_at=LATER, stored_asserted_at=T0).resource
    assert merged == {
        "resourceType": "Encounter",
        "id": "e",
        "status": "in-progress",
        "period": {"start": "2025-06-11"},
    }


@pytest.mark.parametrize(
    ("resource_type", "element", "code"),
    [("AllergyIntolerance", "clinicalStatus", "inactive"), ("Condition", "verificationStatus", "entered-in-error")],
)
def test_what_a_list_no_longer_names_becomes_inactive(resource_type: str, element: str, code: str) -> None:
    retired = retire({"resourceType": resource_type, "id": "x", "clinicalStatus": {"coding": [{"code": "active"}]}})
    assert retired[element]["coding"][0]["code"] == code
