"""Numbers that name people and organisations in China: systems, check digits and the keys of the hub's own ids.

GB 11643 (resident identity number), GB 32100 (unified social credit code), GB 11714 (organisation code). A number with a
wrong check digit is flagged and kept, never refused: newborns, unidentified patients and typing errors are everyday.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from hashlib import sha1
from typing import Literal
from uuid import NAMESPACE_URL, UUID, uuid5

CANONICAL_BASE = "https://yixiehub.example/fhir"

#: Namespace of every id that the hub makes from a business key.
NAMESPACE = uuid5(NAMESPACE_URL, CANONICAL_BASE)
_NAMESPACE_OCTETS = NAMESPACE.bytes
#: Longest PatientID (LO, PS3.5 table 6.2-1).
_LO_CHARS = 64

RESIDENT_ID = "urn:oid:2.16.156.10011.1.3"
HEALTH_CARD = "urn:oid:2.16.156.10011.1.19"
HEALTH_RECORD = "urn:oid:2.16.156.10011.1.2"
INSURANCE_CARD = "urn:oid:2.16.156.10011.1.15"
ORGANIZATION_CODE = "urn:oid:2.16.156.10011.1.5"
SOCIAL_CREDIT_CODE = "https://www.cods.org.cn"

_ALIASES = {
    "urn:oid:2.16.840.1.113883.2.23.1.19.1": RESIDENT_ID,
    "urn:oid:2.16.840.1.113883.2.23.1.9.1": RESIDENT_ID,
    "http://namingsystem.hl7fhir.cn/identitydocument": RESIDENT_ID,
    "urn:oid:2.16.840.1.113883.2.23.1.19.2": INSURANCE_CARD,
}
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")

Status = Literal["ok", "format", "region", "checksum", "date", "sex-mismatch"]
Sex = Literal["male", "female"]

_WEIGHTS_18 = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_18 = "10X98765432"
_RESIDENT = re.compile(r"[0-9]{17}[0-9X]|[0-9]{15}")
# Provinces of GB/T 2260; 81 to 83 are residence permits of Hong Kong, Macao and Taiwan, and 90 to 98 those of foreigners.
_REGIONS = frozenset(
    str(number)
    for numbers in ((11, 16), (21, 24), (31, 38), (41, 47), (50, 55), (61, 66), (71, 72), (81, 84), (90, 99))
    for number in range(*numbers)
)
_TEST_REGION = "99"

_ALPHABET_31 = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_VALUE_31 = {char: value for value, char in enumerate(_ALPHABET_31)}
_WEIGHTS_9 = (3, 7, 9, 10, 5, 8, 4, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidentId:
    """What a resident identity number says.

    Attributes:
        status: ``ok``, or the first rule it breaks.
        value: the number with 18 digits; a 15-digit one is converted, a malformed one is as given.
        test_region: its region is one that GB/T 2260 does not have, as in this project's samples.
    """

    status: Status
    value: str
    birth_date: date | None = None
    sex: Sex | None = None
    test_region: bool = False


def check_resident_id(value: str, *, sex: str | None = None) -> ResidentId:
    """Return what the resident identity number *value* says; *sex*, where known, is compared with digit 17."""
    number = value.strip().upper()
    if _RESIDENT.fullmatch(number) is None:
        return ResidentId(status="format", value=number)
    if len(number) == 15:
        number = _to_18(number)
    said: Sex = "male" if int(number[16]) % 2 else "female"
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        born = None
    status: Status = "ok"
    if _check_digit_18(number) != number[17]:
        status = "checksum"
    elif born is None:
        status = "date"
    elif number[:2] not in _REGIONS and number[:2] != _TEST_REGION:
        status = "region"
    elif sex in {"male", "female"} and sex != said:
        status = "sex-mismatch"
    return ResidentId(
        status=status, value=number, birth_date=born, sex=said, test_region=number.startswith(_TEST_REGION)
    )


def _check_digit_18(number: str) -> str:
    return _CHECK_18[sum(int(digit) * weight for digit, weight in zip(number, _WEIGHTS_18, strict=False)) % 11]


def _to_18(number: str) -> str:
    # Fifteen-digit numbers ended in 1999 and carry a two-digit year of the twentieth century.
    longer = f"{number[:6]}19{number[6:]}"
    return longer + _check_digit_18(longer)


def check_social_credit_code(value: str) -> Status:
    """Return whether *value* is a unified social credit code of GB 32100, its GB 11714 part included."""
    code = value.strip().upper()
    if len(code) != 18 or any(char not in _VALUE_31 for char in code):
        return "format"
    total = sum(_VALUE_31[char] * pow(3, place, 31) for place, char in enumerate(code[:17]))
    if _ALPHABET_31[-total % 31] != code[17]:
        return "checksum"
    return check_organization_code(code[8:17])


def check_organization_code(value: str) -> Status:
    """Return whether *value* is an organisation code of GB 11714, with or without its hyphen."""
    code = value.strip().upper().replace("-", "")
    if len(code) != 9 or not code.isascii() or not code.isalnum():
        return "format"
    total = sum(int(char, 36) * weight for char, weight in zip(code[:8], _WEIGHTS_9, strict=True))
    check = 11 - total % 11
    return "ok" if code[8] == {10: "X", 11: "0"}.get(check, str(check)) else "checksum"


def canonical_system(system: str) -> str:
    """Return the URI the hub emits for *system*: bare OIDs gain ``urn:oid:``, known aliases become their canonical one."""
    uri = system.strip()
    if _OID.fullmatch(uri):
        uri = f"urn:oid:{uri}"
    return _ALIASES.get(uri.lower(), uri)


def patient_key(value: str) -> str:
    """Return the key under which a patient number is the same at every door: ``0000010086`` and ``10086`` meet."""
    key = value.strip()
    return key.lstrip("0") or "0" if key.isascii() and key.isdigit() else key


def spellings(value: str) -> list[str]:
    """Return the ways in which a record may carry the patient number *value*, itself first.

    A HIS may write zeros before the number that a modality leaves out.
    """
    key = patient_key(value)
    padded = (
        [key.zfill(length) for length in range(len(key), _LO_CHARS + 1)] if key.isascii() and key.isdigit() else [key]
    )
    return list(dict.fromkeys([value, *padded]))


def resource_id(institution: str, authority: str, resource_type: str, value: str) -> str:
    """Return the FHIR id of what *institution* calls *value*; the same input gives the same id for ever."""
    # uuid.uuid5 written out (RFC 4122 section 4.3): each received object and each row of a message asks for several.
    name = f"{institution}|{authority}|{resource_type}|{value}".encode()
    octets = bytearray(sha1(_NAMESPACE_OCTETS + name, usedforsecurity=False).digest()[:16])
    octets[6] = octets[6] & 0x0F | 0x50
    octets[8] = octets[8] & 0x3F | 0x80
    digits = octets.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def naming_system(institution: str, kind: str, *, base: str = CANONICAL_BASE) -> str:
    """Return the identifier system of a number that only *institution* gives out, for example ``patient-id``."""
    return f"{base}/NamingSystem/{institution}/{kind}"


def is_uuid(value: str) -> bool:
    """Return whether *value* is a UUID in the usual spelling."""
    try:
        return str(UUID(value)) == value.lower()
    except ValueError:
        return False
