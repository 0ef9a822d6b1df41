"""No text inside a FHIR resource becomes a segment, a field or a repetition of what the hub sends, for any reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_mappings.hl7v2.builder import MessageBuilder
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.escapes import Delimiters
from fhir_mappings.hl7v2.outbound.encoding import encode_or_escape
from fhir_mappings.hl7v2.outbound.mdm_t02 import DocumentPart
from fhir_mappings.hl7v2.outbound.order_forms import OrderedStudy
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.tokenizer import parse
from tests.fhir_mappings.hl7v2.outbound import samples as s

#: Elements whose values are no free text: FHIR's own types hold them to a form, checked before anything is stored.
FORMED = frozenset(
    {"resourceType", "reference", "status", "docStatus", "system", "birthDate", "start", "end", "date", "issued",
     "authoredOn", "effectiveDateTime", "gender", "priority", "type", "url", "use", "data"}
)  # fmt: skip
PARTS = [
    "|", "^", "~", "\\", "&", "#", "\r", "\n", "\r\n", "\x0b", "\x1c", "\x1c\r", "\x85", "\u2028", "\u2029", "\x0c", "\x00",
    "\\X0D\\", "\\X0D0A\\", "\\.br\\", "\\E\\", "\\F\\", "\\", "\\X0D", "0D\\", '""', "\rPID|1||666", "\nOBX|1|TX",
    "陳", "東", "玘", "珅", "鍇", "\U00020bb7", "x",
]  # fmt: skip
HOSTILE = st.lists(st.sampled_from(PARTS), min_size=1, max_size=8).map(lambda parts: f"x{''.join(parts)}x")


def filled(value: Any, text: str) -> Any:
    """Return *value* with *text* in the place of every free text in it."""
    if isinstance(value, dict):
        # The type of a coding or identifier is an element with parts; the one of a reference is a name.
        return {
            key: item if key in FORMED and not isinstance(item, dict | list) else filled(item, text)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [filled(item, text) for item in value]
    return text if isinstance(value, str) else value


def messages(target: OutboundTarget, text: str) -> list[str]:
    """Return one message of every kind, *text* in every place."""
    patient, people = filled(s.PATIENT, text), {key: filled(one, text) for key, one in s.PRACTITIONERS.items()}
    request, referral, report = (filled(one, text) for one in (s.REQUEST, s.REFERRAL, s.REPORT))
    findings = {**filled(s.FINDINGS, text), "note": [{"text": text}], "component": [filled(s.FINDINGS, text)]}
    condition, appointment = filled(s.CONDITION, text), {**filled(s.APPOINTMENT, text), "comment": text}
    around: dict[str, Any] = {"patient": patient, "practitioners": people}
    document = {**filled(s.DOCUMENT, text), "identifier": [{"value": text}], "description": text}
    related = {"relatesTo": [{"code": "replaces", "target": {"identifier": {"value": text}}}]}
    parts = [
        DocumentPart(title=text, content_type=f"text/{text}", data=text.encode()),
        DocumentPart(title=text, content_type=f"application/{text}", data=b"%PDF"),
        DocumentPart(title=text, content_type=text, url=text),
    ]
    made = replace(target, application=text, facility=text)
    return [
        s.demographics(made, patient),
        s.merge(made, patient, filled(s.DEAD, text)),
        s.report(
            made, report=report, request=request, observations=[findings], **around,
            attachments=[replace(s.PDF, title=text, content_type=f"application/{text}")],
        ),
        s.order(made, request, conditions=[condition], reason=text, **around),
        s.order(
            made, request, conditions=[condition], reason=text, form="OMI^O23",
            studies=[OrderedStudy(uid=text, accession=text, modality=text)], **around,
        ),
        s.order(made, request, form="OML^O21", studies=[OrderedStudy(uid=text)], with_zds=True, **around),
        s.order_answer(made, request, reason=text, original_control_id=text, patient=patient),
        s.referral(made, referral, conditions=[condition], sender=text, **around),
        s.answer(made, referral, reason=text, note=text, sender=text, original_control_id=text, **around),
        s.booking(made, appointment, **around),
        s.document(made, {**document, **related}, parts=parts, event="T10", **around),
    ]  # fmt: skip


def shape(message: str) -> list[tuple[str, list[int]]]:
    """Return what a reader that only splits sees: segments, and how many repetitions each field has."""
    lines = message.split("\r")
    assert lines.pop() == ""
    return [
        (line[:3], [len(field.split("~")) for field in line.split("|")[2 if line[:3] == "MSH" else 1 :]])
        for line in lines
    ]


TARGETS = [s.KN, s.KN_251, replace(s.KN, dialect=replace(s.KN.dialect, version_out="2.6", charset_out="8859/1"))]


@pytest.mark.parametrize("target", TARGETS, ids=["his-cn-2.4", "standard-2.5.1", "latin-2.6"])
@settings(max_examples=60, deadline=None)
@given(text=HOSTILE)
def test_every_message_keeps_its_shape_whatever_is_written_in_it(target: OutboundTarget, text: str) -> None:
    for quiet, loud in zip(messages(target, "xAx"), messages(target, text), strict=True):
        assert shape(loud) == shape(quiet)
        assert not set(loud) & set("\n\x0b\x0c\x1c\x00\x85\u2028\u2029")
        raw, _ = encode_or_escape(loud, target.dialect.charset_out)
        # On the wire too: one frame, and the same message for who decodes it first and splits it second.
        assert b"\x1c" not in raw
        assert b"\x0b" not in raw
        decoded = raw.decode("iso8859-1") if "8859" in target.dialect.charset_out else decode_message(raw).text
        assert [one.name for one in parse(decoded).segments] == [name for name, _ in shape(quiet)]


ODD = st.permutations(list("!@$%*|^~\\&+")).map(
    lambda chars: Delimiters(
        field=chars[0], component=chars[1], repetition=chars[2], escape=chars[3], subcomponent=chars[4]
    )
)


@settings(max_examples=150, deadline=None)
@given(delimiters=ODD, text=HOSTILE, more=st.text(alphabet="!@$%*|^~\\&+\r\nXFSTRE0D.br", max_size=20))
def test_custom_encoding_characters_protect_as_the_usual_ones_do(delimiters: Delimiters, text: str, more: str) -> None:
    value = text + more
    built = MessageBuilder(delimiters).segment("MSH", {3: "A"}).segment("ZZ1", {1: value, 3: [value, [value, value]]})
    message = parse(built.to_text())
    assert [one.name for one in message.segments] == ["MSH", "ZZ1"]
    segment = message.segments[1]
    assert [len(segment.field(number).repetitions) for number in (1, 3)] == [1, 1]
    assert segment.field_count == 3
    assert segment.get(1) == segment.get(3) == segment.get(3, 2) == segment.get(3, 2, 2)


MAKERS: list[Callable[[OutboundTarget, str], str]] = [
    lambda target, text: s.demographics(target, {**s.PATIENT, "name": [{"text": text}]}),
    lambda target, text: s.answer(target, note=text),
]


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="玘珅鍇周建国é|^~\\&x", min_size=1, max_size=12).map(lambda text: f"周{text}"))
@pytest.mark.parametrize("charset", ["8859/1", "ASCII", "BIG-5", "GB18030", "UNICODE UTF-8"])
def test_no_character_is_lost_in_any_character_set(charset: str, text: str) -> None:
    for make, path in zip(MAKERS, ("PID-5", "NTE-3"), strict=True):
        raw, missing = encode_or_escape(make(s.KN, text), charset)
        codec = {"8859/1": "iso8859-1", "ASCII": "ascii", "BIG-5": "big5hkscs", "GB18030": "gb18030"}.get(
            charset, "utf-8"
        )
        assert parse(raw.decode(codec)).get(path) == text
        assert (missing == 0) == (charset in {"GB18030", "UNICODE UTF-8"}) or charset == "BIG-5"
