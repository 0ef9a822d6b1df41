"""The dialects of HL7 v2 that the hub knows. Each is a table; a member's own differences are laid over one of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from fhir_mappings.hl7v2.context import DateForm, Dialect
from fhir_mappings.hl7v2.zfields import z_field

#: HL7 table 0203 as far as it names numbers of patients and visits.
_TABLE_0203 = {
    "PI": "patient-id",
    "MR": "patient-id",
    "PT": "patient-id",
    "AN": "account",
    "VN": "visit",
    "NI": "resident-id",
    "NNCHN": "resident-id",
    "JHN": "resident-id",
    "HC": "health-card",
    "JHC": "health-card",
    "SS": "insurance-card",
    "SB": "insurance-card",
    "PPN": "passport",
    "DL": "driving-licence",
    "BCT": "birth-certificate",
}

_CODE_SYSTEMS = {
    "LN": "http://loinc.org",
    "LOINC": "http://loinc.org",
    "SCT": "http://snomed.info/sct",
    "SNM": "http://snomed.info/sct",
    "UCUM": "http://unitsofmeasure.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    # ICD-10 as Chinese hospitals write it is GB/T 14396 with national suffixes, not the WHO edition.
    "ICD10": "urn:oid:2.16.156.10011.2.3.3.11",
    "ICD-10": "urn:oid:2.16.156.10011.2.3.3.11",
    "GBT14396": "urn:oid:2.16.156.10011.2.3.3.11",
    "I9C": "urn:oid:2.16.156.10011.2.3.3.12",
    "ICD9": "urn:oid:2.16.156.10011.2.3.3.12",
    "ICD9CM3": "urn:oid:2.16.156.10011.2.3.3.12",
    "ICD-9-CM-3": "urn:oid:2.16.156.10011.2.3.3.12",
}

#: Types that Chinese systems write beside table 0203 even when they follow the standard otherwise.
_CHINESE_TYPES = {
    "IdentifyNO": "resident-id",
    "IDENTIFYNO": "resident-id",
    "PatientNO": "inpatient-no",
    "PATIENTNO": "inpatient-no",
    "InPatientNO": "inpatient-no",
    "Outpatient": "outpatient-no",
    "OUTPATIENT": "outpatient-no",
    "OutPatientNO": "outpatient-no",
    "LocalID": "patient-id",
    "EHC": "health-card",
    "HealthCard": "health-card",
    "SSCard": "insurance-card",
    "MedicareCard": "insurance-card",
    "UPID": "master-patient-id",
}

STANDARD = Dialect(name="standard", cx_types={**_TABLE_0203, **_CHINESE_TYPES}, code_systems=_CODE_SYSTEMS)

#: The wire of many Chinese HIS: ``IDCard`` is the hospital's own card number (就诊卡), not the identity card, which is
#: ``IdentifyNO``; the name is in one piece or behind its pinyin; MSH-18 is empty although the text is GBK.
HIS_CN = Dialect(
    name="his-cn",
    cx_types={**_TABLE_0203, **_CHINESE_TYPES, "IDCard": "patient-id", "IDCARD": "patient-id"},
    name_form="whole-or-pinyin",
    location_form="ward-department",
    specimen_form="code-name",
    charset_out="gb18030",
    msh_18_out="",
    code_systems=_CODE_SYSTEMS,
)

DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (STANDARD, HIS_CN)}


def dialect_from(data: Mapping[str, Any]) -> Dialect:
    """Return the dialect that configuration describes: ``base`` names a known one, every other key changes it.

    Raises:
        ValueError: the base or a key is unknown.
    """
    base = data.get("base", STANDARD.name)
    if base not in DIALECTS:
        raise ValueError(f"There is no dialect {base!r}; there are {', '.join(DIALECTS)}.")
    return checked(DIALECTS[base].varied({key: value for key, value in data.items() if key != "base"}))


def checked(dialect: Dialect) -> Dialect:
    """Return *dialect* if the form of its dates is one and every row of its table of Z-fields can work.

    Raises:
        ValueError: the form is none, or a row cannot.
    """
    if dialect.dates not in get_args(DateForm):
        raise ValueError(f"There is no form of dates {dialect.dates!r}; there are {', '.join(get_args(DateForm))}.")
    for place, target in dialect.z_fields.items():
        z_field(place, target)
    return dialect


for _dialect in DIALECTS.values():
    checked(_dialect)
