"""What differs between two FHIR resources, element by element (https://hl7.org/fhir/R4/fhirpatch.html has the idea).

Lists are compared as bags, because an added coding moves nothing; so a path names an element and not a place in a list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

Kind = Literal["added", "removed", "changed"]


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path of the element, value as text) of every leaf of *value*."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from flat(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from flat(item, path)
    else:
        yield path, f"{type(value).__name__}:{value}"


def differences(before: Any, after: Any, path: str = "") -> dict[str, Kind]:
    """Return the elements under *path* that differ, by their paths in the order of the standard's spelling."""
    old, new = Counter(flat(before, path)), Counter(flat(after, path))
    gone = {name for name, _ in old - new}
    come = {name for name, _ in new - old}
    return {
        name: "changed" if name in gone and name in come else "removed" if name in gone else "added"
        for name in sorted(gone | come)
    }


def values(value: Any, path: str) -> list[str]:
    """Return what stands at *path* of *value*, as text."""
    return [text.partition(":")[2] for name, text in flat(value) if name == path]
