"""What becomes of each attribute: PS3.15 table E.1-1, edition 2026c, and what its options change.

The rows are data (``ps3_15_e_1_1.csv``): the action of the Basic Profile and, for each option, ``K`` or ``C``. Where the
table leaves a choice to the type that the attribute has in the IOD, the type is looked up for the few attributes that
some IOD requires; where it is not known the stricter action is taken, which is to remove.

Stricter than the table, because what is not known cannot be vouched for: attributes that the data dictionary does not
have, person names and moments that no row names, and dates of devices (they follow the options for dates alone).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import Final

from pydicom.datadict import dictionary_has_tag

from fhir_mappings.errors import MalformedError

EDITION: Final = "2026c"


class Action(Enum):
    """The actions of PS3.15 table E.1-1a, without the choices."""

    #: A dummy value that is valid for the VR.
    D = "D"
    #: No value.
    Z = "Z"
    #: Gone.
    X = "X"
    #: Kept; the items of a sequence are cleaned.
    K = "K"
    #: Kept without what identifies.
    C = "C"
    #: Another UID, the same one wherever the first one stood.
    U = "U"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the profile (PS3.15 section E.3); without any, the Basic Profile alone.

    Attributes:
        full_dates: Retain Longitudinal Temporal Information With Full Dates.
        modified_dates: the same With Modified Dates; every date of a patient moves by the same days.
        patient: Retain Patient Characteristics.
        device: Retain Device Identity.
        institution: Retain Institution Identity.
        uids: Retain UIDs.
        safe_private: Retain Safe Private.
        descriptors: Clean Descriptors.
        structured_content: Clean Structured Content; without it structured reports are left out.
        graphics: Clean Graphics, as far as its texts go; bitmaps and curves are removed all the same.
    """

    full_dates: bool = False
    modified_dates: bool = False
    patient: bool = False
    device: bool = False
    institution: bool = False
    uids: bool = False
    safe_private: bool = False
    descriptors: bool = False
    structured_content: bool = False
    graphics: bool = False

    def __post_init__(self) -> None:
        """Refuse two ways with dates at once."""
        if self.full_dates and self.modified_dates:
            raise MalformedError(
                "Dates are either kept or modified.", where="options", remedy="Ask for one of the two."
            )

    @classmethod
    def of(cls, names: Iterable[object]) -> Options:
        """Return the options called *names* (``full-dates``, ``patient``, ...).

        Raises:
            MalformedError: a name that is none, or two that exclude each other.
        """
        known = {one.name.replace("_", "-"): one.name for one in fields(cls)}
        asked = [str(one) for one in names]
        unknown = sorted(one[:32] for one in asked if one not in known)
        if unknown:
            raise MalformedError(
                f"There is no option {', '.join(unknown)}.", where="options", remedy=f"Use {', '.join(known)}."
            )
        return cls(**{known[one]: True for one in asked})

    def names(self) -> tuple[str, ...]:
        """Return the options that are set, by the names that :meth:`of` takes."""
        return tuple(one.name.replace("_", "-") for one in fields(self) if getattr(self, one.name))


#: (code, meaning) of the profile and each option: CID 7050 (PS3.16), coding scheme DCM.
BASIC_PROFILE: Final = ("113100", "Basic Application Confidentiality Profile")
OPTION_CODES: Final[Mapping[str, tuple[str, str]]] = {
    "graphics": ("113103", "Clean Graphics Option"),
    "structured-content": ("113104", "Clean Structured Content Option"),
    "descriptors": ("113105", "Clean Descriptors Option"),
    "full-dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "modified-dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient": ("113108", "Retain Patient Characteristics Option"),
    "device": ("113109", "Retain Device Identity Option"),
    "uids": ("113110", "Retain UIDs Option"),
    "safe-private": ("113111", "Retain Safe Private Option"),
    "institution": ("113112", "Retain Institution Identity Option"),
}

#: Enhanced multi-frame images: C.7.6.16 and C.7.5.2 of PS3.3 make type 1 of what others may leave out.
_ENHANCED: Final = tuple(
    (one, 1)
    for one in (
        *("2.1", "2.2", "4.1", "4.2", "4.3", "4.4", "6.2", "12.1.1", "12.2.1", "13.1.", "14.", "30", "66.4"),
        *("77.1.5.4", "77.1.6", "128.1", "130"),
    )
)
#: The same and waveforms have an Acquisition Context Module, of type 2 (PS3.3 section C.7.6.14).
_WITH_CONTEXT: Final = tuple(
    (one, 2) for one in ("2.1", "4.1", "4.2", "4.3", "6.2", "9.", "12.1.1", "12.2.1", "13.1.", "130")
)
#: Attributes of table E.1-1 whose action depends on their type, where an IOD makes them type 1 or 2 (PS3.3), by the
#: beginning of its SOP Class UID after ``1.2.840.10008.5.1.4.1.1.``; an empty one means every IOD.
_TYPES: Final[Mapping[int, tuple[tuple[str, int], ...]]] = {
    0x00080023: (("88.", 1), ("104.", 2), ("11.", 2), ("66.", 1), ("9.", 1), *_ENHANCED, ("", 2)),
    0x00080033: (("88.", 1), ("104.", 2), ("11.", 2), ("66.", 1), ("9.", 1), *_ENHANCED, ("", 2)),
    0x00080021: (("128", 1), ("130", 1), ("20", 2)),
    0x00080031: (("128", 1), ("130", 1), ("20", 2)),
    0x00080022: (("128", 2), ("130", 2)),
    0x00080032: (("128", 2), ("130", 2)),
    0x0008002A: (
        ("104.", 2),
        ("9.", 1),
        ("2.1", 1),
        ("4.1", 1),
        ("12.1.1", 1),
        ("12.2.1", 1),
        ("13.1.", 1),
        ("77.1.6", 1),
    ),
    0x00180010: (("2.1", 1), ("4.1", 1), ("", 2)),
    0x00181000: _ENHANCED,
    0x00181030: (("4.1", 1), ("4.3", 1)),
    0x0018700A: (("13.1.3", 1),),
    0x00400555: (*_WITH_CONTEXT, ("1.1", 2), ("1.2", 2), ("1.3", 2), ("77.1.", 2)),
    0x0040A032: (("88.59", 2),),
    0x00700084: (("11.", 2), ("66.", 2), ("67", 2)),
    0x300A0006: (("481.5", 2), ("481.8", 2)),
    0x300A0007: (("481.5", 2), ("481.8", 2)),
    0x300A00B2: (("481.5", 2), ("481.8", 2)),
    0x300E0008: (("481.", 2),),
    0x30080250: (("481.", 2),),
    0x30080251: (("481.", 2),),
}
_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
#: Which of the choices keeps the attribute valid, by its type; 3 is also the type that nobody knows.
_CHOICE: Final = {1: ("D", "Z", "X"), 2: ("Z", "D", "X"), 3: ("X", "Z", "D")}
_DATES: Final = frozenset({"DA", "TM", "DT"})


@dataclass(frozen=True, slots=True)
class Row:
    """One row of table E.1-1: the action of the Basic Profile, and ``K`` or ``C`` by option."""

    basic: str
    options: Mapping[str, str]


@cache
def rows() -> Mapping[str, Row]:
    """Return the table by tag, ``50XXXXXX`` and the like for repeating groups."""
    text = files(__package__).joinpath("ps3_15_e_1_1.csv").read_text("utf-8")
    return {
        row["tag"]: Row(row["basic"], dict(pair.split("=") for pair in row["options"].split()))
        for row in csv.DictReader(text.splitlines())
    }


def action(tag: int, vr: str, options: Options, SOPClassUID: str = "") -> Action:
    """Return what becomes of the standard attribute *tag* in an object of *SOPClassUID*; private ones are not asked for."""
    row = _row(tag)
    if row is None:
        return _unlisted(tag, vr, options)
    # An option that keeps wins over one that cleans; both say more than the Basic Profile.
    found = {row.options[name] for name in options.names() if name in row.options}
    if found:
        return Action.K if "K" in found else Action.C
    if len(row.basic) == 1:
        return Action(row.basic)
    choices = row.basic.split("/")
    if "U*" in choices:
        # These sequences hold nothing but references, and references are mapped.
        return Action.K
    return next(Action(one) for one in _CHOICE[_type_of(tag, SOPClassUID)] if one in choices)


def _row(tag: int) -> Row | None:
    group = tag >> 24
    if group == 0x50:
        return rows()["50XXXXXX"]
    if group == 0x60 and tag & 0xFFFF in {0x3000, 0x4000}:
        return rows()[f"60XX{tag & 0xFFFF:04X}"]
    return rows().get(f"{tag:08X}")


def _unlisted(tag: int, vr: str, options: Options) -> Action:
    if not dictionary_has_tag(tag):
        return Action.X
    if vr == "PN":
        return Action.Z
    if vr in _DATES:
        return Action.K if options.full_dates else Action.C if options.modified_dates else Action.X
    if vr == "UI":
        return Action.K if options.uids else Action.U
    return Action.K


def _type_of(tag: int, SOPClassUID: str) -> int:
    if not SOPClassUID.startswith(_STORAGE):
        return 3
    of = SOPClassUID.removeprefix(_STORAGE)
    return next((type_ for start, type_ in _TYPES.get(tag, ()) if of.startswith(start)), 3)


#: Private attributes known to hold numbers only (PS3.15 table E.3.10-1), by creator: (group, element byte).
SAFE_PRIVATE: Final[Mapping[str, frozenset[tuple[int, int]]]] = {
    "Philips PET Private Group": frozenset({(0x7053, 0x00), (0x7053, 0x09)}),
    "Philips Imaging DD 001": frozenset({(0x2001, 0x03)}),
    "Philips MR Imaging DD 001": frozenset({(0x2005, 0x0D), (0x2005, 0x0E)}),
    "SIEMENS MR HEADER": frozenset({(0x0019, 0x0C), (0x0019, 0x0E), (0x0019, 0x27)}),
    "GEMS_ACQU_01": frozenset({(0x0019, 0x23), (0x0019, 0x24), (0x0019, 0x27)}),
    "GEMS_PARM_01": frozenset({(0x0043, 0x27), (0x0043, 0x39), (0x0043, 0x6F)}),
    "GEMS_SERS_01": frozenset({(0x0025, 0x07)}),
    "ELSCINT1": frozenset({(0x00E1, 0x21)}),
}
#: The value representations of those numbers; anything else under such a tag is not what the table vouches for.
SAFE_PRIVATE_VRS: Final = frozenset({"DS", "IS", "FD", "FL", "SL", "SS", "UL", "US"})
