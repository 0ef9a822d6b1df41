"""``hub studies pull``: the earlier studies of a patient, from the member's archive into the hub."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from hub.boot import assemble
from hub.config import load
from hub.ports import StudyKey
from tests.hub.cli.conftest import Hub
from tests.support.dicom import ROOT, make_ct
from tests.support.dimse_hub import ae, free_port, hub_door, keep
from tests.support.hub import register
from tests.support.images import STUDY, ct


def know(port: int, rule: str = "years=0") -> None:
    services = assemble(load(), node="test")
    try:
        register(services, ae("KN", "KN_ARCHIVE", port, priors=rule))
    finally:
        services.close()


def test_studies_are_pulled_and_told_line_by_line(hub: Hub, tmp_path: Path) -> None:
    assert hub("migrate").exit_code == 0
    with hub_door(tmp_path / "archive", ae("YY", "YIXIE"), ae_title="KN_ARCHIVE") as (there, door):
        keep(there, make_ct(instance=1), make_ct(instance=2), owner="YY")
        know(door.port)
        first = hub("studies", "pull", "KN", "--patient", "10086", "--json")
        again = hub("studies", "pull", "KN", "--patient", "10086")
        none = hub("studies", "pull", "KN", "--patient", "10086", "--rule", "modality=MR")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout) == {
        "study": f"{ROOT}.1",
        "date": "20250611",
        "present": 0,
        "fetched": 2,
        "missing": 0,
        "why": "",
    }
    assert "已有/here 2  调取/fetched 0  缺/missing 0" in again.stdout
    assert (none.exit_code, none.stdout) == (0, "")
    services = assemble(load(), node="test")
    try:
        key = StudyKey(owner="KN", StudyInstanceUID=f"{ROOT}.1")
        assert len(services.database.read(lambda tx: tx.imaging.instances_of(key))) == 2
    finally:
        services.close()


def test_what_cannot_be_done_is_said(hub: Hub) -> None:
    assert hub("migrate").exit_code == 0
    know(free_port())
    for arguments, said in (
        (("KN", "--patient", "10086"), "cannot be reached"),
        (("QH", "--patient", "10086"), "no DICOM endpoint"),
        (("KN", "--patient", "100*"), "without wildcards"),
        (("KN", "--patient", "10086", "--rule", "via=ftp"), "via=ftp"),
    ):
        result = hub("studies", "pull", *arguments)
        assert result.exit_code != 0
        assert said in str(result.exception)


def test_images_are_marked_restored_held_and_listed(hub: Hub) -> None:
    assert hub("migrate").exit_code == 0
    keep_here(make_ct(instance=1), make_ct(instance=2))
    study = f"{ROOT}.1"
    done = hub("studies", "delete", "KN", study, "--reason", "拍错部位")
    assert (done.exit_code, done.stdout) == (0, "标记删除 / marked deleted: 2\n")
    (line, _) = [json.loads(line) for line in hub("studies", "deleted", "--json").stdout.splitlines()]
    assert (line["member"], line["study"], line["reason"], line["removed"]) == ("KN", study, "拍错部位", None)
    assert line["by"].startswith("YY/cli:")
    assert "保留/kept" in hub("studies", "deleted", "--member", "KN").stdout
    assert hub("studies", "deleted", "--member", "QH").stdout == ""
    instance = json.loads(hub("studies", "deleted", "--json").stdout.splitlines()[0])["instance"]
    assert "restored: 1" in hub("studies", "restore", "KN", study, "--instance", instance, "--reason", "误删").stdout
    assert hub("studies", "hold", "KN", study, "--reason", "诉讼").exit_code == 0
    assert "诉讼" in hub("studies", "holds").stdout
    refused = hub("studies", "delete", "KN", study, "--reason", "no")
    assert refused.exit_code == 1
    assert "legal hold" in str(refused.exception)
    assert hub("studies", "release", "KN", study, "--reason", "结案").exit_code == 0
    assert hub("studies", "holds", "--json").stdout == ""
    assert hub("studies", "delete", "KN", study, "--reason", " ").exit_code == 1


def test_what_has_run_out_goes_in_two_steps(consortium: Hub) -> None:
    keep_here(ct(StudyDate="19900101", PatientID="1"), ct(study=f"{STUDY}.9", StudyDate="19900101"))
    assert consortium("studies", "expired", "KN").stdout == ""
    # Only what came long ago is judged.
    keep_here(ct(study=f"{STUDY}.8", StudyDate="19900101", PatientID="2"), at=datetime(2020, 1, 1, tzinfo=UTC))
    (line,) = [json.loads(line) for line in consortium("studies", "expired", "KN", "--json").stdout.splitlines()]
    assert (line["study"], line["date"], line["years"], line["kept_by"]) == (f"{STUDY}.8", "19900101", 30, [])
    first = consortium("studies", "expire", "KN")
    assert first.exit_code == 0
    assert "would be removed: 1" in first.stderr
    word = first.stderr.split("--confirm ")[1].split()[0]
    assert consortium("studies", "expire", "KN", "--confirm", word).exit_code == 1
    assert consortium("studies", "expire", "KN", "--reason", "期满", "--confirm", "x").exit_code == 1
    assert len(consortium("studies", "expired", "KN").stdout.splitlines()) == 1
    done = consortium("studies", "expire", "KN", "--reason", "期满", "--confirm", word)
    assert (done.exit_code, "removed: 1" in done.stdout) == (0, True), done.output
    assert consortium("studies", "expired", "KN").stdout == ""
    assert "清除/removed" in consortium("studies", "deleted").stdout


def keep_here(*files: bytes, at: datetime | None = None) -> None:
    """Receive *files* as KN's PACS sends them, now or *at* another time."""
    services = assemble(load(), node="test")
    try:
        keep(services if at is None else replace(services, clock=lambda: at), *files, owner="KN")
    finally:
        services.close()
