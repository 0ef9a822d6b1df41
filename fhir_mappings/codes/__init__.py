"""Code maps as CSV tables: v2 table code to FHIR code, each row with the source that says so.

One file per HL7 v2 table, columns ``code,target,system,display,source``. A code without a row is unmapped, which the
caller reports as an issue and never guesses.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedCode:
    """The FHIR side of one row."""

    target: str
    system: str
    display: str

    def coding(self) -> dict[str, str]:
        """The row as a FHIR Coding."""
        coding = {"system": self.system, "code": self.target}
        if self.display:
            coding["display"] = self.display
        return coding


@lru_cache(maxsize=64)
def table(name: str) -> Mapping[str, MappedCode]:
    """Return the map *name* (``administrative_sex``), keyed by the v2 code.

    Raises:
        FileNotFoundError: there is no such table in this package; a fault of ours, not of a message.
    """
    text = resources.files(__package__).joinpath(f"{name}.csv").read_text(encoding="utf-8")
    return MappingProxyType(
        {
            row["code"]: MappedCode(target=row["target"], system=row["system"], display=row["display"])
            for row in csv.DictReader(text.splitlines())
        }
    )


def lookup(name: str, code: str) -> MappedCode | None:
    """Return what *code* means in map *name*, ignoring case and surrounding space, or ``None`` if it is unmapped."""
    rows = table(name)
    wanted = code.strip()
    return rows.get(wanted) or rows.get(wanted.upper()) or rows.get(wanted.capitalize())
