"""Every document under sample_data/cda becomes exactly the FHIR beside it; a new pair is a new test."""

from __future__ import annotations

import json as plain_json
from pathlib import Path

import pytest
from fhir.resources.R4B import get_fhir_model_class

from fhir_mappings import json
from fhir_mappings.definitions.check import check
from fhir_mappings.hl7v2.base import Attachment
from tests.fhir_mappings.cda.golden import bundle_of, clinical_of, samples
from tests.fhir_mappings.hl7v2.golden import expected_path, pretty

_PAIRS = [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in samples()]


def test_there_are_samples_of_summary_outpatient_record_examination_and_laboratory() -> None:
    assert {path.parent.name for path in samples()} >= {"C0001", "C0002", "C0006", "C0007"}


@pytest.mark.parametrize("path", _PAIRS)
def test_sample_becomes_the_expected_bundle(path: Path) -> None:
    expected = expected_path(path)
    assert expected.exists(), "run python -m tests.fhir_mappings.cda.golden and read what it writes"
    assert json.loads(expected.read_bytes()) == json.loads(pretty(bundle_of(path)))


@pytest.mark.parametrize("path", _PAIRS)
def test_every_expected_resource_is_valid_r4(path: Path) -> None:
    for entry in json.loads(expected_path(path).read_bytes())["entry"]:
        resource = entry["resource"]
        get_fhir_model_class(resource["resourceType"]).model_validate(plain_json.loads(json.dumps(resource)))
        assert [issue for issue in check(resource) if issue.severity in {"error", "fatal"}] == []


@pytest.mark.parametrize("path", _PAIRS)
def test_the_original_is_kept_byte_for_byte(path: Path) -> None:
    kept = [one.data for one in clinical_of(path).translation.changes if isinstance(one, Attachment)]
    # Behind the original stand the pictures that it carries inside; test_kinds.py reads them out of the XML.
    assert kept[0] == path.read_bytes()
    assert len(kept) == 1 + path.read_bytes().count(b'representation="B64"')


@pytest.mark.parametrize("path", _PAIRS)
def test_translating_twice_gives_the_same_changes(path: Path) -> None:
    assert clinical_of(path) == clinical_of(path)
