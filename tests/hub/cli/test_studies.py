"""``hub studies pull``: the earlier studies of a patient, from the member's archive into the hub."""

from __future__ import annotations

import json
from pathlib import Path

from hub.boot import assemble
from hub.config import load
from hub.ports import StudyKey
from tests.hub.cli.conftest import Hub
from tests.support.dicom import ROOT, make_ct
from tests.support.dimse_hub import ae, free_port, hub_door, keep
from tests.support.hub import register


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
