"""JSON that keeps FHIR's decimals exact.

https://hl7.org/fhir/R4/json.html and https://hl7.org/fhir/R4/datatypes.html#decimal: the precision of a decimal is
significant, so ``72.50`` must not become ``72.5``. Numbers with a fraction or exponent travel as ``Decimal``.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from fhir_mappings.errors import MalformedError

_decoder = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")


def loads(data: bytes | str) -> Any:
    """Return the value that *data* spells; fractions are ``Decimal`` with every digit kept.

    Raises:
        MalformedError: *data* is not JSON, or nests deeper than the decoder's own guard.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(
            f"The body is not valid JSON: {error}", where="body", remedy="Send UTF-8 JSON as RFC 8259 defines it."
        ) from error


def dumps(value: Any) -> bytes:
    """Return *value* as compact UTF-8 JSON; ``Decimal`` keeps its digits."""
    return _encoder.encode(value)
