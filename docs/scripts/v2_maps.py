"""Compare docs/conformance/v2-to-fhir with the official v2-to-FHIR maps (http://hl7.org/fhir/uv/v2mappings), row by row.

Run ``make check-v2-maps MAPS=DIR``, where DIR is the folder ``mappings`` of a checkout of github.com/HL7/v2-to-fhir. It says
which rows the maps have that nobody has reviewed, and which reviewed rows they no longer have; with ``--write`` the new
ones are added without a reason, and the old ones leave. Whether the reviewed rows are true, the tests say.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

from fhir_mappings import codes
from tests.support import v2_maps
from tests.support.v2_datatypes import CARRIERS
from tests.support.v2_maps import CodeRow, DatatypeRow, MessageRow, SegmentRow

#: The concept maps of v2-to-FHIR and the tables of ``fhir_mappings/codes`` that do their work.
TABLES = {
    "AdministrativeSex": "administrative_sex",
    "AllergenType[AllergyIntoleranceCategory]": "allergy_category",
    "AllergySeverity[AllergyIntolerance.criticality]": "allergy_criticality",
    "AllergyType": "allergy_type",
    "ContactRole": "contact_role",
    "DiagnosisType": "diagnosis_role",
    "DiagnosticServiceSectionID": "diagnostic_service",
    "EncounterPriority": "encounter_priority",
    "Event[EncounterStatus]": "encounter_event",
    "ExtendedPriorityCodes": "priority",
    "FillerStatusCodes[Appointment]": "appointment_status",
    "InterpretationCodes": "interpretation",
    "MaritalStatus": "marital_status",
    "ModeOfArrivalCode": "mode_of_arrival",
    "ObservationResultStatusCodesInterpretation": "observation_status",
    "OrderControlCode[ServiceRequest.status]": "order_control",
    "OrderStatus": "order_status",
    "PatientClass[EncounterClass]": "patient_class",
    "ProviderRole": "provider_role",
    "Relationship": "relationship",
    "ResultStatus[Non-Queries]": "report_status",
    "RouteOfAdministration": "route",
}


def _sheets(folder: Path) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield name, heads and rows of every sheet; the heads are the row that names a column of FHIR."""
    for path in sorted(folder.glob("*.csv")):
        name = re.search(r"_ ?(.+?) - ", path.name)
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file)]
        # Some sheets leave the first heads empty, some those of the conditions.
        heads = ({"Identifier", "Code", "Computable ANTLR"} & set(line) for line in lines)
        start = next((i for i, found in enumerate(heads) if found), None)
        if name is None or start is None:
            raise SystemExit(f"{path.name} is no sheet of v2-to-FHIR: it has no heads.")
        yield name[1], lines[start], [line + [""] * 20 for line in lines[start + 1 :]]


def _column(heads: list[str], start: str) -> int:
    return next(i for i, head in enumerate(heads) if head.startswith(start))


def segments(maps: Path) -> set[SegmentRow]:
    """Return the rows of the segment maps that have a target."""
    found: set[SegmentRow] = set()
    for name, heads, lines in _sheets(maps / "segments"):
        target = _column(heads, "FHIR Attribute")
        for line in lines:
            if line[target] and re.fullmatch(r"[A-Z0-9]{3}(-[0-9]+)?", line[1]):
                found.add(SegmentRow(name, line[1], v2_maps.element(line[target])))
    return found


def messages(maps: Path) -> set[MessageRow]:
    """Return the segment maps that each message structure calls for."""
    found: set[MessageRow] = set()
    for name, heads, lines in _sheets(maps / "messages"):
        column = _column(heads, "Segment Map")
        for line in lines:
            for one in re.findall(r"[A-Z0-9]{3}\[[A-Za-z-]+\]", line[column]):
                found.add(MessageRow(name, one))
    return found


def datatypes(maps: Path) -> set[DatatypeRow]:
    """Return the rows of the data type maps for persons, places and codes that have a target."""
    found: set[DatatypeRow] = set()
    for name, heads, lines in _sheets(maps / "datatypes"):
        if name in CARRIERS:
            target = _column(heads, "FHIR Attribute")
            for line in lines:
                if line[target] and re.fullmatch(r"[A-Z]+\.[0-9]+", line[1]):
                    found.add(DatatypeRow(name, line[1], v2_maps.component_element(line[target])))
    return found


def concepts(maps: Path) -> set[CodeRow]:
    """Return the rows of the concept maps that start at a code of v2, each with what becomes of it here."""
    found: set[CodeRow] = set()
    for name, heads, lines in _sheets(maps / "codesystems"):
        table = TABLES.get(name)
        if table is None:
            found.add(CodeRow(name, "*", "", ""))
            continue
        target = len(heads) - 1 - heads[::-1].index("Code")
        for line in lines:
            if line[0]:
                mapped = codes.lookup(table, line[0])
                found.add(CodeRow(name, line[0], line[target], mapped.target if mapped else ""))
    return found


def _identity(row: Any) -> tuple[str, ...]:
    """What names a row: everything but the reason, and for codes everything but what is made of them here."""
    parts = astuple(row)
    return parts[:3] if isinstance(row, CodeRow) else parts[:-1]


def compare(name: str, official: Iterable[Any], reviewed: Iterable[Any], *, write: bool) -> int:
    """Say how the *reviewed* rows of ``name.csv`` differ from the *official* ones; return how many do."""
    there, here = ({_identity(row): row for row in rows} for rows in (official, reviewed))
    new, gone = sorted(there.keys() - here.keys()), sorted(here.keys() - there.keys())
    for words, keys in (("not reviewed", new), ("no longer there", gone)):
        for key in keys:
            sys.stdout.write(f"{name}: {words}: {' | '.join(key)}\n")
    if write and there:
        rows = sorted(replace(row, reason=here[key].reason) if key in here else row for key, row in there.items())
        with (v2_maps.FOLDER / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow([one.name for one in fields(rows[0])])
            out.writerows(astuple(row) for row in rows)
    sys.stdout.write(f"{name}: {len(there)} rows, {len(new)} not reviewed, {len(gone)} no longer there\n")
    return len(new) + len(gone)


def main() -> int:
    """Compare all four tables; the exit status is 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("maps", type=Path, help="the folder `mappings` of HL7/v2-to-fhir")
    parser.add_argument("--write", action="store_true", help="bring the reviewed tables up to the maps")
    chosen = parser.parse_args()
    if not (chosen.maps / "segments").is_dir():
        parser.error(f"{chosen.maps} has no folder `segments`: give the folder `mappings` of HL7/v2-to-fhir.")
    differing = sum(
        compare(name, official, reviewed, write=chosen.write)
        for name, official, reviewed in (
            ("segments", segments(chosen.maps), v2_maps.segment_rows()),
            ("messages", messages(chosen.maps), v2_maps.message_rows()),
            ("datatypes", datatypes(chosen.maps), v2_maps.datatype_rows()),
            ("codes", concepts(chosen.maps), v2_maps.code_rows()),
        )
    )
    return 1 if differing and not chosen.write else 0


if __name__ == "__main__":
    sys.exit(main())
