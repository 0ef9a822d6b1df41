"""``hub convert`` shows what a message becomes, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hub.errors import HubError
from tests.hub.cli.conftest import SAMPLES, Hub

PAIRS = sorted(SAMPLES.glob("*/*.hl7"))


def test_there_are_samples() -> None:
    assert len(PAIRS) > 20


@pytest.mark.parametrize("guessed", [True, False], ids=["by MSH-4", "by --member"])
def test_each_sample_becomes_its_expected_bundle_without_a_database(hub: Hub, data_dir: Path, guessed: bool) -> None:
    for path in PAIRS:
        member = [] if guessed else ["--member", path.name.partition("_")[0].upper()]
        result = hub("convert", *member, str(path))
        assert result.exit_code == 0, path.name
        assert json.loads(result.stdout) == json.loads(path.with_suffix(".expected.json").read_bytes()), path.name
    assert not data_dir.exists()


def test_one_line_for_each_file_in_their_order(hub: Hub) -> None:
    lines = hub("convert", str(PAIRS[0]), str(PAIRS[1])).stdout.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["transaction", "transaction"]


def test_a_refused_message_is_an_operation_outcome(hub: Hub, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.hl7"
    wrong.write_bytes(b"MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611083000||ZZZ^Z99|1|P|2.4\r")
    good = str(PAIRS[0])
    refused, kept = map(json.loads, hub("convert", str(wrong), good).stdout.splitlines())
    assert refused["resourceType"] == "OperationOutcome"
    assert refused["issue"][0]["expression"] == ["MSH-9 of segment 1"]
    assert kept["resourceType"] == "Bundle"


def test_mllp_frames_are_taken_apart_from_standard_input(hub: Hub) -> None:
    frames = b"".join(b"\x0b" + path.read_bytes() + b"\x1c\r" for path in PAIRS[:3])
    assert len(hub("convert", "-", stdin=frames).stdout.splitlines()) == 3


def test_the_members_in_the_database_win_over_the_samples(consortium: Hub, data_dir: Path, tmp_path: Path) -> None:
    resources = tmp_path / "kn.json"
    system = "https://yixiehub.example/fhir"
    organization = {
        "resourceType": "Organization",
        "id": "new",
        "identifier": [{"system": f"{system}/NamingSystem/member", "value": "NW"}],
        "name": "新成员（测试）",
    }
    resources.write_text(json.dumps(organization), "utf-8")
    assert consortium("members", "import", str(resources)).exit_code == 0
    before = {path: path.stat().st_size for path in (data_dir / "objects").rglob("*") if path.is_file()}
    assert consortium("convert", "--member", "NW", str(PAIRS[0])).exit_code == 0
    assert before == {path: path.stat().st_size for path in (data_dir / "objects").rglob("*") if path.is_file()}


def test_an_unknown_member_and_a_missing_file_end_the_command(hub: Hub, tmp_path: Path) -> None:
    for arguments in (("--member", "ZZ", str(PAIRS[0])), (str(tmp_path / "none.hl7"),)):
        result = hub("convert", *arguments)
        assert isinstance(result.exception, HubError)
        assert result.stdout == ""
