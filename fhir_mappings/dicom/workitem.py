"""A Unified Procedure Step as a FHIR Task (PS3.3 C.30; PS3.4 annex CC; https://hl7.org/fhir/R4/task.html).

The Task says what is to be done, for whom, by whom and how far it is. The data set travels in an extension, as DICOM JSON,
as that of a performed step does. The Transaction UID is the performer's key to the item and is in neither: of it the Task
keeps a digest that is slow to guess by, which is enough to know the key again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fhir_mappings.dicom import identifier
from fhir_mappings.dicom.imaging_study import STUDY_UID_SYSTEM, moment, study_identifier
from fhir_mappings.dicom.performed_step import first, items
from fhir_mappings.errors import MalformedError
from fhir_mappings.identifiers import CANONICAL_BASE, naming_system
from fhir_mappings.json import dumps, loads

Json = dict[str, Any]

#: UPS Push, the SOP class of every instance, whatever SOP class a message comes by (PS3.4 section CC.3.1).
SOP_CLASS = "1.2.840.10008.5.1.4.34.6.1"
#: Worklists that can be subscribed to have UIDs of their own, which name no item (PS3.4 section CC.2.3).
WORKLISTS = frozenset({"1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"})
SCHEDULED, IN_PROGRESS, COMPLETED, CANCELED = "SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"
FINAL = frozenset({COMPLETED, CANCELED})
_FHIR_STATUS = {
    SCHEDULED: "requested",
    IN_PROGRESS: "in-progress",
    COMPLETED: "completed",
    CANCELED: "cancelled",
}
_PRIORITY = {"HIGH": "urgent", "MEDIUM": "routine", "LOW": "routine"}

CLASS_UID, INSTANCE_UID, TRANSACTION_UID = "00080016", "00080018", "00081195"
STATE, PRIORITY, LABEL, WORKLIST_LABEL = "00741000", "00741200", "00741204", "00741202"
START, MODIFIED, READINESS = "00404005", "00404010", "00404041"
PROGRESS, PERFORMED = "00741002", "00741216"
CANCELLED_AT, REASON, REASON_CODES, CONTACT_URI, CONTACT_NAME, COMMUNICATIONS = (
    "00404052",
    "00741238",
    "0074100E",
    "0074100A",
    "0074100C",
    "00741008",
)
STATION_CODES, HUMAN_PERFORMERS, ORGANIZATION, REQUESTS = "00404025", "00404034", "00404036", "0040A370"
_STUDY, _ACCESSION, _CODE_VALUE, _CODE_MEANING = "0020000D", "00080050", "00080100", "00080104"
#: Attributes that have a value from N-CREATE to the end (PS3.4 table CC.2.5-3, type 1); the others of type 1 are ours.
REQUIRED = (PRIORITY, LABEL, START, READINESS)
#: What no N-SET changes (PS3.4 table CC.2.5-3): whose it is, which study and requests it is of, and what the SCP writes.
FIXED = frozenset(
    {
        CLASS_UID, INSTANCE_UID, STATE, MODIFIED, _STUDY, "00100010", "00100020", "00100021", "00100024", "00100030",
        "00100040", "00101002", "00380010", "00380014", REQUESTS, "00741224",
    }
)  # fmt: skip
#: What must be in the item of Unified Procedure Step Performed Procedure Sequence when the step is COMPLETED.
_PERFORMED_VALUES = ("00404028", "00404050", "00404019", "00404051")
_OUTPUT = "00404033"

EXTENSION = f"{CANONICAL_BASE}/StructureDefinition/unified-procedure-step"
LOCK = f"{CANONICAL_BASE}/StructureDefinition/unified-procedure-step-lock"
CODE = "unified-procedure-step"
_DEPTH = 8
_TAG, _VR = re.compile(r"[0-9A-F]{8}"), re.compile(r"[A-Z]{2}")
_EXPLICIT = "1.2.840.10008.1.2.1"


def code_system(base: str) -> str:
    """Return the system of the codes of tasks that wait for somebody."""
    return f"{base}/CodeSystem/work-item"


def lock_of(workitem_uid: str, transaction_uid: str) -> str:
    """Return the digest by which the Transaction UID of an item is known again; some 10 ms of work, on purpose.

    A Transaction UID may hold little but a time, so a plain digest would tell it to whoever may read the Task.
    """
    found = hashlib.scrypt(transaction_uid.encode(), salt=workitem_uid.encode(), n=1 << 12, r=8, p=1, dklen=32)
    return found.hex()


def normal(dataset: Any) -> Json:
    """Return *dataset*, received as DICOM JSON, as the DIMSE door would have read it from the wire.

    Raises:
        MappingError: it is not of the DICOM JSON Model, holds bulk data, or breaks a limit of short data sets.
    """
    try:
        data = identifier.write(_shaped(dataset, _DEPTH), _EXPLICIT, character_set=identifier.UTF8)
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, struct.error, binascii.Error) as error:
        # The text of such an error may quote the value.
        raise _malformed("A value does not fit its value representation.") from error
    if len(data) > identifier.MAX_BYTES:
        raise _malformed(f"The data set is larger than {identifier.MAX_BYTES} bytes.")
    return identifier.read(data, _EXPLICIT).attributes


def _shaped(dataset: Any, depth: int) -> Json:
    if not isinstance(dataset, dict) or not depth:
        raise _malformed("A data set is not an object, or nests too deep.")
    found: Json = {}
    for name, element in dataset.items():
        tag = name.upper()
        if _TAG.fullmatch(tag) is None or int(tag[:4], 16) < 8 or not isinstance(element, dict):
            raise _malformed("A member is not an attribute of a data set.")
        vr, values = element.get("vr"), element.get("Value") or []
        if not isinstance(vr, str) or _VR.fullmatch(vr) is None or not isinstance(values, list):
            raise _malformed("An attribute has no value representation, or no list of values.", tag)
        if "BulkDataURI" in element:
            raise _malformed("A workitem has no bulk data.", tag)
        if vr == "SQ":
            found[tag] = {"vr": vr, "Value": [_shaped(item or {}, depth - 1) for item in values]}
        else:
            kept = {"InlineBinary": element["InlineBinary"]} if "InlineBinary" in element else {"Value": values}
            found[tag] = {"vr": vr, **kept}
    return found


def _malformed(message: str, tag: str = "body") -> MalformedError:
    return MalformedError(message, where=tag, remedy="Send the DICOM JSON Model of PS3.18 annex F.")


def has_value(attributes: Mapping[str, Any], tag: str) -> bool:
    """Return whether *tag* is there and not empty."""
    return bool(attributes.get(tag, {}).get("Value") or attributes.get(tag, {}).get("InlineBinary"))


def missing_for(state: str, attributes: Mapping[str, Any]) -> str:
    """Return what *state* still needs, as a path of tags, or ``""`` (PS3.4 table CC.2.5-3, final state column)."""
    if state == CANCELED:
        item = next(items(attributes, PROGRESS), {})
        return next((f"{PROGRESS}>{tag}" for tag in (CANCELLED_AT, REASON_CODES) if not has_value(item, tag)), "")
    done = list(items(attributes, PERFORMED))
    if not done:
        return PERFORMED
    for item in done:
        wanting = [tag for tag in _PERFORMED_VALUES if not has_value(item, tag)]
        if _OUTPUT not in item:
            wanting.append(_OUTPUT)
        if wanting:
            return f"{PERFORMED}>{wanting[0]}"
    return ""


def stations(attributes: Mapping[str, Any]) -> frozenset[str]:
    """Return the codes of the stations that are to do it."""
    return frozenset(first(item, _CODE_VALUE).strip() for item in items(attributes, STATION_CODES)) - {""}


def organizations(attributes: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the organizations whose people are to do it."""
    return frozenset(first(item, ORGANIZATION).strip() for item in items(attributes, HUMAN_PERFORMERS)) - {""}


def accessions(attributes: Mapping[str, Any]) -> list[str]:
    """Return the accession numbers of the requests that it is done for."""
    found = [first(item, _ACCESSION).strip() for item in items(attributes, REQUESTS)]
    return list(dict.fromkeys(number for number in found if number))


def study(attributes: Mapping[str, Any]) -> str:
    """Return the Study Instance UID that it belongs to, or ``""``."""
    return first(attributes, _STUDY)


def task(
    attributes: Mapping[str, Any],
    *,
    id: str,
    uid: str,
    institution: str,
    authored: str,
    now: str,
    lock: str = "",
    patient: str | None = None,
    requester: str | None = None,
    owner: str | None = None,
    time_zone: str = "Asia/Shanghai",
    base: str = CANONICAL_BASE,
) -> Json:
    """Return the Task of a workitem.

    Args:
        uid: SOP Instance UID.
        authored, now: FHIR instants of its creation and of this change.
        lock: what :func:`lock_of` returned, once somebody has claimed it.
        patient, requester, owner: references; *owner* is who is to do it.
    """
    state = first(attributes, STATE)
    extension = [{"url": EXTENSION, "valueBase64Binary": base64.b64encode(dumps(dict(attributes))).decode()}]
    if lock:
        extension.append({"url": LOCK, "valueString": lock})
    made: Json = {
        "resourceType": "Task",
        "id": id,
        "extension": extension,
        "identifier": [{"use": "official", **study_identifier(uid)}],
        "status": _FHIR_STATUS[state],
        "intent": "order",
        "priority": _PRIORITY.get(first(attributes, PRIORITY), "routine"),
        "code": {
            "coding": [{"system": code_system(base), "code": CODE, "display": "Unified Procedure Step"}],
            "text": first(attributes, LABEL),
        },
        "authoredOn": authored,
        "lastModified": now,
    }
    for kind, number in [("study-uid", study(attributes)), *(("accession", one) for one in accessions(attributes))]:
        if number:
            system = naming_system(institution, kind, base=base)
            made["identifier"].append({"use": "secondary", "system": system, "value": number})
    for element, reference in (("for", patient), ("requester", requester), ("owner", owner)):
        if reference:
            made[element] = {"reference": reference}
    done = next(items(attributes, PERFORMED), {})
    period = {
        end: when
        for end, tag in (("start", "00404050"), ("end", "00404051"))
        if (when := moment(first(done, tag)[:8], first(done, tag)[8:14], time_zone))
    }
    if period:
        made["executionPeriod"] = period
    reason = first(next(items(attributes, PROGRESS), {}), REASON)
    codes = next(items(next(items(attributes, PROGRESS), {}), REASON_CODES), {})
    if state == CANCELED and (reason or first(codes, _CODE_MEANING)):
        made["statusReason"] = {"text": reason or first(codes, _CODE_MEANING)}
    return made


def attributes_of(resource: Mapping[str, Any]) -> Json:
    """Return the data set that :func:`task` put into *resource*; empty where it has none, or has what is none.

    One Task that came by another way must not spoil the worklist of an institution that sees it.
    """
    for extension in resource.get("extension", ()):
        if extension.get("url") == EXTENSION:
            try:
                found: Json = loads(base64.b64decode(extension["valueBase64Binary"]))
                _shaped(found, _DEPTH)
            except (LookupError, TypeError, ValueError, MalformedError):
                return {}
            return found
    return {}


def stored_lock(resource: Mapping[str, Any]) -> str:
    """Return the lock that :func:`task` put into *resource*, or ``""``."""
    for extension in resource.get("extension", ()):
        if extension.get("url") == LOCK:
            return str(extension.get("valueString", ""))
    return ""


def identifier_of(uid: str) -> tuple[str, str]:
    """Return system and value of the identifier that a workitem is found by."""
    return STUDY_UID_SYSTEM, f"urn:oid:{uid}"


def values(dataset: Mapping[str, Any], path: Sequence[str]) -> Iterator[str]:
    """Yield the values at *path* in every item, as text; of a name, each group."""
    for value in dataset.get(path[0], {}).get("Value") or ():
        if len(path) > 1:
            yield from values(value, path[1:]) if isinstance(value, dict) else ()
        elif isinstance(value, dict):
            yield from (str(group) for group in value.values())
        elif value is not None:
            yield str(value)
