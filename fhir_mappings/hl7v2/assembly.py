"""The translation of one message while it is being put together, and the row engine of the segment tables.

A segment table is a tuple of :class:`Row`, one for each field that means something in FHIR, in the order of the
v2-to-FHIR segment map it implements (http://hl7.org/fhir/uv/v2mappings). :func:`fill` walks the rows over a segment;
absent fields say nothing, ``""`` clears the element (HL7 v2 chapter 2.5.3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fhir_mappings import codes
from fhir_mappings.code_maps import Coder, UnmappedCode, table_system
from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.base import Change, Guard, Issue, Merge, Translation, Upsert, WorkflowEvent
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.tokenizer import Field, Message, Segment

Json = dict[str, Any]


def where(segment: Segment, number: int | None = None) -> str:
    """``PID-3 of segment 2``: the place as a person counts, the MSH being segment 1."""
    name = segment.name if number is None else f"{segment.name}-{number}"
    return f"{name} of segment {segment.index + 1}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a converter stands, so that its issues can name the field."""

    assembly: Assembly
    segment: Segment
    number: int

    @property
    def ctx(self) -> MappingContext:
        """The sender's context."""
        return self.assembly.ctx

    def warn(self, message: str, *, code: str = "value") -> None:
        """Record that something in this field could not be carried over."""
        self.assembly.issues.append(
            Issue(severity="warning", code=code, message=message, where=where(self.segment, self.number))
        )

    def mapped(self, table: str, code: str) -> codes.MappedCode | None:
        """Look *code* up, in the sender's own map first; what has no row is an issue with its table, not its value."""
        if not code:
            return None
        found = self.known(table, code)
        if found is None:
            ctx = self.ctx
            gap = UnmappedCode(table_system(ctx.institution, table, base=ctx.base), code.strip())
            if not ctx.maps.knows(gap):
                self.assembly.unmapped_codes[gap] = None
            self.warn(f"The code has no row in the map {table}; it was not translated.", code="code-invalid")
        return found

    def known(self, table: str, code: str) -> codes.MappedCode | None:
        """Look *code* up as :meth:`mapped` does, where a code without a row is nothing to report."""
        own = self.ctx.maps.tables.get(table)
        found = own.get(code.strip()) if own is not None else None
        return found if found is not None else codes.lookup(table, code)


Convert = Callable[[Field, Place], Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One field of a segment table.

    Attributes:
        number: field number in the segment.
        element: path of the FHIR element; ``name*`` adds to a list, ``a.b`` reaches into an object, an empty path
            merges the object that *convert* returns into the resource (choice types).
        convert: from the field to the element's value; ``None`` or an empty value says nothing.
        clears: the element that ``""`` nulls, when it is not the head of *element*; ``-`` clears nothing.
    """

    number: int
    element: str
    convert: Convert
    clears: str = ""


@dataclass(slots=True)
class Filled:
    """What the rows made of a segment."""

    elements: Json = field(default_factory=dict)
    cleared: set[str] = field(default_factory=set)

    def open_clears(self) -> frozenset[str]:
        """Cleared elements that no other row gave a value."""
        return frozenset(path for path in self.cleared if path not in self.elements)


def fill(rows: Iterable[Row], segment: Segment, assembly: Assembly, into: Filled | None = None) -> Filled:
    """Return the FHIR elements that *rows* find in *segment*, added to *into* if it is given."""
    filled = Filled() if into is None else into
    for row in rows:
        content = segment.field(row.number)
        if content.is_absent:
            continue
        if content.is_null:
            target = row.clears or row.element.rstrip("*")
            if target and target != "-":
                filled.cleared.add(target)
            continue
        value = row.convert(content, Place(assembly, segment, row.number))
        if value is None or value in ([], {}, ""):
            continue
        put(filled.elements, row.element, value)
    return filled


def put(elements: Json, path: str, value: Any) -> None:
    """Set *value* at *path* of *elements* (``a.b``, ``list*``, empty to merge an object)."""
    if not path:
        elements.update(value)
        return
    head, _, rest = path.partition(".")
    if rest:
        put(elements.setdefault(head, {}), rest, value)
    elif head.endswith("*"):
        items = elements.setdefault(head[:-1], [])
        for item in value if isinstance(value, list) else [value]:
            if item not in items:
                items.append(item)
    else:
        elements[head] = value


@dataclass(slots=True)
class Assembly:
    """The translation of *message* so far."""

    message: Message
    ctx: MappingContext
    event: str
    asserted_at: datetime
    issues: list[Issue] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    endings: list[Upsert] = field(default_factory=list)
    workflow_events: list[WorkflowEvent] = field(default_factory=list)
    patient_id: str | None = None
    #: Shared resources already made in this message, by reference; each is stated once.
    interned: dict[str, Upsert] = field(default_factory=dict)
    unmapped: set[str] = field(default_factory=set)
    unmapped_codes: dict[UnmappedCode, None] = field(default_factory=dict)

    def upsert(
        self,
        resource: Json,
        *,
        cleared: frozenset[str] = frozenset(),
        guard: Guard = "none",
        defaults: Mapping[str, Any] | None = None,
        update_only: bool = False,
        literal: bool = False,
    ) -> str:
        """Add a change and return the reference of its resource."""
        change = Upsert(
            resource=resource,
            cleared=cleared,
            guard=guard,
            defaults=defaults or {},
            update_only=update_only,
            literal=literal,
        )
        self.changes.append(change)
        return change.reference

    def intern(self, resource: Json) -> str:
        """State a shared resource once, only for the case that it is not known yet; return its reference."""
        change = Upsert(resource=resource, create_only=True)
        if change.reference not in self.interned:
            self.interned[change.reference] = change
            self.changes.append(change)
        return change.reference

    def merge(self, survivor_id: str, dead_id: str) -> None:
        """Add a merge of two patient records."""
        self.changes.append(Merge(survivor_id=survivor_id, dead_id=dead_id))

    def require(self, name: str) -> Segment:
        """Return the first segment *name*.

        Raises:
            MalformedError: code 100, the message has none.
        """
        segment = self.message.first(name)
        if segment is None:
            raise MalformedError(
                f"The message has no {name} segment, which {self.event} requires.",
                where=f"after segment {len(self.message.segments)}",
                remedy=f"Send {name} as the message structure says.",
                code=100,
            )
        return segment

    def require_one(self, name: str) -> Segment:
        """Return the segment *name*, which must not come twice: the rest of the message belongs to it.

        Raises:
            MalformedError: code 100, the message has none, or more than one.
        """
        segment = self.require(name)
        found = self.message.all(name)
        if len(found) > 1:
            # Whoever is told of second would be lost, or what follows would be told of the first.
            raise MalformedError(
                f"{self.event} has one {name} segment, and this message has {len(found)}.",
                where=where(found[1]),
                remedy="Send a message for each patient.",
                code=100,
            )
        return segment

    def structure(self, name: str, remedy: str) -> MalformedError:
        """The error for segments that do not stand as the event wants them (code 100)."""
        return MalformedError(
            f"The segments of {self.event} do not stand as it wants them.",
            where=f"{name} of segment {1 + max((one.index for one in self.message.all(name)), default=0)}",
            remedy=remedy,
            code=100,
        )

    def missing(self, segment: Segment, number: int, remedy: str) -> MalformedError:
        """The error for a required field that is not valued (code 101)."""
        return MalformedError(
            f"{segment.name}-{number} is required in {self.event} and is not valued.",
            where=where(segment, number),
            remedy=remedy,
            code=101,
        )

    def skip(self, segment: Segment) -> None:
        """Record once for each segment name that it has no mapping; Z-segments are the sender's own affair."""
        if segment.name in self.unmapped or segment.name.startswith("Z"):
            return
        self.unmapped.add(segment.name)
        self.issues.append(
            Issue(
                severity="information",
                code="not-supported",
                message=f"{segment.name} has no mapping; it is kept in the original message.",
                where=where(segment),
            )
        )

    def finish(self) -> Translation:
        """The finished value, with what the sender's maps add."""
        coder = Coder(self.ctx.maps, self.ctx.institution, base=self.ctx.base)
        changes = tuple(_coded(change, coder) for change in self.changes)
        return Translation(
            event=self.event,
            asserted_at=self.asserted_at,
            changes=changes,
            patient_id=self.patient_id,
            issues=tuple(self.issues),
            endings=tuple(self.endings),
            workflow_events=tuple(self.workflow_events),
            unmapped=tuple({**self.unmapped_codes, **coder.unmapped}),
        )


def _coded(change: Change, coder: Coder) -> Change:
    if not isinstance(change, Upsert):
        return change
    resource = coder.coded(change.resource)
    defaults, by_item = change.defaults, change.by_item
    if defaults:
        defaults = coder.coded(dict(defaults))
    if by_item:
        by_item = {name: tuple(coder.coded(item) for item in items) for name, items in by_item.items()}
    if resource is change.resource and defaults == change.defaults and by_item == change.by_item:
        return change
    return replace(change, resource=resource, defaults=defaults, by_item=by_item)
