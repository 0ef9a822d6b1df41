"""Errors of pure translation; the hub turns them into its own vocabulary at the border."""

from __future__ import annotations


class MappingError(Exception):
    """Input that cannot be translated.

    Attributes:
        where: the place in the input in the standard's words, for example ``OBX-5 of segment 3``.
        remedy: what the sender can do about it.
        code: HL7 table 0357 condition code where the input is HL7 v2 (for example 101, 200), else ``None``.
    """

    def __init__(self, message: str, *, where: str = "", remedy: str = "", code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy
        self.code = code


class MalformedError(MappingError):
    """The input breaks the grammar of its standard."""


class UnsupportedError(MappingError):
    """The input is well formed but asks for something that is not supported."""
