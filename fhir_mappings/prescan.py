"""The guard in front of every JSON body (RFC 8259, https://hl7.org/fhir/R4/json.html).

A JSON decoder answers some hostile texts with a value: of duplicate keys one silently wins, and nesting costs stack in
whatever reads the value next. The guard is linear, never recurses over the input and never answers with part of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from fhir_mappings.errors import MalformedError
from fhir_mappings.json import loads


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLimits:
    """What one body may cost.

    Attributes:
        max_bytes: size of the text.
        max_depth: nested objects and arrays.
        max_values: upper bound on objects, arrays and members together; it bounds the memory of the decoded value.
        max_array: entries of one array.
        max_string_chars: length of one string.
    """

    max_bytes: int = 16 * 1024 * 1024
    max_depth: int = 64
    max_values: int = 2_000_000
    max_array: int = 10_000
    max_string_chars: int = 8 * 1024 * 1024


DEFAULT_LIMITS: Final = JsonLimits()


class _DuplicateKeyError(Exception):
    """Carries nothing: a key is input and is not repeated in messages."""


def prescan(body: bytes, limits: JsonLimits = DEFAULT_LIMITS) -> Any:
    """Return the decoded *body*; numbers with a fraction are ``Decimal`` with every digit.

    Raises:
        MalformedError: the body is too large, nests too deep, repeats a key, has a NUL character, NaN, Infinity or a
            lone surrogate, or is not JSON in UTF-8 at all.
    """
    if len(body) > limits.max_bytes:
        raise _refused(f"The body is larger than {limits.max_bytes} bytes.", "Send it in parts.")
    # Counted before decoding: a text of 16 MiB can ask for a gigabyte of empty objects.
    if body.count(b"{") + body.count(b"[") + body.count(b",") > limits.max_values:
        raise _refused(f"The body has more than {limits.max_values} values.", "Send it in parts.")
    # The decoder is strict (NaN, surrogates, control characters, trailing text) and guards its own stack.
    value = loads(body)
    _measure(value, limits, texts=len(body) > limits.max_string_chars or rb"\u0000" in body)
    try:
        json.loads(body, object_pairs_hook=_unique)
    except _DuplicateKeyError as error:
        raise _refused(
            "An object has the same key twice.", "Send each key once; which of the two values is meant is not guessed."
        ) from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > 1 and len(dict(pairs)) != len(pairs):
        raise _DuplicateKeyError


def _measure(value: Any, limits: JsonLimits, *, texts: bool) -> None:
    """Refuse what is too deep, too wide or, with *texts*, too long; level by level, so the input is no stack."""
    kept = (dict, list, str) if texts else (dict, list)
    level = [value]
    # A level that holds only strings nests no deeper than the one before it.
    for depth in range(limits.max_depth + 2):
        if depth >= limits.max_depth and any(type(item) is not str for item in level):
            raise _refused(f"The body nests deeper than {limits.max_depth} levels.", "Flatten the resource.")
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                below += item.values()
                if texts:
                    below += item
            elif type(item) is list:
                if len(item) > limits.max_array:
                    raise _refused(f"An array has more than {limits.max_array} entries.", "Send it in parts.")
                below += item
            elif type(item) is str:
                _check_text(item, limits)
        level = [item for item in below if type(item) in kept]
        if not level:
            return


def _check_text(text: str, limits: JsonLimits) -> None:
    if len(text) > limits.max_string_chars:
        raise _refused(f"A string is longer than {limits.max_string_chars} characters.", "Send it as a Binary.")
    if "\0" in text:
        raise _refused("A string has a NUL character.", "FHIR strings hold no control characters.")


def _refused(message: str, remedy: str) -> MalformedError:
    return MalformedError(message, where="body", remedy=remedy)
