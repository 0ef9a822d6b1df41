"""A message on its way out, judged segment by segment by hl7apy, for partners whose systems are strict.

It costs about 40 ms a message, so it is for the worker that delivers and for nobody who waits. What it finds names places
and never values, because it is logged and shown to operators.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

#: Fields that are conditional or optional in that version of the standard, and that hl7apy takes for required.
CONDITIONAL = {"2.3": ("OBR.OBR_27", "OBX.OBX_4"), "2.3.1": ("OBX.OBX_4",)}
_PLACE = re.compile(r"(Missing required child|Child limit exceeded) ([A-Z][A-Z0-9]{2}\.[A-Z0-9_]+)")


def findings(text: str) -> tuple[str, ...]:
    """Return what hl7apy finds wrong with *text*, at most one finding a segment; empty when it is fit to be sent."""
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.exceptions import HL7apyException
    from hl7apy.parser import parse_message

    try:
        # find_groups=False: hl7apy takes the alternatives of a choice group for required all at once.
        parsed = parse_message(text, validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False)
    except HL7apyException as error:
        return (f"MSH: {type(error).__name__}",)
    return tuple(_segments(parsed))


def _segments(parsed: object) -> Iterator[str]:
    from hl7apy.exceptions import HL7apyException

    version = str(parsed.version)  # type: ignore[attr-defined]
    for ordinal, segment in enumerate(parsed.children, start=1):  # type: ignore[attr-defined]
        if segment.name.startswith("Z"):
            # Nobody but the two partners knows what stands in a segment of their own.
            continue
        try:
            segment.validate()
        except HL7apyException as error:
            found = _PLACE.search(str(error))
            if found is None:
                yield f"{segment.name} (segment {ordinal}): {type(error).__name__}"
            elif found.group(2) not in CONDITIONAL.get(version, ()):
                yield f"{segment.name} (segment {ordinal}): {found.group()}"
