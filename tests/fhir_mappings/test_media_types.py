"""What is a media type, and what is only called one."""

from __future__ import annotations

import pytest

from fhir_mappings.hl7v2.segments.ed import decode
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.media_types import OCTETS, media_type


@pytest.mark.parametrize(
    "label",
    [
        "image/png",
        "application/fhir+json",
        'text/plain; charset="utf-8"',
        "text/html;charset=UTF-8",
        "image/vnd.x-a.b+c",
    ],
)
def test_a_media_type_stays_what_it_is(label: str) -> None:
    assert media_type(label) == label


@pytest.mark.parametrize(
    "label",
    [
        "",
        "png",
        "image/",
        "/png",
        "image/png\n",
        "image/png\r\nA: b",
        "image/图",
        "a/b;",
        'a/b; c="d\n"',
        "a/b c",
        "a/" + "b" * 300,
    ],
)
def test_what_is_none_is_called_bytes(label: str) -> None:
    assert media_type(label) == OCTETS == "application/octet-stream"


@pytest.mark.parametrize(
    ("label", "expected"),
    [("^image^gif", "image/gif"), (r"^image^gif\X0D0A\A: b", OCTETS), (r"^^image/gif\X0A\A: b", OCTETS)],
)
def test_the_label_of_a_document_in_a_message_is_one_too(label: str, expected: str) -> None:
    head = r"MSH|^~\&|HIS|KNYY|YIXIE|HUB|20250611||ORU^R01|1|P|2.4"
    (segment,) = (
        one for one in parse(f"{head}\rOBX|1|ED|1^x||{label}^Base64^AAAA||||||F\r").segments if one.name == "OBX"
    )
    assert decode(segment).content_type == expected
