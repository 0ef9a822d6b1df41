"""The password of a share link, as people type it."""

from __future__ import annotations

import unicodedata

from argon2.exceptions import InvalidHashError, VerificationError

from hub.directory import PASSWORDS

#: Longest text that is taken for a password; what the hub makes is shorter.
_MAX_TEXT = 128


def is_right(hashed: str, typed: str) -> bool:
    """Return whether *typed* is the password of which *hashed* was made.

    Phones with a Chinese keyboard write full-width digits, and people write six digits in two groups, as they were told
    them. The hub makes passwords of digits alone, so that leaving out what stands between them makes none easier to guess.
    """
    plain = "".join(unicodedata.normalize("NFKC", typed[:_MAX_TEXT]).replace("-", "").split())
    try:
        return PASSWORDS.verify(hashed, plain)
    except (VerificationError, InvalidHashError):
        return False
