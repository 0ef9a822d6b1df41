"""Makes the de-identified copy of a SOP Instance (PS3.15 annex E) while its pixels stay where they are.

Theory of operation. The scanner proves the object whole and hands over its elements; what is long stays in the object
and is known by its place. First everything that identifies is gathered: names, numbers, UIDs, dates. Then each element
becomes what table E.1-1 says, on every level, and whatever is kept is searched for what was gathered. At last the copy is
written piece by piece: a new header, text in UTF-8, and the long values copied from the object. Nothing is decoded, so
any transfer syntax will do; of a deflated object the inflated form is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from fhir_mappings.dicom.charset import TextDecoder
from fhir_mappings.dicom.dataset import EXPLICIT_LITTLE_ENDIAN
from fhir_mappings.dicom.deidentify import holding
from fhir_mappings.dicom.deidentify.dummies import dummy_value
from fhir_mappings.dicom.deidentify.gathering import (
    DATE_VRS,
    PATIENT_ID,
    SPECIFIC_CHARACTER_SET,
    STANDARD_UIDS,
    Gathered,
    keeps_uid,
    plain,
)
from fhir_mappings.dicom.deidentify.keys import ProjectKey, shifted
from fhir_mappings.dicom.deidentify.table import (
    BASIC_PROFILE,
    EDITION,
    OPTION_CODES,
    SAFE_PRIVATE,
    SAFE_PRIVATE_VRS,
    Action,
    Options,
    action,
)
from fhir_mappings.dicom.deidentify.writer import Out, Range, Writer, ascending, file_meta, padded, pieces, source_of
from fhir_mappings.dicom.elements import (
    BINARY_VRS,
    PIXEL_DATA,
    SHORT_VRS,
    TEXT_VRS,
    Element,
    Elements,
    Scan,
    implicit_vr,
)
from fhir_mappings.dicom.scanner import ScanLimits, scan, uid_text
from fhir_mappings.errors import MalformedError

#: Headers are held whole; long binary values are not, and text beyond this is removed because it cannot be cleaned.
_LIMITS: Final = ScanLimits(held_bytes=1 << 20, held_binary_bytes=1 << 16, held_total_bytes=32 << 20)
#: The longest value that a 16-bit length can state, even.
_SHORT_BYTES: Final = 0xFFFE
_ITEM_LEVELS: Final = 0x0040A730
_PATIENT_NAME: Final = 0x00100010
_DOCUMENT: Final = 0x00420011
_PIXELS: Final = frozenset({PIXEL_DATA, 0x7FE00008, 0x7FE00009})
#: (0028,7FE0) Pixel Data Provider URL: the pixels of JPIP objects are elsewhere.
_PROVIDER_URL: Final = 0x00287FE0
#: VRs of characters outside Specific Character Set.
_PLAIN_VRS: Final = frozenset({"AE", "AS", "CS", "DS", "IS", "UR"})
#: In a sequence that gets dummy values: what can say nothing of a person stays, so that the rest still fits it.
_NEUTRAL_VRS: Final = frozenset(
    {"CS", "DS", "IS", "FL", "FD", "SL", "SS", "UL", "US", "SV", "UV", "AT", "OF", "OD", "OL"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is asked for.

    Attributes:
        take: reasons of :data:`holding.HELD` for which objects are not held back.
        hold_unknown: hold back every image of which nothing says that its pixels name nobody.
    """

    options: Options = field(default_factory=Options)
    take: frozenset[str] = frozenset()
    hold_unknown: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Why there is no copy: one of the reasons of :mod:`holding`."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A copy that is about to be written.

    Attributes:
        identity_removed: false where it was taken although its pixels or document may name the patient.
        held_for: those reasons.
        chunks: writes the Part 10 file once, reading from the stream that the object is in.
    """

    StudyInstanceUID: str
    SeriesInstanceUID: str
    SOPInstanceUID: str
    identity_removed: bool
    held_for: frozenset[str]
    chunks: Callable[[], Iterator[bytes]]


def prepare(
    stream: BinaryIO,
    *,
    profile: Profile,
    key: ProjectKey,
    owner: str,
    charset_override: str | None = None,
) -> Copy | LeftOut:
    """Return the de-identified copy of the Part 10 file in *stream*, ready to be written, or why there is none.

    The same object, profile and key give the same bytes.

    Args:
        stream: seekable; it must stay open until the copy is written.
        owner: institution that the object belongs to; the same number elsewhere is another patient.
        charset_override: the character set an operator set for the sender.
    """
    try:
        scanned = scan(stream, limits=_LIMITS)
    except MalformedError:
        return LeftOut(holding.MALFORMED)
    top = scanned.top
    SOPClassUID = plain(top, 0x00080016)
    if _PROVIDER_URL in top:
        return LeftOut(holding.BY_REFERENCE)
    if holding.report(SOPClassUID) and not profile.options.structured_content:
        return LeftOut(holding.REPORT)
    held = holding.reasons(
        SOPClassUID,
        modality=plain(top, 0x00080060),
        burned_in=plain(top, 0x00280301),
        recognizable=plain(top, 0x00280302),
        image_type=tuple(part.strip() for part in plain(top, 0x00080008).split("\\")),
        conversion=plain(top, 0x00080064),
        pixels=not _PIXELS.isdisjoint(top),
        hold_unknown=profile.hold_unknown,
    )
    refused = held - profile.take
    if refused:
        return LeftOut(min(refused))
    gathered = Gathered(scanned, profile.options, owner, charset_override)
    if gathered.overwhelmed:
        return LeftOut(holding.TOO_MANY)
    maker = _Maker(scanned, stream, profile.options, key, gathered, SOPClassUID)
    elements = maker.dataset(identity_removed=not held)
    if scanned.deflated and not ascending(elements):
        # An inflated stream cannot be read backwards, and elements out of order break PS3.5 section 7.1 anyway.
        return LeftOut(holding.MALFORMED)
    syntax = EXPLICIT_LITTLE_ENDIAN if scanned.deflated else scanned.TransferSyntaxUID
    uids = {tag: maker.uid(plain(top, tag)) for tag in (0x0020000D, 0x0020000E, 0x00080018)}

    def chunks() -> Iterator[bytes]:
        yield file_meta(SOPClassUID, uids[0x00080018], syntax)
        yield from Writer(scanned, source_of(stream, scanned)).dataset(elements)

    return Copy(
        StudyInstanceUID=uids[0x0020000D],
        SeriesInstanceUID=uids[0x0020000E],
        SOPInstanceUID=uids[0x00080018],
        identity_removed=not held,
        held_for=held,
        chunks=chunks,
    )


class _Maker:
    """Turns the elements of one object into those of its copy."""

    def __init__(
        self,
        scanned: Scan,
        stream: BinaryIO,
        options: Options,
        key: ProjectKey,
        gathered: Gathered,
        SOPClassUID: str,
    ) -> None:
        self._scanned = scanned
        self._stream = stream
        self._options = options
        self._key = key
        self._class = SOPClassUID
        self._gathered = gathered
        self._known = gathered.known
        self._days = key.days(*gathered.identity(scanned.dataset, gathered.decoder))

    def uid(self, uid: str) -> str:
        """Return the UID that stands for *uid* in the copy."""
        return uid if self._options.uids or not uid or uid.startswith(STANDARD_UIDS) else self._key.uid(uid)

    # --- what becomes of it ------------------------------------------------------------------------------------

    def dataset(self, *, identity_removed: bool) -> list[Out]:
        """Return the elements of the copy in the order of their tags."""
        made = {
            one.tag: one for one in self._level(self._scanned.dataset, self._gathered.decoder, free=False, dummy=False)
        }
        for one in self._statement(identity_removed):
            made[one.tag] = one
        return [made[tag] for tag in sorted(made)]

    def _statement(self, identity_removed: bool) -> Iterator[Out]:
        """Yield what the copy says about itself (PS3.15 section E.2, PS3.3 section C.7.1.1 and C.12.1)."""
        options = self._options
        yield Out(SPECIFIC_CHARACTER_SET, "CS", padded("ISO_IR 192"))
        yield Out(0x00120062, "CS", padded("YES" if identity_removed else "NO"))
        yield Out(0x00120063, "LO", padded(f"PS3.15 {EDITION} annex E"))
        yield Out(
            0x00120064,
            "SQ",
            [
                [
                    Out(0x00080100, "SH", padded(code)),
                    Out(0x00080102, "SH", padded("DCM")),
                    Out(0x00080104, "LO", padded(meaning)),
                ]
                for code, meaning in (BASIC_PROFILE, *sorted(OPTION_CODES[name] for name in options.names()))
            ],
        )
        temporal = "UNMODIFIED" if options.full_dates else "MODIFIED" if options.modified_dates else "REMOVED"
        yield Out(0x00280303, "CS", padded(temporal))

    def _level(self, dataset: Elements, decoder: TextDecoder, *, free: bool, dummy: bool) -> list[Out]:
        creators = {one.tag: one for one in dataset if one.tag >> 16 & 1 and 0x10 <= one.tag & 0xFFFF <= 0xFF}
        identity = self._gathered.identity(dataset, decoder)
        found: list[Out] = []
        wanted: dict[int, Out] = {}
        for element in dataset:
            tag = element.tag
            if not tag & 0xFFFF or tag == SPECIFIC_CHARACTER_SET:
                continue
            if tag >> 16 & 1:
                made = self._private(element, creators)
                if made is not None:
                    at = tag & 0xFFFF0000 | tag >> 8 & 0xFF
                    wanted[at] = Out(at, "LO", padded(_creator(creators[at])))
                    found.append(made)
                continue
            if tag in {PATIENT_ID, _PATIENT_NAME} and element.value:
                pseudonym = self._key.pseudonym(*identity)
                text = pseudonym if tag == PATIENT_ID else f"ANON^{pseudonym}"
                found.append(Out(tag, implicit_vr(tag), padded(text)))
                continue
            made = self._element(element, decoder, free=free, dummy=dummy)
            if made is not None:
                found.append(made)
        return sorted([*found, *wanted.values()], key=lambda one: one.tag)

    def _private(self, element: Element, creators: dict[int, Element]) -> Out | None:
        """Return a private element that is known to be safe, else ``None``."""
        tag = element.tag
        if not self._options.safe_private or tag & 0xFFFF < 0x1000 or not isinstance(element.value, bytes):
            return None
        creator = creators.get(tag & 0xFFFF0000 | tag >> 8 & 0xFF)
        if creator is None or (tag >> 16, tag & 0xFF) not in SAFE_PRIVATE.get(_creator(creator), ()):
            return None
        if element.vr not in SAFE_PRIVATE_VRS:
            return None
        if element.vr in {"DS", "IS"} and not _numbers(element.value):
            return None
        return Out(tag, element.vr, element.value)

    def _element(self, element: Element, decoder: TextDecoder, *, free: bool, dummy: bool) -> Out | None:
        tag, vr = element.tag, element.vr
        lent = implicit_vr(tag)
        if vr == "UN":
            # What somebody did not know on the way is still what the dictionary says, if it is characters.
            if lent not in TEXT_VRS | _PLAIN_VRS | DATE_VRS | {"TM", "UI"}:
                return None
            vr = lent
        act = action(tag, lent if lent in {"PN", "DA", "DT", "TM", "UI"} else vr, self._options, self._class)
        if act is Action.X:
            return None
        if dummy and act is Action.K:
            act = Action.K if vr in _NEUTRAL_VRS or vr == "SQ" or lent == "UI" else Action.D
        if isinstance(element.value, list):
            return self._sequence(element, decoder, act, free=free, dummy=dummy)
        if act is Action.Z or element.length == 0:
            return Out(tag, vr, b"")
        if vr == "SQ":
            return None
        if vr == "UI" or lent == "UI":
            return self._uids(element, act)
        if act is Action.D:
            if tag == _DOCUMENT and holding.document(self._class):
                # It was taken by name, and the copy says that it may identify; a dummy would be no document.
                return Out(tag, vr, Range(element.offset, element.length))
            return Out(tag, vr, dummy_value(vr))
        if free and act is Action.K:
            act = Action.C
        return self._kept(element, vr, decoder, act)

    def _sequence(self, element: Element, decoder: TextDecoder, act: Action, *, free: bool, dummy: bool) -> Out:
        assert isinstance(element.value, list)
        items = [] if act is Action.Z else element.value
        return Out(
            element.tag,
            "SQ",
            [
                self._level(
                    item,
                    self._gathered.inner(item, decoder),
                    free=free or (element.tag == _ITEM_LEVELS and act is Action.C),
                    dummy=dummy or act is Action.D,
                )
                for item in items
            ],
        )

    def _uids(self, element: Element, act: Action) -> Out | None:
        if not isinstance(element.value, bytes):
            return None
        uids = uid_text(element.value).split("\\")
        if act is not Action.K and not keeps_uid(element.tag):
            uids = [self.uid(uid) for uid in uids]
        text = "\\".join(uids)
        # Not everything that is written as a UID is one.
        safe = all(char in "0123456789.\\" for char in text)
        return Out(element.tag, "UI", padded(text, b"\0") if safe else b"")

    def _kept(self, element: Element, vr: str, decoder: TextDecoder, act: Action) -> Out | None:
        """Return an element that stays, without what is known to identify."""
        tag, value = element.tag, element.value
        if value is None or isinstance(value, list):
            return self._long(element, vr)
        if vr in {"DA", "DT", "TM"}:
            return Out(tag, vr, self._moment(vr, value, act))
        if vr in TEXT_VRS:
            text = decoder.decode(value)
            if decoder.flagged and not text.isascii():
                # Nobody can say for certain what it spells, so nobody can say that it spells no name.
                return Out(tag, vr, b"")
            if act is Action.C:
                text = self._known.cleaned(text, dates=not self._options.full_dates)
            else:
                text = self._known.removed(text)
            data = padded(text.rstrip("\0 "))
            return Out(tag, vr, data) if vr not in SHORT_VRS or len(data) <= _SHORT_BYTES else None
        if vr in _PLAIN_VRS:
            text = value.decode("latin-1")
            if vr in {"DS", "IS"}:
                # A number may equal a short identifier by chance, so only a whole and long one counts here.
                found = not _numbers(value) or any(self._known.is_one(one.strip(" \0")) for one in text.split("\\"))
            else:
                found = not text.isascii() or self._known.in_bytes(value)
            return Out(tag, vr, b"" if found else value)
        if vr in BINARY_VRS and tag not in _PIXELS and self._known.in_bytes(value):
            return None
        return Out(tag, vr, value)

    def _moment(self, vr: str, value: bytes, act: Action) -> bytes:
        text = value.decode("ascii", "replace")
        parts = [one.strip(" \0") for one in text.split("\\")]
        if not all(all(char in "0123456789.+-: " for char in one) for one in parts):
            return b""
        # Whole days move, so a time of day stays.
        if act is Action.C and not self._options.full_dates and vr != "TM":
            parts = [shifted(one, self._days) for one in parts]
        return padded("\\".join(parts))

    def _long(self, element: Element, vr: str) -> Out | None:
        """Return a value that stays in the object until it is copied, or ``None`` where it may not."""
        tag = element.tag
        if vr in TEXT_VRS or vr in _PLAIN_VRS:
            return None
        if tag not in _PIXELS and self._in_range(element):
            return None
        return Out(tag, vr, Range(element.offset, element.length, element.fragments))

    def _in_range(self, element: Element) -> bool:
        overlap = self._known.longest_bytes()
        if not overlap:
            return False
        tail = b""
        source = source_of(self._stream, self._scanned)
        for chunk in pieces(source, element.offset, element.length):
            if self._known.in_bytes(tail + chunk):
                return True
            tail = (tail + chunk)[-overlap:]
        return False


def _creator(element: Element) -> str:
    value = element.value
    return value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else ""


def _numbers(value: bytes) -> bool:
    return all(byte in b"0123456789+-.eE\\ \0" for byte in value)
