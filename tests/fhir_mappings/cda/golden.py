"""The sample documents as (CDA, expected FHIR) pairs; ``python -m tests.fhir_mappings.cda.golden`` writes the expected files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fhir_mappings.cda.translate import Clinical, translate
from fhir_mappings.hl7v2.bundle import to_bundle
from tests.fhir_mappings.hl7v2.golden import context, expected_path, institution_of, pretty

SAMPLES = Path(__file__).parents[3] / "sample_data" / "cda"


def samples() -> list[Path]:
    return sorted(SAMPLES.glob("*/*.xml"))


def clinical_of(path: Path) -> Clinical:
    return translate(path.read_bytes(), context(institution_of(path)))


def bundle_of(path: Path) -> dict[str, Any]:
    return to_bundle(clinical_of(path).translation, context(institution_of(path)))


def main() -> None:
    for path in samples():
        expected_path(path).write_bytes(pretty(bundle_of(path)))


if __name__ == "__main__":
    main()
