"""OBR-15 (SPS, HL7 v2.4 chapter 4.5.3.15) of senders that write code and name of the specimen as components."""

from __future__ import annotations

import pytest

from fhir_mappings.hl7v2.base import Upsert
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate
from tests.fhir_mappings.hl7v2.golden import context
from tests.support.v2 import msh


@pytest.mark.parametrize(
    ("member", "written", "code", "text"),
    [
        ("KN", "XB^血", "XB", "血"),
        ("KN", "XB&全血^血", "XB", "全血"),
        # By the standard the second component is what was added to the specimen.
        ("YL", "XB^血", "XB", None),
    ],
)
def test_the_second_component_names_the_specimen_in_the_chinese_dialect_alone(
    member: str, written: str, code: str, text: str | None
) -> None:
    obr = f"OBR|1|P1|F1|K^钾^L{'|' * 11}{written}"
    message = "\r".join([msh("ORM^O01", "1"), "PID|1||10086^^^^PI||郑伟||19760229|M", "ORC|NW|P1", obr, ""])
    (specimen,) = (
        change.resource
        for change in translate(parse(message), context(member)).changes
        if isinstance(change, Upsert) and change.resource["resourceType"] == "Specimen"
    )
    assert (specimen["type"]["coding"][0]["code"], specimen["type"].get("text")) == (code, text)
