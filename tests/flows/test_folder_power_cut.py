"""A hub killed again and again while it picks up files: every file is taken once and answered, here and on a server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import consortium
from tests.flows.hub_process import HubProcess, eventually
from tests.support.sshd import Sshd

FILES = 40
#: Files that must have been moved before each cut.
CUTS = (1, 15)
_SETTING = "https://yixiehub.example/fhir/StructureDefinition/endpoint-setting"


def message(number: int) -> bytes:
    return (
        f"MSH|^~\\&|LIS|KNYY|YIXIE|HUB|20250611083000||ADT^A04|F{number}|P|2.4\rEVN|A04|20250611083000\r"
        f"PID|1||{number + 7000:010}^^^^IDCard||郑伟||19760229|M\r"
    ).encode("gb18030")


def import_folder(hub: HubProcess, address: str, **settings: str) -> None:
    """Import the sample consortium, with a folder of the county hospital beside its MLLP line."""
    resources = consortium()
    names = {"sending-application": "LIS", "sending-facility": "KNYY", "dialect": "his-cn", "quiet-s": "0", **settings}
    line = next(
        one
        for one in resources
        if one["resourceType"] == "Endpoint" and any(item["value"] == "KN/mllp" for item in one.get("identifier", ()))
    )
    system = line["identifier"][0]["system"]
    folder: dict[str, Any] = {
        **line,
        "id": "kn-folder",
        "identifier": [{"system": system, "value": "KN/folder"}],
        "address": address,
        "extension": [
            {
                "url": _SETTING,
                "extension": [{"url": "name", "valueString": name}, {"url": "value", "valueString": value}],
            }
            for name, value in names.items()
        ],
    }
    path = hub.folder / "members.json"
    entries = [{"resource": one} for one in (*resources, folder)]
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}, ensure_ascii=False))
    hub.run("members", "import", str(path))


@pytest.fixture(
    params=["folder", pytest.param("server", marks=pytest.mark.tool("/usr/sbin/sshd", "ssh-keygen"))],
)
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubProcess]:
    """A hub that does not run yet, whose county hospital has a folder ``kn``."""
    base = tmp_path / "kn"
    (base / "in").mkdir(parents=True)
    with ExitStack() as stack:
        if request.param == "server":
            sshd = stack.enter_context(Sshd(tmp_path / "sshd"))
            one = HubProcess(tmp_path, secrets_dir=str(sshd.secrets(tmp_path / "secrets")))
            address, settings = sshd.address(base), {"host-key": sshd.host_key, "credential": "client"}
        else:
            one = HubProcess(tmp_path)
            address, settings = f"file://{base}", {}
        one.run("migrate")
        import_folder(one, address, **settings)
        yield one
        one.stop()


@pytest.mark.timeout(300)
def test_no_file_is_lost_or_taken_twice_when_the_hub_is_killed_while_it_picks_up(hub: HubProcess) -> None:
    base = hub.folder / "kn"
    for number in range(FILES):
        (base / "in" / f"{number}.hl7").write_bytes(message(number))
        os.utime(base / "in" / f"{number}.hl7", (number + 1, number + 1))

    def moved(most: int) -> bool:
        return (base / "done").exists() and len(list((base / "done").iterdir())) >= most

    for most in CUTS:
        hub.start()
        eventually(lambda most=most: moved(most), what=f"{most} files are moved")  # type: ignore[misc]
        hub.kill()
    hub.start()
    eventually(lambda: moved(FILES), what="all files are moved")

    assert list((base / "in").iterdir()) == []
    assert sorted(one.read_bytes() for one in (base / "done").iterdir()) == sorted(map(message, range(FILES)))
    answers = {one.name: one.read_bytes() for one in (base / "answers").iterdir() if not one.name.startswith(".")}
    assert len(answers) == FILES
    assert all(b"MSA|AA|" in answer for answer in answers.values())
    listed = hub.run("messages", "list", "--limit", "1000", "--json").splitlines()
    taken = [one for one in map(json.loads, listed) if one["door"] == "hl7-folder"]
    assert sorted(one["control_id"] for one in taken) == sorted(f"F{number}" for number in range(FILES))
    assert {one["state"] for one in taken} == {"done"}
    kn = hub.asker("KN")
    for number in (0, *CUTS, FILES - 1):
        (patient,) = kn.search(f"/fhir/Patient?identifier={number + 7000:010}")
        assert patient["meta"]["versionId"] == "1"
    hub.run("fsck")
    hub.run("audit", "verify")
