"""The parts of one STOW-RS request as they come: each is an object, metadata, or bulk data (PS3.18 section 10.5.1).

An object is proved whole and kept at its end; metadata and bulk data are joined when all parts have come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from python_multipart.multipart import parse_options_header

from adapters.dicomweb.errors import FAILURE_REASONS, KEPT_BESIDE, WRONG_STUDY
from adapters.dicomweb.stow_metadata import METADATA_TYPES, Metadata
from fhir_mappings.dicom.header import read_header
from fhir_mappings.dicom.instance import InstanceHeader
from fhir_mappings.dicom.scanner import valid_uid
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.outcome import as_hub_error
from hub.ports import Spool

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("dicomweb.stow")

DICOM_TYPE = "application/dicom"
_OCTETS = "application/octet-stream"
#: Parts of one request; each answer entry stays in memory until the end.
_MAX_PARTS = 50_000
#: Reasons of one answer that are told in words, and the length of each; proxies take headers of 4 KiB in all.
_MAX_REASONS, _REASON_CHARACTERS = 5, 300
#: What became of an instance that was kept and is not shown (hub.imaging), in words for its sender.
_NOT_SHOWN = {
    "conflict": "Other bytes are kept under this SOP Instance UID. These are kept beside them, until a person decides.",
    "held": "The instance names another patient than its study. It is kept and shown to nobody until a person decides.",
}


@dataclass
class Taken:
    """What one request has brought so far; its methods are the parser's callbacks and run in one thread at a time."""

    services: Services
    envelope: Envelope
    study: str | None
    #: The character set that the operator set for the sender.
    charset: str | None = None
    #: What parts are that do not say it themselves.
    part_type: str = DICOM_TYPE
    stored: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    studies: set[str] = field(default_factory=set)
    warned: bool = False
    only_transient: bool = True
    parts: int = 0
    _spool: Spool | None = None
    _header: InstanceHeader | None = None
    _trouble: HubError | None = None
    _in_part: bool = False
    _metadata: Metadata | None = None
    #: Whether the present part goes to the metadata, and the bulk data that it is.
    _to_metadata: bool = False
    _location: str = ""
    _reasons: dict[str, None] = field(default_factory=dict)
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _name: bytes = b""
    _value: bytes = b""

    @property
    def open(self) -> bool:
        """Whether a part is being received."""
        return self._in_part

    def begin(self) -> None:
        """Start a part."""
        self.parts += 1
        if self.parts > _MAX_PARTS:
            raise HubError(Category.INCORRECT, f"The request has more than {_MAX_PARTS} parts.", status=413)
        self._in_part = True
        self._header = self._trouble = None
        self._headers = {}
        self._to_metadata, self._location = False, ""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of a header's name."""
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of a header's value."""
        self._value += data[start:end]

    def header_end(self) -> None:
        """Look at a whole header."""
        self._headers[self._name.strip().lower()] = self._value.strip()
        self._name = self._value = b""

    def headers_finished(self) -> None:
        """Decide what the part is; one of another media type is refused."""
        kind, parameters = parse_options_header(self._headers.get(b"content-type", b""))
        media_type = kind.lower().decode("latin-1")
        location = self._headers.get(b"content-location", b"").decode("latin-1")
        if not media_type:
            media_type = _OCTETS if location and self.part_type in METADATA_TYPES else self.part_type
        # Some senders call a DICOM file octets; beside metadata octets are what they say.
        is_object = media_type == DICOM_TYPE or (media_type == _OCTETS and self.part_type == DICOM_TYPE)
        try:
            if media_type in METADATA_TYPES:
                self._beside().begin_metadata(media_type)
            elif location and not is_object:
                self._location = location
                syntax = parameters.get(b"transfer-syntax", b"").decode("latin-1").strip()
                self._beside().begin_bulk(media_type, location, syntax)
            elif is_object:
                self._spool = self.services.objects.spool(max_bytes=self.services.settings.max_object_bytes)
                self._spool.__enter__()
            else:
                raise not_taken("Content-Type of a part")
        except HubError as error:
            self._spool, self._trouble = None, error

    def _beside(self) -> Metadata:
        if self._metadata is None:
            self._metadata = Metadata(self.services)
        self._to_metadata = True
        return self._metadata

    def data(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of the part's content; after trouble the rest of the part is passed over."""
        if self._trouble is not None:
            return
        piece = memoryview(data)[start:end]
        try:
            if self._to_metadata:
                assert self._metadata is not None
                self._metadata.write(piece)
            elif self._spool is not None:
                self._spool.write(piece)
        except HubError as error:
            self._trouble = error

    def end(self) -> None:
        """End a part: prove it whole, keep it, note the outcome."""
        if not self._in_part:
            return
        self._in_part = False
        try:
            if self._location and self._trouble is not None and self._metadata is not None:
                # The instances that it belongs to fail with this reason, and only they.
                self._metadata.lost[self._location] = self._trouble
            elif self._trouble is not None:
                raise self._trouble
            elif self._to_metadata:
                assert self._metadata is not None
                self._metadata.end()
            else:
                assert self._spool is not None
                self._keep(self._spool, charset=self.charset)
        except Exception as error:  # noqa: BLE001 - each instance has its own outcome in the answer
            self.failed(as_hub_error(error))
        finally:
            self._release()

    def assemble(self) -> None:
        """Join metadata and bulk data, each instance with its own outcome."""
        if self._metadata is None:
            return
        for dataset in self._metadata.datasets():
            self._header = None
            identity: dict[str, Any] = {}
            try:
                if isinstance(dataset, HubError):
                    raise dataset
                identity = _identity(dataset)
                with self.services.objects.spool(max_bytes=self.services.settings.max_object_bytes) as spool:
                    for piece in self._metadata.file(dataset):
                        spool.write(piece)
                    # The hub wrote the text itself, in UTF-8, so the sender's own character set has no say in it.
                    self._keep(spool, charset=None)
            except Exception as error:  # noqa: BLE001 - each instance has its own outcome in the answer
                self.failed(as_hub_error(error), identity)

    def _keep(self, spool: Spool, *, charset: str | None) -> None:
        with spool.open() as stream:
            header = self._header = read_header(stream, charset_override=charset)
        if self.study is not None and header.StudyInstanceUID != self.study:
            raise HubError(Category.CONFLICT, "The instance belongs to another study than the address names.")
        outcome = self.services.imaging.receive(self.envelope, spool, header)
        self.studies.add(header.StudyInstanceUID)
        item = _referenced(header)
        url = (
            f"{self.services.settings.public()}/dicom-web/studies/{header.StudyInstanceUID}"
            f"/series/{header.SeriesInstanceUID}/instances/{header.SOPInstanceUID}"
        )
        item["00081190"] = {"vr": "UR", "Value": [url]}
        if outcome in _NOT_SHOWN:
            self.warned = True
            item["00081196"] = {"vr": "US", "Value": [KEPT_BESIDE]}
            self._say(_NOT_SHOWN[outcome])
        self.stored.append(item)

    def failed(self, error: HubError, identity: Mapping[str, Any] | None = None) -> None:
        """Note an instance that was not kept, and is *identity* if its header was not reached."""
        reason = FAILURE_REASONS[error.category]
        if self._header is not None and self.study is not None and self._header.StudyInstanceUID != self.study:
            reason = WRONG_STUDY
        self.only_transient = self.only_transient and error.transient
        item = _referenced(self._header) if self._header is not None else identity or {}
        self.failures.append({**item, "00081197": {"vr": "US", "Value": [reason]}})
        where = f" ({error.where})" if error.where else ""
        self._say(f"{error.message.rstrip('.')}{where}. {error.remedy}".strip())
        log.info("stow_refused", reason=f"{reason:04X}", why=error.message, where=error.where)

    def _say(self, reason: str) -> None:
        if len(self._reasons) < _MAX_REASONS:
            self._reasons[reason] = None

    @property
    def warning(self) -> str:
        """Why instances were refused, or are not shown: a value of the header Warning (RFC 9111 section 5.5), or empty.

        The answer itself has codes only (PS3.18 table I.1-1).
        """
        said = (re.sub(r'[^ -~]|["\\]', "?", one)[:_REASON_CHARACTERS] for one in self._reasons)
        return ", ".join(f'299 - "{one}"' for one in said)

    def cut_off(self) -> None:
        """Note the part that the body ended in."""
        if self._in_part:
            self._header = None
            self._in_part = False
            self.failed(HubError(Category.INCORRECT, "The body ends inside a part."))

    def _release(self) -> None:
        if self._spool is not None:
            self._spool.__exit__(None, None, None)
            self._spool = None

    def close(self) -> None:
        """Let go of an unfinished part and start the quiet time of the studies that came."""
        self._release()
        if self._metadata is not None:
            self._metadata.close()
        self.services.imaging.association_ended(self.envelope, self.studies)


def _referenced(header: InstanceHeader) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [header.SOPClassUID]},
        "00081155": {"vr": "UI", "Value": [header.SOPInstanceUID]},
    }


def _identity(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the answer names a refused instance by, as far as its metadata says it."""
    found = {}
    for tag, source in (("00081150", "00080016"), ("00081155", "00080018")):
        element = dataset.get(source)
        values = element.get("Value") if isinstance(element, dict) else None
        if isinstance(values, list) and values and isinstance(values[0], str) and valid_uid(values[0]):
            found[tag] = {"vr": "UI", "Value": [values[0]]}
    return found


def not_taken(where: str) -> HubError:
    """Return the error for a media type that is not stored."""
    return HubError(
        Category.UNSUPPORTED,
        "The media type is not taken.",
        where=where,
        remedy=f'Send multipart/related; type="{DICOM_TYPE}", or metadata and bulk data.',
        status=415,
    )
