"""``hub demo`` is all that somebody new runs: members, doors, feeds, and what to try; it stops by Ctrl-C and keeps its data."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.flows.hub_process import HubProcess, eventually, hub_command


@contextmanager
def demo(hub: HubProcess) -> Iterator[str]:
    """Run ``hub demo`` until it has told what to try; gives what it said, and stops it as Ctrl-C does."""
    said = hub.folder / "demo.out"
    with said.open("wb") as output, (hub.folder / "hub.log").open("ab") as log:
        process = subprocess.Popen(
            [*hub_command(), "demo"],
            env=hub.environment,
            cwd=hub.folder,
            stdout=output,
            stderr=log,
            start_new_session=True,
        )
    hub.process = process

    def told() -> bool:
        assert process.poll() is None, hub.log()[-4000:]
        return "/readyz" in said.read_text("utf-8")

    eventually(told, what="the demo tells what to try", deadline_s=90)
    addresses = json.loads((hub.data_dir / "run" / "ports.json").read_text())
    hub.ports = {door: int(ways["plain"].rpartition(":")[2]) for door, ways in addresses.items()}
    yield said.read_text("utf-8")
    process.send_signal(signal.SIGINT)
    assert process.wait(40) == 0, hub.log()[-4000:]
    hub.process = None


def test_the_demo_plays_everything_and_a_second_run_keeps_its_data(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path)
    try:
        with demo(hub) as said:
            assert "失败" not in said
            assert f"{hub.http}/fhir" in said
            kn = hub.asker("KN", "0231")
            patients = {one["id"] for one in kn.search("/fhir/Patient?name=郑伟")}
            [task] = kn.search("/fhir/Task?code=remote-reading")
            assert patients
            # What it says to try finds what it says it finds.
            urls = re.findall(r"Bearer \$KN\" '([^']+)'", said)
            assert [url.partition("?")[0].rpartition("/")[2] for url in urls] == ["Patient", "ImagingStudy"]
            assert all(kn.search(url.removeprefix(hub.http)) for url in urls)
            hub.run("feed")
            assert [one["id"] for one in kn.search("/fhir/Task?code=remote-reading")] == [task["id"]]
            assert {one["id"] for one in kn.search("/fhir/Patient?name=郑伟")} == patients
            moved = tmp_path / "moved.json"
            endpoint = kn.get("/fhir/Endpoint/kn-mllp")
            directory = json.loads(
                Path(__file__).parents[2].joinpath("sample_data/members/consortium.json").read_text("utf-8")
            )
            for entry in directory["entry"]:
                if entry["resource"]["id"] == endpoint["id"]:
                    entry["resource"]["address"] = "mllp://127.0.0.1:12999"
            moved.write_text(json.dumps(directory, ensure_ascii=False), "utf-8")
            hub.run("members", "import", str(moved))
        with demo(hub) as said:
            assert "失败" not in said
            kn = hub.asker("KN", "0231")
            assert [one["id"] for one in kn.search("/fhir/Task?code=remote-reading")] == [task["id"]]
            assert "127.0.0.1:12999" in hub.run("members", "list"), "an operator's directory is kept"
    finally:
        hub.stop()
