"""Messages built here keep their structure whatever their values are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_mappings.hl7v2.builder import NULL, MessageBuilder, Repeat
from fhir_mappings.hl7v2.escapes import STANDARD, Delimiters
from fhir_mappings.hl7v2.tokenizer import parse

ODD = Delimiters(field="!", component="@", repetition="$", escape="%", subcomponent="*")


def test_values_nest_as_the_standard_says() -> None:
    text = (
        MessageBuilder()
        .segment("MSH", {3: "YIXIE", 9: ["ORU", "R01"], 12: "2.4"})
        .segment("PID", {1: "1", 3: Repeat([["10086", "", "", "", "IDCard"], ["990001"]]), 5: "郑伟", 7: NULL, 9: None})
        .segment("OBR", {32: [["C002", "韩磊"]], 4: ["CT01", "胸部CT", "L", "", ""]})
        .to_text()
    )
    assert text == (
        "MSH|^~\\&|YIXIE||||||ORU^R01|||2.4\r"
        'PID|1||10086^^^^IDCard~990001||郑伟||""\r'
        "OBR||||CT01^胸部CT^L" + "|" * 28 + "C002&韩磊\r"
    )


def test_a_value_of_two_quotation_marks_is_no_order_to_delete() -> None:
    pid = parse(MessageBuilder().segment("MSH", {}).segment("PID", {5: '""'}).to_text()).first("PID")
    assert pid is not None
    assert not pid.field(5).is_null


def test_field_numbers_and_names_are_checked() -> None:
    with pytest.raises(ValueError, match="segment name"):
        MessageBuilder().segment("PID|X", {})
    with pytest.raises(ValueError, match="start at 3"):
        MessageBuilder().segment("MSH", {2: "^~\\&"})
    with pytest.raises(ValueError, match="start at 1"):
        MessageBuilder().segment("PID", {0: "x"})


HOSTILE = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "a\rPID|9",
            "a\nOBX|1",
            "\r\n",
            "\\X0D\\PID|evil",
            "\u2028OBX|1",
            "\u0085",
            "\\.br\\",
            "|^~\\&",
            '""',
            "\x0b\x1c\r",
            "\\",
            "\\F",
            "x\x00y",
        ]
    ),
)
VALUE = st.one_of(HOSTILE, st.lists(st.one_of(HOSTILE, st.lists(HOSTILE, max_size=3)), max_size=4))


@pytest.mark.parametrize("delimiters", [STANDARD, ODD])
@given(segments=st.lists(st.dictionaries(st.integers(1, 12), VALUE, max_size=5), max_size=5))
@settings(max_examples=120, deadline=None)
def test_no_value_can_make_a_segment_or_a_field(delimiters: Delimiters, segments: list[dict[int, object]]) -> None:
    builder = MessageBuilder(delimiters).segment("MSH", {3: "YIXIE"})
    for fields in segments:
        builder.segment("ZZ1", fields)  # type: ignore[arg-type]
    text = builder.to_text()
    message = parse(text)
    assert len(message.segments) == len(segments) + 1 == text.count("\r")
    assert not set(text) & set("\n\x0b\x0c\x1c\x00\u2028\u2029\u0085")
    for segment, fields in zip(message.segments[1:], segments, strict=True):
        assert segment.field_count <= max(fields, default=0)
        for number in range(1, 13):
            field = segment.field(number)
            assert len(field.repetitions) <= 1
            value = fields.get(number)
            if isinstance(value, list):
                assert len(field.first.components) <= max(len(value), 1)
                for place, part in enumerate(value, 1):
                    if isinstance(part, list):
                        assert len(
                            field.first.components[place - 1].subcomponents
                            if place <= len(field.first.components)
                            else ()
                        ) <= max(len(part), 1)
            elif isinstance(value, str):
                assert len(field.first.components) <= 1


@given(
    name=st.text(
        alphabet=st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], include_characters="\n"),
        min_size=1,
        max_size=30,
    )
)
@settings(max_examples=100, deadline=None)
def test_a_value_means_the_same_after_the_way_over_the_wire(name: str) -> None:
    text = MessageBuilder().segment("MSH", {3: "YIXIE"}).segment("PID", {5: [name, [name, name]]}).to_text()
    pid = parse(text).first("PID")
    assert pid is not None
    expected = name if name != '""' else '" "'
    assert (pid.get(5, 1), pid.get(5, 2, 1), pid.get(5, 2, 2)) == (expected, expected, expected)
