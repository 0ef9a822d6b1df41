"""WADO-URI: one instance by query parameters, as a DICOM object or as a picture (PS3.18 section 9).

Who asks, what is in scope and what is audited are as for WADO-RS. Two words of the standard are read liberally: without
``transferSyntax`` an object comes as it is stored, and without ``contentType`` the Accept header is asked before the
defaults of table 9.5-1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from adapters._http import Workers, actor_of
from adapters.dicomweb.errors import checked_uid
from adapters.dicomweb.looks import icc, number, quality, side, which_annotations, window, wrong
from adapters.dicomweb.movies import MP4
from adapters.dicomweb.negotiation import Accepted, accepted, not_acceptable, ranges_of
from adapters.dicomweb.offers import may_be
from adapters.dicomweb.presentation import Presented, has_image, is_state, read
from adapters.dicomweb.rendered import IMAGE_TYPES, Rendered, image_type, moves
from adapters.dicomweb.wado import Retrieve
from adapters.pixels.look import Look
from adapters.pixels.syntaxes import TARGETS, video
from hub.errors import Category, HubError
from hub.ports import InstanceRow

if TYPE_CHECKING:
    from hub.actor import Actor
    from hub.boot import Services

_DICOM = "application/dicom"
_UIDS = ("studyUID", "seriesUID", "objectUID")
#: What only a picture has; with a DICOM object it is an error (PS3.18 section 9.1.2.2).
_OF_PICTURES = (
    "frameNumber", "windowCenter", "windowWidth", "rows", "columns", "region", "imageQuality", "annotation", "iccprofile",
    "presentationSeriesUID", "presentationUID",
)  # fmt: skip
_KNOWN = frozenset({"requestType", *_UIDS, "contentType", "charset", "anonymize", "transferSyntax", *_OF_PICTURES})


class WadoUri:
    """The handler of ``/wado``."""

    def __init__(self, services: Services, retrieve: Retrieve, rendered: Rendered, renderers: Workers) -> None:
        self._services = services
        self._retrieve = retrieve
        self._rendered = rendered
        self._renderers = renderers

    async def get(self, request: Request) -> Response:
        """GET /wado?requestType=WADO&studyUID=...&seriesUID=...&objectUID=..."""
        answer = await self._renderers.run(lambda: self._get(request))
        if not request.query_params.keys() <= _KNOWN:
            service = f"{self._services.settings.public()}/wado"
            answer.headers["Warning"] = f'299 {service}: "Parameters that WADO-URI does not have were ignored."'
        return answer

    def _get(self, request: Request) -> Response:
        actor = actor_of(request, self._services, shared=True)
        asked = request.query_params
        if asked.get("requestType") != "WADO":
            raise wrong("requestType", "Send requestType=WADO.")
        study, series, instance = (checked_uid(name, asked.get(name, "")) for name in _UIDS)
        if asked.get("anonymize", "no") not in {"", "no"}:
            raise HubError(
                Category.UNSUPPORTED, "Objects are not de-identified on their way out.", where="anonymize", status=406
            )
        ranges = ranges_of(asked["contentType"]) if asked.get("contentType") else accepted(request)
        look, said = _look(request)
        (row,) = self._services.imaging.retrieve(actor, study, series, instance, attributes=True, subtype="WADO-URI")
        if self._is_object(row, ranges, asked_frame="frameNumber" in asked):
            return self._object(request, row)
        if "transferSyntax" in asked:
            raise wrong("transferSyntax", f"It goes with contentType={_DICOM} alone.")
        state = self._state(actor, row, asked)
        frame = _frame(asked.get("frameNumber"))
        # A frame of a video is a picture; the video itself has no frame number.
        of_film = frame is not None and video(row.TransferSyntaxUID)
        passed = None if of_film else self._rendered.passed_on(request, row, ranges)
        if passed is not None:
            return passed
        chosen, media_type = image_type([one for one in ranges if not one.multipart], film=moves([(row, frame)]))
        look = replace(look, media_type=media_type)
        if media_type in {"image/gif", MP4} and chosen.media_type == media_type and frame is None:
            return self._rendered.moving(request, [(row, None)], look, said, frames_said=False, state=state)
        return self._rendered.single(request, row, frame, look, said, state=state)

    def _state(self, actor: Actor, row: InstanceRow, asked: Mapping[str, str]) -> Presented | None:
        """Return the presentation state that is named, of the same study and copy (PS3.18 section 9.5.1.2.7)."""
        names = ("presentationSeriesUID", "presentationUID")
        if not any(name in asked for name in names):
            return None
        for name in names:
            if name not in asked:
                raise wrong(name, f"{names[0]} and {names[1]} go together.")
        for name in ("windowCenter", "windowWidth"):
            if name in asked:
                raise wrong(name, "It does not go with presentationUID: the state says how grey levels are made.")
        series, instance = (checked_uid(name, asked[name]) for name in names)
        (found,) = self._services.imaging.retrieve(
            actor, row.StudyInstanceUID, series, instance, owner=row.owner, subtype="WADO-URI presentation state"
        )
        if not is_state(found):
            raise wrong("presentationUID", "It names no presentation state.")
        return read(self._retrieve, found)

    def _is_object(self, row: InstanceRow, ranges: Sequence[Accepted], *, asked_frame: bool) -> bool:
        first = ranges[0] if ranges else None
        if first is None or first.multipart:
            raise not_acceptable(f"Ask for {_DICOM}, or for one of {', '.join(IMAGE_TYPES)}.")
        if first.media_type == "*/*":
            # Table 9.5-1: a single frame is a picture by default, all else is not.
            if asked_frame and video(row.TransferSyntaxUID):
                return False
            return not has_image(row) or ((row.NumberOfFrames or 1) > 1 and not asked_frame)
        return first.media_type in {_DICOM, "application/*"}

    def _object(self, request: Request, row: InstanceRow) -> Response:
        asked = request.query_params
        for name in _OF_PICTURES:
            if name in asked:
                raise wrong(name, f"It does not go with contentType={_DICOM}.")
        syntax = asked.get("transferSyntax") or row.TransferSyntaxUID
        if not may_be(row, syntax):
            possible = [row.TransferSyntaxUID, *(one.uid for one in TARGETS if may_be(row, one.uid))]
            raise HubError(
                Category.UNSUPPORTED,
                "The object cannot be had in this transfer syntax.",
                where="transferSyntax",
                remedy=f"Ask for one of {', '.join(dict.fromkeys(possible))}.",
                status=406,
            )
        return self._retrieve.single(request, row, syntax)


def _look(request: Request) -> tuple[Look, frozenset[str]]:
    """Return how the picture is to look, and which annotations are asked for (PS3.18 section 9.1.2.2)."""
    asked = request.query_params
    look = Look()
    center, width = asked.get("windowCenter"), asked.get("windowWidth")
    if (center is None) != (width is None):
        raise wrong("windowWidth" if width is None else "windowCenter", "Center and width go together.")
    if center is not None and width is not None:
        look = replace(look, window=window("windowWidth", center, width, "linear"))
    if "rows" in asked or "columns" in asked:
        # With one alone the other follows from the proportions.
        unbound = 1e9
        high = side("rows", asked["rows"]) if "rows" in asked else unbound
        wide = side("columns", asked["columns"]) if "columns" in asked else unbound
        look = replace(look, size=(wide, high))
    if "region" in asked:
        parts = [number("region", part) for part in asked["region"].split(",")]
        if len(parts) != 4 or not (0 <= parts[0] < parts[2] <= 1 and 0 <= parts[1] < parts[3] <= 1):
            raise wrong("region", "Send left,top,right,bottom as fractions of the image, 0 to 1.")
        look = replace(look, region=(parts[0], parts[1], parts[2], parts[3]))
    if "imageQuality" in asked:
        look = replace(look, quality=quality("imageQuality", asked["imageQuality"]))
    if "iccprofile" in asked:
        look = replace(look, icc=icc("iccprofile", asked["iccprofile"]))
    return look, which_annotations("annotation", asked.get("annotation", ""))


def _frame(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) < 1:
        raise wrong("frameNumber", "Send the number of one frame, from 1.")
    return int(text)
