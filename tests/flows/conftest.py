"""A running hub with the sample consortium, whose hospitals' HIS are sockets of the test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.his import HIS
from tests.flows.hub_process import HubProcess

MEMBERS = Path(__file__).parent.parent.parent / "sample_data" / "members"


def consortium(**addresses: str) -> list[dict[str, Any]]:
    """Return the sample consortium with the addresses of some endpoints (by ``KN/mllp``) replaced; other MLLP ones get none."""
    resources: list[dict[str, Any]] = []
    for path in sorted(MEMBERS.glob("*.json")):
        resources += [entry["resource"] for entry in json.loads(path.read_text("utf-8"))["entry"]]
    for one in resources:
        if one["resourceType"] == "Endpoint":
            names = [item["value"] for item in one.get("identifier", ())]
            known = next((addresses[name] for name in names if name in addresses), None)
            if known is not None or one["address"].startswith("mllp:"):
                one["address"] = known or "urn:none"
    return resources


def import_members(hub: HubProcess, **addresses: str) -> None:
    """Import the sample consortium into *hub*."""
    path = hub.folder / "members.json"
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": one} for one in consortium(**addresses)],
    }
    path.write_text(json.dumps(bundle, ensure_ascii=False), "utf-8")
    hub.run("members", "import", str(path))


@pytest.fixture
def kn_his() -> Iterator[HIS]:
    """The county hospital's HIS: reads GBK."""
    his = HIS(charset="gb18030")
    yield his
    his.close()


@pytest.fixture
def hub(tmp_path: Path, kn_his: HIS) -> Iterator[HubProcess]:
    """A running hub with the sample consortium."""
    one = HubProcess(tmp_path)
    one.run("migrate")
    import_members(one, **{"KN/mllp": f"mllp://127.0.0.1:{kn_his.port}"})
    one.start()
    yield one
    one.stop()
