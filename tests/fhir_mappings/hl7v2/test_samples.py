"""Every message under sample_data/hl7 becomes exactly the FHIR beside it; a new pair is a new test."""

from __future__ import annotations

import json as plain_json
import re
from pathlib import Path

import pytest
from fhir.resources.R4B import get_fhir_model_class

from fhir_mappings import json
from fhir_mappings.definitions.check import check
from fhir_mappings.hl7v2.bundle import to_bundle
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import VERSIONS, supported_events, translate
from tests.fhir_mappings.hl7v2.golden import (
    bundle_of,
    context_of,
    expected_path,
    pretty,
    samples,
    translation_of,
)

_PAIRS = [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in samples()]


@pytest.mark.parametrize("path", _PAIRS)
def test_sample_becomes_the_expected_bundle(path: Path) -> None:
    expected = expected_path(path)
    assert expected.exists(), "run python -m tests.fhir_mappings.hl7v2.golden and read what it writes"
    # Compared as values with exact decimals, so that only meaning counts and not the order of keys in the file.
    assert json.loads(expected.read_bytes()) == json.loads(pretty(bundle_of(path)))


@pytest.mark.parametrize("path", _PAIRS)
def test_every_expected_resource_is_valid_r4(path: Path) -> None:
    bundle = json.loads(expected_path(path).read_bytes())
    for entry in bundle["entry"]:
        resource = entry["resource"]
        # fhir.resources drops the precision of decimals, so it only judges; what is compared is our own JSON.
        get_fhir_model_class(resource["resourceType"]).model_validate(plain_json.loads(json.dumps(resource)))
        errors = [issue for issue in check(resource) if issue.severity in {"error", "fatal"}]
        assert errors == []


@pytest.mark.parametrize("path", _PAIRS)
def test_translating_twice_gives_the_same_changes(path: Path) -> None:
    assert translation_of(path) == translation_of(path)


@pytest.mark.parametrize("path", _PAIRS)
def test_every_version_of_hl7_says_the_same(path: Path) -> None:
    """One table reads all versions: what MSH-12 says, and that MSH-9.3 is missing before v2.3.1, changes no element."""
    head, rest = decode_message(path.read_bytes()).text.split("\r", 1)
    fields = head.split("|")
    ctx = context_of(path)
    expected = bundle_of(path)
    fields[8] = "^".join(fields[8].split("^")[:2])
    for version in sorted(VERSIONS):
        fields[11] = version
        assert to_bundle(translate(parse("|".join(fields) + "\r" + rest), ctx), ctx) == expected, version


@pytest.mark.parametrize("path", _PAIRS)
def test_references_inside_a_bundle_lead_to_its_entries(path: Path) -> None:
    bundle = bundle_of(path)
    urls = {entry["request"]["url"] for entry in bundle["entry"]}
    # What a message may point at without stating it: earlier documents, and the order of a booking.
    elsewhere = ("DocumentReference/", "ServiceRequest/")

    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["reference"]] if isinstance(value.get("reference"), str) else []
            return own + [item for part in value.values() for item in references(part)]
        return [item for part in value for item in references(part)] if isinstance(value, list) else []

    for entry in bundle["entry"]:
        inside = {f"#{one['id']}" for one in entry["resource"].get("contained", ())}
        for reference in references(entry):
            assert reference in urls | inside or reference.startswith(elsewhere)


def test_the_samples_cover_every_message_type() -> None:
    covered = {translation_of(path).event.partition("^")[0] for path in samples()}
    assert covered == {event.partition("^")[0] for event in supported_events()}


def test_each_event_that_a_partner_was_promised_has_a_sample() -> None:
    """The events of the conformance statement, as partners read it: the type and its events stand in a row of its table."""
    statement = (Path(__file__).parents[3] / "docs" / "conformance" / "hl7v2.md").read_text("utf-8")
    table = statement.partition("<!-- generated: events -->")[2].partition("<!-- end -->")[0]
    promised = {
        f"{kind}^{event}"
        for kind, events in re.findall(r"^\| ([A-Z]{3}) \| ([A-Z0-9, ]+) \|", table, re.MULTILINE)
        for event in events.split(", ")
    }
    assert promised == set(supported_events())
    assert promised - {translation_of(path).event for path in samples()} == set()


def test_issues_name_places_and_hold_no_values() -> None:
    for path in samples():
        for issue in translation_of(path).issues:
            assert " of segment " in issue.where
            assert issue.message.isascii()
