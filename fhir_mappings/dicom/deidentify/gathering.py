"""What identifies in one object: names, numbers, UIDs and dates, gathered before anything of its copy is made."""

from __future__ import annotations

from typing import Final

from pydicom.datadict import keyword_for_tag

from fhir_mappings.dicom.charset import TextDecoder, choose_decoder
from fhir_mappings.dicom.deidentify.table import Options
from fhir_mappings.dicom.deidentify.text import Identifiers
from fhir_mappings.dicom.elements import Element, Elements, Scan, implicit_vr
from fhir_mappings.dicom.json_model import text_values
from fhir_mappings.dicom.scanner import uid_text

#: Real objects name a few dozen people, numbers and dates; each is looked for in each text.
_MOST_IDENTIFIERS: Final = 4096
SPECIFIC_CHARACTER_SET: Final = 0x00080005
PATIENT_ID: Final = 0x00100020
_BIRTH_DATE: Final = 0x00100030
#: Root of the UIDs that the standard gives out; they name nothing of anybody.
STANDARD_UIDS: Final = "1.2.840.10008."
DATE_VRS: Final = frozenset({"DA", "DT"})
#: Attributes whose value names somebody or something of theirs, besides every person name.
_NAMING: Final = frozenset(
    {
        0x00080050, 0x00080092, 0x00080094, 0x00100020, 0x00101000, 0x00101040, 0x00101080, 0x00101090, 0x00102154,
        0x00102155, 0x00200010, 0x00321032, 0x00380010, 0x00380060, 0x00400009, 0x00400253, 0x00401001, 0x00401102,
        0x00401103, 0x00401104, 0x00402008, 0x00402010, 0x00402016, 0x00402017, 0x00400512, 0x00400551, 0x0040050A,
    }
)  # fmt: skip
_NAMING_INSTITUTION: Final = frozenset({0x00080080, 0x00080081, 0x00081040})


class Gathered:
    """What was found in *scanned*.

    Args:
        owner: institution that the object belongs to.
        override: the character set an operator set for the sender.

    Attributes:
        known: what identifies, to be looked for in what is kept.
        decoder: how the text of the object is read.
    """

    def __init__(self, scanned: Scan, options: Options, owner: str, override: str | None) -> None:
        self._scanned = scanned
        self._options = options
        self._owner = owner
        self._override = override
        self.known = Identifiers()
        self.decoder = self._decoder_of(scanned.dataset)
        self._gather(scanned.dataset, self.decoder)

    @property
    def overwhelmed(self) -> bool:
        """Whether more names and numbers stand in the object than every text of it can be searched for."""
        return self.known.count > _MOST_IDENTIFIERS

    def _decoder_of(self, dataset: Elements) -> TextDecoder:
        label = next((one.value for one in dataset if one.tag == SPECIFIC_CHARACTER_SET), b"")
        text = label.decode("ascii", "replace").strip(" \0") if isinstance(label, bytes) else ""
        labels = [one.strip(" \0") for one in text.split("\\")] if text else []
        return choose_decoder(text_values(dataset), labels, override=self._override)

    def inner(self, item: Elements, decoder: TextDecoder) -> TextDecoder:
        """Return how the text of an item is read: as its own label says, else as what encloses it (PS3.5 section 7.5.3)."""
        return self._decoder_of(item) if any(one.tag == SPECIFIC_CHARACTER_SET for one in item) else decoder

    def _gather(self, dataset: Elements, decoder: TextDecoder) -> None:
        for element in dataset:
            tag, value = element.tag, element.value
            if isinstance(value, list):
                for item in value:
                    self._gather(item, self.inner(item, decoder))
                continue
            if not value:
                continue
            vr = implicit_vr(tag) if not tag >> 16 & 1 else element.vr
            if "PN" in {vr, element.vr}:
                for name in decoder.decode(value).split("\\"):
                    self.known.add_name(name)
            elif tag in _NAMING or (tag in _NAMING_INSTITUTION and not self._options.institution):
                self.known.add_value(decoder.decode(value))
            elif vr == "UI" and not self._options.uids and not keeps_uid(tag):
                for uid in uid_text(value).split("\\"):
                    if not uid.startswith(STANDARD_UIDS):
                        self.known.add_uid(uid)
            elif vr in DATE_VRS and (not self._options.full_dates or tag == _BIRTH_DATE):
                self.known.add_date(value.decode("ascii", "replace"))

    def identity(self, dataset: Elements, decoder: TextDecoder) -> tuple[str, ...]:
        """Return whose data this is: institution, issuer, number; without a number, the patient of one study."""
        values = {one.tag: one.value for one in dataset if isinstance(one.value, bytes)}
        number = decoder.decode(values.get(PATIENT_ID) or b"").strip(" \0")
        if not number:
            return self._owner, "", "", plain(self._scanned.top, 0x0020000D)
        issuer = decoder.decode(values.get(0x00100021) or b"").strip(" \0")
        return self._owner, "" if issuer == self._owner else issuer, number


def keeps_uid(tag: int) -> bool:
    """Return whether the UIDs of *tag* name a kind of thing, which is the same everywhere, and not a thing."""
    keyword = keyword_for_tag(tag)
    return "SOPClass" in keyword or keyword in {
        "CodingSchemeUID",
        "ContextUID",
        "ContextGroupExtensionCreatorUID",
        "MappingResourceUID",
        "AvailableTransferSyntaxUID",
    }


def plain(top: dict[int, Element], tag: int) -> str:
    """Return the text of an element of the top level whose characters are ASCII; empty where there is none."""
    element = top.get(tag)
    return uid_text(element.value).strip() if element is not None else ""
