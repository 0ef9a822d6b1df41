"""How a rendered picture is to look (PS3.18 section 8.3.5); apart from the rendering, so that naming it loads no codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

#: Presentation states that are drawn (PS3.4 annex B.5): Grayscale and Color Softcopy Presentation State Storage.
GRAYSCALE_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
COLOUR_STATE = "1.2.840.10008.5.1.4.1.1.11.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a picture is to look.

    Attributes:
        window: center, width and function (``linear``, ``linear-exact``, ``sigmoid``); ``None`` = the object's own.
        source: left, top, width and height of the region in pixels, the last two negative to mirror it; ``None``
            where not said.
        region: the same as fractions of the image (left, top, right, bottom), for WADO-URI.
        size: the picture fits into (width, height); ``None`` = as many pixels as the region has.
        enlarge: a region smaller than *size* is made larger.
        icc: ``no``, ``yes`` or ``srgb``.
        lines: texts for the corners ``left`` and ``right``; each as it is, and in ASCII for want of a font.
    """

    media_type: str = "image/jpeg"
    window: tuple[float, float, str] | None = None
    source: tuple[float | None, float | None, float | None, float | None] | None = None
    region: tuple[float, float, float, float] | None = None
    size: tuple[float, float] | None = None
    enlarge: bool = True
    quality: int = 90
    icc: str = "no"
    lines: Mapping[str, Sequence[tuple[str, str]]] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return what :meth:`as_json` wrote."""
        fields: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
        return cls(**fields)
