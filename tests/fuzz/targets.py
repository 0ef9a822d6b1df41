"""What is fuzzed, and what must hold for any bytes: frames, messages, escapes and batches of HL7 v2.

Each target takes bytes and raises ``AssertionError`` where a rule is broken; any other exception that is not the parser's own
``MalformedError`` breaks one too. The rules say more than "no crash": what was cut joins again to the same bytes, limits hold,
the work is linear (operations are counted, not seconds), and what is copied into an answer stays what it was.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from adapters.mllp.frames import (
    _FILL,
    END,
    HEAD_BYTES,
    START,
    BrokenFrame,
    Deframer,
    Event,
    Frame,
    Garbage,
    encode_frame,
)
from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2 import batch, tokenizer
from fhir_mappings.hl7v2.ack import build_ack
from fhir_mappings.hl7v2.charset import decode_message, encode_for
from fhir_mappings.hl7v2.escapes import STANDARD, Delimiters, escape, unescape
from fhir_mappings.hl7v2.tokenizer import MAX_FIELDS, MAX_HEADER, MAX_REPETITIONS, MAX_SEGMENTS, Message, parse

MAX_BYTES = 300
#: Lines of Python that cutting may take for each byte, and however small the input is.
LINES_PER_BYTE, LINES_AT_LEAST = 60, 4_000
#: ``\.sk99\`` is seven characters and means ninety-nine.
MOST_EXPANSION = 15
_NOW = datetime(2025, 6, 11, tzinfo=UTC)
_LINE_END = re.compile("\r\n|[\r\n\u0085\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def frames(data: bytes, deframer: Callable[..., Deframer] = Deframer) -> None:
    """The first byte says how the rest is cut on its way."""
    size, stream = (data[0] % 40 + 1 if data else 1), data[1:]
    whole = _events(deframer, [stream])
    assert whole == _events(deframer, [stream[at : at + size] for at in range(0, len(stream), size)]), "cuts matter"
    at = 0
    skipped = stray = 0
    for number, event in enumerate(whole):
        match event:
            case Frame(payload=payload):
                assert len(payload) <= MAX_BYTES
                start = stream.find(START, at)
                skipped += len(stream[at:start].translate(None, _FILL))
                assert stream.startswith(encode_frame(payload), start), "a frame was not received so"
                at = start + len(payload) + 3
            case Garbage(size=noise):
                stray += noise
            case BrokenFrame(head=head):
                assert len(head) <= HEAD_BYTES
                assert head in stream
                assert number == len(whole) - 1, "more after a broken frame"
                return
    skipped += len(stream[at:].translate(None, _FILL))
    assert START not in stream[at:]
    assert skipped == stray, "bytes are lost"


class _Counting(bytearray):
    """Counts the bytes that were looked at."""

    looked = 0

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        stop = len(self) if end is None else min(end, len(self))
        place = super().find(sub, start, stop)
        self.looked += max((place if place >= 0 else stop) - start, 0)
        return place


def _events(deframer: Callable[..., Deframer], pieces: list[bytes]) -> list[Event]:
    one = deframer(max_bytes=MAX_BYTES)
    one._buffer = looked = _Counting()
    events: list[Event] = []
    for piece in [*pieces, b""]:
        one.receive_data(piece)
        while (event := one.next_event()) is not None:
            events.append(event)
        assert one.frame_bytes <= MAX_BYTES + len(piece) + 2, "more is held than the cap"
    total = sum(map(len, pieces))
    assert looked.looked <= 5 * total + 50, "the work is not linear"
    return events


def messages(data: bytes, cut: Callable[[str], Message] = parse) -> None:
    """Bytes as they stand in a frame."""
    decoded = decode_message(data)
    text = decoded.text
    assert "\0" not in text
    if data.isascii() and decoded.evidence == "utf-8" and b"\0" not in data:
        assert text == data.decode("ascii"), "ASCII is not read as it is"
    lines = _Lines(tokenizer.__file__)
    try:
        with lines:
            message = cut(text)
    except MalformedError:
        return
    finally:
        assert lines.count <= LINES_PER_BYTE * len(text) + LINES_AT_LEAST, "the work is not linear"
    assert message.lossless() == text, "cutting loses text"
    assert len(message.segments) <= MAX_SEGMENTS
    assert len(message.segments[0].line) <= MAX_HEADER
    for segment in message.segments:
        assert segment.line.count(message.delimiters.field) <= MAX_FIELDS
        assert not set(segment.line) & {"\r"}
        _check_fields(segment, message.delimiters)
    _check_answer(message, decoded.charset)


def _check_fields(segment: tokenizer.Segment, d: Delimiters) -> None:
    first = 2 if segment.name in {"MSH", "BHS", "FHS"} else 1
    fields = [segment.field(number) for number in range(first, segment.field_count + 1)]
    assert d.field.join([segment.name, *(field.raw for field in fields)]) == segment.line, "fields do not join"
    for number, field in enumerate(fields, first):
        try:
            repetitions = field.repetitions
        except MalformedError:
            assert field.raw.count(d.repetition) >= MAX_REPETITIONS
            continue
        if number > 2 or first == 1:
            assert d.repetition.join(one.raw for one in repetitions) == field.raw, "repetitions do not join"
            for one in repetitions:
                assert d.component.join(part.raw for part in one.components) == one.raw, "components do not join"
            assert segment.get(number) == field.component(1), "two ways to one value"


def _check_answer(message: Message, charset: str) -> None:
    text = build_ack(message, code="AA", control_id="1", now=_NOW)
    again = parse(text)
    assert [one.name for one in again.segments] == ["MSH", "MSA"], "an answer has other segments"
    control = message.get("MSH-10")
    if control != '""':
        expected = unescape(escape(control, message.delimiters), message.delimiters)
        assert again.get("MSA-2") == expected, "MSA-2 is not MSH-10"
    if charset.startswith(("utf", "gb")):
        assert not {START, END} & set(encode_for(text, charset)), "an answer that no frame can hold"


def texts(data: bytes) -> None:
    """The first byte says which delimiters; the rest is a value."""
    if data[:1] and data[0] % 2:
        d = Delimiters(field="!", component="$", repetition="%", escape="*", subcomponent="+", truncation="@")
    else:
        d = STANDARD
    value = data[1:].decode("utf-8", "replace")
    written = escape(value, d)
    assert not set(written) & {d.field, d.component, d.repetition, d.subcomponent, "\r", "\n", "\x0b", "\x1c"}
    assert not _CONTROL.search(written)
    assert not set(written) & set("\u0085\u2028\u2029")
    if not _CONTROL.search(_LINE_END.sub("\n", value)):
        assert unescape(written, d) == _LINE_END.sub("\n", value), "a value does not come back"
    assert len(unescape(value, d)) <= MOST_EXPANSION * len(value)


def batches(data: bytes, split: Callable[[bytes], batch.File] = batch.split) -> None:
    """Bytes that begin with a batch header, or are given one."""
    raw = data if batch.is_batch(data) else b"BHS|^~\\&|A\r" + data
    try:
        file = split(raw)
    except MalformedError:
        return
    inside = [(part.header, part.messages) for part in file.batches]
    at = raw.index(file.header)
    count = 0
    for header, found in inside:
        for piece in (header, *found):
            place = raw.find(piece, at)
            assert place >= 0, "a piece was not received so"
            at = place + len(piece)
        assert all(one.startswith(b"MSH") for one in found)
        count += len(found)
    assert count <= batch.MAX_MESSAGES
    assert count == len(re.findall(rb"(?:\A|(?<=[\r\n]))MSH(?![A-Za-z0-9])", raw)), "a message is lost"


class _Lines:
    """Counts the lines of one file that are run."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.count = 0
        self._before: Any = None

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != self._file:
            return None
        self.count += event == "line"
        return self._trace

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "frames": frames,
    "messages": messages,
    "texts": texts,
    "batches": batches,
}
