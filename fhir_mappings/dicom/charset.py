"""The character set of a data set: (0008,0005) Specific Character Set (PS3.3 C.12.1.1.2, PS3.5 section 6.1 and annex J, K),
judged against the bytes of the whole data set by the rule of ``fhir_mappings.text``.

The label is often missing or false: GBK under ISO_IR 100, UTF-8 under GB18030, several values where one must stand
alone. The original object is never touched; :func:`normalise_text` makes a copy of the header in UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydicom import config as pydicom_config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

from fhir_mappings import text as text_rule
from fhir_mappings.text import Evidence, codec_for, has_han

_SPECIFIC_CHARACTER_SET = BaseTag(0x00080005)
_TEXT_VR = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_UTF8_LABEL = "ISO_IR 192"

#: ISO 2022 escapes of PS3.3 tables C.12-3 and C.12-4 -> codec, and whether that codec wants to see the escape itself.
_ESCAPES: dict[bytes, tuple[str, bool]] = {
    b"(B": ("ascii", False),
    b"(J": ("shift_jis", False),
    b")I": ("shift_jis", False),
    b"$B": ("iso2022_jp", True),
    b"$(D": ("iso2022_jp_2", True),
    b"$)C": ("euc_kr", False),
    b"$)A": ("gb18030", False),
    b"-A": ("iso8859-1", False),
    b"-B": ("iso8859-2", False),
    b"-C": ("iso8859-3", False),
    b"-D": ("iso8859-4", False),
    b"-F": ("iso8859-7", False),
    b"-G": ("iso8859-6", False),
    b"-H": ("iso8859-8", False),
    b"-L": ("iso8859-5", False),
    b"-M": ("iso8859-9", False),
    b"-T": ("iso8859-11", False),
    b"-b": ("iso8859-15", False),
}
#: Texts up to this length, the text of all but the wordiest headers, have their decoder remembered.
_REMEMBERED_BYTES = 4096
_ESCAPE = re.compile(rb"\x1b([()\-][A-Za-z]|\$\([A-Z]|\$\)[A-Z]|\$[A-Z])")


def plain_ascii(raw: bytes) -> bool:
    """Return whether *raw* reads the same in every character set: ASCII without escapes."""
    return raw.isascii() and b"\x1b" not in raw


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDecoder:
    """How the text of one data set is read.

    Attributes:
        codec: the Python codec, or ``iso2022`` where escapes switch between several.
        initial: the codec before the first escape.
        evidence: the step of the rule that decided.
        declared: (0008,0005) as written, its values joined by a backslash; empty when absent.
        flagged: a person should look at the text.
        disagrees: the text has characters beyond ASCII and the label does not say the set they are in.
    """

    codec: str
    initial: str
    evidence: Evidence
    declared: str
    flagged: bool
    disagrees: bool

    def decode(self, raw: bytes) -> str:
        """Return the text of one value, all of its values and components together; lost characters become U+FFFD."""
        return read_text(raw, self.codec, self.initial)


def read_text(raw: bytes, codec: str, initial: str) -> str:
    """Return *raw* as :meth:`TextDecoder.decode` does."""
    if plain_ascii(raw):
        return raw.decode("ascii")
    if codec == "iso2022":
        return _decode_iso2022(raw, initial)
    if codec == "ascii":
        # The evidence was ASCII throughout, so this value, a private one, has only its own.
        return text_rule.decode(raw).text
    if codec == "gb18030":
        raw = text_rule.strip_gb2312_escapes(raw)
    return text_rule.decode_lossy(raw, codec)


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonNameText:
    """The three component groups of a PN (PS3.5 section 6.2.1), each as written but without padding."""

    alphabetic: str = ""
    ideographic: str = ""
    phonetic: str = ""

    @property
    def name(self) -> str:
        """The name a Chinese reader expects: the ideographic group where there is one, components joined."""
        chosen = self.ideographic or self.alphabetic or self.phonetic
        parts = [part.strip() for part in chosen.split("^")]
        if has_han(chosen):
            return "".join(part.replace("\u3000", "") for part in parts)
        family, given, middle = [*parts, "", ""][:3]
        return " ".join(part for part in (given, middle, family) if part)

    @property
    def pinyin(self) -> str:
        """The name in letters as the sender wrote it, ``Zhang XiaoDong``; empty when it sent none beside the Han name."""
        if not self.ideographic or has_han(self.alphabetic):
            return ""
        return " ".join(part.strip() for part in self.alphabetic.split("^") if part.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalisedText:
    """A copy of a header with its text in UTF-8, and how the text was read."""

    dataset: Dataset
    decoder: TextDecoder


def choose_decoder(values: Iterable[bytes], labels: Sequence[str], *, override: str | None = None) -> TextDecoder:
    """Return how to read *values*, the text of a whole data set, under *labels*, the values of (0008,0005).

    Never fails: what cannot be read for certain is flagged.
    """
    raw = b"\n".join(values)
    small = len(raw) + sum(map(len, labels)) <= _REMEMBERED_BYTES
    return (_chosen if small else _chosen.__wrapped__)(raw, tuple(labels), override)


# The objects of a series have the same text, and a decoder never changes.
@lru_cache(maxsize=64)
def _chosen(raw: bytes, labels: tuple[str, ...], override: str | None) -> TextDecoder:
    declared = "\\".join(labels)
    label = _effective_label(labels)
    initial = _initial_codec(labels)
    if not override and _ESCAPE.search(raw) is not None:
        escapes = {match.group(1) for match in _ESCAPE.finditer(raw)}
        if not escapes <= {b"$)A", b"(B"}:
            known = escapes <= _ESCAPES.keys()
            lost = "\ufffd" in _decode_iso2022(raw, initial)
            wanted = {_ESCAPES[escape][0] for escape in escapes if escape in _ESCAPES} - {"ascii"}
            said = {codec_for(item) for item in labels}
            return TextDecoder(
                codec="iso2022",
                initial=initial,
                evidence="escape",
                declared=declared,
                flagged=lost or not known,
                disagrees=not wanted <= said,
            )
    decided = text_rule.decode(raw, override=override, declared=label)
    codec_said = codec_for(label) if label else None
    return TextDecoder(
        codec=decided.codec,
        initial=initial,
        evidence=decided.evidence,
        declared=declared,
        flagged=decided.flagged,
        disagrees=not decided.text.isascii() and codec_said != decided.codec,
    )


def dataset_decoder(dataset: Dataset, *, override: str | None = None) -> TextDecoder:
    """Return how to read the text of *dataset* as it was read from the wire, before any value was accessed."""
    values = [raw for level in _levels(dataset) for tag, raw in _raw_text(level) if not tag.is_private]
    return choose_decoder(values, _labels(dataset), override=override)


def normalise_text(dataset: Dataset, *, override: str | None = None) -> NormalisedText:
    """Return a copy of *dataset* whose text is UTF-8 under ISO_IR 192, and the decoder that read it.

    Values that are not text are shared with the original, which keeps its bytes. Nothing here fails on text.
    """
    decoder = dataset_decoder(dataset, override=override)
    root = Dataset()
    waiting: list[tuple[Dataset, Dataset]] = [(dataset, root)]
    while waiting:
        source, target = waiting.pop()
        text = dict(_raw_text(source))
        for tag in source.keys():  # noqa: SIM118 - iterating a Dataset converts its elements
            if tag == _SPECIFIC_CHARACTER_SET:
                continue
            items = _items(source, tag)
            if items is not None:
                copies = [Dataset() for _ in items]
                waiting.extend(zip(items, copies, strict=True))
                target[tag] = DataElement(tag, "SQ", DicomSequence(copies))
            elif tag in text:
                target[tag] = _element(tag, _vr(source.get_item(tag)), decoder.decode(text[tag]))
            else:
                element = source.get_item(tag)
                assert element is not None
                target[tag] = element
    # Inner items inherit the root's character set (PS3.5 section 7.5.3), so it is written once.
    root[_SPECIFIC_CHARACTER_SET] = DataElement(_SPECIFIC_CHARACTER_SET, "CS", _UTF8_LABEL)
    return NormalisedText(dataset=root, decoder=decoder)


def person_name(text: str) -> PersonNameText:
    """Return the component groups of a decoded PN; Han characters that stand in the first group are ideographic."""
    groups = [group.strip(" \0") for group in text.split("=")]
    alphabetic, ideographic, phonetic = [*groups, "", "", ""][:3]
    if has_han(alphabetic) and not ideographic:
        alphabetic, ideographic = "", alphabetic
    return PersonNameText(alphabetic=alphabetic, ideographic=ideographic, phonetic=phonetic)


def _levels(dataset: Dataset) -> Iterator[Dataset]:
    waiting = [dataset]
    while waiting:
        level = waiting.pop()
        yield level
        for tag in level.keys():  # noqa: SIM118 - iterating a Dataset converts its elements
            waiting.extend(_items(level, tag) or ())


def _items(dataset: Dataset, tag: BaseTag) -> list[Dataset] | None:
    """Return the items of a sequence, or ``None`` where the element is none."""
    if _vr(dataset.get_item(tag)) != "SQ":
        return None
    value: Any = dataset[tag].value
    return list(value) if value is not None else []


def _raw_text(dataset: Dataset) -> Iterator[tuple[BaseTag, bytes]]:
    for tag in dataset.keys():  # noqa: SIM118 - iterating a Dataset converts its elements
        element = dataset.get_item(tag)
        if element is None or _vr(element) not in _TEXT_VR:
            continue
        value: Any = element.value
        if isinstance(value, bytes):
            yield tag, value
            continue
        # A name that was read already still has its bytes; any other text that was read has not.
        names = list(value) if isinstance(value, MultiValue) else [value]
        raw = [name.original_string for name in names if isinstance(name, PersonName)]
        if raw and len(raw) == len(names) and all(isinstance(item, bytes) for item in raw):
            yield tag, b"\\".join(raw)


def _vr(element: DataElement | RawDataElement | None) -> str:
    if element is None:
        return ""
    vr = element.VR
    if vr in {None, "UN"} and not element.tag.is_private:
        try:
            return dictionary_VR(element.tag)
        except KeyError:
            return "UN"
    return str(vr or "UN")


def _element(tag: BaseTag, vr: str, text: str) -> DataElement:
    # Lengths and characters that PS3.5 forbids are the sender's; this copy says what was sent.
    return DataElement(tag, vr, text.rstrip("\0 "), validation_mode=pydicom_config.IGNORE)


def _labels(dataset: Dataset) -> list[str]:
    element = dataset.get_item(_SPECIFIC_CHARACTER_SET)
    value: Any = element.value if element is not None else None
    if value is None:
        return []
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").split("\\")
    elif isinstance(value, str):
        value = value.split("\\")
    labels = [str(item).strip(" \0") for item in value]
    return labels if any(labels) else []


def _effective_label(labels: Sequence[str]) -> str:
    """Return the one label that can explain text without escapes: GB and UTF-8 first, as they must stand alone."""
    known = [label for label in labels if codec_for(label) not in {None, "ascii"}]
    alone = [label for label in known if codec_for(label) in {"utf-8", "gb18030"}]
    written = [label for label in labels if label]
    return next(iter([*alone, *known, *written]), "")


def _initial_codec(labels: Sequence[str]) -> str:
    codec = codec_for(labels[0]) if labels and labels[0] else None
    return codec if codec is not None and codec.startswith(("iso8859", "shift_jis")) else "ascii"


def _decode_iso2022(raw: bytes, initial: str) -> str:
    pieces: list[str] = []
    codec, keep, start = initial, b"", 0
    for match in _ESCAPE.finditer(raw):
        pieces.append((keep + raw[start : match.start()]).decode(codec, "replace"))
        known = _ESCAPES.get(match.group(1))
        codec, wants_escape = known if known is not None else ("ascii", False)
        keep = match.group() if wants_escape else b""
        start = match.end()
    pieces.append((keep + raw[start:]).decode(codec, "replace"))
    return "".join(pieces)
