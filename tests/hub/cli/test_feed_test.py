"""``hub feed test`` says what a member's samples would become and why not, and stores nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.hl7v2.tokenizer import parse
from hub.cli.common import services
from hub.errors import Category, HubError
from tests.hub.cli.conftest import SAMPLES, Hub
from tests.support.services import consortium as consortium_of
from tests.support.v2 import msh, pid

ADMIT = (SAMPLES / "ADT_A01" / "kn_a01_admit.hl7").read_bytes()
PLAIN = (
    b"MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611083000||ADT^A01|1|P|2.4\rPID|||1^^^KN^PI||A^B\rPV1||I|||||||||||||||||V1\r"
)


def told(hub: Hub, content: bytes, *, member: str = "KN", status: int = 0) -> dict[str, Any]:
    """Return what the command says of *content* as JSON."""
    result = hub("feed", "test", member, "-", "--json", stdin=content)
    assert result.exit_code == status, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def kinds(found: dict[str, Any], severity: str = "error") -> list[str]:
    return [one["kind"] for one in found["findings"] if one["severity"] == severity]


def test_a_good_sample_is_taken_and_its_fields_lead_to_elements(consortium: Hub) -> None:
    found = told(consortium, ADMIT)
    assert (found["messages"], found["taken"]) == (1, 1)
    by_field = {one["field"]: one for one in found["fields"]}
    assert by_field["PID-5"]["elements"] == ["Patient.name"]
    assert by_field["PID-1"]["uses"] == {"unused": 1}
    assert by_field["MSH-11"]["uses"] == {"door": 1}
    with services() as opened:
        assert opened.database.read(lambda tx: tx.journal.search({"institution": "KN"}, limit=9)) == []


def test_nothing_of_a_patient_is_told(consortium: Hub) -> None:
    text = ADMIT.decode("gb18030")
    for arguments in ((), ("--json",)):
        output = consortium("feed", "test", "KN", "-", *arguments, stdin=ADMIT).output
        for path in ("PID|", "NK1|"):
            values = text.split(path)[1].split("\r")[0].split("|")
            for value in (part for field in values[1:] for part in field.split("^") if len(part) > 3):
                assert value not in output


def test_the_files_of_a_folder_batches_and_frames_are_taken_apart(consortium: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    (folder / "batch.hl7").write_bytes(b"BHS|^~\\&|HIS|KNYY\r" + PLAIN + PLAIN + b"BTS|2\r")
    (folder / "frames.txt").write_bytes(b"\x0b" + PLAIN + b"\x1c\r\x0b" + PLAIN + b"\x1c\r")
    (folder / "rows.er7").write_bytes(PLAIN + PLAIN)
    (folder / "patient.json").write_text('{"resourceType": "Patient", "gender": "male"}', "utf-8")
    (folder / "notes.md").write_text("none", "utf-8")
    result = consortium("feed", "test", "KN/mllp", str(folder), "--json")
    assert result.exit_code == 0, result.output
    places = [(one["file"], one["number"]) for one in json.loads(result.stdout)["samples"]]
    assert places == [
        *(("batch.hl7", 1), ("batch.hl7", 2)),
        *(("frames.txt", 1), ("frames.txt", 2)),
        ("patient.json", 1),
        *(("rows.er7", 1), ("rows.er7", 2)),
    ]


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (b"|KNYY|", b"|QHYY|", "sender"),
        (b"|P|2.4", b"|T|2.4", "processing-id"),
        (b"|2.4", b"|9.9", "version"),
        (b"ADT^A01", b"ADT^Z99", "event"),
        (b"ADT^A01", b"ZZZ^A01", "type"),
        (b"PID|||1^^^KN^PI", b"PID|||", "required"),
        (b"PID|", b"P|", "segments"),
    ],
)
def test_what_the_hub_would_refuse_is_refused_here_and_says_what_to_do(
    consortium: Hub, old: bytes, new: bytes, kind: str
) -> None:
    found = told(consortium, PLAIN.replace(old, new), status=1)
    assert found["taken"] == 0
    assert kind in kinds(found)
    assert all(one["remedy"] for one in found["samples"][0]["findings"] if one["severity"] == "error")


def test_a_batch_that_is_not_whole_is_refused_as_one(consortium: Hub) -> None:
    assert kinds(told(consortium, b"BHS|^~\\&|HIS|KNYY\r" + PLAIN + b"BTS|2\r", status=1)) == ["batch"]


def test_a_character_set_that_is_not_the_declared_one_is_told_with_the_setting_that_helps(consortium: Hub) -> None:
    chinese = PLAIN.replace(b"A^B", "李^秀英".encode("gb18030")).replace(b"|P|2.4", b"|P|2.4||||||UNICODE UTF-8")
    [finding] = [one for one in told(consortium, chinese)["samples"][0]["findings"] if one["kind"] == "charset"]
    assert finding["severity"] == "warning"
    assert "charset-in" in finding["remedy"]


def test_a_code_that_no_map_has_is_told_by_its_place(consortium: Hub) -> None:
    found = told(consortium, ADMIT.replace(b"|F|", b"|F|") + b"OBX|9|NM|K^K||4.1|mmol/L||?!|||F\r")
    [finding] = [one for one in found["findings"] if one["kind"] == "unmapped-code"]
    assert finding["where"] == "OBX-8"


def test_a_resource_that_breaks_a_rule_of_fhir_is_refused(consortium: Hub) -> None:
    found = told(consortium, b'{"resourceType": "Observation", "status": "final", "codes": 1}', status=1)
    assert set(kinds(found)) == {"fhir"}


#: The segment EVN, a required value of AL1 and a value of PV1 are missing; NK1 is asked for by the profile alone.
UNFIT = "\r".join([msh("ADT^A01", "1"), pid(), f"PV1|1{'|' * 18}V1", "AL1|1", ""]).encode("gb18030")
PROFILE = '{"ADT": {"segments": ["NK1"]}}'


def judging(**settings: str) -> None:
    """Give the feed of KN these settings."""
    resources = consortium_of()
    (point,) = (one for one in resources if one["resourceType"] == "Endpoint" and one["id"] == "kn-mllp")
    point["extension"] += [
        {
            "url": "https://yixiehub.example/fhir/StructureDefinition/endpoint-setting",
            "extension": [{"url": "name", "valueString": name}, {"url": "value", "valueString": value}],
        }
        for name, value in settings.items()
    ]
    with services() as opened:
        opened.directory.load(resources)


def places(found: dict[str, Any], severity: str) -> set[str]:
    standard = [one for one in found["findings"] if one["kind"] == "standard"]
    return {one["where"] for one in standard if one["severity"] == severity}


def test_a_feed_that_rejects_is_told_what_the_door_would_refuse(consortium: Hub) -> None:
    judging(validate="reject", profile=PROFILE)
    found = told(consortium, UNFIT, status=1)
    assert (found["taken"], places(found, "warning")) == (0, set())
    assert {"EVN", "NK1", "PV1-2", "AL1-3"} <= places(found, "error")
    assert all(one["remedy"] for one in found["samples"][0]["findings"] if one["severity"] == "error")
    with services() as opened:
        answer = parse((opened.messages.receive(UNFIT, "127.0.0.1:1") or b"").decode("gb18030"))
        (entry,) = opened.database.read(lambda tx: tx.journal.search({"institution": "KN"}, limit=9))
    assert answer.get("MSA-1") == "AE"
    told_here = [one for one in found["samples"][0]["findings"] if one["severity"] == "error"]
    assert len(answer.all("ERR")) == len(told_here)
    assert all(f"{one['where']}: {one['message']}" in entry.outcome for one in told_here)


def test_a_feed_that_warns_takes_the_same_message_and_is_told_the_same_places(consortium: Hub) -> None:
    judging(validate="warn", profile=PROFILE)
    found = told(consortium, UNFIT)
    assert (found["taken"], places(found, "error")) == (1, set())
    assert {"EVN", "NK1", "PV1-2", "AL1-3"} <= places(found, "warning")


def test_a_feed_that_is_not_judged_is_told_for_its_information(consortium: Hub) -> None:
    found = told(consortium, UNFIT)
    assert (found["taken"], places(found, "error"), places(found, "warning")) == (1, set(), set())
    assert {"EVN", "PV1-2", "AL1-3"} <= places(found, "information")


def test_a_member_without_a_feed_and_a_folder_without_samples_end_the_command(consortium: Hub, tmp_path: Path) -> None:
    unknown = consortium("feed", "test", "ZZ", "-", stdin=PLAIN).exception
    assert isinstance(unknown, HubError)
    assert unknown.category is Category.NOT_FOUND
    empty = consortium("feed", "test", "KN", str(tmp_path / "none")).exception
    assert isinstance(empty, HubError)
    assert empty.category is Category.INCORRECT
