"""The body of a clinical document as sections of a FHIR Composition (CDA R2 section 4.3).

WS/T 500 puts what a section says into its entries (数据元 with code and value) and often leaves the narrative empty. So each
entry is kept as an extension ``cda-entry`` with its code, value and time, and a section without a narrative gets one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fhir_mappings.cda import datatypes, narrative
from fhir_mappings.cda.document import attribute, child, children, text_of
from fhir_mappings.hl7v2.base import Issue
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.markup import Element

Json = dict[str, Any]

#: Clinical statements (CDA R2 section 4.3.6) that may say something by themselves.
_STATEMENTS = frozenset(
    {
        "observation",
        "act",
        "procedure",
        "substanceAdministration",
        "supply",
        "encounter",
        "organizer",
        "observationMedia",
    }
)
#: What a Composition takes over; an original with more is kept as it is all the same.
MAX_ENTRIES = 2000
MAX_NARRATIVE_CHARS = 1 << 20


@dataclass(slots=True)
class Sections:
    """Turns sections; counts what they take over."""

    ctx: MappingContext
    issues: list[Issue] = field(default_factory=list)
    _entries: int = 0
    _chars: int = 0

    def of(self, root: Element) -> list[Json]:
        """Return the sections of the document *root* in their order."""
        found = children(root, "component", "structuredBody", "component")
        return [made for one in found if (section := child(one, "section")) and (made := self._section(section))]

    def _section(self, section: Element) -> Json | None:
        made: Json = {}
        entries = self._kept(section)
        if entries:
            made["extension"] = entries
        title = text_of(child(section, "title"))
        code = datatypes.concept(child(section, "code"), self.ctx)
        if not title and code:
            title = datatypes.label(code)
        if title:
            made["title"] = title
        if code:
            made["code"] = code
        text = self._text(section, entries)
        if text:
            made["text"] = text
        below = [
            one
            for part in children(section, "component")
            if (inner := child(part, "section")) and (one := self._section(inner))
        ]
        if below:
            made["section"] = below
        # A section of FHIR says something or why it does not (invariant cmp-1); a heading over nothing is left out.
        return made if text or below else None

    def _text(self, section: Element, entries: list[Json]) -> Json | None:
        div = narrative.div(child(section, "text"))
        status = "additional"
        if div is None:
            lines = [line for entry in entries if (line := _line(entry))]
            if not lines:
                return None
            div, status = narrative.div_of_lines(lines), "generated"
        self._chars += len(div)
        if self._chars > MAX_NARRATIVE_CHARS:
            self._note("The narrative is longer than a Composition takes over; the rest stands in the original alone.")
            div = narrative.div_of_lines([("全文见原始文书", "See the original document.")])
            status = "generated"
        return {"status": status, "div": div}

    def _kept(self, section: Element) -> list[Json]:
        made: list[Json] = []
        for entry in children(section, "entry"):
            for statement in _statements(entry):
                one = self._entry(statement)
                if one is None:
                    continue
                self._entries += 1
                if self._entries > MAX_ENTRIES:
                    self._note(f"Only the first {MAX_ENTRIES} entries were taken over; the original has them all.")
                    return made
                made.append(one)
        return made

    def _entry(self, statement: Element) -> Json | None:
        code = datatypes.concept(child(statement, "code"), self.ctx)
        values = [made for one in children(statement, "value") if (made := datatypes.value(one, self.ctx))]
        if code is None or not (values or child(statement, "text") is not None):
            return None
        parts: list[Json] = [{"url": "code", "valueCodeableConcept": code}]
        parts += [{"url": "value", **one} for one in values]
        if not values:
            written = text_of(child(statement, "text"))
            if not written:
                return None
            parts.append({"url": "value", "valueString": written})
        when = datatypes.moment(child(statement, "effectiveTime"), self.ctx)
        if when:
            parts.append({"url": "time", "valueDateTime": when})
        judged = datatypes.concept(child(statement, "interpretationCode"), self.ctx)
        if judged:
            parts.append({"url": "interpretation", "valueCodeableConcept": judged})
        if attribute(statement, "negationInd") == "true":
            parts.append({"url": "negated", "valueBoolean": True})
        return {"url": f"{self.ctx.base}/StructureDefinition/cda-entry", "extension": parts}

    def _note(self, message: str) -> None:
        if all(one.message != message for one in self.issues):
            self.issues.append(
                Issue(severity="warning", code="too-long", message=message, where="/ClinicalDocument/component")
            )


def _statements(entry: Element) -> list[Element]:
    found: list[Element] = []
    waiting = list(reversed(entry.children))
    while waiting:
        one = waiting.pop()
        if one.name in _STATEMENTS:
            found.append(one)
        waiting.extend(reversed(one.children))
    return found


def _line(entry: Json) -> tuple[str, str] | None:
    parts = entry["extension"]
    label = datatypes.label(parts[0]["valueCodeableConcept"])
    values = [
        datatypes.shown({key: value for key, value in part.items() if key != "url"})
        for part in parts
        if part["url"] == "value"
    ]
    if any(part["url"] == "negated" for part in parts):
        values.insert(0, "否定 (negated):")
    return (label, " ".join(values)) if label and values else None
