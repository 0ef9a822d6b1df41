"""What is asked and reported about storage commitment (PS3.4 tables J.3-1 and J.3-2), as data sets.

One transaction may name every instance of a large study, so items are read without the DICOM JSON Model in between, and
written one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

from fhir_mappings.dicom import identifier
from fhir_mappings.dicom.elements import Element, Elements, Scan
from fhir_mappings.dicom.scanner import ScanLimits, scan, uid_text

#: Most instances of one transaction, and the longest data set that names them; a study of 5,000 images is long already.
MAX_REFERENCES = 50_000
MAX_BYTES = 8 << 20
_LIMITS = ScanLimits(
    depth=4,
    items=MAX_REFERENCES,
    elements=6 * MAX_REFERENCES,
    element_bytes=MAX_BYTES,
    held_bytes=64 << 10,
    held_total_bytes=MAX_BYTES,
)
_TRANSACTION, _FAILED, _REFERENCED = 0x00081195, 0x00081198, 0x00081199
_CLASS, _INSTANCE, _REASON = 0x00081150, 0x00081155, 0x00081197


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """One item of a Referenced SOP Sequence."""

    SOPClassUID: str
    SOPInstanceUID: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Information:
    """A request, or the report on one.

    Attributes:
        references: what is asked about, or what is committed.
        failed: what is not committed, each with its Failure Reason (0008,1197).
    """

    TransactionUID: str
    references: tuple[Reference, ...] = ()
    failed: tuple[tuple[Reference, int], ...] = ()


def read(data: bytes, transfer_syntax: str) -> Information:
    """Return what *data* says; UIDs are not judged, and one that is missing is empty.

    Raises:
        MalformedError: it breaks the standard or a limit.
    """
    scanned = scan(BytesIO(data), transfer_syntax, limits=_LIMITS, instance=False)
    order: Literal["little", "big"] = "little" if scanned.little_endian else "big"
    # A study has few SOP classes, so each is kept once.
    classes: dict[str, str] = {}
    failed = []
    for item in _items(scanned, _FAILED):
        reason = item.get(_REASON)
        value = reason.value if reason is not None and isinstance(reason.value, bytes) else b""
        failed.append((_reference(item, classes), int.from_bytes(value[:2], order)))
    return Information(
        TransactionUID=_text(scanned.top.get(_TRANSACTION)),
        references=tuple(_reference(item, classes) for item in _items(scanned, _REFERENCED)),
        failed=tuple(failed),
    )


def write(information: Information, transfer_syntax: str) -> bytes:
    """Return *information* as a data set; a sequence without items is left out."""
    parts = [identifier.write({"00081195": _uid(information.TransactionUID)}, transfer_syntax)]
    parts += _sequence(
        _FAILED,
        ({**_item(one), "00081197": {"vr": "US", "Value": [reason]}} for one, reason in information.failed),
        transfer_syntax,
    )
    parts += _sequence(_REFERENCED, map(_item, information.references), transfer_syntax)
    return b"".join(parts)


def _items(scanned: Scan, tag: int) -> Iterator[dict[int, Element]]:
    found = scanned.top.get(tag)
    items: list[Elements] = found.value if found is not None and isinstance(found.value, list) else []
    for item in items:
        yield {element.tag: element for element in item}


def _reference(item: dict[int, Element], classes: dict[str, str]) -> Reference:
    sop_class = _text(item.get(_CLASS))
    return Reference(classes.setdefault(sop_class, sop_class), _text(item.get(_INSTANCE)))


def _text(element: Element | None) -> str:
    return uid_text(element.value) if element is not None else ""


def _item(reference: Reference) -> dict[str, Any]:
    return {"00081150": _uid(reference.SOPClassUID), "00081155": _uid(reference.SOPInstanceUID)}


def _uid(value: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [value]}


def _sequence(tag: int, items: Iterable[dict[str, Any]], transfer_syntax: str) -> list[bytes]:
    """Return a sequence element of defined length in parts (PS3.5 section 7.5); nothing where it has no items."""
    mark = ">" if transfer_syntax == identifier.EXPLICIT_BIG else "<"
    parts: list[bytes] = []
    length = 0
    for item in items:
        data = identifier.write(item, transfer_syntax)
        parts += [struct.pack(mark + "HHI", 0xFFFE, 0xE000, len(data)), data]
        length += 8 + len(data)
    if not parts:
        return []
    head = struct.pack(mark + "HH", tag >> 16, tag & 0xFFFF)
    vr = b"" if transfer_syntax == identifier.IMPLICIT else b"SQ\0\0"
    return [head + vr + struct.pack(mark + "I", length), *parts]
