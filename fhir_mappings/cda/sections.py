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
#: Statements that say something by their code alone: that it was done, given or handed out.
_DEEDS = frozenset({"procedure", "substanceAdministration", "supply", "encounter"})
#: Coded parts of a statement, and what the entry calls them.
_DETAILS = (
    ("routeCode", "route"),
    ("administrationUnitCode", "form"),
    ("targetSiteCode", "site"),
    ("methodCode", "method"),
)
#: ActMood (CDA R2 section 4.3.6): what is asked for, intended or aimed at has not happened.
_NOT_YET = frozenset({"INT", "RQO", "PRMS", "PRP", "ARQ", "GOL"})
_SHOWN = frozenset({"value", "dose", "route", "form", "frequency", "site", "method", "range"})
#: What a Composition takes over; an original with more is kept as it is all the same.
MAX_ENTRIES = 2000
MAX_NARRATIVE_CHARS = 1 << 20


@dataclass(slots=True)
class Sections:
    """Turns sections; counts what they take over."""

    ctx: MappingContext
    media: frozenset[str] = frozenset()
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
        written = child(section, "text")
        div = narrative.div(written, self.media)
        status = "additional"
        if div is not None and written is not None and not narrative.says(written):
            # It shows pictures and has no words, so what the entries say stands below them.
            lines = [line for entry in entries if (line := _line(entry))]
            div, status = (narrative.joined(div, lines), "generated") if lines else (div, status)
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
        code = _product(statement, self.ctx) or datatypes.concept(child(statement, "code"), self.ctx)
        told = [one for one in children(statement, "value") if not datatypes.is_media(one)]
        values = [made for one in told if (made := datatypes.value(one, self.ctx))]
        details = self._details(statement)
        written = child(statement, "text")
        if not values and written is not None and not datatypes.is_media(written) and text_of(written):
            values = [{"valueString": text_of(written)}]
        if code is None or not (values or details or statement.name in _DEEDS):
            return None
        parts: list[Json] = [{"url": "code", "valueCodeableConcept": code}]
        parts += [{"url": "value", **one} for one in values]
        parts += details
        when = datatypes.moment(child(statement, "effectiveTime"), self.ctx)
        if when:
            parts.append({"url": "time", "valueDateTime": when})
        judged = datatypes.concept(child(statement, "interpretationCode"), self.ctx)
        if judged:
            parts.append({"url": "interpretation", "valueCodeableConcept": judged})
        if attribute(statement, "negationInd") == "true":
            parts.append({"url": "negated", "valueBoolean": True})
        if attribute(statement, "moodCode") in _NOT_YET:
            parts.append({"url": "mood", "valueCode": attribute(statement, "moodCode")})
        return {"url": f"{self.ctx.base}/StructureDefinition/cda-entry", "extension": parts}

    def _details(self, statement: Element) -> list[Json]:
        """What a statement says beside its code and value: dose, route, frequency, form, site, method, reference range."""
        made: list[Json] = []
        for name, url in (("doseQuantity", "dose"), ("quantity", "dose")):
            one = child(statement, name)
            if one is not None and (amount := datatypes.quantity(one)):
                made.append({"url": url, "valueQuantity": amount})
        for name, url in _DETAILS:
            if named := datatypes.concept(child(statement, name), self.ctx):
                made.append({"url": url, "valueCodeableConcept": named})
        # WS/T 500.4 and 500.5 write the frequency as the translation of a rate.
        if often := datatypes.concept(child(statement, "rateQuantity", "translation"), self.ctx):
            made.append({"url": "frequency", "valueCodeableConcept": often})
        for one in children(statement, "referenceRange"):
            limits = child(one, "observationRange")
            bounds = child(limits, "value")
            words = datatypes.in_words(bounds) if bounds is not None else text_of(child(limits, "text"))
            if words:
                made.append({"url": "range", "valueString": words})
        return made

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


def _product(statement: Element, ctx: MappingContext) -> Json | None:
    """Return what is given or handed out (CDA R2 sections 4.3.6.7 and 4.3.6.8): its code, and the name that the sender writes."""
    held = child(statement, "consumable") or child(statement, "product")
    made = child(held, "manufacturedProduct")
    thing = child(made, "manufacturedLabeledDrug") or child(made, "manufacturedMaterial")
    coded = datatypes.concept(child(thing, "code"), ctx) or {}
    named = text_of(child(thing, "name"))
    return {**coded, **({"text": named} if named else {})} or None


def _line(entry: Json) -> tuple[str, str] | None:
    parts = entry["extension"]
    label = datatypes.label(parts[0]["valueCodeableConcept"])
    values = [
        datatypes.shown({key: value for key, value in part.items() if key != "url"})
        for part in parts
        if part["url"] in _SHOWN
    ]
    for at, part in enumerate(one for one in parts if one["url"] in _SHOWN):
        if part["url"] == "range":
            values[at] = f"(参考 {values[at]})"
    moment = next((part["valueDateTime"] for part in parts if part["url"] == "time"), "")
    if not values and moment:
        values = [moment]
    if not values:
        values = ["已记录 (recorded)"]
    if any(part["url"] == "mood" for part in parts):
        values.insert(0, "计划 (planned):")
    if any(part["url"] == "negated" for part in parts):
        values.insert(0, "否定 (negated):")
    return (label, " ".join(values)) if label else None
