"""What one feed promises beyond the standard: a message profile as data (HL7 v2 chapter 2.B, conformance), judged at once.

A profile is JSON, by message (``ADT^A01``), by type (``ADT``) or for all (``*``); whatever fits a message holds for it::

    {"ADT": {"segments": ["PV1"], "required": ["PID-5", "PV1-2"], "lengths": {"PID-3.1": 20}, "tables": {"PV1-2": ["I", "O"]}}}

Findings name places and never values, because they are told to the sender and shown to operators.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.ack import AckError
from fhir_mappings.hl7v2.tokenizer import Message, Segment
from fhir_mappings.json import loads

_PATH = re.compile(r"([A-Z][A-Z0-9]{2})-([1-9][0-9]{0,2})(?:\.([1-9][0-9]?))?")
_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")
_KEY = re.compile(r"\*|[A-Z]{3}(\^[A-Z0-9]{3})?")


@dataclass(frozen=True, slots=True)
class Path:
    """A field, or one component of each of its repetitions."""

    segment: str
    field: int
    component: int | None

    def __str__(self) -> str:
        return f"{self.segment}-{self.field}" + (f".{self.component}" if self.component else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds for one kind of message; lengths are in characters."""

    segments: tuple[str, ...] = ()
    required: tuple[Path, ...] = ()
    lengths: tuple[tuple[Path, int], ...] = ()
    tables: tuple[tuple[Path, frozenset[str]], ...] = ()


Profile = Mapping[str, Rules]


def read_profile(text: str) -> Profile:
    """Return the profile that *text* is; raises ValueError with the place that is no use."""
    found = loads(text.encode())
    if not isinstance(found, dict) or not found:
        raise ValueError("profile")
    return {_checked(_KEY, key): _rules(key, value) for key, value in found.items()}


def is_profile(text: str) -> bool:
    """Return whether *text* is a profile."""
    try:
        read_profile(text)
    except (ValueError, TypeError, MalformedError):
        return False
    return True


def findings(profile: Profile, message: Message) -> list[AckError]:
    """Return everything in which *message* does not keep to *profile*."""
    kind, event = message.get("MSH-9.1").strip(), message.get("MSH-9.2").strip()
    return [
        error for key in ("*", kind, f"{kind}^{event}") if key in profile for error in _judged(profile[key], message)
    ]


def _judged(rules: Rules, message: Message) -> Iterator[AckError]:
    for name in rules.segments:
        if message.first(name) is None:
            yield AckError(location=name, code=100, text=f"缺少约定的段 {name} / The profile asks for segment {name}.")
    for path in rules.required:
        for segment in message.all(path.segment):
            if not any(_values(segment, path)):
                yield _error(path, segment, 101, "缺少约定的必填项 / The profile asks for a value here.")
    for path, most in rules.lengths:
        for segment in message.all(path.segment):
            if any(len(value) > most for value in _values(segment, path)):
                yield _error(path, segment, 102, f"超过约定长度 {most} / The profile allows {most} characters here.")
    for path, table in rules.tables:
        for segment in message.all(path.segment):
            if any(value and value not in table for value in _values(segment, path)):
                yield _error(path, segment, 103, "取值不在约定的代码表中 / The profile's table has no such value.")


def _values(segment: Segment, path: Path) -> list[str]:
    repetitions = segment.field(path.field).repetitions
    if path.component is None:
        return [one.raw.strip() for one in repetitions]
    return [one.component(path.component).strip() for one in repetitions]


def _error(path: Path, segment: Segment, code: int, text: str) -> AckError:
    return AckError(location=f"{path} of segment {segment.index + 1}", code=code, text=text)


def _rules(key: str, value: Any) -> Rules:
    if not isinstance(value, dict) or value.keys() - {"segments", "required", "lengths", "tables"}:
        raise ValueError(key)
    lengths, tables = _table(value, "lengths"), _table(value, "tables")
    if not all(type(most) is int and most > 0 for most in lengths.values()):
        raise ValueError(f"{key} lengths")
    return Rules(
        segments=tuple(_checked(_SEGMENT, one) for one in _list(value.get("segments", []))),
        required=tuple(_path(one) for one in _list(value.get("required", []))),
        lengths=tuple((_path(one), most) for one, most in lengths.items()),
        tables=tuple((_path(one), frozenset(_list(codes))) for one, codes in tables.items()),
    )


def _table(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name, {})
    if isinstance(found, dict):
        return found
    raise ValueError(name)


def _list(value: Any) -> Sequence[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError("list of texts")
    return value


def _checked(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(text)
    return text


def _path(text: str) -> Path:
    found = _PATH.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return Path(found[1], int(found[2]), int(found[3]) if found[3] else None)
