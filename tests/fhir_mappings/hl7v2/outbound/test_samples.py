"""v2 to FHIR to v2: what a sample message said comes out of the builders again, and is read as it was the first time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.hl7v2.base import Attachment, Translation, Upsert
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.outbound.adt import adt_a08
from fhir_mappings.hl7v2.outbound.encoding import encode_or_escape
from fhir_mappings.hl7v2.outbound.orm_o01 import orm_o01
from fhir_mappings.hl7v2.outbound.oru_r01 import oru_r01
from fhir_mappings.hl7v2.outbound.referral import ref_i12
from fhir_mappings.hl7v2.outbound.siu_s12 import siu_s12
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate
from tests.fhir_mappings.hl7v2.golden import SAMPLES, context, dialect_of, institution_of, translation_of

Json = dict[str, Any]

#: Later than any sample says that it was written.
NOW = datetime(2025, 6, 30, 8, tzinfo=UTC)


def held(translation: Translation) -> dict[str, list[Json]]:
    made: dict[str, list[Json]] = {}
    for change in translation.changes:
        if isinstance(change, Upsert):
            made.setdefault(change.resource["resourceType"], []).append(change.resource)
        elif isinstance(change, Attachment):
            made.setdefault("Binary", []).append({"contentType": change.content_type, "data": change.data})
    return made


def people(resources: Mapping[str, list[Json]]) -> dict[str, Json]:
    return {f"Practitioner/{one['id']}": one for one in resources.get("Practitioner", ())}


def said(kind: str, resource: Json) -> Json:
    """Return the elements of *resource* that the outgoing segments have room for."""
    elements = {
        "Patient": ("name", "birthDate", "gender"),
        "Observation": ("code", "valueQuantity", "valueString", "valueCodeableConcept", "status", "note", "component"),
        "ServiceRequest": ("code", "reasonCode", "authoredOn", "occurrencePeriod"),
        "Appointment": ("start", "end", "minutesDuration", "serviceType", "comment"),
    }[kind]
    return {name: resource[name] for name in elements if name in resource}


def texts(concepts: list[Json]) -> list[Json]:
    """Return the first Coding of each with its words: alternates of a second system are what CE has no more room for."""
    return [{"coding": one.get("coding", [])[:1], "text": one.get("text")} for one in concepts]


def again(
    path: Path, build: Callable[[dict[str, list[Json]], OutboundTarget], str]
) -> tuple[dict[str, list[Json]], ...]:
    """Return what the sample says, and what the message that is built of that says to the same reader."""
    institution = institution_of(path)
    first = held(translation_of(path))
    target = OutboundTarget(
        institution=institution, application="HIS", facility=institution, dialect=dialect_of(institution)
    )
    raw, missing = encode_or_escape(build(first, target), target.dialect.charset_out)
    assert missing == 0
    return first, held(translate(parse(decode_message(raw).text), context(institution)))


def samples(*folders: str) -> list[Any]:
    """Return the samples; S23 and S24 block and open a time that nobody has booked, so they are left out."""
    paths = [path for folder in folders for path in sorted((SAMPLES / folder).glob("*.hl7"))]
    return [pytest.param(path, id=path.stem) for path in paths if not {"s23", "s24"}.intersection(path.stem.split("_"))]


@pytest.mark.parametrize("path", samples("ADT_A01", "ADT_A05"))
def test_who_the_patient_of_a_sample_is(path: Path) -> None:
    before, after = again(
        path, lambda found, target: adt_a08(found["Patient"][0], target=target, control_id="1", now=NOW)
    )
    [now] = after["Patient"]
    first = before["Patient"][0]
    assert now["id"] == first["id"]
    assert said("Patient", now)["name"][0]["text"] == first["name"][0]["text"]
    assert (now.get("birthDate"), now.get("gender")) == (first.get("birthDate"), first.get("gender", "unknown"))


@pytest.mark.parametrize("path", samples("ORU_R01", "OUL_R21"))
def test_the_results_of_a_sample(path: Path) -> None:
    def build(found: dict[str, list[Json]], target: OutboundTarget) -> str:
        report = found["DiagnosticReport"][0]
        results = {one["reference"] for one in report.get("result", ())}
        return oru_r01(
            report,
            patient=found["Patient"][0],
            target=target,
            control_id="1",
            now=NOW,
            observations=[one for one in found.get("Observation", ()) if f"Observation/{one['id']}" in results],
            practitioners=people(found),
        )

    before, after = again(path, build)
    report, again_ = before["DiagnosticReport"][0], after["DiagnosticReport"][0]
    results = [one["reference"] for one in report.get("result", ())]
    wanted = [one for one in before.get("Observation", ()) if f"Observation/{one['id']}" in results]
    made = after.get("Observation", [])[: len(wanted)]
    assert [said("Observation", one) for one in made] == [said("Observation", one) for one in wanted]
    assert (again_["id"], again_["status"]) == (report["id"], report["status"])
    assert again_.get("issued") == report.get("issued")


@pytest.mark.parametrize("path", samples("ORM_O01"))
def test_the_first_order_of_a_sample(path: Path) -> None:
    before, after = again(
        path,
        lambda found, target: orm_o01(
            found["ServiceRequest"][0],
            patient=found["Patient"][0],
            target=target,
            control_id="1",
            now=NOW,
            practitioners=people(found),
        ),
    )
    first, now = before["ServiceRequest"][0], after["ServiceRequest"][0]
    assert now["id"] == first["id"]
    assert texts([now.get("code", {})]) == texts([first.get("code", {})])
    assert [one.get("text") for one in now.get("note", ())] == [one.get("text") for one in first.get("note", ())]
    if "authoredOn" in first:
        assert now["authoredOn"] == first["authoredOn"]


@pytest.mark.parametrize("path", samples("REF_I12"))
def test_the_referral_of_a_sample(path: Path) -> None:
    before, after = again(
        path,
        lambda found, target: ref_i12(
            found["ServiceRequest"][0],
            patient=found["Patient"][0],
            target=target,
            control_id="1",
            now=NOW,
            sender=institution_of(path),
            practitioners=people(found),
        ),
    )
    first, now = before["ServiceRequest"][0], after["ServiceRequest"][0]
    assert now["id"] == first["id"]
    assert [one.get("text") for one in now.get("reasonCode", ())] == [
        one.get("text") for one in first.get("reasonCode", ())
    ]
    assert [one["text"] for one in now.get("note", ())] == [one["text"] for one in first.get("note", ())]
    assert now.get("occurrencePeriod") == first.get("occurrencePeriod")


@pytest.mark.parametrize("path", samples("SIU_S12"))
def test_the_booking_of_a_sample(path: Path) -> None:
    before, after = again(
        path,
        lambda found, target: siu_s12(
            found["Appointment"][0],
            patient=found["Patient"][0],
            target=target,
            control_id="1",
            now=NOW,
            practitioners=people(found),
        ),
    )
    first, now = before["Appointment"][0], after["Appointment"][0]
    assert now["id"] == first["id"]
    assert said("Appointment", now) == said("Appointment", first)
