"""The fuzz targets hold for what once broke them, and each finds a parser that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from adapters.mllp.frames import Deframer, Event, Frame
from fhir_mappings.hl7v2 import batch
from fhir_mappings.hl7v2.tokenizer import Message, Segment, parse
from tests.fuzz import targets
from tests.fuzz.blind import blind_run
from tests.fuzz.kept_files import keep, kept
from tests.fuzz.targets import TARGETS

#: Inputs that a wrong parser has to be found within: more than the seeds.
INPUTS = 4_000


@pytest.mark.parametrize(("name", "path"), kept(), ids=[path.name for _, path in kept()])
def test_what_once_broke_a_rule_breaks_it_no_more(name: str, path: Path) -> None:
    TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_the_rules_hold_for_a_few_thousand_inputs(name: str) -> None:
    ran, found = blind_run(TARGETS[name], goes_on=lambda done: done < INPUTS, seed=20250611)
    assert found is None
    assert ran == INPUTS


class LosesLineEnds(Deframer):
    """Strips what belongs to the message."""

    def next_event(self) -> Event | None:
        event = super().next_event()
        return Frame(payload=event.payload.rstrip(b"\r")) if isinstance(event, Frame) else event


class LooksAgain(Deframer):
    """Looks for the end from the beginning each time, which is quadratic in the number of pieces."""

    def next_event(self) -> Event | None:
        self._scanned = 0
        return super().next_event()


def _loses_the_last_segment(text: str) -> Message:
    whole = parse(text)
    return Message(text, whole.prefix, whole.delimiters, whole.segments[:-1] or whole.segments)


def _cuts_at_line_separators(text: str) -> Message:
    whole = parse(text)
    segments: list[Segment] = []
    for one in whole.segments:
        for line in one.line.split("\u2028"):
            segments.append(Segment(one.name, len(segments), line, one.terminator, whole.delimiters))
    return Message(text, whole.prefix, whole.delimiters, tuple(segments))


def _loses_empty_batches(raw: bytes) -> batch.File:
    file = batch.split(raw)
    for part in file.batches:
        part.messages = part.messages[:1]
    return file


@pytest.mark.parametrize(
    "target",
    [
        partial(targets.frames, deframer=LosesLineEnds),
        partial(targets.frames, deframer=LooksAgain),
        partial(targets.messages, cut=_loses_the_last_segment),
        partial(targets.messages, cut=_cuts_at_line_separators),
        partial(targets.batches, split=_loses_empty_batches),
    ],
    ids=[
        "frames lose bytes",
        "frames take quadratic time",
        "segments are lost",
        "U+2028 ends a segment",
        "messages are lost",
    ],
)
def test_a_wrong_parser_is_found(target: Callable[[bytes], None]) -> None:
    _, found = blind_run(target, goes_on=lambda done: done < INPUTS, seed=20250611)
    assert found is not None
    assert isinstance(found.error, AssertionError)
    with pytest.raises(AssertionError):
        target(found.data)


def test_a_wrong_escape_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(text: str, delimiters: object) -> str:
        return text.replace("|", "\\F\\")

    monkeypatch.setattr(targets, "escape", careless)
    _, found = blind_run(targets.texts, goes_on=lambda done: done < INPUTS, seed=20250611)
    assert found is not None


def test_what_is_found_is_kept_and_replayed(tmp_path: Path) -> None:
    path = keep("frames", b"\x00\x0b", tmp_path)
    assert kept(tmp_path) == [("frames", path)]
    assert path.read_bytes() == b"\x00\x0b"
