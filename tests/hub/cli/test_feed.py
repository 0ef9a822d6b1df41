"""``hub feed``: files through the doors of a running hub; one that the hub does not take is told, and stops nothing."""

from __future__ import annotations

import json
import socket
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.hl7v2.ack import parse_ack
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import supported_events
from hub.access import UNRESTRICTED
from hub.boot import Services
from hub.cli.common import services
from hub.errors import Category, HubError
from hub.ports import Tx
from hub.search import parse as search
from tests.hub.cli.conftest import SAMPLES, Hub
from tests.support.mllp import door, limits
from tests.support.services import running

FEED = SAMPLES.parent / "feed.toml"
ADMIT = (SAMPLES / "ADT_A01" / "kn_a01_admit.hl7").read_bytes()
REGISTER = (SAMPLES / "ADT_A01" / "kn_a04_register.hl7").read_bytes()


@pytest.fixture
def playing(consortium: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The ``hub`` command beside a hub whose MLLP door is open; nothing listens at its other doors."""
    with services() as opened, door(opened.messages, limits()) as mllp, socket.socket() as closed:
        # A port that is bound and does not listen refuses every connection.
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HUB_MLLP_BIND", f"127.0.0.1:{mllp.address[1]}")
        for other in ("HUB_HTTP_BIND", "HUB_DIMSE_BIND"):
            monkeypatch.setenv(other, f"127.0.0.1:{closed.getsockname()[1]}")
        yield consortium


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder to play."""
    one = tmp_path / "mine"
    one.mkdir()
    return one


def control_ids() -> list[str]:
    """Return the control ids that the hub's journal holds, in the order they came."""
    with services() as opened:
        entries = opened.database.read(lambda tx: tx.journal.search({"door": "mllp"}, limit=1000))
    return [one.control_id for one in reversed(entries)]


def message(control_id: str, *, type: str = "ADT^A01", accept: str = "AL", rest: str = "") -> bytes:
    """Return a message of KN's that the hub would refuse or take, as its type and *rest* say."""
    return f"MSH|^~\\&|HIS|KNYY|YXT|HUB|20250611083000||{type}|{control_id}|P|2.4|||{accept}|NE\r{rest}".encode()


def test_what_a_folder_holds_is_played_and_counted(playing: Hub, folder: Path) -> None:
    (folder / "1.hl7").write_bytes(ADMIT)
    (folder / "2.hl7").write_bytes(REGISTER)
    played = playing("feed", str(folder))
    assert played.exit_code == 0, played.output
    assert "HL7 v2 (MLLP): 2" in played.stdout
    assert "失败" not in played.output
    assert control_ids() == ["KN20250611A0001", "KN20250611A0003"]


def test_playing_is_what_is_done_with_a_folder_whether_it_is_named_or_not(playing: Hub, folder: Path) -> None:
    (folder / "1.hl7").write_bytes(ADMIT)
    for arguments in ((str(folder),), ("play", str(folder))):
        played = playing("feed", *arguments)
        assert "HL7 v2 (MLLP): 1" in played.stdout, played.output
    assert "play" in playing("feed", "--help").stdout


def test_a_bar_on_the_terminal_shows_how_far_it_is(playing: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        (folder / f"{number}.hl7").write_bytes(ADMIT)
    # What rich takes for a terminal (https://force-color.org).
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    shown = playing("feed", str(folder)).stderr
    assert "\u2501" in shown
    assert "0/2" in shown
    assert "2/2" in shown
    assert shown.index("0/2") < shown.index("2/2")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfe\x00\x01 no message at all", "no HL7 v2 message"),
        (b"", "no HL7 v2 message"),
        (message("X1", rest="PID|1\x1c\r"), "MLLP"),
        (message("X2", type="ZZZ^Z99"), "CR"),
        (message("X3", rest="EVN|A01\r"), "PID"),
        (message("X4", accept="", rest="EVN|A01\r").replace(b"|||NE", b"||||"), "PID"),
        (message("X5").replace(b"KNYY", b"NOBODY"), "hub answered"),
    ],
)
def test_one_message_that_is_not_taken_is_told_and_the_feed_goes_on(
    playing: Hub, folder: Path, content: bytes, told: str
) -> None:
    (folder / "1.hl7").write_bytes(ADMIT)
    (folder / "2.hl7").write_bytes(content)
    (folder / "3.hl7").write_bytes(REGISTER)
    played = playing("feed", str(folder))
    [line] = [one for one in played.stderr.splitlines() if one.startswith("失败 / failed: 2.hl7: ")]
    assert played.exit_code == 1
    assert told in line
    assert line.endswith(".")
    assert "HL7 v2 (MLLP): 2" in played.stdout
    assert "共 3 项，1 项失败" in played.stderr
    assert "1 of 3 items failed" in played.stderr
    assert [one for one in control_ids() if one.startswith("KN")] == ["KN20250611A0001", "KN20250611A0003"]


def test_a_file_that_cannot_be_opened_is_told_and_the_feed_goes_on(playing: Hub, folder: Path) -> None:
    (folder / "1.hl7").mkdir()
    (folder / "2.hl7").symlink_to(folder / "nowhere")
    (folder / "3.hl7").write_bytes(ADMIT)
    played = playing("feed", str(folder))
    assert played.exit_code == 1
    assert "failed: 1.hl7: There is no such file" in played.stderr
    assert "failed: 2.hl7: There is no such file" in played.stderr
    assert control_ids() == ["KN20250611A0001"]


@pytest.mark.parametrize("content", [b"", b"no image", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 64])
def test_a_file_that_is_no_image_is_told_and_the_feed_goes_on(playing: Hub, folder: Path, content: bytes) -> None:
    (folder / "KN_PACS").mkdir()
    (folder / "KN_PACS" / "1.dcm").write_bytes(content)
    (folder / "1.hl7").write_bytes(ADMIT)
    played = playing("feed", str(folder))
    assert played.exit_code == 1
    assert "failed: KN_PACS/1.dcm: It is no DICOM file" in played.stderr
    assert control_ids() == ["KN20250611A0001"]


def test_a_door_that_is_closed_fails_its_own_items_only(playing: Hub, folder: Path) -> None:
    (folder / "fhir").mkdir()
    (folder / "hl7").mkdir()
    (folder / "fhir" / "b.json").write_text('{"resourceType": "Bundle", "type": "transaction"}')
    (folder / "fhir" / "latin.json").write_bytes(b'{"x": "\xe9"}')
    (folder / "hl7" / "1.hl7").write_bytes(ADMIT)
    (folder / "feed.toml").write_text(
        """
        [[step]]
        door = "fhir"
        institution = "KN"
        file = "b.json"
        [[step]]
        door = "fhir"
        institution = "KN"
        file = "latin.json"
        [[step]]
        door = "fhir"
        institution = "KN"
        file = "missing.json"
        [[step]]
        door = "mllp"
        files = ["missing.hl7", "1.hl7"]
        """
    )
    played = playing("feed", str(folder))
    assert played.exit_code == 1
    assert "failed: fhir/b.json: HTTP failed: ConnectError. Check that `hub serve` runs" in played.stderr
    assert "failed: fhir/latin.json: It is not UTF-8." in played.stderr
    assert "failed: fhir/missing.json: There is no such file." in played.stderr
    assert "failed: hl7/missing.hl7: There is no such file." in played.stderr
    assert "4 of 5 items failed" in played.stderr
    assert control_ids() == ["KN20250611A0001"]


@pytest.mark.parametrize(
    "feed",
    [
        "[[step]]\ndoor = 'post'",
        "[[step]]\ntitle = 'no door'",
        "[[step]]\ndoor = 'mllp'",
        "[[step]]\ndoor = 'mllp'\nfiles = 'a.hl7'",
        "[[step]]\ndoor = 'fhir'\nfile = 'b.json'",
        "[[step]]\ndoor = 'fhir'\ninstitution = 'KN'",
        "[[step]]\ndoor = 'cda'\nfiles = ['a.xml']",
        "[[step]]\ndoor = 'cda'\ninstitution = 'KN'",
        "step = 1",
        "step = [1]",
        "[[step",
        "",
    ],
)
def test_a_feed_that_cannot_be_followed_is_refused_before_anything_is_sent(
    playing: Hub, folder: Path, feed: str
) -> None:
    (folder / "hl7").mkdir()
    (folder / "hl7" / "1.hl7").write_bytes(ADMIT)
    good = "[[step]]\ndoor = 'mllp'\nfiles = ['1.hl7']\n" if feed.startswith("[[") else ""
    (folder / "feed.toml").write_text(good + feed)
    played = playing("feed", str(folder))
    assert isinstance(played.exception, HubError)
    assert played.exception.category is Category.INCORRECT
    assert played.exception.where.startswith(str(folder))
    assert played.exception.remedy
    assert control_ids() == []


# --- the sample consortium's feed ------------------------------------------------------------------------------------


def sample_feed() -> dict[str, Any]:
    return tomllib.loads(FEED.read_text("utf-8"))


def played_samples() -> list[str]:
    return [name for step in sample_feed()["step"] if step["door"] == "mllp" for name in step["files"]]


def test_every_sample_document_is_played_once_or_left_out_for_a_reason() -> None:
    documents = SAMPLES.parent / "cda"
    left_out = sample_feed()["left_out_documents"]
    played = [
        (step["institution"], name) for step in sample_feed()["step"] if step["door"] == "cda" for name in step["files"]
    ]
    names = sorted(str(path.relative_to(documents)) for path in documents.rglob("*.xml"))
    assert sorted([*(name for _, name in played), *left_out]) == names
    assert all(name.partition("/")[2].startswith(f"{code.lower()}_") for code, name in played)
    assert 0 < len(played) <= 5
    assert all(left_out.values())


def test_a_document_is_posted_as_it_stands_with_a_token_of_its_institution(
    playing: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[tuple[str, str, str, bytes]] = []

    class Hears(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            came.append((self.path, self.headers["Authorization"][:7], self.headers["Content-Type"], body))
            self.send_response(201 if len(came) == 1 else 400)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing on the terminal."""

    document = (SAMPLES.parent / "cda" / "C0002" / "kn_outpatient.xml").read_bytes()
    assert not _is_utf8(document)
    (folder / "cda").mkdir()
    (folder / "cda" / "a.xml").write_bytes(document)
    (folder / "cda" / "b.xml").write_bytes(document)
    (folder / "feed.toml").write_text("[[step]]\ndoor = 'cda'\ninstitution = 'KN'\nfiles = ['a.xml', 'b.xml', 'c.xml']")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hears) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            monkeypatch.setenv("HUB_HTTP_BIND", f"127.0.0.1:{server.server_address[1]}")
            played = playing("feed", str(folder))
        finally:
            server.shutdown()
            serving.join()
    assert came == [("/cda", "Bearer ", "application/xml", document)] * 2
    assert "CDA (HTTP): 1" in played.stdout
    assert "failed: cda/b.xml: The hub answered HTTP 400" in played.stderr
    assert "failed: cda/c.xml: There is no such file." in played.stderr


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def event(name: str) -> str:
    header = parse(decode_message((SAMPLES / name).read_bytes()).text)
    return f"{header.get('MSH-9.1')}^{header.get('MSH-9.2')}"


def test_every_sample_message_is_played_once_or_left_out_for_a_reason() -> None:
    names = sorted(str(path.relative_to(SAMPLES)) for path in SAMPLES.rglob("*.hl7"))
    left_out = sample_feed()["left_out"]
    assert sorted([*played_samples(), *left_out]) == names
    assert set(left_out) == {"ORU_R01/qm_value_types.hl7", "RRI_I12/yl_rejected.hl7"}
    assert all(left_out.values())


def test_the_sample_feed_plays_every_event_that_there_is_a_sample_of_and_every_message_type() -> None:
    samples = {event(str(path.relative_to(SAMPLES))) for path in SAMPLES.rglob("*.hl7")}
    played = {event(name) for name in played_samples()}
    assert played == samples
    assert {one.partition("^")[0] for one in played} == {one.partition("^")[0] for one in supported_events()}


def test_the_sample_feed_plays_on_a_fresh_hub_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as fresh:
        for name in played_samples():
            answer = fresh.messages.receive((SAMPLES / name).read_bytes(), "127.0.0.1:5")
            assert answer is not None
            assert parse_ack(parse(decode_message(answer).text)).accepted, name
        entries = fresh.database.read(lambda tx: tx.journal.search({"door": "mllp"}, limit=100))
        before = everything(fresh)
        for name in played_samples():
            fresh.messages.receive((SAMPLES / name).read_bytes(), "127.0.0.1:5")
        after = everything(fresh)

    assert {entry.state for entry in entries} == {"done"}
    assert before == after


def test_the_sample_feed_ends_where_its_story_says(tmp_path: Path) -> None:
    with running(tmp_path) as fresh:
        for name in played_samples():
            fresh.messages.receive((SAMPLES / name).read_bytes(), "127.0.0.1:5")
        stored = everything(fresh)
    bodies = [json.loads(body) for _, _, body in stored]

    def statuses(type: str, **matching: str) -> set[str]:
        return {
            one["status"]
            for one in bodies
            if one["resourceType"] == type and all(value in json.dumps(one) for value in matching.values())
        }

    # The late cancellation of the admission has not undone the transfer and the cancelled discharge.
    assert statuses("Encounter", visit="ZY20250611001") == {"in-progress"}
    assert statuses("Task", code='"referral"') == {"cancelled"}
    assert statuses("Appointment") == {"cancelled"}
    assert "superseded" in statuses("DocumentReference")


def everything(opened: Services) -> list[tuple[str, int, bytes]]:
    """Return id, version and body of every resource of the kinds that messages make."""
    kinds = (
        "Patient",
        "Encounter",
        "ServiceRequest",
        "Observation",
        "DiagnosticReport",
        "Task",
        "Appointment",
        "DocumentReference",
    )

    def read(tx: Tx) -> list[tuple[str, int, bytes]]:
        found = [
            one for kind in kinds for one in tx.records.search(search(kind, [("_count", "1000")]), UNRESTRICTED).matches
        ]
        return sorted((one.id, one.version, one.body) for one in found)

    return opened.database.read(read)
