"""What is loaded before the processes of a hub are forked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import hub

LOOK = """
import json, os, sys
os.environ["OPENBLAS_NUM_THREADS"] = "1"
from hub.boot import DOORS, preload
preload(sys.argv[1].split(","))
print(json.dumps({"threads": len(os.listdir("/proc/self/task")), "modules": sorted(sys.modules)}))
"""


def loaded(*doors: str) -> tuple[int, set[str]]:
    root = str(Path(hub.__file__).parent.parent)
    told = subprocess.run(
        [sys.executable, "-c", LOOK, ",".join(doors)], cwd=root, check=True, capture_output=True, timeout=60
    )
    found = json.loads(told.stdout)
    return found["threads"], set(found["modules"])


def test_the_code_of_all_doors_is_loaded_by_one_thread_and_no_driver_is_chosen() -> None:
    threads, modules = loaded("dimse", "mllp", "http", "worker")

    assert threads == 1
    wanted = {"adapters.dimse.server", "adapters.mllp.sender", "storage.sql.journal", "hub.resources", "pypinyin"}
    assert wanted <= modules
    # Commands, FastAPI and the drivers of the other database and store cost memory and wait until they are asked for.
    assert not {"psycopg", "minio", "fastapi", "hub.cli.demo"} & modules


def test_a_door_that_is_not_served_is_not_loaded() -> None:
    _, modules = loaded("mllp")

    assert "adapters.mllp.server" in modules
    assert not {"pynetdicom", "uvicorn", "adapters.dimse"} & modules
