"""The sample feeds as (message, expected FHIR) pairs; ``python -m tests.fhir_mappings.hl7v2.golden`` writes the expected files."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from fhir_mappings import json
from fhir_mappings.hl7v2.base import Translation
from fhir_mappings.hl7v2.bundle import to_bundle
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.context import Dialect, MappingContext
from fhir_mappings.hl7v2.dialects import HIS_CN, STANDARD
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate

SAMPLES = Path(__file__).parents[3] / "sample_data" / "hl7"
#: A message of every event that the sample feeds have none of. They are not played, since as a story they would make no sense.
EVENTS = Path(__file__).parent / "events"

_MSH_4 = {"YLYY": "YL", "KNYY": "KN", "QHYY": "QH", "QMJY": "QM", "YJYX": "YJ"}
_AUTHORITIES = {**_MSH_4, **{code: code for code in _MSH_4.values()}}


def dialect_of(institution: str) -> Dialect:
    """The dialect of a member of the sample consortium, as its configuration gives it."""
    return (HIS_CN if institution == "KN" else STANDARD).varied({"authorities": _AUTHORITIES})


def context(institution: str) -> MappingContext:
    return MappingContext(
        institution=institution,
        dialect=dialect_of(institution),
        received_at=datetime(2025, 6, 30, tzinfo=UTC),
    )


def context_of(path: Path) -> MappingContext:
    """How a sample is read: as its sender's dialect says, with the form of dates that ``separated`` in its name asks for."""
    made = context(institution_of(path))
    form = "separated" if "separated" in path.stem else "compact"
    return replace(made, dialect=made.dialect.varied({"dates": form}))


def institution_of(path: Path) -> str:
    """The member that sends a sample: the letters before the first underscore of its name."""
    return path.name.partition("_")[0].upper()


def translation_of(path: Path) -> Translation:
    decoded = decode_message(path.read_bytes())
    return translate(parse(decoded.text), context_of(path))


def bundle_of(path: Path) -> dict[str, Any]:
    return to_bundle(translation_of(path), context_of(path))


def pretty(bundle: dict[str, Any]) -> bytes:
    return msgspec.json.format(json.dumps(bundle), indent=1) + b"\n"


def expected_path(path: Path) -> Path:
    return path.with_suffix(".expected.json")


def samples() -> list[Path]:
    return sorted([*SAMPLES.glob("*/*.hl7"), *EVENTS.glob("*.hl7")])


def main() -> None:
    for path in samples():
        expected_path(path).write_bytes(pretty(bundle_of(path)))


if __name__ == "__main__":
    main()
