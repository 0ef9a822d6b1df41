"""A message cut into segments, fields, repetitions, components and subcomponents: HL7 v2 chapter 2, sections 2.5 and 2.6.

The cut is lazy: a message is split into lines once, and everything below a line is split only when it is asked for,
one ``str.split`` a level. It is lossless: joining every segment's line and terminator gives the text back. These
classes are plain slotted ones, not frozen dataclasses, because they cache their splits and are made by the thousand.
"""

from __future__ import annotations

import re
from functools import lru_cache

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2.escapes import STANDARD, Delimiters, unescape

MAX_SEGMENTS = 10_000
MAX_FIELDS = 1_000
MAX_REPETITIONS = 500
#: Longest MSH. Every answer copies from it, and MSH-18 is looked for no further (:mod:`fhir_mappings.hl7v2.charset`).
MAX_HEADER = 8192

#: What a sender writes to say "delete the stored value" (chapter 2, section 2.5.3).
NULL = '""'

SEGMENT_SEQUENCE_ERROR = 100
DATA_TYPE_ERROR = 102

# Headers name the delimiters in their first two fields, so those two are never split.
_HEADERS = frozenset({"MSH", "BHS", "FHS"})
_VERBATIM = Delimiters(
    field="\0", component="\0", repetition="\0", escape="\0", subcomponent="\0"
)  # parse() admits only printable delimiters, so this one cuts nothing
_RETURN = re.compile(r"(\r[\r\n]*)")
# A run of line ends is tried once, from its first character, so that a hostile run costs linear time.
_RETURN_OR_LINE_FEED = re.compile(r"(\r[\r\n]*+|(?<![\r\n])\n[\r\n]*+(?=[A-Z][A-Z0-9]{2}(?:[^\w\s]|[\r\n]|\Z)|\Z))")
_LINE_FEED = re.compile(r"(\n+)")
_PATH = re.compile(r"([A-Z][A-Z0-9]{2})-(\d+)(?:\.(\d+))?(?:\.(\d+))?")


def _component(repetition: str, number: int, sub: int, delimiters: Delimiters) -> str:
    """Return the meaning of subcomponent *sub* of component *number* of a repetition as it is written."""
    if delimiters.component in repetition:
        parts = repetition.split(delimiters.component, number)
        return _meaning(parts[number - 1], sub, delimiters) if number <= len(parts) else ""
    return _meaning(repetition, sub, delimiters) if number == 1 else ""


def _meaning(component: str, sub: int, delimiters: Delimiters) -> str:
    if delimiters.subcomponent in component:
        subs = component.split(delimiters.subcomponent, sub)
        component = subs[sub - 1] if sub <= len(subs) else ""
    elif sub > 1:
        return ""
    if component == NULL:
        return ""
    return unescape(component, delimiters) if delimiters.escape in component else component


class Component:
    """One component; the standard numbers its subcomponents from 1."""

    __slots__ = ("_delimiters", "raw")

    def __init__(self, raw: str, delimiters: Delimiters) -> None:
        self.raw = raw
        self._delimiters = delimiters

    @property
    def is_null(self) -> bool:
        """Whether the sender asks to delete the stored value."""
        return self.raw == NULL

    @property
    def subcomponents(self) -> tuple[str, ...]:
        """The meaning of each subcomponent; empty when the component is absent."""
        if not self.raw:
            return ()
        return tuple(
            "" if part == NULL else unescape(part, self._delimiters)
            for part in self.raw.split(self._delimiters.subcomponent)
        )


class Repetition:
    """One occurrence of a repeating field."""

    __slots__ = ("_delimiters", "_parts", "raw")

    def __init__(self, raw: str, delimiters: Delimiters) -> None:
        self.raw = raw
        self._delimiters = delimiters
        self._parts: list[str] | None = None

    @property
    def is_null(self) -> bool:
        """Whether the sender asks to delete the stored value."""
        return self.raw == NULL

    @property
    def components(self) -> tuple[Component, ...]:
        """Every component that is written, absent ones in between included."""
        return tuple(Component(part, self._delimiters) for part in self._split())

    def component(self, number: int, sub: int = 1) -> str:
        """Return the meaning of subcomponent *sub* of component *number*, both from 1; empty when absent or null."""
        parts = self._split()
        return _meaning(parts[number - 1], sub, self._delimiters) if number <= len(parts) else ""

    def text(self) -> str:
        """Return the whole repetition as one value, for types without components: ST, TX, FT, NM, DTM."""
        return "" if self.raw == NULL else unescape(self.raw, self._delimiters)

    def _split(self) -> list[str]:
        if self._parts is None:
            self._parts = self.raw.split(self._delimiters.component)
        return self._parts


class Field:
    """One field of a segment."""

    __slots__ = ("_delimiters", "_number", "_repetitions", "_segment", "raw")

    def __init__(self, raw: str, delimiters: Delimiters, segment: Segment, number: int) -> None:
        self.raw = raw
        self._delimiters = delimiters
        self._segment = segment
        self._number = number
        self._repetitions: tuple[Repetition, ...] | None = None

    @property
    def where(self) -> str:
        """The field's place in words for error messages: ``OBX-5 of segment 3``, counted from 1."""
        return f"{self._segment.name}-{self._number} of segment {self._segment.index + 1}"

    @property
    def is_absent(self) -> bool:
        """Whether nothing is written: the stored value stays (chapter 2, section 2.5.3)."""
        return not self.raw

    @property
    def is_null(self) -> bool:
        """Whether exactly ``""`` is written: the stored value goes."""
        return self.raw == NULL

    @property
    def repetitions(self) -> tuple[Repetition, ...]:
        """Every repetition; empty when the field is absent.

        Raises:
            MalformedError: there are more than ``MAX_REPETITIONS``.
        """
        if self._repetitions is None:
            if not self.raw:
                self._repetitions = ()
            else:
                if self.raw.count(self._delimiters.repetition) >= MAX_REPETITIONS:
                    raise MalformedError(
                        f"{self.where} repeats more than {MAX_REPETITIONS} times.",
                        where=self.where,
                        remedy="Split the message.",
                        code=DATA_TYPE_ERROR,
                    )
                self._repetitions = tuple(
                    Repetition(part, self._delimiters) for part in self.raw.split(self._delimiters.repetition)
                )
        return self._repetitions

    @property
    def first(self) -> Repetition:
        """The first repetition; an empty one when the field is absent."""
        repetitions = self.repetitions
        return repetitions[0] if repetitions else Repetition("", self._delimiters)

    def component(self, number: int, sub: int = 1) -> str:
        """Return the meaning of that component of the first repetition; empty when absent or null."""
        raw = self.raw
        if not raw:
            return ""
        delimiters = self._delimiters
        if delimiters.repetition in raw:
            return self.first.component(number, sub)
        # Nearly all fields are this simple, and nothing is made for them.
        return _component(raw, number, sub, delimiters)

    def text(self) -> str:
        """Return the whole field as one value, for non-repeating types without components."""
        return "" if self.raw == NULL else unescape(self.raw, self._delimiters)


class Segment:
    """One segment; ``line`` is as received, without its terminator."""

    __slots__ = ("_delimiters", "_fields", "index", "line", "name", "terminator")

    def __init__(self, name: str, index: int, line: str, terminator: str, delimiters: Delimiters) -> None:
        self.name = name
        self.index = index
        self.line = line
        self.terminator = terminator
        self._delimiters = delimiters
        self._fields: list[str] | None = None

    @property
    def where(self) -> str:
        """The segment's place in words for error messages: ``segment 3 (OBX)``, counted from 1."""
        return f"segment {self.index + 1} ({self.name})"

    @property
    def field_count(self) -> int:
        """The number of the last field that is written, in the standard's numbering."""
        return len(self._split()) - (0 if self.name in _HEADERS else 1)

    def field(self, number: int) -> Field:
        """Return field *number* of the standard's numbering (MSH-1 is the field separator); absent past the end."""
        parts = self._split()
        delimiters = self._delimiters
        place = number
        if self.name in _HEADERS:
            if number == 1:
                return Field(delimiters.field, _VERBATIM, self, 1)
            if number == 2:
                delimiters = _VERBATIM
            place = number - 1
        return Field(parts[place] if 0 < place < len(parts) else "", delimiters, self, number)

    def get(self, number: int, component: int = 1, sub: int = 1) -> str:
        """Return the meaning of that component of the first repetition; empty when absent or null."""
        parts = self._split()
        if self.name in _HEADERS:
            if number <= 2:
                return self.field(number).raw if component == 1 and sub == 1 else ""
            number -= 1
        if number >= len(parts) or not parts[number]:
            return ""
        delimiters = self._delimiters
        return _component(parts[number].split(delimiters.repetition, 1)[0], component, sub, delimiters)

    def _split(self) -> list[str]:
        if self._fields is None:
            self._fields = self.line.split(self._delimiters.field)
        return self._fields


class Message:
    """One message; ``raw`` is the decoded text exactly as it came."""

    __slots__ = ("_by_name", "delimiters", "prefix", "raw", "segments")

    def __init__(self, raw: str, prefix: str, delimiters: Delimiters, segments: tuple[Segment, ...]) -> None:
        self.raw = raw
        self.prefix = prefix
        self.delimiters = delimiters
        self.segments = segments
        self._by_name: dict[str, list[Segment]] | None = None

    def first(self, name: str) -> Segment | None:
        """Return the first segment called *name*, or ``None``."""
        found = self._index().get(name)
        return found[0] if found else None

    def all(self, name: str) -> list[Segment]:
        """Return every segment called *name*, in order."""
        return list(self._index().get(name, ()))

    def get(self, path: str) -> str:
        """Return one meaning by its path: ``PID-3``, ``PID-3.1`` or ``PID-3.4.2``.

        The first such segment and the first repetition are read; the answer is empty where it is absent or null.
        """
        name, number, component, sub = _path(path)
        segment = self.first(name)
        return segment.get(number, component, sub) if segment is not None else ""

    def lossless(self) -> str:
        """Return the text again from its parts; always equal to ``raw``."""
        return self.prefix + "".join(segment.line + segment.terminator for segment in self.segments)

    def _index(self) -> dict[str, list[Segment]]:
        if self._by_name is None:
            self._by_name = {}
            for segment in self.segments:
                self._by_name.setdefault(segment.name, []).append(segment)
        return self._by_name


@lru_cache(maxsize=1024)
def _path(path: str) -> tuple[str, int, int, int]:
    match = _PATH.fullmatch(path)
    if match is None:
        raise ValueError(f"{path!r} is not a path such as PID-3.1")
    name, number, component, sub = match.groups()
    return name, int(number), int(component or 1), int(sub or 1)


def parse(text: str) -> Message:
    """Return *text* as a message.

    Segments end at a carriage return; a sender that uses line feeds alone is understood too, and a line feed inside
    a message of carriage returns ends a segment only where a segment follows, else it belongs to the field.

    Raises:
        MalformedError: the text does not start with MSH, its delimiters are unusable, a line is no segment, or a
            count passes its cap.
    """
    body = text.lstrip("\r\n")
    prefix = text[: len(text) - len(body)]
    if not body.startswith("MSH"):
        raise MalformedError(
            "The message does not start with MSH.",
            where="segment 1",
            remedy="Send the MSH segment first.",
            code=SEGMENT_SEQUENCE_ERROR,
        )
    delimiters = _delimiters(body)
    if "\r" not in body:
        pattern = _LINE_FEED
    elif "\n" in body:
        pattern = _RETURN_OR_LINE_FEED
    else:
        pattern = _RETURN
    parts = pattern.split(body, MAX_SEGMENTS + 1)
    # Lines stand at even places; the one after the last terminator is empty.
    if (len(parts) + 1) // 2 - (not parts[-1]) > MAX_SEGMENTS:
        raise _too_many(f"The message has more than {MAX_SEGMENTS} segments.", f"segment {MAX_SEGMENTS + 1}")
    separator = delimiters.field
    segments: list[Segment] = []
    for index in range((len(parts) + 1) // 2):
        line = parts[2 * index]
        if not line:
            break  # only the empty end after the last terminator can be empty
        name = line[:3]
        if line[3:4] not in (separator, "") or not (len(name) == 3 and name.isascii() and _is_name(name)):
            where = f"segment {index + 1}"
            raise MalformedError(
                f"{where} does not start with a segment name and the field separator.",
                where=where,
                remedy="End segments with a carriage return only, and escape line ends inside fields.",
                code=SEGMENT_SEQUENCE_ERROR,
            )
        if not index:
            _check_header(line, delimiters)
        if line.count(separator) > MAX_FIELDS:
            where = f"segment {index + 1}"
            raise _too_many(f"{where} has more than {MAX_FIELDS} fields.", where)
        terminator = parts[2 * index + 1] if 2 * index + 1 < len(parts) else ""
        segments.append(Segment(name, index, line, terminator, delimiters))
    return Message(text, prefix, delimiters, tuple(segments))


def _check_header(line: str, delimiters: Delimiters) -> None:
    """Make sure that MSH can be answered: a message whose header passes a cap is refused like one without a header."""
    if len(line) > MAX_HEADER:
        raise _too_many(f"MSH has more than {MAX_HEADER} characters.", "segment 1")
    if line.count(delimiters.repetition) >= MAX_REPETITIONS and any(
        cell.count(delimiters.repetition) >= MAX_REPETITIONS for cell in line.split(delimiters.field)
    ):
        raise _too_many(f"A field of MSH repeats more than {MAX_REPETITIONS} times.", "segment 1")


def _is_name(name: str) -> bool:
    return name.isalnum() and name.isupper() and name[0].isalpha()


def _too_many(message: str, where: str) -> MalformedError:
    return MalformedError(message, where=where, remedy="Split the message.", code=DATA_TYPE_ERROR)


def _delimiters(body: str) -> Delimiters:
    separator = body[3:4]
    end = body.find(separator, 4, 64) if separator else -1
    line_end = min((place for place in (body.find("\r", 3, 64), body.find("\n", 3, 64)) if place >= 0), default=-1)
    if end < 0 or 0 <= line_end < end:
        end = line_end if line_end >= 0 else min(len(body), 64)
    return _delimiters_of(separator, body[4:end])


@lru_cache(maxsize=64)
def _delimiters_of(separator: str, characters: str) -> Delimiters:
    if separator == "|" and characters == "^~\\&":
        return STANDARD
    chosen = separator + characters
    usable = all("!" <= char <= "~" and not char.isalnum() and char != '"' for char in chosen)
    if len(characters) not in {4, 5} or len(set(chosen)) != len(chosen) or not usable:
        raise MalformedError(
            "MSH-1 and MSH-2 do not name five or six different printable delimiters.",
            where="MSH-2",
            remedy="Send MSH|^~\\& and the fields after it.",
            code=DATA_TYPE_ERROR,
        )
    return Delimiters(
        field=separator,
        component=characters[0],
        repetition=characters[1],
        escape=characters[2],
        subcomponent=characters[3],
        truncation=characters[4:] or None,
    )
