"""Query parameters of rendered resources, and the texts that are written onto them (PS3.18 section 8.3.5)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from adapters.dicomweb.parameters import passed_over
from adapters.pixels.look import Look
from fhir_mappings.text import full_pinyin
from hub.errors import Category, HubError

_KNOWN = frozenset({"window", "viewport", "quality", "annotation", "iccprofile"})
#: Parameters that every resource has (PS3.18 section 8.3.3).
_ALWAYS = frozenset({"accept", "charset"})
FUNCTIONS = ("linear", "linear-exact", "sigmoid")
ANNOTATIONS = ("patient", "technique")
PROFILES = ("no", "yes", "srgb")
#: Longest side of a picture; a common cloud service has the same.
MAX_SIDE = 10_000
DEFAULT_FRAME_MS = 100
#: Texts are cut to what a corner holds.
_MAX_TEXT = 64


def look_of(parameters: Mapping[str, str], *, only: frozenset[str] = _KNOWN) -> tuple[Look, frozenset[str]]:
    """Return how the picture is to look, and which annotations are asked for.

    Raises:
        HubError: incorrect, naming the parameter that is unknown or wrong.
    """
    for name in parameters:
        if name not in only and name not in _ALWAYS and not passed_over(name):
            raise wrong(name, f"The parameters here are {', '.join(sorted(only))}.")
    look = Look()
    if "window" in parameters:
        look = replace(look, window=_window(parameters["window"]))
    if "viewport" in parameters:
        size, source = _viewport(parameters["viewport"])
        look = replace(look, size=size, source=source)
    if "quality" in parameters:
        look = replace(look, quality=quality("quality", parameters["quality"]))
    if "iccprofile" in parameters:
        look = replace(look, icc=icc("iccprofile", parameters["iccprofile"]))
    return look, which_annotations("annotation", parameters.get("annotation", ""))


def _window(text: str) -> tuple[float, float, str]:
    parts = text.split(",")
    if len(parts) != 3 or parts[2].strip().lower() not in FUNCTIONS:
        raise wrong("window", f"Send center,width,function; the functions are {', '.join(FUNCTIONS)}.")
    return window("window", parts[0], parts[1], parts[2].strip().lower())


def window(name: str, center: str, width: str, function: str) -> tuple[float, float, str]:
    """Return a window; raises HubError(incorrect) for a width that it cannot have (PS3.3 C.11.2.1.2)."""
    found = number(name, center), number(name, width)
    if found[1] < 1 if function == "linear" else found[1] <= 0:
        raise wrong(name, "The width of a linear window is at least 1, of the others more than 0.")
    return *found, function


def _viewport(
    text: str,
) -> tuple[tuple[float, float], tuple[float | None, float | None, float | None, float | None] | None]:
    parts = [part.strip() for part in text.split(",")]
    remedy = "Send vw,vh or vw,vh,sx,sy,sw,sh."
    if len(parts) not in {2, 6}:
        raise wrong("viewport", remedy)
    size = side("viewport", parts[0]), side("viewport", parts[1])
    if len(parts) == 2:
        return size, None
    left, top, width, height = (number("viewport", part) if part else None for part in parts[2:])
    if (left or 0) < 0 or (top or 0) < 0 or width == 0 or height == 0:
        raise wrong("viewport", f"The region begins inside the image and is not empty. {remedy}")
    return size, (left, top, width, height)


def side(name: str, text: str) -> float:
    """Return the length of a side of a picture in pixels."""
    found = number(name, text)
    if not 1 <= found <= MAX_SIDE:
        raise wrong(name, f"Send 1 to {MAX_SIDE} pixels.")
    return found


def quality(name: str, text: str) -> int:
    """Return a quality of 1 to 100."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:4]) <= 100:
        raise wrong(name, "Send 1 to 100.")
    return int(text)


def icc(name: str, text: str) -> str:
    """Return which colour profile is wanted."""
    if text not in PROFILES:
        raise wrong(name, f"Send one of {', '.join(PROFILES)}.")
    return text


def which_annotations(name: str, text: str) -> frozenset[str]:
    """Return which annotations are asked for."""
    found = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not found <= set(ANNOTATIONS):
        raise wrong(name, f"Send some of {', '.join(ANNOTATIONS)}.")
    return found


def number(name: str, text: str) -> float:
    """Return a decimal number."""
    try:
        found = float(text) if len(text) <= 32 else math.nan
    except ValueError:
        found = math.nan
    if not math.isfinite(found) or "_" in text:
        raise wrong(name, "Send decimal numbers.")
    return found


def wrong(name: str, remedy: str) -> HubError:
    """Return the error of a parameter."""
    return HubError(Category.INCORRECT, f"The parameter {name[:64]} is wrong.", where=name[:64], remedy=remedy)


# --- texts -------------------------------------------------------------------------------------------------------


def annotation(
    header: Mapping[str, Any], said: frozenset[str], shown: tuple[float, float, str] | None
) -> Mapping[str, Sequence[tuple[str, str]]]:
    """Return the texts of the corners: who on the left, how it was made on the right."""
    corners: dict[str, Sequence[tuple[str, str]]] = {}
    if "patient" in said:
        age = " ".join(filter(None, (_text(header, "00100040"), _date(_text(header, "00100030")))))
        corners["left"] = [*_name(header), *_lines([_text(header, "00100020"), age])]
    if "technique" in said:
        moment = f"{_date(_text(header, '00080020'))} {_time(_text(header, '00080030'))}".strip()
        title = " ".join(filter(None, (_text(header, "00080060"), _text(header, "0008103E"))))
        values = [
            ("00180060", "kV"),
            ("00181151", "mA"),
            ("00180050", "mm"),
            ("00180080", "ms TR"),
            ("00180081", "ms TE"),
        ]
        made = "  ".join(f"{_text(header, tag)} {unit}" for tag, unit in values if _text(header, tag))
        if shown is not None:
            level = f"C {shown[0]:g} W {shown[1]:g}"
        else:
            center, width = _text(header, "00281050"), _text(header, "00281051")
            level = f"C {center} W {width}" if center and width else ""
        corners["right"] = _lines([title, moment, made, level])
    return corners


def duration_ms(header: Mapping[str, Any]) -> int:
    """Return how long each frame is shown: its own time, or by its rate (PS3.3 section C.7.6.5)."""
    for tag in ("00181063", "00082144", "00180040"):
        try:
            value = float(_text(header, tag) or 0)
        except ValueError:
            continue
        if value > 0:
            return int(min(max(value if tag == "00181063" else 1000 / value, 20), 10_000))
    return DEFAULT_FRAME_MS


def durations_us(header: Mapping[str, Any], count: int, numbers: Sequence[int]) -> list[int] | None:
    """Return how long each of *numbers* is shown in a film, in microseconds; ``None`` where the header tells nothing.

    *count* is the header's word on how many frames there are, for which nothing is made: it may be any number. The rate to show it at goes before the time between exposures (PS3.3 sections C.7.6.5 and C.7.6.6).
    """
    for tag in ("00082144", "00180040", "00181063"):
        value = _positive(_text(header, tag))
        if value:
            return [_held_us(value if tag == "00181063" else 1000 / value)] * len(numbers)
    vector = [_positive(str(one)) for one in header.get("00181065", {}).get("Value") or ()]
    if len(vector) != count or not any(vector):
        return None
    # Each value is the time since the frame before, so a frame is shown until the next; the last as long as the one before.
    shown = [*vector[1:], vector[-1]]
    return [_held_us(shown[number - 1]) for number in numbers]


def _positive(text: str) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def _held_us(milliseconds: float) -> int:
    return round(min(max(milliseconds, 1), 10_000) * 1000)


def _lines(texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(text[:_MAX_TEXT], plain(text)[:_MAX_TEXT]) for text in texts if text.strip()]


def plain(text: str) -> str:
    """Return *text* for a font without Han characters."""
    return full_pinyin(text).encode("ascii", "replace").decode("ascii") if not text.isascii() else text


def _name(header: Mapping[str, Any]) -> list[tuple[str, str]]:
    groups = (header.get("00100010", {}).get("Value") or [{}])[0] or {}
    han, latin = (str(groups.get(group, "")).replace("^", " ").strip() for group in ("Ideographic", "Alphabetic"))
    whole = f"{han.replace(' ', '')}  {latin}".strip() if han else latin
    return [(whole[:_MAX_TEXT], plain(latin or han)[:_MAX_TEXT])] if whole else []


def _text(header: Mapping[str, Any], tag: str) -> str:
    values = header.get(tag, {}).get("Value") or [""]
    return "" if isinstance(values[0], dict) or values[0] is None else str(values[0]).strip()


def _date(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if len(text) == 8 and text.isdigit() else text


def _time(text: str) -> str:
    return f"{text[:2]}:{text[2:4]}" if text[:4].isdigit() and len(text) >= 4 else text
