"""Media type negotiation of DICOMweb (PS3.18 section 8.7): liberal in what is asked, exact in what is answered.

Viewers ask in many ways: with and without quotes around ``type``, ``transfer-syntax=*``, JSON and multipart in one header.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from hub.errors import Category, HubError

JSON_TYPE = "application/dicom+json"
XML_TYPE = "application/dicom+xml"
_ALSO_JSON = frozenset(["application/json"])
_ALSO_XML = frozenset(["application/xml", "text/xml"])
#: Character sets that UTF-8 answers, the only ones of these models (PS3.18 sections F.2.3 and 8.7.3.3).
_UTF8 = frozenset(["utf-8", "utf8", "us-ascii", "iso_ir 192", "*", ""])
_PARAMETER = re.compile(r';\s*([A-Za-z0-9\-_]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,"]*)')
_RANGE = re.compile(r'((?:[^,"]|"(?:[^"\\]|\\.)*")+)')
#: Longest Accept header looked at; a longer one is refused before any pattern runs over it.
_MAX_ACCEPT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """One media range of an Accept header.

    Attributes:
        media_type: of the part for ``multipart/related``, else of the whole body; may hold ``*``.
        transfer_syntax: the UID asked for, or ``""`` for any.
        any_syntax: the asker wrote ``transfer-syntax=*``, which is more than leaving it out: as stored, whatever it is.
    """

    media_type: str
    multipart: bool
    transfer_syntax: str
    quality: float
    any_syntax: bool = False

    def takes(self, media_type: str) -> bool:
        """Return whether *media_type* lies in the range."""
        if self.media_type in {"*/*", "", media_type}:
            return True
        return self.media_type.endswith("/*") and media_type.startswith(self.media_type[:-1])


def accepted(request: Request) -> Sequence[Accepted]:
    """Return the ranges of the request's Accept header (or ``accept`` query parameter), best first.

    Raises:
        HubError: incorrect when the header is beyond all measure.
    """
    return ranges_of(request.query_params.get("accept") or ", ".join(request.headers.getlist("accept")))


def ranges_of(header: str) -> Sequence[Accepted]:
    """Return the ranges of *header*, best first; raises HubError(incorrect) when it is beyond all measure."""
    if len(header) > _MAX_ACCEPT:
        raise HubError(Category.INCORRECT, "The Accept header is too long.", where="Accept")
    ranges = []
    for found in _RANGE.findall(header or "*/*"):
        whole = found.strip()
        name = whole.partition(";")[0].strip().lower()
        parameters = {key.lower(): value.strip().strip("\"'") for key, value in _PARAMETER.findall(whole)}
        multipart = name in {"multipart/related", "multipart/*"}
        syntax = parameters.get("transfer-syntax", "")
        ranges.append(
            Accepted(
                media_type=parameters.get("type", "").lower() if multipart else name,
                multipart=multipart,
                transfer_syntax="" if syntax == "*" else syntax,
                quality=_quality(parameters.get("q", "1")),
                any_syntax=syntax == "*",
            )
        )
    return sorted((one for one in ranges if one.quality > 0), key=lambda one: -one.quality)


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 1.0


def require_json(request: Request) -> None:
    """Raise HubError(unsupported, 406) unless the asker takes DICOM JSON.

    A header that names a multipart type of bulk data besides is what a well-known viewer sends for metadata.
    """
    for one in accepted(request):
        if one.takes(JSON_TYPE) or one.media_type in {"application/json", "application/octet-stream"}:
            return
    raise not_acceptable(f"Ask for {JSON_TYPE}.")


def wants_xml(request: Request) -> bool:
    """Return whether a data set is to be answered in the Native DICOM Model rather than in DICOM JSON.

    JSON is what a wildcard means (PS3.18 section 8.7.5), and what stands by itself beside a type of bulk data.

    Raises:
        HubError: unsupported, 406, when neither is accepted, or no character set that UTF-8 answers.
    """
    charset = request.query_params.get("charset", "").lower()
    if not any(one.partition(";")[0].strip() in _UTF8 for one in charset.split(",")):
        raise not_acceptable("Ask for UTF-8; these media types have no other character set.")
    ranges = accepted(request)
    for one in ranges:
        if one.takes(JSON_TYPE) or one.media_type in _ALSO_JSON:
            return False
        if one.takes(XML_TYPE) or one.media_type in _ALSO_XML:
            return True
    if any(one.media_type == "application/octet-stream" for one in ranges):
        return False
    raise not_acceptable(f'Ask for {JSON_TYPE} or multipart/related; type="{XML_TYPE}".')


def takes_gzip(request: Request) -> bool:
    """Return whether the asker takes ``gzip`` (RFC 9110 section 12.5.3)."""
    for one in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, parameters = one.partition(";")
        if name.strip() in {"gzip", "x-gzip"}:
            return _quality(parameters.replace(" ", "").removeprefix("q=") or "1") > 0
    return False


def not_acceptable(remedy: str) -> HubError:
    """Return the error for a representation that is not offered."""
    return HubError(
        Category.UNSUPPORTED, "None of the accepted media types is offered.", where="Accept", remedy=remedy, status=406
    )
