"""One error vocabulary for the whole hub.

Every door owns one small table that turns a :class:`Category` into its protocol's answer: HTTP status and
OperationOutcome, DICOM status (PS3.7 annex C), or MSA-1 and ERR-3 (HL7 table 0357).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Category(Enum):
    """What kind of trouble it is, and so who can mend it and whether to try again."""

    #: The input breaks a rule; the sender mends it and sends again.
    INCORRECT = "incorrect"
    #: The input is well formed but asks for what the hub does not do.
    UNSUPPORTED = "unsupported"
    #: The sender is not who it says, or may not do this.
    FORBIDDEN = "forbidden"
    #: There is no such thing, or it lies outside the asker's scope.
    NOT_FOUND = "not-found"
    #: The present state does not allow it.
    CONFLICT = "conflict"
    #: Too much at once; the same request may succeed later.
    BUSY = "busy"
    #: A part the hub relies on is out of order; the same request may succeed later.
    UNAVAILABLE = "unavailable"
    #: The work was cut off before its end; the same request may succeed.
    INTERRUPTED = "interrupted"
    #: The hub itself is wrong.
    FAULT = "fault"


#: Categories after which the sender should send the very same thing again.
TRANSIENT = frozenset({Category.BUSY, Category.UNAVAILABLE, Category.INTERRUPTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """One finding about an input.

    Attributes:
        severity: ``fatal``, ``error``, ``warning`` or ``information`` (FHIR issue-severity).
        code: FHIR issue-type, for example ``invalid``, ``required``, ``code-invalid``.
        message: what is wrong, without patient data.
        where: the place in the standard's words or as a FHIRPath expression.
    """

    severity: str
    code: str
    message: str
    where: str = ""


class HubError(Exception):
    """Trouble in the hub's own words.

    Attributes:
        category: decides the answer at each door.
        message: what is wrong; never holds patient data.
        where: the place in the input, in the standard's words.
        remedy: what the reader can do.
        issues: single findings where there are several.
        code: HL7 table 0357 code when the input is HL7 v2, or a FHIR issue-type override in ``issue_code``.
        status: HTTP status that a rule of FHIR fixes (412, 422, 413, ...), when the category alone is too coarse.
        fatal: the node must stop taking data (a failed fsync).
        retry_after_s: when it is worth trying again, where the answer has a place for that (HTTP's Retry-After).
    """

    retry_after_s: int = 1

    def __init__(
        self,
        category: Category,
        message: str,
        *,
        where: str = "",
        remedy: str = "",
        issues: Sequence[Issue] = (),
        code: int | None = None,
        issue_code: str | None = None,
        status: int | None = None,
        fatal: bool = False,
    ) -> None:
        super().__init__(message)
        self.category = category
        self.message = message
        self.where = where
        self.remedy = remedy
        self.issues = tuple(issues)
        self.code = code
        self.issue_code = issue_code
        self.status = status
        self.fatal = fatal

    @property
    def transient(self) -> bool:
        """Whether the same input may succeed later."""
        return self.category in TRANSIENT

    def __str__(self) -> str:
        parts = [self.message]
        if self.where:
            parts.append(f"Where: {self.where}.")
        if self.remedy:
            parts.append(self.remedy)
        return " ".join(parts)
