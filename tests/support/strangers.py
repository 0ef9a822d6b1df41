"""What the tests with programs of other makers share: who they are to the hub, and how they are run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Runs a script with its arguments, and returns the JSON in the last line that it printed.
Node = Callable[..., dict[str, Any]]
MEMBERS = Path(__file__).resolve().parents[2] / "sample_data" / "members"


def consortium_at(port: int) -> list[dict[str, Any]]:
    """Return the sample consortium: KN_PACS, QH_PACS and the others; KN_PACS listens at *port*, and nobody takes HL7 v2."""
    resources: list[dict[str, Any]] = []
    for path in sorted(MEMBERS.glob("*.json")):
        resources += [entry["resource"] for entry in json.loads(path.read_text("utf-8"))["entry"]]
    for one in resources:
        if one["resourceType"] != "Endpoint":
            continue
        if one["address"].startswith("mllp:"):
            one["address"] = "urn:none"
        elif one["address"].startswith("dicom://KN_PACS@"):
            one["address"] = f"dicom://KN_PACS@127.0.0.1:{port}"
    return resources


def ran(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """Run *command* to its end; its output is text, whatever it writes."""
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=100, check=False, **more)
