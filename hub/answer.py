"""What a FHIR interaction gives back, before any protocol dresses it: https://hl7.org/fhir/R4/http.html.

Bundles are put together from the stored bytes; no resource is decoded only to be sent.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fhir_mappings.definitions.structures import elements
from fhir_mappings.json import dumps, loads
from hub.clock import instant
from hub.ports import Stored

_SUBSETTED = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "SUBSETTED",
    "display": "Resource encoded in summary mode",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The result of one interaction.

    Attributes:
        status: HTTP status.
        body: JSON, or raw bytes when ``media_type`` says so; empty for none.
        stored: the version the answer is about, for ETag, Last-Modified and Location.
        created: whether ``stored`` is new, so that its Location is given.
        media_type: of ``body``, when it is not FHIR JSON.
    """

    status: int
    body: bytes = b""
    stored: Stored | None = None
    created: bool = False
    media_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def location(one: Stored) -> str:
    """Return the relative URL of this version."""
    return f"{one.type}/{one.id}/_history/{one.version}"


def subset(body: bytes, *, summary: str | None, wanted: Sequence[str]) -> bytes:
    """Return the resource in *body* cut down to what ``_summary`` or ``_elements`` ask, marked as SUBSETTED."""
    if summary in {None, "false"} and not wanted:
        return body
    resource: dict[str, Any] = loads(body)
    kind = resource["resourceType"]
    table = elements(kind)
    needed = {name for name, element in table.items() if element.min}
    if summary == "text":
        keep = {"text", *needed}
    elif summary == "data":
        keep = set(resource) - {"text"}
    else:
        keep = needed | {
            name for name, element in table.items() if (element.choice.removesuffix("[x]") or name) in wanted
        }
    keep |= {"resourceType", "id", "meta"}
    cut = {name: value for name, value in resource.items() if name.removeprefix("_") in keep}
    meta = dict(cut.get("meta", {}))
    meta["tag"] = [*meta.get("tag", ()), _SUBSETTED]
    cut["meta"] = meta
    return dumps(cut)


def entry(base: str, body: bytes, reference: str, mode: str) -> bytes:
    """Return one entry of a searchset around the stored bytes."""
    return b'{"fullUrl":%s,"resource":%s,"search":{"mode":"%s"}}' % (
        dumps(f"{base}/{reference}"),
        body,
        mode.encode(),
    )


def history_entry(base: str, one: Stored) -> bytes:
    """Return one entry of a history Bundle; a deleted version has no resource."""
    created = one.version == 1 and not one.deleted
    method = "DELETE" if one.deleted else ("POST" if created and one.method == "POST" else "PUT")
    request = {"method": method, "url": one.type if method == "POST" else f"{one.type}/{one.id}"}
    response = {
        "status": "204" if one.deleted else ("201" if created else "200"),
        "etag": f'W/"{one.version}"',
        "lastModified": instant(one.last_updated),
    }
    resource = b"" if one.deleted else b'"resource":%s,' % one.body
    return b'{"fullUrl":%s,%s"request":%s,"response":%s}' % (
        dumps(f"{base}/{one.type}/{one.id}"),
        resource,
        dumps(request),
        dumps(response),
    )


def bundle(
    kind: str, entries: Iterable[bytes], *, links: Sequence[tuple[str, str]], total: int | None = None, now: str
) -> bytes:
    """Return a Bundle of type *kind* with ready-made *entries*."""
    head: dict[str, Any] = {
        "resourceType": "Bundle",
        "id": str(uuid.uuid4()),
        "meta": {"lastUpdated": now},
        "type": kind,
    }
    if total is not None:
        head["total"] = total
    if links:
        head["link"] = [{"relation": relation, "url": url} for relation, url in links]
    joined = b",".join(entries)
    text = dumps(head)
    return text[:-1] + b',"entry":[%s]}' % joined if joined else text
