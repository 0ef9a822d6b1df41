"""``hub feed dry-run``: what new settings would change in messages that came before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hub.boot import assemble
from hub.config import load
from hub.errors import Category, HubError
from tests.hub.cli.conftest import Hub
from tests.support.code_maps import LOINC, concept_map, local
from tests.support.v2 import adt, oru


@pytest.fixture
def received(consortium: Hub) -> Hub:
    result = "OBX|1|NM|K^血钾^L||4.1|mmol/L|3.5-5.3|N|||F|||20250611070000"
    services = assemble(load(), node="test")
    try:
        for text in (adt("A01", "1"), oru("2", "F", "4.1", at="20250611080000", obx=result)):
            answer = services.messages.receive(text.encode("gb18030"), "127.0.0.1:40000")
            assert answer is not None
            assert b"|AA|" in answer
    finally:
        services.close()
    return consortium


def test_the_elements_that_would_differ_are_listed_with_counts_and_messages(received: Hub, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps(concept_map("m", local("KN"), LOINC, K="2823-3")))
    shown = received("feed", "dry-run", "KN/mllp", "--settings", str(path))
    assert shown.exit_code == 0, shown.output
    (line,) = (one for one in shown.stdout.splitlines() if "  Observation.code.coding.code  " in one)
    assert line.split()[:2] == ["+", "1"]
    told = json.loads(received("feed", "dry-run", "KN/mllp", "--settings", str(path), "--json").stdout)
    assert (told["messages"], told["differing"]) == (2, 1)
    assert received("codes", "list").stdout == ""


def test_a_setting_is_tried_by_its_name(received: Hub) -> None:
    shown = received("feed", "dry-run", "KN/mllp", "--set", "processing-ids=T", "--last", "1")
    assert "taken -> refused: MSH-11" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "where"), [(("--set", "dialect"), "--set"), (("--since", "yesterday"), "--since")]
)
def test_what_cannot_be_read_is_refused_by_its_option(consortium: Hub, arguments: tuple[str, str], where: str) -> None:
    result = consortium("feed", "dry-run", "KN/mllp", *arguments)
    assert isinstance(result.exception, HubError)
    assert (result.exception.category, result.exception.where) == (Category.INCORRECT, where)
