"""What only the key of a project can make: other UIDs, pseudonyms and the shift of dates (PS3.15 sections E.1.1, E.3.6, E.3.9).

Everything is HMAC-SHA256 (RFC 2104) of what it replaces, so the same thing is replaced by the same thing in every object
of a project, differently in each project, and nobody without the key can go back or even check a guess.
"""

from __future__ import annotations

import hmac
from base64 import b32encode
from datetime import date, timedelta
from hashlib import sha256
from uuid import UUID

from fhir_mappings.errors import MalformedError

#: As long as what the hash hands out (RFC 2104 section 3).
KEY_BYTES = 32
#: Dates move back by one day at least and ten years at most.
_MOST_DAYS = 3650


class ProjectKey:
    """The secret of one project."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise MalformedError(
                f"The key of a project has {KEY_BYTES} bytes.", where="key", remedy="Use the file that the hub made."
            )
        self._key = key

    def _mac(self, purpose: str, *parts: str) -> bytes:
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        text = "".join(f"{len(part.encode())}:{part}" for part in (purpose, *parts))
        return hmac.digest(self._key, text.encode(), sha256)

    def fingerprint(self) -> str:
        """Return what tells this key from another without saying anything about it."""
        return self._mac("fingerprint").hex()[:16]

    def uid(self, uid: str) -> str:
        """Return the UID that stands for *uid*: a UUID of version 8 (RFC 9562) under 2.25 (PS3.5 annex B.2)."""
        octets = bytearray(self._mac("uid", uid)[:16])
        octets[6] = octets[6] & 0x0F | 0x80
        octets[8] = octets[8] & 0x3F | 0x80
        return f"2.25.{UUID(bytes=bytes(octets)).int}"

    def pseudonym(self, *identity: str) -> str:
        """Return the pseudonym of the patient whose *identity* (institution, issuer, number) this is."""
        return "P" + b32encode(self._mac("patient", *identity)).decode("ascii")[:15]

    def days(self, *identity: str) -> int:
        """Return by how many days every date of that patient moves; never zero."""
        return -1 - int.from_bytes(self._mac("days", *identity)[:8], "big") % _MOST_DAYS


def shifted(text: str, days: int) -> str:
    """Return a DA or DT value moved by *days*; empty where it is no date that can be moved.

    A time of day, a fraction and a zone stay as they are; a DT that names a year or a month only keeps that precision.
    """
    digits = text[:8]
    for length, rest in ((8, ""), (6, "01"), (4, "0101")):
        if len(digits) >= length and digits[:length].isascii() and digits[:length].isdigit():
            if length < 8 and text[length:]:
                return ""
            try:
                day = date(int(digits[:4]), int((digits[:length] + rest)[4:6]), int((digits[:length] + rest)[6:8]))
                moved = day + timedelta(days=days)
            except (ValueError, OverflowError):
                return ""
            return f"{moved:%Y%m%d}"[:length].rjust(length, "0") + text[length:]
    return ""
