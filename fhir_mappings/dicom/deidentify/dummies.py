"""The dummy values of action D (PS3.15 table E.1-1): of the right VR, and the same for everybody."""

from __future__ import annotations

from typing import Final

from fhir_mappings.dicom.deidentify.writer import padded

_DUMMIES: Final = {
    "AE": "ANON", "AS": "000Y", "CS": "ANON", "DA": "19000101", "DS": "0", "DT": "19000101000000", "IS": "0",
    "LO": "ANONYMIZED", "LT": "ANONYMIZED", "PN": "ANONYMIZED", "SH": "ANONYMIZED", "ST": "ANONYMIZED", "TM": "000000",
    "UC": "ANONYMIZED", "UR": "urn:anonymized", "UT": "ANONYMIZED",
}  # fmt: skip
_ZEROS: Final = {
    "AT": 4, "FD": 8, "FL": 4, "OB": 2, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2, "SL": 4, "SS": 2, "SV": 8, "UL": 4,
    "UN": 2, "US": 2, "UV": 8,
}  # fmt: skip


def dummy_value(vr: str) -> bytes:
    """Return a value of *vr* that says nothing of anybody."""
    if vr in _DUMMIES:
        return padded(_DUMMIES[vr])
    return bytes(_ZEROS.get(vr, 2))
