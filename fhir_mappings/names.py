"""Personal names as FHIR HumanName (https://hl7.org/fhir/R4/datatypes.html#HumanName), for every door.

``text`` is authoritative. The family name of a Chinese name written in one piece is never guessed: 欧阳明月 and 买买提·艾力
do not split by rule. A name that comes in Han and in letters becomes two HumanNames, told apart by the extension
``iso21090-EN-representation`` (IDE ideographic, ABC alphabetic, SYL phonetic), as FHIR does for Japanese names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from fhir_mappings.text import has_han

_REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"

Representation = Literal["IDE", "ABC", "SYL"]


def human_name(
    *,
    text: str = "",
    family: str = "",
    given: Sequence[str] = (),
    prefix: str = "",
    suffix: str = "",
    use: str = "",
    representation: Representation | None = None,
) -> dict[str, Any] | None:
    """Return a HumanName, or ``None`` where there is nothing to say; ``text`` is put together when it is not given."""
    family = family.strip()
    parts = [part.strip() for part in given if part.strip()]
    text = _tidy(text) or _joined(family, parts)
    if not text:
        return None
    name: dict[str, Any] = {}
    if representation is not None:
        name["extension"] = [{"url": _REPRESENTATION, "valueCode": representation}]
    if use:
        name["use"] = use
    name["text"] = text
    if family:
        name["family"] = family
    if parts:
        name["given"] = parts
    if prefix.strip():
        name["prefix"] = [prefix.strip()]
    if suffix.strip():
        name["suffix"] = [suffix.strip()]
    return name


def _joined(family: str, given: Sequence[str]) -> str:
    if has_han(family) or any(has_han(part) for part in given):
        return family + "".join(given)
    return " ".join(part for part in (*given, family) if part)


def _tidy(text: str) -> str:
    """Two-character names are padded to three with a full-width space for printing; that is layout, not the name."""
    tidy = " ".join(text.replace("\u3000", " ").split())
    return (
        tidy.replace(" ", "") if has_han(tidy) and not any(char.isascii() and char.isalpha() for char in tidy) else tidy
    )
