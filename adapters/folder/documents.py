"""Clinical documents among the files of a folder (HL7 CDA R2): how one is told from messages, and what its sender is told.

What a file is, its root element says, because names and endings say nothing that can be relied on, and a broken document is
to be refused as a document. A message in XML may hold a whole document as text, so only what stands before the root is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from fhir_mappings.json import dumps

#: As much of a file as shows its root; an XML declaration, style sheets and comments come first.
_HEAD = 16_384
# Possessive, because what a comment holds is the sender's: it is read once, from left to right (XML 1.0, 2.8).
_ROOT = re.compile(
    rb"(?>\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*+(?:\[.*?\]\s*+)?+>)*+<(?:[\w.-]++:)?+ClinicalDocument(?=[\s/>]|\Z)",
    re.DOTALL,
)
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What became of a document.

    Attributes:
        reference: its DocumentReference; empty when it was refused.
        refusal: why it was refused, in the hub's own words; empty when it is durable.
        notes: what could not be carried over from it.
    """

    reference: str = ""
    refusal: str = ""
    notes: tuple[tuple[str, str], ...] = ()

    def answer(self) -> bytes:
        """Return what the sender reads: an OperationOutcome whose first issue names the DocumentReference, or is the error."""
        if self.refusal:
            issues = [{"severity": "error", "code": "processing", "diagnostics": self.refusal}]
        else:
            issues = [{"severity": "information", "code": "informational", "diagnostics": self.reference}]
        issues += [
            {"severity": "warning", "code": "incomplete", "diagnostics": f"{where}: {message}"}
            for where, message in self.notes
        ]
        return dumps({"resourceType": "OperationOutcome", "issue": issues}) + b"\n"


#: Takes one clinical document; durable on return. Raises only where the file has to stay for the next turn.
Documents = Callable[[bytes], Told]


def is_document(data: bytes) -> bool:
    """Return whether the root element of *data* is a clinical document's, whole or not, in any character set of XML."""
    head = data[:_HEAD]
    for mark in _MARKS:
        head = head.removeprefix(mark)
    # UTF-16 has a zero beside every character of markup.
    return _ROOT.match(head.replace(b"\0", b"")) is not None
