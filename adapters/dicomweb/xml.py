"""Data sets as answers: DICOM JSON, or the Native DICOM Model in XML (PS3.18 section 8.7.3), gzipped where it is worth it."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import echo_headers
from adapters.dicomweb.multipart import MultipartBody, Part
from adapters.dicomweb.negotiation import JSON_TYPE, XML_TYPE, takes_gzip
from fhir_mappings.dicom import xml_model
from fhir_mappings.json import dumps

#: Shorter answers fit a few packets as they are; packing them would cost more than it saves.
_WORTH_PACKING_BYTES = 8 << 10


def datasets_response(
    datasets: Sequence[Mapping[str, Any]], request: Request, *, xml: bool, headers: Mapping[str, str] | None = None
) -> Response:
    """Return *datasets*, objects of the DICOM JSON Model, as one JSON array or as one XML part each.

    No data sets are an empty array, or 204 in XML, where a multipart body needs a part (RFC 2046 section 5.1).
    """
    if not xml:
        return packed(dumps(datasets), JSON_TYPE, request, headers=headers)
    if not datasets:
        return Response(status_code=204, headers={**echo_headers(request), "Vary": "Accept", **(headers or {})})
    parts = []
    for one in datasets:
        document = xml_model.write(one)
        parts.append(Part(content_type=XML_TYPE, size=len(document), content=partial(_once, document)))
    body = MultipartBody(parts, XML_TYPE)
    return packed(b"".join(body), body.content_type, request, headers=headers)


def dataset_response(
    dataset: Mapping[str, Any],
    request: Request,
    *,
    xml: bool,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return one data set as the whole body, in JSON or XML."""
    content, media_type = (xml_model.write(dataset), XML_TYPE) if xml else (dumps(dataset), JSON_TYPE)
    return packed(content, media_type, request, status=status, headers=headers)


def packed(
    content: bytes, media_type: str, request: Request, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return *content*, gzipped when it is long and the asker takes that."""
    found = {**echo_headers(request), "Vary": "Accept, Accept-Encoding", **(headers or {})}
    if len(content) >= _WORTH_PACKING_BYTES and takes_gzip(request):
        content, found["Content-Encoding"] = gzip.compress(content, compresslevel=1, mtime=0), "gzip"
    # Set by hand, because the framework adds a charset to every text type that it is given.
    return Response(content, status_code=status, headers={**found, "Content-Type": media_type})


def _once(document: bytes) -> Iterable[bytes]:
    yield document
