"""The tokenizer beside hl7apy and python-hl7: the same message must mean the same to all three.

Both libraries are slow, so the examples are few and small; the grammar they share is drawn, not their own quirks
(python-hl7 turns ``\\X0D\\`` into a real carriage return, hl7apy drops trailing separators when it writes).
"""

from __future__ import annotations

from typing import Any

import hl7
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_mappings.hl7v2.tokenizer import Message, parse

HEAD = "MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611083000||ADT^A01^ADT_A01|KN1|P|2.4"

WORD = st.text(alphabet="abcXYZ019 .-张伟陳東", min_size=1, max_size=6).map(str.strip).filter(bool)
ESCAPED = st.sampled_from(["a\\T\\b", "\\F\\", "一\\S\\二", "\\E\\"])
LEAF = st.one_of(WORD, ESCAPED, st.just(""))
COMPONENT = st.lists(LEAF, min_size=1, max_size=3).map("&".join)
REPETITION = st.lists(COMPONENT, min_size=1, max_size=4).map("^".join)
FIELD = st.lists(REPETITION, min_size=1, max_size=3).map("~".join)
SEGMENTS = st.lists(st.lists(FIELD, min_size=1, max_size=6).map("|".join), min_size=1, max_size=4)


def cut(message: Message) -> list[list[list[list[list[str]]]]]:
    """Return the raw parts of every segment after the header: fields, repetitions, components, subcomponents."""
    return [
        [
            [[component.raw.split("&") for component in repetition.components] for repetition in field.repetitions]
            for field in (segment.field(number) for number in range(1, segment.field_count + 1))
        ]
        for segment in message.segments[1:]
    ]


@given(SEGMENTS)
@settings(max_examples=150, deadline=None)
def test_python_hl7_cuts_alike(lines: list[str]) -> None:
    text = "\r".join([HEAD, *(f"ZZ1|{line}" for line in lines)]) + "\r"
    theirs: Any = hl7.parse(text)
    ours = parse(text)
    assert len(theirs) == len(ours.segments)
    for their_segment, our_segment in zip(theirs, ours.segments, strict=True):
        assert str(their_segment) == our_segment.line
    assert cut(ours) == [
        [[_normal(repetition) for repetition in field] if str(field) else [] for field in list(segment)[1:]]
        for segment in list(theirs)[1:]
    ]


def _normal(repetition: Any) -> list[list[str]]:
    """python-hl7 keeps an undivided repetition as a plain string and an undivided component too."""
    if isinstance(repetition, str):
        return [[repetition]]
    return [
        [component] if isinstance(component, str) else [str(part) for part in component] for component in repetition
    ]


PATIENT = st.fixed_dictionaries(
    {
        "identifiers": st.lists(st.tuples(WORD, st.sampled_from(["", "PI", "NI"])), min_size=1, max_size=3),
        "family": WORD,
        "given": st.one_of(WORD, st.just("")),
        "street": WORD,
        "postal": st.sampled_from(["", "990002"]),
        "escaped": st.sampled_from(["", "a\\T\\b", "\\F\\"]),
    }
)


@given(PATIENT)
@settings(max_examples=20, deadline=None)
def test_hl7apy_reads_a_patient_alike(patient: dict[str, Any]) -> None:
    identifiers = "~".join(f"{value}^^^KN^{kind}" if kind else value for value, kind in patient["identifiers"])
    address = f"{patient['street']}{patient['escaped']}^^^^{patient['postal']}"
    text = "\r".join(
        [
            HEAD,
            "EVN|A01|20250611083000",
            f"PID|1||{identifiers}||{patient['family']}^{patient['given']}||19760229|M|||{address}",
            "PV1|1|O",
        ]
    )
    theirs = parse_message(text + "\r", validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False)
    ours = parse(text)
    assert [child.name for child in theirs.children] == [segment.name for segment in ours.segments]
    pid = ours.first("PID")
    assert pid is not None
    assert [child.to_er7() for child in theirs.pid.pid_3] == [
        repetition.raw.rstrip("^") for repetition in pid.field(3).repetitions
    ]
    for index, repetition in enumerate(pid.field(3).repetitions):
        assert theirs.pid.pid_3[index].cx_1.to_er7() == repetition.components[0].raw
    assert theirs.pid.pid_5.xpn_1.fn_1.to_er7() == pid.field(5).first.components[0].raw
    assert theirs.pid.pid_5.xpn_2.to_er7() == patient["given"] == pid.get(5, 2)
    assert theirs.pid.pid_11.xad_1.to_er7() == pid.field(11).first.components[0].raw
    assert theirs.pid.pid_8.to_er7() == pid.get(8) == "M"


@given(SEGMENTS)
@settings(max_examples=20, deadline=None)
def test_hl7apy_keeps_z_segments_alike(lines: list[str]) -> None:
    text = "\r".join([HEAD, "EVN|A01|20250611083000", *(f"ZZ1|{line}" for line in lines)])
    theirs = parse_message(text + "\r", validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False)
    ours = parse(text)
    z_segments = [child for child in theirs.children if child.name == "ZZ1"]
    assert len(z_segments) == len(ours.all("ZZ1"))
    for their_segment, our_segment in zip(z_segments, ours.all("ZZ1"), strict=True):
        written = [our_segment.field(number).raw for number in range(1, our_segment.field_count + 1)]
        assert _tidy(their_segment.to_er7()) == _tidy("|".join(["ZZ1", *written]))


def _tidy(line: str) -> str:
    """hl7apy drops trailing separators at every level; what is left is what both must agree on."""
    return "|".join(
        "~".join(
            "^".join(component.rstrip("&") for component in part.split("^")).rstrip("^") for part in field.split("~")
        )
        for field in line.split("|")
    ).rstrip("|")
