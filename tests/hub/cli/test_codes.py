"""``hub codes``: from a code nobody knows to a record that says it in LOINC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hub.access import UNRESTRICTED
from hub.boot import Services, assemble
from hub.config import load
from hub.errors import Category, HubError
from hub.search import parse
from tests.hub.cli.conftest import Hub
from tests.support.code_maps import LOINC, concept_map, local

RESULT = (
    "MSH|^~\\&|LIS|QMJY|YIXIE|HUB|20250611080000||ORU^R01|1|P|2.4\r"
    "PID|1||10086^^^^PI||郑伟||19800101|M\r"
    "OBR|1||F1|CHEM^生化^L|||20250611070000||||||||||||||||||F\r"
    "OBX|1|NM|K^血钾^L||4.1|mmol/L|3.5-5.3|||||F\r"
)


@contextmanager
def opened() -> Iterator[Services]:
    services = assemble(load(), node="test")
    try:
        yield services
    finally:
        services.close()


@pytest.fixture
def received(consortium: Hub) -> Hub:
    with opened() as services:
        answer = services.messages.receive(RESULT.encode(), "127.0.0.1:40000")
        assert answer is not None
        assert b"|AA|" in answer
    return consortium


def test_a_code_is_listed_mapped_and_its_messages_processed_again(received: Hub) -> None:
    listed = [json.loads(line) for line in received("codes", "unmapped", "QM", "--json").stdout.splitlines()]
    assert {one["code"] for one in listed} == {"CHEM", "K", "mmol/L"}
    assert "local|K" in received("codes", "unmapped").stdout
    made = received("codes", "map", "QM", "local", "K", "http://loinc.org|2823-3", "--display", "Potassium")
    assert made.exit_code == 0, made.output
    assert "v1" in made.stdout
    assert "-> http://loinc.org|2823-3" in received("codes", "list").stdout
    done = received("codes", "reprocess", "QM")
    assert done.exit_code == 0, done.output
    assert done.stdout.rstrip().endswith("1")
    with opened() as services:
        page = services.database.read(lambda tx: tx.records.search(parse("Observation", ()), UNRESTRICTED))
    (result,) = (json.loads(one.body) for one in page.matches)
    assert [one["code"] for one in result["code"]["coding"]] == ["K", "2823-3"]
    left = received("codes", "unmapped", "QM", "--json").stdout
    assert {json.loads(line)["code"] for line in left.splitlines()} == {"CHEM", "mmol/L"}


def test_a_target_and_the_word_that_there_is_none_exclude_each_other(consortium: Hub) -> None:
    for arguments in (("K",), ("K", "http://loinc.org|1", "--none")):
        result = consortium("codes", "map", "KN", "local", *arguments)
        assert isinstance(result.exception, HubError)
        assert result.exception.category is Category.INCORRECT
    assert consortium("codes", "map", "KN", "local", "K", "--none").exit_code == 0
    assert "local|K -> -" in consortium("codes", "list", "KN").stdout


def test_maps_are_imported_as_a_file_too(consortium: Hub, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps(concept_map("kn", local("KN"), LOINC, K="2823-3", NA="2951-2")))
    assert consortium("members", "import", str(path)).exit_code == 0
    rows = [json.loads(line) for line in consortium("codes", "list", "KN", "--json").stdout.splitlines()]
    assert {(one["code"], one["owner"]) for one in rows} == {("K", "YY"), ("NA", "YY")}
