"""Write the tables of docs/conformance/dicom.md that the code knows: SOP classes, transfer syntaxes, keys, worklist items.

Run ``python docs/scripts/dicom_conformance.py`` (``make docs``) after one of them changes; a test compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pynetdicom.sop_class
from pydicom.datadict import dictionary_description
from pydicom.uid import UID

from adapters.dimse import catalogue, negotiation
from hub import query, worklist
from tests.support.doc_sections import filled, table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "conformance" / "dicom.md"


def tag_text(tag: str) -> str:
    """Return eight hex digits as DICOM writes them, with the attribute's name."""
    return f"({tag[:4]},{tag[4:]}) {dictionary_description(int(tag, 16))}"


def service_rows() -> Iterator[str]:
    """Yield a row for every SOP class that is not storage."""
    for uid, offer in sorted(catalogue.OFFERS.items(), key=lambda one: (one[1].right, one[0])):
        extended = " ".join(str(byte) for byte in offer.extended) or "–"
        yield f"| {UID(uid).name} | `{uid}` | `{offer.right}` | {extended} |"


def storage_rows() -> Iterator[str]:
    """Yield a row for every storage SOP class that has a name; private and newer ones are taken too."""
    known = {str(uid) for uid in pynetdicom.sop_class._STORAGE_CLASSES.values()}  # noqa: SLF001 - the table has no public name
    for uid in sorted(known, key=lambda one: UID(one).name):
        yield f"| {UID(uid).name} | `{uid}` |"


def syntax_rows() -> Iterator[str]:
    """Yield a row for every transfer syntax, with what it is taken for."""
    short = negotiation._NATIVE_SYNTAXES  # noqa: SLF001 - what the door negotiates by; nothing else has a use for it
    for uid in sorted(negotiation._KNOWN_SYNTAXES, key=lambda one: [int(part) for part in one.split(".")]):  # noqa: SLF001 - as above
        yield f"| {UID(uid).name} | `{uid}` | {'objects, queries, notices' if uid in short else 'objects'} |"


def key_rows() -> Iterator[str]:
    """Yield a row for every key that the index answers, by level."""
    for level, columns in query.COLUMNS.items():
        counted = query.COUNTS[level]
        for tag in sorted(columns):
            keyword, vr = columns[tag]
            kind = "U" if keyword == query.UNIQUE[level] else "matched" if keyword not in counted else "returned"
            yield f"| {level} | {tag_text(tag)} | {vr} | {kind} |"


def header_rows() -> Iterator[str]:
    """Yield a row for every attribute that is returned from the stored header, by level."""
    for level, tags in (("STUDY", query.STUDY_TAGS), ("SERIES", query.SERIES_TAGS)):
        indexed = {tag for columns in query.COLUMNS.values() for tag in columns}
        names = ", ".join(tag_text(tag) for tag in sorted(tags - indexed))
        yield f"| {level} | {names} |"


def item_rows(item: Mapping[str, Any] = worklist.TEMPLATE, path: str = "") -> Iterator[str]:
    """Yield a row for every attribute of a worklist item."""
    for tag in sorted(item):
        element = item[tag]
        yield f"| {path}{tag_text(tag)} | {element['vr']} |"
        if element["vr"] == "SQ":
            for inner in element.get("Value") or ():
                yield from item_rows(inner, f"{path}> ")


def tables() -> dict[str, str]:
    """Return the generated text of each marked section."""
    return {
        "services": table(("SOP class", "UID", "right", "extended negotiation"), service_rows()),
        "storage": table(("SOP class", "UID"), storage_rows()),
        "syntaxes": table(("transfer syntax", "UID", "for"), syntax_rows()),
        "keys": table(("level", "attribute", "VR", "key"), key_rows()),
        "header": table(("level", "attributes"), header_rows()),
        "items": table(("attribute", "VR"), item_rows()),
    }


def fill(page: str) -> str:
    """Return *page* with every generated section written anew.

    Raises:
        ValueError: *page* lacks the markers of a section.
    """
    return filled(page, tables(), name=PAGE.name)


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text("utf-8")), "utf-8")
    sys.stdout.write(f"{PAGE}\n")
