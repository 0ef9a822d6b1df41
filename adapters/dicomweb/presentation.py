"""Presentation states at this door: which images one is for, and what of it goes to the decoder (PS3.3 A.33, C.11.11).

WADO-URI names a state beside an image (PS3.18 section 9.5.1.2.7); WADO-RS renders a state by rendering the images that it is for
(section 10.4.1.1.3), in the order in which it names them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters.dicomweb.looks import plain
from adapters.pixels.look import COLOUR_STATE, GRAYSCALE_STATE
from adapters.pixels.syntaxes import video
from fhir_mappings.dicom.scanner import DEFLATED
from hub.errors import Category, HubError
from hub.ports import InstanceRow

if TYPE_CHECKING:
    from adapters.dicomweb.wado import Retrieve
    from hub.actor import Actor
    from hub.boot import Services

#: All SOP classes of presentation states lie below this UID.
_STATES = "1.2.840.10008.5.1.4.1.1.11."


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An image that a state is for; no frames are all frames."""

    series: str
    instance: str
    frames: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """One presentation state.

    Attributes:
        digest: of the object.
        parts: what the decoder must know of it.
    """

    digest: str
    parts: Sequence[bytes]
    references: Sequence[Reference]

    def frame(self, row: InstanceRow, number: int | None) -> int | None:
        """Return the frame that the state shows of an image: the one asked for, or the first that it names.

        Raises:
            HubError: incorrect where the state is not for it.
        """
        named = [one for one in self.references if one.instance == row.SOPInstanceUID]
        for one in named:
            if number is None:
                return one.frames[0] if one.frames else None
            if not one.frames or number in one.frames:
                return number
        raise HubError(
            Category.INCORRECT, "The presentation state is not for this image.", where="presentationUID",
            remedy="Name an image and a frame that it refers to.",
        )  # fmt: skip


def has_image(row: InstanceRow) -> bool:
    """Return whether the instance has pixels that can be a picture."""
    deflated = row.TransferSyntaxUID in DEFLATED
    return row.Rows is not None and (row.pixel_offset is not None or deflated) and not video(row.TransferSyntaxUID)


def is_state(row: InstanceRow) -> bool:
    """Return whether the instance is a presentation state of any kind."""
    return row.SOPClassUID.startswith(_STATES)


def read(retrieve: Retrieve, row: InstanceRow) -> Presented:
    """Return the presentation state *row*; raises HubError(unsupported, 406) for a kind that is not drawn."""
    if row.SOPClassUID not in {GRAYSCALE_STATE, COLOUR_STATE}:
        raise HubError(
            Category.UNSUPPORTED, "Presentation states of this SOP class are not drawn here.", where="(0008,0016)",
            remedy="Grayscale and Color Softcopy Presentation States are.", status=406,
        )  # fmt: skip
    with retrieve.opened(row) as stored:
        references = tuple(_references(stored.header))
        return Presented(digest=row.digest, parts=stored.presentation(plain), references=references)


def images_of(
    services: Services, actor: Actor, row: InstanceRow, state: Presented, *, subtype: str
) -> list[tuple[InstanceRow, int | None]]:
    """Return the images of a state in its own study and copy, in its order, with the frame of each.

    Raises:
        HubError: not-found where none of them is here.
    """
    known: dict[str, dict[str, InstanceRow]] = {}
    for series in dict.fromkeys(one.series for one in state.references):
        try:
            rows = services.imaging.retrieve(actor, row.StudyInstanceUID, series, owner=row.owner, subtype=subtype)
        except HubError as error:
            if error.category is not Category.NOT_FOUND:
                raise
            continue
        known[series] = {one.SOPInstanceUID: one for one in rows}
    wanted: list[tuple[InstanceRow, int | None]] = []
    for one in state.references:
        image = known.get(one.series, {}).get(one.instance)
        if image is not None and has_image(image):
            wanted += [(image, number) for number in one.frames or (None,)]
    if not wanted:
        raise HubError(
            Category.NOT_FOUND, "None of the images that the presentation state is for is here.", where="(0008,1115)"
        )
    return wanted


def _references(header: Mapping[str, Any]) -> Iterator[Reference]:
    for series in _items(header, "00081115"):
        for image in _items(series, "00081140"):
            frames = [one for one in image.get("00081160", {}).get("Value") or () if isinstance(one, int)]
            yield Reference(series=_uid(series, "0020000E"), instance=_uid(image, "00081155"), frames=tuple(frames))


def _items(dataset: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    return [one for one in dataset.get(tag, {}).get("Value") or () if isinstance(one, Mapping)]


def _uid(dataset: Mapping[str, Any], tag: str) -> str:
    return str((dataset.get(tag, {}).get("Value") or [""])[0])
