"""Retrieve Capabilities (PS3.18 section 8.9): OPTIONS answers what a resource takes, made from the table of routes.

The answer is a WADL document (https://www.w3.org/submissions/wadl/), or the same in JSON. It holds no data of patients,
so it needs no token; browsers ask for it before they have one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from adapters._http import guarded
from adapters.dicomweb.archive import ZIP_TYPE
from adapters.dicomweb.changes import QUERY, QUERY_LATEST
from adapters.dicomweb.negotiation import JSON_TYPE, XML_TYPE, accepted, not_acceptable
from adapters.dicomweb.xml import packed
from fhir_mappings.json import dumps
from hub.attribute_matching import Level, keys_of

if TYPE_CHECKING:
    from hub.boot import Services

ROOT = "/dicom-web"
WADL_TYPE = "application/vnd.sun.wadl+xml"
_JSON = "application/json"
_TEMPLATE = re.compile(r"\{(\w+)(:\w+)?\}")
_MULTIPART_XML = f'multipart/related; type="{XML_TYPE}"'
_OBJECT = ('multipart/related; type="application/dicom"', "application/dicom")
_OCTETS = ('multipart/related; type="application/octet-stream"', "application/octet-stream")
_RENDERED = (
    "image/jpeg, image/png, image/gif; of several frames video/mp4 too; videos and PDF also as they are stored."
    " 多帧与视频可取 video/mp4；视频与 PDF 亦可按原样取回。"
)
_FEED = {"/changefeed": QUERY, "/changefeed/latest": QUERY_LATEST}
_MARKED = (
    "PS3.18 defines no DELETE: this marks as deleted what the path names, needs a reason (reason= or the header X-Reason)"
    " and removes no byte. 标记删除，须说明原因，不清除任何数据。"
)
_OWN_FEED = "PS3.18 defines no change feed: ask again with the since of the last answer. 变更日志，非标准。"
#: UPS-RS (PS3.18 section 11.2): the transaction of each method and last step of the path.
_WORKITEMS: Mapping[tuple[str, str], str] = {
    ("GET", "workitems"): "SearchWorkitems",
    ("POST", "workitems"): "CreateWorkitem",
    ("GET", "{workitem}"): "RetrieveWorkitem",
    ("POST", "{workitem}"): "UpdateWorkitem",
    ("PUT", "state"): "ChangeWorkitemState",
    ("POST", "cancelrequest"): "RequestCancellation",
    ("POST", "{aetitle}"): "Subscribe",
    ("DELETE", "{aetitle}"): "Unsubscribe",
    ("POST", "suspend"): "SuspendGlobalSubscription",
}
#: Those whose request has no body.
_BODILESS = frozenset({"{aetitle}", "suspend"})
_WORKITEM_QUERIES: Mapping[tuple[str, str], Sequence[str]] = {
    ("GET", "workitems"): ("limit", "offset", "fuzzymatching", "includefield"),
    ("POST", "{aetitle}"): ("deletionlock", "filter"),
}
_CHANNEL = "Events go by WebSocket: ws(s)://.../dicom-web/subscribers/{aetitle}. 事件经 WebSocket 发送。"
_LEVELS: Mapping[str, Level] = {"studies": "study", "series": "series", "instances": "instance"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """One method of one resource.

    Attributes:
        name: of the transaction, in the words of PS3.18.
        query: names of query parameters.
        takes: media types of the body.
        gives: media types of the answer, the usual one first.
        note: what the standard does not say of it.
    """

    method: str
    path: str
    name: str
    query: Sequence[str] = ()
    takes: Sequence[str] = ()
    gives: Sequence[str] = ()
    note: str = ""


def abilities(made: Iterable[BaseRoute]) -> list[Ability]:
    """Return what the *made* routes below the root take, in their order."""
    return [
        _ability(method, one.path.removeprefix(ROOT))
        for one in made
        if isinstance(one, Route) and one.path.startswith(f"{ROOT}/")
        for method in sorted(one.methods or ())
        if method not in {"HEAD", "OPTIONS"}
    ]


def _ability(method: str, path: str) -> Ability:
    last = path.rpartition("/")[2]
    if path.startswith("/workitems"):
        return _workitem(method, path, last)
    if method == "DELETE":
        return Ability(method=method, path=path, name="Delete", query=("reason",), gives=(_JSON,), note=_MARKED)
    if path in _FEED:
        return Ability(method=method, path=path, name="ChangeFeed", query=_FEED[path], gives=(_JSON,), note=_OWN_FEED)
    plain = _TEMPLATE.sub("", path)
    if method == "POST":
        return Ability(
            method=method,
            path=path,
            name="Store",
            takes=(*_OBJECT, f'multipart/related; type="{JSON_TYPE}"', _MULTIPART_XML),
            gives=(JSON_TYPE, XML_TYPE),
        )
    if method == "GET" and last in _LEVELS:
        query = ("limit", "offset", "fuzzymatching", "includefield", *sorted(keys_of(_LEVELS[last])))
        return Ability(method=method, path=path, name="Search", query=query, gives=(JSON_TYPE, _MULTIPART_XML))
    if last in {"rendered", "thumbnail"}:
        # Which of them there are depends on the object: images, videos or documents.
        note = _RENDERED if last == "rendered" else ""
        return Ability(method=method, path=path, name=f"Retrieve{last.capitalize()}", note=note)
    if last == "metadata":
        return Ability(method=method, path=path, name="RetrieveMetadata", gives=(JSON_TYPE,))
    if "/bulk/" in plain:
        return Ability(method=method, path=path, name="RetrieveBulkdata", gives=_OCTETS)
    if last in {"bulkdata", "pixeldata"}:
        return Ability(method=method, path=path, name=f"Retrieve{last.capitalize()}", gives=_OCTETS[:1])
    if "/frames/" in plain:
        return Ability(method=method, path=path, name="RetrieveFrames", gives=_OCTETS)
    if method == "GET" and last in {"{study}", "{series}", "{instance}"}:
        return Ability(method=method, path=path, name="Retrieve", query=("dicomdir",), gives=(*_OBJECT, ZIP_TYPE))
    # A resource that this table does not know is listed all the same: it is there.
    return Ability(method=method, path=path, name=f"{method.capitalize()}{last.strip('{}').capitalize()}")


def _workitem(method: str, path: str, last: str) -> Ability:
    return Ability(
        method=method,
        path=path,
        name=_WORKITEMS[method, last],
        query=_WORKITEM_QUERIES.get((method, last), ()),
        takes=() if method == "GET" or last in _BODILESS else (JSON_TYPE, XML_TYPE),
        gives=() if method != "GET" else (JSON_TYPE, _MULTIPART_XML if last == "workitems" else XML_TYPE),
        note=_CHANNEL if (method, last) == ("POST", "{aetitle}") else "",
    )


def routes(services: Services, made: Sequence[BaseRoute]) -> list[BaseRoute]:
    """Return an OPTIONS route for the root and for each resource of the *made* routes."""
    known = abilities(made)
    # The root is asked for with and without a slash behind it.
    roots = {ROOT, f"{ROOT}/"}
    methods: dict[str, set[str]] = {path: {"OPTIONS"} for path in sorted(roots)}
    for one in made:
        if isinstance(one, Route) and one.path.startswith(f"{ROOT}/"):
            methods.setdefault(one.path, {"OPTIONS"}).update(one.methods or ())
    found: list[BaseRoute] = []
    for path, allowed in methods.items():
        own = known if path in roots else [one for one in known if ROOT + one.path == path]
        found.append(Route(path, guarded(_answer(services, own, ", ".join(sorted(allowed)))), methods=["OPTIONS"]))
    return found


def _answer(services: Services, own: Sequence[Ability], allowed: str) -> Any:
    async def answer(request: Request) -> Response:
        base = services.settings.public() + ROOT
        headers = {"Allow": allowed}
        for one in accepted(request):
            if one.takes(WADL_TYPE) or one.media_type in {"application/xml", "text/xml"}:
                return packed(wadl(base, own), WADL_TYPE, request, headers=headers)
            if one.takes(_JSON):
                return packed(dumps(in_json(base, own)), _JSON, request, headers=headers)
        raise not_acceptable(f"Ask for {WADL_TYPE} or {_JSON}.")

    return answer


def wadl(base: str, own: Sequence[Ability]) -> bytes:
    """Return *own* as a WADL document whose resources lie below *base*."""
    names = 'xmlns="http://wadl.dev.java.net/2009/02" xmlns:xs="http://www.w3.org/2001/XMLSchema"'
    out = [f'<?xml version="1.0" encoding="UTF-8"?>\n<application {names}><resources base={quoteattr(base)}>']
    for path, group in _by_path(own).items():
        plain = _TEMPLATE.sub(r"{\1}", path).lstrip("/")
        out.append(f"<resource path={quoteattr(plain)}>")
        out += [
            f'<param name="{name}" style="template" type="xs:string" required="true"/>'
            for name, _ in _TEMPLATE.findall(path)
        ]
        for one in group:
            out.append(f'<method name="{one.method}" id={quoteattr(_id(one))}>')
            if one.note:
                out.append(f"<doc>{escape(one.note)}</doc>")
            out.append("<request>")
            out += [f'<param name="{name}" style="query" type="xs:string"/>' for name in one.query]
            out += [f"<representation mediaType={quoteattr(kind)}/>" for kind in one.takes]
            out.append("</request><response>")
            out += [f"<representation mediaType={quoteattr(kind)}/>" for kind in one.gives]
            out.append("</response></method>")
        out.append("</resource>")
    out.append("</resources></application>")
    return "".join(out).encode()


def _id(one: Ability) -> str:
    """Return a name that no other method of the document has."""
    words = [word.strip("{}").partition(":")[0] for word in one.path.split("/") if word]
    return one.name + "".join(f"-{word}" for word in words)


def in_json(base: str, own: Sequence[Ability]) -> dict[str, Any]:
    """Return *own* as JSON, in the words of WADL."""
    return {
        "base": base,
        "resources": [
            {
                "path": _TEMPLATE.sub(r"{\1}", path).lstrip("/"),
                "methods": [
                    {
                        "name": one.method,
                        "id": _id(one),
                        "query": list(one.query),
                        "request": list(one.takes),
                        "response": list(one.gives),
                        **({"note": one.note} if one.note else {}),
                    }
                    for one in group
                ],
            }
            for path, group in _by_path(own).items()
        ],
    }


def _by_path(own: Sequence[Ability]) -> dict[str, list[Ability]]:
    found: dict[str, list[Ability]] = {}
    for one in own:
        found.setdefault(one.path, []).append(one)
    return found
