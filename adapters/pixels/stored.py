"""One stored object, opened for its pixels: its header, its frames, and what can be made of them.

Reads the header and the byte ranges of the frames that are asked for; decodes nothing itself.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, BinaryIO, Self

from adapters.pixels import derived, frames, part10
from adapters.pixels.films import Film
from adapters.pixels.image import Image
from adapters.pixels.look import Look
from adapters.pixels.pool import Pool
from adapters.pixels.syntaxes import EXPLICIT_LITTLE, LOSSY, NATIVE, SYNTAXES, decodes, video
from fhir_mappings.dicom.elements import PIXEL_DATA, Element, Scan
from fhir_mappings.dicom.header import header_of
from fhir_mappings.dicom.scanner import scan
from fhir_mappings.json import loads
from hub.errors import Category, HubError

#: Groups of the header that rendering needs: pixels, functional groups, presentation, optical path, colour,
#: overlays.
_RENDERING_GROUPS = frozenset({0x0028, 0x0048, 0x2050, 0x5200, *range(0x6000, 0x6020, 2)})
#: What a presentation state says besides: shutter, images, annotations, layers and area.
_PRESENTATION_GROUPS = _RENDERING_GROUPS | {0x0018, 0x0070}
_SOP_CLASS = 0x00080016
#: UnformattedTextValue (0070,0006) is an ST.
_MAX_TEXT = 1024
_CHUNK_BYTES = 1 << 20
#: Deflated data sets are held whole while their pixels are read (the scanner has the same limit).
_MAX_INFLATED_BYTES = 256 << 20
#: A compressed frame that takes more than the decoded one and this much is no frame.
_SLACK_BYTES = 1 << 20
_AS_STORED = "Retrieve the instance as stored, with transfer-syntax=*."


class StoredPixels:
    """An object of the store and its pixels; closes *stream* at the end.

    Args:
        stream: a Part 10 file, seekable.
        max_frame_bytes: largest frame, decoded, that is worked on.
        attributes: the header as DICOM JSON where it is known already.
    """

    def __init__(self, stream: BinaryIO, *, max_frame_bytes: int, attributes: bytes = b"") -> None:
        self._stream = stream
        self._max_frame_bytes = max_frame_bytes
        try:
            self.scanned: Scan = scan(stream)
            self._source = _inflated(stream) if self.scanned.deflated else stream
            self.header: Mapping[str, Any] = loads(attributes or header_of(self.scanned).attributes)
        except BaseException:
            stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.close()

    @property
    def syntax(self) -> str:
        """Transfer syntax of the object."""
        return self.scanned.TransferSyntaxUID

    @property
    def count(self) -> int:
        """Number of frames."""
        values = self.header.get("00280008", {}).get("Value") or [1]
        return max(values[0], 1) if isinstance(values[0], int) else 1

    @cached_property
    def pixels(self) -> Element:
        """The pixel data element; raises HubError(not-found) where there is none."""
        found = self.scanned.top.get(PIXEL_DATA)
        if found is None:
            raise HubError(Category.NOT_FOUND, "The instance has no pixel data.", where="(7FE0,0010)")
        return found

    @cached_property
    def image(self) -> Image:
        """What the pixels are; raises HubError(unsupported) where a frame is larger than may be worked on."""
        found = Image.of(self.header)
        if found.frame_bytes > self._max_frame_bytes:
            raise HubError(
                Category.UNSUPPORTED,
                f"A frame of {found.frame_bytes} bytes is larger than {self._max_frame_bytes}.",
                where="(0028,0010), (0028,0011)",
                remedy=_AS_STORED,
                status=406,
            )
        return found

    @cached_property
    def _layout(self) -> list[frames.Pieces]:
        return list(frames.encapsulated_frames(self._source, self.header, self.pixels.offset, self.count))

    def frame(self, number: int) -> bytes:
        """Return frame *number* (from 1) as it is encoded; native ones as little endian bytes.

        Raises:
            HubError: not-found beyond the last frame, unsupported where it is too large.
        """
        self.check(number)
        if not self.pixels.fragments:
            return frames.native_frame(self._source, self.header, self.pixels.offset, self.syntax, number)
        pieces = self._layout[number - 1]
        if sum(length for _, length in pieces) > self.image.frame_bytes * 2 + _SLACK_BYTES:
            raise HubError(
                Category.UNSUPPORTED,
                "The compressed frame is larger than its pixels can be.",
                where="(7FE0,0010)",
                remedy=_AS_STORED,
                status=406,
            )
        return frames.read(self._source, pieces)

    def check(self, number: int) -> None:
        """Raise HubError(not-found) unless there is a frame *number*."""
        if not 1 <= number <= self.count:
            raise HubError(
                Category.NOT_FOUND,
                f"The instance has {self.count} frames.",
                where="frames",
                remedy="Count frames from 1.",
            )

    def pieces(self, one: Element) -> frames.Pieces:
        """Return the byte ranges of an element's value, which for encapsulated pixels are those of all fragments."""
        return frames.fragments(self._source, one.offset) if one.fragments else [(one.offset, one.length)]

    def chunks(self, pieces: frames.Pieces) -> Iterator[bytes]:
        """Yield the bytes of *pieces*."""
        for start, left in pieces:
            self._source.seek(start)
            while left:
                data = self._source.read(min(left, _CHUNK_BYTES))
                if not data:
                    raise HubError(Category.FAULT, "The object ends before its element does.")
                left -= len(data)
                yield data

    # --- by way of a child process ---------------------------------------------------------------------------

    @property
    def _frame_syntax(self) -> str:
        # By what the bytes are: encapsulated pixels in a private syntax must not be taken for native ones.
        return self.syntax if self.pixels.fragments else EXPLICIT_LITTLE

    def transcoded(self, pool: Pool, number: int, target: str) -> tuple[bytes, Mapping[str, Any]]:
        """Return frame *number* in *target*, and its photometric interpretation and planar configuration."""
        if self.film is not None:
            return self.film.transcoded(pool, number, target)
        answer, data = pool.run(
            {"do": "frame", "image": self.image.as_json(), "syntax": self._decodable(), "target": target},
            self.frame(number),
        )
        return data, answer

    def picture(self, pool: Pool, number: int, look: Look, state: Sequence[bytes] = ()) -> bytes:
        """Return frame *number* rendered, in the way of a presentation state (:meth:`presentation`) where there is one."""
        if self.film is not None:
            if state:
                raise HubError(
                    Category.UNSUPPORTED, "Presentation states are not drawn on videos.", where=self.syntax,
                    remedy="Ask for the video without one.", status=406,
                )  # fmt: skip
            return self.film.picture(pool, number, look)
        _, data = pool.run(
            {
                "do": "picture",
                "image": self.image.as_json(),
                "syntax": self._decodable(),
                "number": number,
                "look": look.as_json(),
                "instance": str((self.header.get("00080018", {}).get("Value") or [""])[0]),
            },
            self.rendering_header,
            self.frame(number),
            *state,
        )
        return data

    @cached_property
    def film(self) -> Film | None:
        """The video that the object holds, or ``None`` for an image."""
        return Film(self) if video(self._frame_syntax) else None

    def _decodable(self) -> str:
        if not decodes(self._frame_syntax):
            raise HubError(
                Category.UNSUPPORTED,
                "Images of this transfer syntax cannot be decoded here.",
                where=self.syntax,
                remedy=_AS_STORED,
                status=406,
            )
        return self._frame_syntax

    @cached_property
    def rendering_header(self) -> bytes:
        """The elements that rendering needs, in Explicit VR Little Endian."""
        return part10.elements(self.scanned, self._source, keep=lambda tag: tag >> 16 in _RENDERING_GROUPS)

    def presentation(self, plain: Callable[[str], str]) -> Sequence[bytes]:
        """Return what a child must know of this object, a presentation state: its elements, and its texts as read here.

        Args:
            plain: writes a text for a font without Han characters.
        """
        texts = []
        for annotation in self.header.get("00700001", {}).get("Value") or ():
            for item in annotation.get("00700008", {}).get("Value") or ():
                text = str((item.get("00700006", {}).get("Value") or [""])[0])[:_MAX_TEXT]
                texts.append((text, plain(text)))
        kept = part10.elements(
            self.scanned, self._source, keep=lambda tag: tag == _SOP_CLASS or tag >> 16 in _PRESENTATION_GROUPS
        )
        return kept, json.dumps(texts).encode()

    # --- whole instances -------------------------------------------------------------------------------------

    def transcode(self, pool: Pool, target: str, digest: str = "") -> Iterator[bytes]:
        """Yield the object as a Part 10 file in *target*; the SOP Instance UID stays where nothing is lost, and only there.

        The offset table is left empty, which PS3.5 section A.4 allows, so that frames go out as they are made.
        """
        if target not in LOSSY and (target not in SYNTAXES or not SYNTAXES[target].encodes):
            raise HubError(Category.UNSUPPORTED, "Instances cannot be turned into this transfer syntax.", where=target)
        native = PIXEL_DATA not in self.scanned.top or not self.pixels.fragments
        if target == EXPLICIT_LITTLE and native:
            yield part10.file_head(self.scanned, self._source, target, {})
            yield from self._native_pixels()
            return
        first, answer = self.transcoded(pool, 1, target)
        changes: dict[int, tuple[str, bytes] | None] = {0x00280004: ("CS", _padded(answer["photometric"]))}
        if target in LOSSY:
            changes |= derived.lossy(self.header, digest, target, self.image.frame_bytes / max(len(first), 1))
        if self.image.samples > 1:
            changes[0x00280006] = ("US", struct.pack("<H", answer["planar"]))
        yield part10.file_head(self.scanned, self._source, target, changes)
        count = self.count
        if target == EXPLICIT_LITTLE:
            if count > 1 and self.image.bits_allocated == 1 and self.image.frame_bytes % 8:
                # Native frames of one bit follow each other inside a byte (PS3.5 section 8.1.1); ours end with one.
                raise HubError(
                    Category.UNSUPPORTED, "Frames of one-bit pixels that end inside a byte are not joined here.",
                    where="(0028,0100)", remedy=_AS_STORED, status=406,
                )  # fmt: skip
            size = len(first) * count
            if size >= 0xFFFFFFFE:
                raise HubError(
                    Category.UNSUPPORTED,
                    "The decoded pixels would not fit into an element.",
                    remedy=_AS_STORED,
                    status=406,
                )
            wide = self.image.bits_allocated > 8
            yield part10.head(PIXEL_DATA, "OW" if wide else "OB", size + size % 2)
            yield first
            for number in range(2, count + 1):
                yield self.transcoded(pool, number, target)[0]
            yield b"\0" * (size % 2)
            return
        yield part10.head(PIXEL_DATA, "OB", 0xFFFFFFFF) + _item(b"")
        yield _item(first)
        for number in range(2, count + 1):
            yield _item(self.transcoded(pool, number, target)[0])
        yield struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)

    def _native_pixels(self) -> Iterator[bytes]:
        """Yield every kind of native pixel element, in little endian."""
        for tag in sorted(tag for tag in self.scanned.top if tag in {0x7FE00008, 0x7FE00009, PIXEL_DATA}):
            one = self.scanned.top[tag]
            vr = one.vr if " or " not in one.vr else "OW"
            width = {"OF": 4, "OD": 8, "OW": 2}.get(vr, 1) if not self.scanned.little_endian else 1
            if width == 2 and tag == PIXEL_DATA:
                # Words of the transfer syntax are those of the pixel cells (PS3.5 annex A.3).
                bits = (self.header.get("00280100", {}).get("Value") or [16])[0]
                width = bits // 8 if bits > 16 else 2
            yield part10.head(tag, vr, one.length + one.length % 2)
            for data in self.chunks([(one.offset, one.length)]):
                yield part10.swapped(data, width) if width > 1 else data
            yield b"\0" * (one.length % 2)


def transcodable(syntax: str, *, has_pixels: bool, target: str) -> bool:
    """Return whether an instance may be turned into *target*, as far as its row in the index tells."""
    if target not in SYNTAXES or not SYNTAXES[target].encodes:
        return False
    if not has_pixels or video(syntax):
        return target == EXPLICIT_LITTLE and syntax in NATIVE
    return decodes(syntax)


def compressible(syntax: str, bits: int, *, has_pixels: bool, target: str) -> bool:
    """Return whether an instance may be compressed into *target* with loss, as far as its row in the index tells."""
    return has_pixels and target in LOSSY and bits <= LOSSY[target] and decodes(syntax)


def _item(data: bytes) -> bytes:
    data += b"\0" * (len(data) % 2)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data


def _padded(text: str) -> bytes:
    return text.encode("ascii") + b" " * (len(text) % 2)


def _inflated(stream: BinaryIO) -> BinaryIO:
    """Return the inflated data set, whose size the scan has bounded."""
    stream.seek(140)
    stream.seek(144 + int.from_bytes(stream.read(4), "little"))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(stream.read(), _MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise HubError(Category.UNSUPPORTED, "The deflated object is too large.", remedy=_AS_STORED)
    return io.BytesIO(data)
