"""Objects whose pixels or documents may name the patient, which the profile cannot clean (PS3.15 sections E.2, E.3.1, E.3.2).

They are held back unless the request takes them by the name of the reason; a copy then says that the identity was not
removed, because nobody has looked.
"""

from __future__ import annotations

from typing import Final

#: The pixels are said to hold identifying text: (0028,0301) YES.
BURNED_IN: Final = "burned-in-annotation"
#: Ultrasound, secondary captures, screen shots: their pixels usually do, and nothing says that these do not.
LIKELY: Final = "pixels-may-carry-names"
#: Nothing says whether they do; held where the request asks for that.
UNKNOWN: Final = "burned-in-unknown"
#: (0028,0302) YES: a face can be recognised or made visible.
RECOGNIZABLE: Final = "recognizable-features"
#: A PDF, CDA or model whose content is opaque here.
DOCUMENT: Final = "encapsulated-document"
#: What a request may take.
HELD: Final = frozenset({BURNED_IN, LIKELY, UNKNOWN, RECOGNIZABLE, DOCUMENT})

#: Never exported: a report whose content the request does not let be cleaned.
REPORT: Final = "structured-report"
#: Never exported: the pixels are somewhere else, at an address that would tell where.
BY_REFERENCE: Final = "pixels-by-reference"
#: Never exported: the object breaks the standard.
MALFORMED: Final = "malformed"
#: Never exported: it names more people and numbers than a real object does.
TOO_MANY: Final = "too-many-identifiers"

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_LIKELY_CLASSES = tuple(
    f"{_STORAGE}{one}" for one in ("3", "3.1", "6", "6.1", "6.2", "6.3", "7", "7.1", "7.2", "7.3", "7.4")
)
_LIKELY_MODALITIES = frozenset({"US", "IVUS", "OT", "SC", "DOC"})
_SECONDARY_MODALITIES = frozenset({"XA", "RF"})
_SCREEN_SHOTS = frozenset({"SCREEN SAVE", "SCREENSAVE", "DOSE_INFO", "SCREEN CAPTURE"})


def document(SOPClassUID: str) -> bool:
    """Return whether objects of this class are a document or model in a DICOM envelope."""
    return SOPClassUID.startswith(f"{_STORAGE}104.")


def report(SOPClassUID: str) -> bool:
    """Return whether objects of this class are structured reports; key object selections are."""
    return SOPClassUID.startswith(f"{_STORAGE}88.") or SOPClassUID == f"{_STORAGE}79.1"


def reasons(
    SOPClassUID: str,
    *,
    modality: str,
    burned_in: str,
    recognizable: str,
    image_type: tuple[str, ...],
    conversion: str,
    pixels: bool,
    hold_unknown: bool,
) -> frozenset[str]:
    """Return why an object is held back, empty where it is not; the words are values of its attributes.

    Args:
        pixels: it has pixel data.
        hold_unknown: hold every image of which nothing says that its pixels name nobody.
    """
    found: set[str] = set()
    if document(SOPClassUID):
        found.add(DOCUMENT)
    if burned_in == "YES":
        found.add(BURNED_IN)
    if recognizable == "YES":
        found.add(RECOGNIZABLE)
    if pixels and burned_in != "NO" and burned_in != "YES":
        secondary = modality in _SECONDARY_MODALITIES and bool({"DERIVED", "SECONDARY"} & set(image_type[:2]))
        if (
            SOPClassUID in _LIKELY_CLASSES
            or modality in _LIKELY_MODALITIES
            or secondary
            or conversion
            or _SCREEN_SHOTS & set(image_type)
        ):
            found.add(LIKELY)
        elif hold_unknown:
            found.add(UNKNOWN)
    return frozenset(found)
