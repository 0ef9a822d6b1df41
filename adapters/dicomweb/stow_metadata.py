"""STOW-RS with metadata and bulk data (PS3.18 sections 10.5.1.2 and 8.6.1.2): kept apart while the body comes, joined after.

Metadata is held, up to a limit, because it must be understood; bulk data of any size lies in one spool, and is copied
from there into the file of its instance. A request may bring its parts in any order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from adapters.dicomweb.negotiation import JSON_TYPE, XML_TYPE
from fhir_mappings.dicom import xml_model
from fhir_mappings.dicom.dataset import EXPLICIT_LITTLE_ENDIAN, Bulk, bulk_uris, declared_transfer_syntax, part10
from fhir_mappings.dicom.scanner import encapsulated
from fhir_mappings.json import loads
from hub.errors import Category, HubError
from hub.outcome import as_hub_error
from hub.ports import Spool

if TYPE_CHECKING:
    from hub.boot import Services

METADATA_TYPES = frozenset([JSON_TYPE, XML_TYPE])
#: All metadata of one request, which is held and then parsed: about a thousand instances (our own limit).
MAX_METADATA_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20
_PIXEL_DATA = "7FE00010"
#: The transfer syntax of a compressed part that does not name one (PS3.18 tables 8.7.3-2 to 8.7.3-5).
_DEFAULT_SYNTAX = {
    "image/jpeg": "1.2.840.10008.1.2.4.70",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
    "image/x-dicom-rle": "1.2.840.10008.1.2.5",
    "image/jls": "1.2.840.10008.1.2.4.80",
    "image/x-jls": "1.2.840.10008.1.2.4.80",
    "image/jp2": "1.2.840.10008.1.2.4.90",
    "image/jpx": "1.2.840.10008.1.2.4.92",
    "image/jphc": "1.2.840.10008.1.2.4.201",
    "image/jxl": "1.2.840.10008.1.2.4.110",
    "video/mpeg": "1.2.840.10008.1.2.4.100",
    "video/mp4": "1.2.840.10008.1.2.4.102",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A bulk data part: where it lies in the spool, and the transfer syntax it is in."""

    start: int
    length: int
    transfer_syntax: str


@dataclass
class Metadata:
    """The metadata and bulk data of one request; used by one thread at a time."""

    services: Services
    pieces: dict[str, list[_Piece]] = field(default_factory=lambda: defaultdict(list))
    documents: list[tuple[str, bytes]] = field(default_factory=list)
    #: Why bulk data, by its address, could not be taken.
    lost: dict[str, HubError] = field(default_factory=dict)
    _held: int = 0
    _spool: Spool | None = None
    _closing: ExitStack = field(default_factory=ExitStack)
    _text: list[bytes] | None = None
    _kind: str = ""
    _location: str = ""
    _syntax: str = ""
    _start: int = 0

    def begin_metadata(self, media_type: str) -> None:
        """Start a part of metadata."""
        self._text, self._kind = [], media_type

    def begin_bulk(self, media_type: str, location: str, transfer_syntax: str) -> None:
        """Start a part of bulk data; raises HubError when no spool can be had."""
        if self._spool is None:
            self._spool = self._closing.enter_context(
                self.services.objects.spool(max_bytes=self.services.settings.max_stow_bytes)
            )
        self._text = None
        self._location, self._start = location, self._spool.size
        self._syntax = transfer_syntax or _DEFAULT_SYNTAX.get(media_type, "")

    def write(self, data: memoryview) -> None:
        """Take a piece of the part; raises HubError(incorrect, 413) when there is too much metadata."""
        if self._text is None:
            assert self._spool is not None
            self._spool.write(data)
            return
        self._held += len(data)
        if self._held > MAX_METADATA_BYTES:
            raise HubError(
                Category.INCORRECT,
                f"The metadata is larger than {MAX_METADATA_BYTES} bytes.",
                where="body",
                remedy="Send the instances in several requests.",
                status=413,
            )
        self._text.append(bytes(data))

    def end(self) -> None:
        """End the part: it came whole."""
        if self._text is not None:
            self.documents.append((self._kind, b"".join(self._text)))
            self._text = None
            return
        assert self._spool is not None
        self.pieces[self._location].append(
            _Piece(start=self._start, length=self._spool.size - self._start, transfer_syntax=self._syntax)
        )

    def datasets(self) -> Iterator[Mapping[str, Any] | HubError]:
        """Yield the metadata of each instance, or why it cannot be read."""
        for kind, document in self.documents:
            try:
                found: Any = xml_model.read(document) if kind == XML_TYPE else loads(document)
            except Exception as error:  # noqa: BLE001 - one broken document must not lose the others
                yield as_hub_error(error)
                continue
            for one in found if isinstance(found, list) else [found]:
                if isinstance(one, dict):
                    yield one
                else:
                    yield HubError(Category.INCORRECT, "The metadata of an instance is not an object.", where="body")

    def file(self, dataset: Mapping[str, Any]) -> Iterator[bytes]:
        """Yield the Part 10 file of *dataset*.

        Raises:
            MappingError: as :func:`fhir_mappings.dicom.dataset.part10`.
            HubError: why its bulk data was not taken.
        """
        bulk: dict[str, list[Bulk]] = {}
        for location, pieces in self.pieces.items():
            bulk[location] = [
                Bulk(length=one.length, content=partial(self._content, one.start, one.length)) for one in pieces
            ]
        syntax = self._syntax_of(dataset)
        for address in bulk_uris(dataset) if self.lost else ():
            if address in self.lost:
                raise self.lost[address]
        yield from part10(dataset, bulk, syntax)

    def _syntax_of(self, dataset: Mapping[str, Any]) -> str:
        """Return the transfer syntax of the file: what its pixel part says, else what its metadata says."""
        element = dataset.get(_PIXEL_DATA)
        address = element.get("BulkDataURI") if isinstance(element, dict) else None
        named = {one.transfer_syntax for one in self.pieces.get(address, ())} if isinstance(address, str) else set()
        if len(named) > 1:
            raise HubError(Category.INCORRECT, "The frames are in different transfer syntaxes.", where="Content-Type")
        syntax = next(iter(named), "")
        if not syntax and address is not None:
            declared = declared_transfer_syntax(dataset)
            # Octets without a name are native (PS3.18 section 8.7.3.2); a native file would say nothing that matters.
            syntax = declared if encapsulated(declared) else ""
        return syntax or EXPLICIT_LITTLE_ENDIAN

    def _content(self, start: int, length: int) -> Iterator[bytes]:
        assert self._spool is not None
        with self._spool.open() as stream:
            stream.seek(start)
            while length > 0:
                data = stream.read(min(length, _CHUNK_BYTES))
                if not data:
                    raise HubError(Category.FAULT, "The spool ends before the bulk data does.")
                length -= len(data)
                yield data

    def close(self) -> None:
        """Let go of the bulk data."""
        self._closing.close()
