"""A hub whose workflow table cannot be run does not start, and says in one sentence which state or role is wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hub

ROOM = Path(hub.__file__).parent


LOST = ('"expired": State(', '"lost": State(task_status="ready", business_status="x"), "expired": State(')


def run(tmp_path: Path, change: tuple[str, str], *command: str) -> tuple[int, str]:
    """Return exit status and output of the ``hub`` command with a change in the table of referrals."""
    # A copy of the rules with one table changed; python takes it because it lies where the command is started.
    shutil.copytree(ROOM, tmp_path / "hub", ignore=shutil.ignore_patterns("__pycache__"))
    table = tmp_path / "hub" / "workflows" / "referral.py"
    text = table.read_text("utf-8")
    assert change[0] in text
    table.write_text(text.replace(*change, 1), "utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HUB_", "COV_"))}
    binds = {f"HUB_{door}_BIND": "127.0.0.1:0" for door in ("HTTP", "DIMSE", "MLLP")}

    done = subprocess.run(
        [sys.executable, "-m", "hub", *command],
        cwd=tmp_path,
        env={**environment, **binds, "HUB_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(ROOM.parent)},
        capture_output=True,
        timeout=120,
        check=False,
    )

    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (LOST, "state 'lost' cannot be reached"),
        (('by=("recipient",)', 'by=("nobody",)'), "undeclared role 'nobody'"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_broken_table_stops_the_hub_before_it_listens(
    tmp_path: Path, change: tuple[str, str], says: str, command: str
) -> None:
    status, told = run(tmp_path, change, command)

    assert status == 1, told[-2000:]
    assert "Traceback" not in told
    [sentence] = [line for line in told.splitlines() if says in line]
    assert "流程表 referral 不能运行 / The workflow table referral cannot be run" in sentence
    assert "hub/workflows/referral.py" in sentence
    assert not (tmp_path / "data" / "run" / "ports.json").exists()


@pytest.mark.parametrize("command", [["--help"], ["serve", "--help"], ["migrate"], ["members", "list"]], ids=" ".join)
def test_commands_that_move_no_task_work_beside_a_broken_table(tmp_path: Path, command: list[str]) -> None:
    status, told = run(tmp_path, LOST, *command)

    assert status == 0, told[-2000:]
